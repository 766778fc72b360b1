"""The store on SQLite."""

from .store import SqliteStore

__all__ = ["SqliteStore"]

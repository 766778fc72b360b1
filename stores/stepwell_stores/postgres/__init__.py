"""The store on PostgreSQL."""

from .store import PostgresStore, joined

__all__ = ["PostgresStore", "joined"]

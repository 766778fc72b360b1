"""The store on a directory of JSON Lines files."""

from .store import JsonlStore

__all__ = ["JsonlStore"]

"""The store on memory."""

from .store import MemoryStore

__all__ = ["MemoryStore"]

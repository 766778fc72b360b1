"""The stores of stepwell, each behind the port `stepwell.store.Store`, and `open_store`, which picks one by URL."""

from .urls import open_store

__all__ = ["open_store"]

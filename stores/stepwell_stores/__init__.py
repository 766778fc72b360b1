"""The stores of stepwell, each behind the port `stepwell.store.Store`, and `open_store`, which picks one by URL."""

from .masking import masked
from .urls import open_store

__all__ = ["masked", "open_store"]

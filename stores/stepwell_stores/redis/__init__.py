"""The store on Redis and Valkey."""

from .store import RedisStore

__all__ = ["RedisStore"]

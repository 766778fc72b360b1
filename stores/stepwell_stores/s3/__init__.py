"""The store on S3 and object stores that speak its protocol."""

from .store import S3Store

__all__ = ["S3Store"]

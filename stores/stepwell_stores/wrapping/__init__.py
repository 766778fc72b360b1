"""Stores around another store: what they encrypt, compress or keep elsewhere, the store inside never sees."""

from .blobs import Blob, BlobStore, DirectoryBlobs, MemoryBlobs, ObjectBlobs, open_blobs
from .compressed import CompressedStore
from .encrypted import EncryptedStore
from .keys import Key, KeyRing
from .offloading import Collected, OffloadingStore
from .rekeying import Rekeyed, rekey
from .wrapper import Wrapper, find

__all__ = [
    "Blob",
    "BlobStore",
    "Collected",
    "CompressedStore",
    "DirectoryBlobs",
    "EncryptedStore",
    "Key",
    "KeyRing",
    "MemoryBlobs",
    "ObjectBlobs",
    "OffloadingStore",
    "Rekeyed",
    "Wrapper",
    "find",
    "open_blobs",
    "rekey",
]

"""How writes end that did not go well, for all stores that ask a file or a server to commit.

Callers of the port see one thing, whichever store they have: StoreUnavailableError, which says what to do. The stores
themselves tell two kinds of it apart, since an append that was not written may be written anew, and one that may have
been written may only be repeated as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from stepwell.errors import StoreUnavailableError
from stepwell.store import NotApplied, Unknown

__all__ = ["AmbiguousError", "NotWrittenError", "outcome_of"]

T = TypeVar("T")


class NotWrittenError(StoreUnavailableError):
    """Nothing was written, for certain."""


class AmbiguousError(StoreUnavailableError):
    """It may have been written: the answer did not come, or the commit itself failed.

    What is no append may be called again: to claim, to renew, to release and to delete twice is to do it once.
    """


def outcome_of(write: Callable[[], T]) -> T | NotApplied | Unknown:
    """What a write gives, or what its failure says of it."""
    try:
        return write()
    except NotWrittenError as error:
        return NotApplied(error)
    except AmbiguousError as error:
        return Unknown(error)

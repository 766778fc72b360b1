"""What an error of the Postgres driver means: written or not, whose fault, and what to do."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    NewerFormatError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
)

from ..outcomes import AmbiguousError, NotWrittenError
from .address import psycopg

__all__ = ["LostError", "Phase", "judged", "of_the_store", "unreachable"]

Phase: TypeAlias = Literal["reading", "writing", "committing"]
"""What was under way: nothing that could be committed; or the statement, or COMMIT, that commits."""


class LostError(NotWrittenError):
    """The connection was lost, and nothing had been written on it."""


_AGAIN = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that are not the statement's fault: connection, serialization, resources, locks, operators."""

_REMEDIES = {
    "42501": "no permission; grant it to the user of the URL, or name another schema with ?schema=NAME",
    "3F000": "its schema is gone; restore it",
    "42P01": "its tables are gone; restore them",
    "42703": "its tables are not those of this stepwell; restore them",
}

# Words of a server that refuses a connection for good: it says no SQLSTATE that the driver would hand on.
_FOR_GOOD = (
    "authentication failed",
    "does not exist",
    "no password supplied",
    "pg_hba.conf",
    "not permitted to log in",
    "permission denied",
    "certificate",
    "does not support SSL",
    "not a valid",
    "invalid",
)

_NAMES = re.compile(r"\"[^\"]*\"|'[^']*'")


def of_the_store(error: BaseException) -> bool:
    """Whether an error of the driver says nothing of the statement: the server or the connection is in trouble."""
    if not isinstance(error, psycopg.Error):
        return False
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return False
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError)
    return code[:2] in _AGAIN or code == "25006"


def judged(place: str, error: BaseException, phase: Phase, lost: bool) -> StepwellError:
    """The error of ours for one of the driver's.

    Args:
        lost: the connection is gone.
    """
    text = f"{place}: {_said(error)}"
    code = getattr(error, "sqlstate", None) or ""
    if code in _REMEDIES:
        return StoreMisconfiguredError(f"{place}: {_REMEDIES[code]} ({_said(error)})")
    if lost:
        if phase == "reading":
            return LostError(f"{text}; try again")
        return AmbiguousError(f"the connection was lost at the commit: {text}")
    if code == "26000":
        return NotWrittenError(f"{text}; try again")
    if code == "25006":  # it could be written when it was connected to
        return NotWrittenError(f"{place} has become a replica, or read-only ({_said(error)}); try again")
    if code == "53100":
        return NotWrittenError(f"{place}: the server's disk is full ({_said(error)}); make room, and it goes on")
    if code[:2] in _AGAIN:
        return NotWrittenError(f"{text}; try again")
    if code == "22012":  # the only division is the one by which statements look at the version of the tables
        return NewerFormatError(
            f"{place}: a newer stepwell has changed the tables meanwhile; upgrade stepwell", place=place
        )
    if code in ("XX001", "XX002"):
        return CorruptHistoryError(
            f"{place} is damaged, or its disk has failed: {_said(error)}; restore it from a backup", place=place
        )
    if code in ("22P05", "22021", "54000") or (not code and isinstance(error, psycopg.DataError)):
        return InvalidInputError(f"{place} can't keep this text ({_said(error)}); nothing was written")
    if code[:2] == "23":
        return CorruptHistoryError(
            f"{place} is damaged: its index and its records disagree ({_said(error)}); restore it from a backup",
            place=place,
        )
    return (StoreError if phase == "reading" else NotWrittenError)(text)


def unreachable(place: str, error: BaseException) -> StoreError:
    """The error of ours when no connection could be made; nothing was written."""
    text = _said(error)
    said = _NAMES.sub("", text)  # a host may be called anything
    if any(words in said for words in _FOR_GOOD):
        remedy = "check user, password, host and database of its URL"
        return StoreMisconfiguredError(f"can't connect to {place}: {text}; {remedy}")
    return NotWrittenError(f"can't connect to {place}: {text}; is the server running?")


def _said(error: BaseException) -> str:
    """What the driver says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__

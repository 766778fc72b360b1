"""What the driver's errors mean: whether a script was run, and what to do about it."""

from __future__ import annotations

import re

from stepwell.errors import (
    CorruptHistoryError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
)

from ..move_rules import read_arrival, read_departure, refuse_absent
from ..outcomes import AmbiguousError, NotWrittenError

__all__ = ["meaning", "newer", "refuse_away"]


# What a server says when it refuses, before anything is changed: a word of its own, and what it means. Inside of a
# script the word comes with text around it.
_REFUSALS = {
    "OOM": "its memory is full (maxmemory), so nothing more is written; raise maxmemory, or remove old runs",
    "MISCONF": "it can't write its files, so it takes no writes; see its log, its disk may be full",
    "NOREPLICAS": "too few replicas are connected for it to take writes (min-replicas-to-write)",
    "READONLY": "it is a replica, which takes no writes; name the primary",
    "LOADING": "it is starting, and loads its data; try again",
    "MASTERDOWN": "it is a replica without its primary; name the primary",
    "CLUSTERDOWN": "its cluster is down",
    "TRYAGAIN": "its cluster is moving the keys; try again",
    "MOVED": "its cluster has the keys on another node; use a client of a cluster, or name that node",
    "ASK": "its cluster is moving the keys to another node; try again",
    "BUSY": "it is busy with a script of somebody; try again",
    "max number of clients": "it has too many connections (maxclients); try again",
}
_FORBIDDEN = {
    "NOAUTH": "it wants a password; write redis://:PASSWORD@host:6379/0",
    "WRONGPASS": "user name or password is wrong",
    "invalid password": "the password is wrong",
    "no password is set": "it knows no password; leave it out of the URL",
    "without any password": "it knows no password; leave it out of the URL",
    "NOPERM": "this user may not do what the store needs: EVAL, EVALSHA and the commands of its scripts on its keys",
    "DB index is out of range": "it has no such database; write another number",
    "unknown command": "it lacks a command that the store needs; use Redis 5 or newer, or Valkey",
}
_CODES = {  # the driver takes these words out of the text and tells them by a class
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "NoPermissionError": "NOPERM",
}


def meaning(error: Exception, where: str, *, sent: bool) -> StepwellError:
    """What an error of the driver means.

    Args:
        where: the server, as it may be shown.
        sent: whether the script may have been sent.
    """
    import redis

    kind, text = type(error).__name__, str(error)
    told = f"{_CODES.get(kind, '')} {text}"
    for word, what in _FORBIDDEN.items():
        if word in told:
            return StoreMisconfiguredError(f"{where}: {what} ({text})")
    if kind == "AuthenticationError":
        return StoreMisconfiguredError(f"{where}: it refuses to let us in: {text}; check user name and password")
    for word, what in _REFUSALS.items():
        if re.search(rf"\b{word}\b", told):
            return NotWrittenError(f"{where}: {what} ({text})")
    if isinstance(error, redis.ResponseError):
        return _damage(text, where)
    if kind == "InvalidResponse":
        return StoreMisconfiguredError(f"{where}: what answers is no Redis: {text[:200]}; check host and port")
    if not sent:
        remedy = "check that it runs there, and that host and port are right"
        return NotWrittenError(f"{where} can't be reached: {text}; {remedy}")
    return AmbiguousError(f"{where}: the connection was lost: {text}")


def _damage(text: str, where: str) -> StepwellError:
    damaged = re.search(r"DAMAGED (\S+) (.*?) is missing", text)
    if damaged is not None:
        return CorruptHistoryError(
            f"{where}, key {damaged[1]}: the row is damaged: {damaged[2]} is missing", place=damaged[1]
        )
    if "WRONGTYPE" in text:
        return CorruptHistoryError(f"{where}: a key holds another type of value than it should: {text}", place=where)
    return StoreError(f"{where}: {text}")


def newer(version: bytes, where: str) -> str:
    """The text about keys of a layout that is not known here."""
    return (
        f"{where}: has keys of layout {version.decode(errors='replace')}, and this stepwell knows 1; upgrade stepwell"
    )


def refuse_away(run_id: str, arrival: bytes | None, departure: bytes | None) -> None:
    """Say of a run that is not here where it is; what a script knows of that is JSON."""
    refuse_absent(
        run_id,
        None if departure is None else read_departure(departure),
        None if arrival is None else read_arrival(arrival),
    )

"""Histories of the Redis store, read in pages, each checked."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.errors import CorruptHistoryError
from stepwell.store import Tail, verify_lines

from .reads import READ
from .server import Server

__all__ = ["read"]

_PAGE = 2_000  # records that one script reads
_BYTES = 1 << 22  # bytes after which it ends


def read(
    server: Server, now: int | str, run_id: str, from_seq: int, incarnation: int | None, limit: int | None
) -> Tail | None:
    """Records of a history, as it was at the first page; None when there is none.

    Raises:
        CorruptHistoryError: one is damaged or missing; key and seq are named.
    """
    while True:
        try:
            return _read(server, now, run_id, from_seq, incarnation, limit)
        except _ChangedError:
            continue


class _ChangedError(Exception):
    """The run was deleted between two pages, and another may have its id."""


def _read(
    server: Server, now: int | str, run_id: str, from_seq: int, incarnation: int | None, limit: int | None
) -> Tail | None:
    number: Any = "" if incarnation is None else incarnation
    most = _PAGE if limit is None else min(limit, _PAGE)
    first = _page(server, (now, run_id, from_seq, number, most, _BYTES), b"")
    if first is None:
        return None
    _check_length(server, first)
    stop = first.finish if limit is None else min(first.finish, first.start + limit)
    lines = _checked(server, first)
    while first.start + len(lines) < stop:
        at = first.start + len(lines)
        found = _page(server, (now, run_id, at, first.number, min(stop - at, _PAGE), _BYTES), first.birth)
        if found is None or not found.lines:
            raise _ChangedError
        lines += _checked(server, found)
    return Tail(first.number, first.start, lines, first.closed, stop < first.finish, checked=True)


class _Page(msgspec.Struct, frozen=True):
    """What the script `read` gave: records from `start` on, of `finish` in all, of which there were once `least`."""

    number: int
    start: int
    finish: int
    closed: bool
    least: int
    birth: bytes
    log: str
    lines: list[bytes]


def _page(server: Server, values: tuple[Any, ...], birth: bytes) -> _Page | None:
    lines: list[bytes] = []
    answer = server.again(READ, *values, "joined", birth)
    if answer[0] == b"done":
        lines = answer[9].split(b"\n") if answer[8] else []
        if len(lines) != answer[8]:  # a record with a line break in it, which nobody of ours writes
            answer = server.again(READ, *values, "apart", birth)
            lines = answer[9] if answer[0] == b"done" else []
    if answer[0] == b"changed":
        raise _ChangedError
    if answer[0] != b"done":
        return None
    number, start, finish, closed, least, born, log = answer[1:8]
    return _Page(int(number), start, finish, closed == b"1", int(least), born, log.decode(), lines)


def _checked(server: Server, page: _Page) -> list[bytes]:
    place = f"{server.where.name}, key {page.log}"
    verify_lines(page.lines, page.start, lambda seq: f"{place}, seq {seq}")
    return page.lines


def _check_length(server: Server, page: _Page) -> None:
    if page.finish < page.least:
        place = f"{server.where.name}, key {page.log}"
        raise CorruptHistoryError(
            f"{place}: record {page.finish} of {page.least} is missing", place=place, seq=page.finish
        )

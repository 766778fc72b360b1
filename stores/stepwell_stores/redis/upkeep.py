"""Lists of heads by index, and the upkeep of the Redis store."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreError
from stepwell.store import ClosedKey, HeadFilter, RunHead, Status, StoreSize

from ..rules import check_limit
from .reads import CLOSED, COUNTS, HEADS, LOGS, SIZES
from .rows import conditions, run_head
from .scripts import SWEEP
from .server import Server

__all__ = ["RedisUpkeep", "list_heads"]

_LOOK = 1_000  # runs that one script looks at, at most
_SIZES = 200
_LOGS = 1_000  # logs that one script removes or measures


def list_heads(server: Server, now: int | str, where: HeadFilter, limit: int, after: str | None) -> list[RunHead]:
    """A page of heads, newest first, by the smallest index that fits."""
    asked = conditions(where)
    wanted, unwanted = json.dumps(asked.wanted), json.dumps(asked.unwanted) if asked.unwanted else "[]"
    found: list[RunHead] = []
    begin: tuple[Any, Any] = ("" if after is None else after, "")
    while True:
        left = limit - len(found)
        at_once = min(_LOOK, max(100, 2 * left))
        answer = server.again(HEADS, now, wanted, unwanted, asked.driven, *begin, at_once, min(left, _LOOK))
        if answer[0] == b"nobody":
            raise NotFoundError(f"no page begins after run {after!r}: there never was one")
        heads = (run_head(row, server.where.name) for row in answer[3])
        found += [head for head in heads if asked.version in (None, head.head.version)]
        begin = (answer[1], answer[2])
        if not answer[1] or len(found) >= limit:
            return found


class RedisUpkeep:
    """Which runs are closed, and what they take."""

    _server: Server

    def _now(self) -> int | str:
        raise NotImplementedError

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        check_limit(limit)
        none = ("", "", "")
        while True:
            ends = (*(after or none), *(before or none))
            answer = self._server.again(CLOSED, self._now(), *ends, int(newest_first), min(limit, _LOOK))
            heads = []
            for row in answer[1]:
                try:
                    heads.append(run_head(row, self._server.where.name))
                except CorruptHistoryError:
                    continue
            if heads or not answer[1]:
                return heads
            last = answer[1][-1]  # all of them are damaged
            workflow, updated = last[1:3] if len(last) == 3 else last[9:11]
            end = cast("ClosedKey", (workflow, updated, last[0]))
            after, before = (after, end) if newest_first else (end, before)

    def size(self) -> StoreSize:
        """How large it is; see the port. Bytes are those of the server's memory, about."""
        answer = self._server.again(COUNTS, self._now())
        runs: Counter[Status] = Counter()
        for status, count in zip(answer[1][::2], answer[1][1::2], strict=True):
            runs[cast("Status", status.decode())] += count
        for status in answer[2]:
            runs.update({cast("Status", status.decode()): -1, "running": 1})
        events = size = 0
        begin: tuple[Any, Any] = (b"", b"")
        while True:
            page = self._server.again(SIZES, "", *begin, _SIZES)
            events, size = events + int(page[1]), size + int(page[2])
            for birth, name, incarnation in page[5]:
                for first in range(0, int(incarnation), _LOGS):
                    last = min(first + _LOGS, int(incarnation)) - 1
                    logs = self._server.again(LOGS, "", birth, name, first, last)
                    events, size = events + int(logs[1]), size + int(logs[2])
            begin = (page[3], page[4])
            if not page[3]:
                return StoreSize(dict(+runs), events, size)

    def vacuum(self) -> int:
        """Remove what was left of a delete whose process ended in the midst; the server's memory frees itself."""
        for left in self._server.again(COUNTS, self._now())[3]:
            self._sweep(left)
        return 0

    def _sweep(self, left: bytes) -> None:
        """Remove the records of a run that is deleted; what fails here, `vacuum` does."""
        try:
            while self._server.again(SWEEP, "", left, _LOGS)[1] != b"0":
                pass
        except StoreError:
            return

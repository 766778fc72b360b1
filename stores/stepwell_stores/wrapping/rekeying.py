"""All of an encrypted store brought under the current key, in its place, while others go on with it.

It goes through the runs and rewrites what is under another key, a page of records at a time: each page is compared with
what was read, and put in its place at once. So it can be killed anywhere and begun anew: what is done is passed by. At
last everything is read once more, with the current key alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec

from stepwell.errors import CorruptHistoryError, StoreMisconfiguredError, StoreUnavailableError
from stepwell.store import SEALED, Draft, Head, HeadFilter, Movable, RunHead, Store

from .keys import Key
from .lines import body_of, matched, place, remade
from .wrapper import Wrapper

__all__ = ["Rekeyed", "rekey"]

PAGE = 500
"""Records that are rewritten at once."""

_RUNS = 200
_TRIES = 100
_PASSES = 5


class Rekeyed(msgspec.Struct, frozen=True):
    """How far it has come.

    Attributes:
        key: the id of the current key.
        runs: how many were looked at in this pass.
        rewritten, records, heads: runs, records and index rows that were rewritten, in all passes.
        share: how much is done, 0 to 1.
        passes: how often it began to go through the runs; the last time everything was under the current key.
    """

    key: str
    runs: int = 0
    rewritten: int = 0
    records: int = 0
    heads: int = 0
    share: float = 0.0
    passes: int = 1


def rekey(store: Wrapper, proof: Wrapper, key: Key, *, hide_tags: bool) -> Iterator[Rekeyed]:
    """Rewrite what is not under the current key, and read everything with it alone; gives how far it is, run by run.

    With `allow_plain` what is not encrypted is encrypted. Every process that writes the store must have the current
    key as its current one before: what is written meanwhile with another is found and rewritten as well.

    Args:
        store: the encrypted store, with all keys.
        proof: the same one, with the current key alone.
        key: the current key.
        hide_tags: whether tags are to be hidden.

    Raises:
        StoreMisconfiguredError: the inner store can't rewrite records, a key is missing, others go on to write with
            another key, or a run is on its way into the store.
        CorruptHistoryError: a record is damaged, or is not what was written.
    """
    if not callable(getattr(store.inner, "rewrite", None)):
        raise StoreMisconfiguredError(
            f"{type(store.inner).__name__} can't rewrite records in their place: move the runs to a new store, where "
            "they are written with the current key: stepwell migrate encrypted+SOURCE encrypted+TARGET"
        )
    work = _Work(store, proof, key, hide_tags=hide_tags)
    for _ in range(_PASSES):
        changed = work.done.rewritten
        yield from work.all_runs()
        if work.done.rewritten == changed:
            _refuse_arriving(store.inner)
            return
        work.next_pass()
    raise StoreMisconfiguredError(
        f"others go on to write with another key than {work.done.key!r}: make it the current one of all processes "
        "first, and call again"
    )


def _refuse_arriving(inner: Store) -> None:
    """Say that there are records that can't be rewritten: those of runs that are not here yet."""
    for arrival in inner.arrivals(limit=1) if isinstance(inner, Movable) else ():
        raise StoreMisconfiguredError(
            f"every run is under the current key, but run {arrival.run.run_id!r} is on its way here from "
            f"{arrival.origin}, perhaps under another one: end that move, or stepwell migrate --abandon it, and call "
            "again"
        )


class _Work:
    def __init__(self, store: Wrapper, proof: Wrapper, key: Key, *, hide_tags: bool) -> None:
        self._store, self._proof = store, proof
        self._inner = store.inner
        self._label = key.label
        self._hides = hide_tags
        self.done = Rekeyed(key.id)

    def next_pass(self) -> None:
        self.done = msgspec.structs.replace(self.done, runs=0, passes=self.done.passes + 1)

    def all_runs(self) -> Iterator[Rekeyed]:
        total = max(sum(self._inner.size().runs.values()), 1)
        after = None
        while page := self._inner.heads(HeadFilter(), limit=_RUNS, after=after):
            for run in page:
                records, heads = self._run(run)
                done = self.done
                runs = done.runs + 1
                self.done = msgspec.structs.replace(
                    done,
                    runs=runs,
                    rewritten=done.rewritten + bool(records or heads),
                    records=done.records + records,
                    heads=done.heads + heads,
                    share=min(runs / total, 1.0),
                )
                yield self.done
            after = page[-1].run_id

    def _run(self, run: RunHead) -> tuple[int, int]:
        """Rewrite what is to be rewritten of a run: how many records, and whether its head."""
        records = sum(self._history(run.run_id, number) for number in range(run.incarnation + 1))
        return records, self._head(run)

    def _history(self, run_id: str, incarnation: int) -> int:
        seq, more, count = 0, True, 0
        while more:
            for _ in range(_TRIES):
                tail = self._inner.read(run_id, seq, incarnation=incarnation, limit=PAGE)
                if tail is None:
                    return count  # it was removed meanwhile
                new = self._page(run_id, incarnation, seq, tail.records)
                changed = sum(a is not b for a, b in zip(tail.records, new, strict=True))
                if not changed or self._rewrite(run_id, incarnation, seq, tail.records, new):
                    break
            else:
                raise StoreUnavailableError(f"run {run_id!r} changes faster than it can be rewritten; try again")
            count, seq, more = count + changed, tail.seq, tail.more
        return count

    def _page(self, run_id: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> list[bytes]:
        return [self._line(run_id, incarnation, number, line) for number, line in enumerate(lines, seq)]

    def _line(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes:
        """A record under the current key: the same one, read as a proof, or another."""
        found = matched(line)
        if found is not None and found[1].endswith(b"+enc") and b'"enc":"%b"' % self._label.encode() in line:
            self._proof._out(run_id, incarnation, seq, line)
            return line
        plain = self._store._out(run_id, incarnation, seq, line)
        inside = matched(plain)
        assert inside is not None, place(run_id, incarnation, seq)
        draft = self._store._wrap(run_id, incarnation, seq, Draft(inside[1].decode(), body_of(inside)))
        new = remade(inside, draft.type.encode(), draft.body)
        if self._proof._out(run_id, incarnation, seq, new) != plain:
            raise CorruptHistoryError(f"{place(run_id, incarnation, seq)}: does not come back as it went in", seq=seq)
        return new

    def _head(self, run: RunHead) -> int:
        for _ in range(_TRIES):
            if self._is_current(run.head):
                self._proof._head_out(run)
                return 0
            new = self._store._head_in(run.run_id, self._store._head_out(run).head)
            if self._rewrite(run.run_id, run.incarnation, run.seq, (), (), (run.head, new)):
                return 1
            again = self._inner.head(run.run_id)
            if again is None:
                return 0
            run = again
        raise StoreUnavailableError(f"run {run.run_id!r} changes faster than it can be rewritten; try again")

    def _is_current(self, head: Head) -> bool:
        texts = [wait.reason for wait in head.waiting if wait.reason is not None]
        if head.blocked is not None:
            texts.append(head.blocked.message)
        if SEALED in head.tags:
            texts.append(head.tags[SEALED])
        start = f"{SEALED}{self._label}:"
        hidden = not head.tags or (SEALED in head.tags) == self._hides
        return hidden and all(text.startswith(start) for text in texts)

    def _rewrite(self, *where: Any) -> bool:
        run_id, incarnation, seq, old, new, *head = where
        done: bool = cast("Any", self._inner).rewrite(
            run_id, incarnation, seq, old, new, head=head[0] if head else None
        )
        return done

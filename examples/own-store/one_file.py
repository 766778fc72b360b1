"""A store of one's own: every run in one file, which each call reads, changes and replaces: good for a megabyte."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from stepwell import store as port
from stepwell.errors import ClosedError, CorruptHistoryError, NotFoundError, StoreError
from stepwell_stores import rules
from stepwell_stores.bell import Bell
from stepwell_stores.run_rows import RunRow


class OneFileStore:
    """Keeps the port: each call is on the disk, whole, when it returns, and several processes may share the file."""

    def __init__(self, path: Path | str, *, clock: rules.Clock | None = None) -> None:
        self.path, self._clock, self._bell, self._closed = Path(path), clock or rules.system_clock, Bell(), False

    @contextmanager
    def _runs(self, *, change: bool = True) -> Iterator[dict[str, RunRow]]:
        """All runs, and what stays of deleted ones. What is changed is written, unless something is raised."""
        if self._closed:
            raise ClosedError("the store is closed")
        try:
            with Path(f"{self.path}.lock").open("a") as lock:  # of each call its own, which keeps threads apart too
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    runs = self._load()
                    yield runs
                    if change:
                        self._save(runs)
                finally:
                    fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may have a copy of the descriptor
        except OSError as e:  # no exception of the system's leaves a store
            raise StoreError(f"{self.path}: {e}") from e
        if change:
            self._bell.ring()

    def _load(self) -> dict[str, RunRow]:
        if not self.path.exists():
            return {}
        try:
            return msgspec.msgpack.decode(self.path.read_bytes(), type=dict[str, RunRow])
        except msgspec.DecodeError as e:
            raise CorruptHistoryError(f"{self.path} is damaged: {e}", place=str(self.path)) from e

    def _save(self, runs: dict[str, RunRow]) -> None:
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.msgpack.encode(runs))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)  # or a power cut undoes it
        os.close(folder)

    def _there(self) -> list[RunRow]:
        with self._runs(change=False) as runs:
            return [run for run in runs.values() if run.histories]

    def _find(self, run_id: str) -> RunRow | None:
        rules.check_run_id(run_id)
        return next((run for run in self._there() if run.run_id == run_id), None)

    @property
    def durability(self) -> port.Durability:
        return port.Durability(True, True, False, {"store": "one file", "path": str(self.path)})

    def create(self, run_id: str, records: Sequence[port.Draft], *, head: port.Head, **how: Any) -> port.CreateOutcome:
        with self._runs() as runs:
            runs[run_id], done = RunRow.create(runs.get(run_id), run_id, records, now=self._clock(), head=head, **how)
        return self._bell.due.told(done, head.due)

    def open_incarnation(
        self, run_id: str, incarnation: int, records: Sequence[port.Draft], *, head: port.Head, **how: Any
    ) -> port.AppendOutcome:
        with self._runs() as runs:
            run = self._need(runs, run_id)
            done = run.open_incarnation(incarnation, records, now=self._clock(), head=head, **how)
        return self._bell.due.told(done, head.due)

    def append(
        self, run_id: str, incarnation: int | None, expected_seq: int | None, records: Sequence[port.Draft], **how: Any
    ) -> port.AppendOutcome:
        with self._runs() as runs:
            run = self._need(runs, run_id)
            done = run.append(incarnation, expected_seq, records, now=self._clock(), **how)
            left = how.get("fence") is None or how.get("release")  # with nobody who drives it
            return self._bell.due.told(done, run.head.due if left else None)

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        rules.check_run_id(run_id)
        with self._runs() as runs:
            rest = runs[run_id].deleted(incarnation, fence) if run_id in runs else None
            if rest is not None:
                runs[run_id] = rest
            return rest is not None

    @staticmethod
    def _need(runs: dict[str, RunRow], run_id: str) -> RunRow:
        if run_id not in runs or not runs[run_id].histories:
            raise NotFoundError(f"no run {run_id!r}")
        return runs[run_id]

    def head(self, run_id: str) -> port.RunHead | None:
        run = self._find(run_id)
        return None if run is None else run.shown(self._clock())

    def heads(self, where: port.HeadFilter, *, limit: int, after: str | None = None) -> list[port.RunHead]:
        with self._runs(change=False) as runs:
            if after is not None and after not in runs:
                raise NotFoundError(f"no page begins after run {after!r}: there never was one")
            start = None if after is None else (runs[after].head.created, after)
            found = [run.shown(self._clock()) for run in runs.values() if run.histories]
        found.sort(key=lambda run: (run.head.created, run.run_id), reverse=True)
        rest = (run for run in found if start is None or (run.head.created, run.run_id) < start)
        return [run for run in rest if rules.matches(run, where)][:limit]

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> port.Tail | None:
        run = self._find(run_id)
        return None if run is None else run.tail(from_seq, incarnation, limit)

    def verify(self) -> Iterator[port.Verified]:
        parts = [(run.run_id, number, lines) for run in self._there() for number, lines in enumerate(run.histories)]
        for done, (run_id, number, lines) in enumerate(parts, 1):
            place, size = f"{self.path}, run {run_id!r}, incarnation {number}", sum(map(len, lines))
            wrong = port.first_broken(lines, 0)
            problem = None if wrong is None else CorruptHistoryError(f"{place}: record {wrong} is damaged", seq=wrong)
            yield port.Verified(place, run_id, number, lines, size, problem, share=done / len(parts))

    def claim(self, run_id: str, owner: str, ttl: float) -> port.Lease | port.RunHead | None:
        rules.check_run_id(run_id)
        with self._runs() as runs:
            run = runs.get(run_id)
            if run is None or not run.histories:
                return None
            return run.claim(owner, ttl, self._clock()) or run.shown(self._clock())

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[port.Lease]:
        known = frozenset(fingerprints)
        with self._runs() as runs:
            dues = [(due, name) for name, run in runs.items() if (due := run.due(self._clock())) is not None]
            left = [runs[name] for due, name in sorted(dues) if due <= now or runs[name].held is not None]
            mine = [run for run in left if rules.may_try(run.head.blocked, known)][:limit]
            leases = [run.claim(owner, ttl, self._clock()) for run in mine]
        return [lease for lease in leases if lease is not None]

    def next_due(self) -> int | None:
        dues = [run.due(self._clock()) for run in self._there() if run.head.blocked is None]
        return min((due for due in dues if due is not None), default=None)

    def renew(self, lease: port.Lease, ttl: float) -> port.Lease | None:
        with self._runs() as runs:
            run = runs.get(lease.run_id)
            return None if run is None else run.renew(lease, ttl, self._clock())

    def release(self, lease: port.Lease) -> None:
        with self._runs() as runs:
            if lease.run_id in runs:
                runs[lease.run_id].release(lease)
        self._bell.due.ring()

    def closed(self, *, after: Any = None, before: Any = None, **how: Any) -> list[port.RunHead]:
        heads = [run.shown(self._clock()) for run in self._there()]
        return rules.closed_page(heads, after, before, how.get("newest_first", False), how["limit"])

    def size(self) -> port.StoreSize:
        runs = self._there()
        counts = Counter[port.Status](rules.shown_status(run.shown(self._clock())) for run in runs)
        events = sum(len(lines) for run in runs for lines in run.histories)
        return port.StoreSize(dict(counts), events, self.path.stat().st_size if self.path.exists() else 0)

    def vacuum(self) -> int:
        self._there()  # what was removed takes no space
        return 0

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        return self._bell.wait(lambda: (head := self.head(run_id)) is not None and head.seq > seq, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._bell.due.listen(wake)

    def close(self) -> None:
        self._closed = True

"""Bugs that are put into the product for a while, to see that the harnesses find them: each takes hold of one rule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from tests.crash import server_plants
from tests.crash.group_plants import GROUP_PLANTS

from stepwell import events, loading, recorder, session
from stepwell.store import Fenced, NotApplied, Unknown
from stepwell_stores import liveness, rules
from stepwell_stores.jsonl import files as jsonl_files
from stepwell_stores.jsonl import runs as jsonl_runs
from stepwell_stores.jsonl import store as jsonl
from stepwell_stores.outcomes import AmbiguousError, NotWrittenError
from stepwell_stores.sqlite import database as sqlite_database
from stepwell_stores.sqlite import history as sqlite_history
from stepwell_stores.sqlite import leases as sqlite_leases
from stepwell_stores.sqlite import rows as sqlite_rows
from stepwell_stores.sqlite import schema as sqlite_schema
from stepwell_stores.sqlite import store as sqlite

__all__ = ["PLANTS", "plant"]


def _no_fsync() -> None:
    """Neither store asks the disk for anything."""
    vars(jsonl_files)["sync_file"] = lambda fd: None
    _pragma("synchronous", "OFF")


def _no_directory_fsync() -> None:
    vars(jsonl_files)["sync_directory"] = lambda path: None


def _normal() -> None:
    """SQLite syncs at checkpoints only."""
    _pragma("synchronous", "NORMAL")


def _pragma(name: str, value: str) -> None:
    settings = sqlite_schema._settings

    def wrong(db: Any, path: str, *rest: Any) -> Any:
        done = settings(db, path, *rest)
        db.execute(f"PRAGMA {name} = {value}")
        return done

    sqlite_schema._settings = wrong  # type: ignore[assignment]


def _no_torn_cut() -> None:
    """What is torn stays where it is, and the next record is written behind it."""
    scan = jsonl_runs.scan  # type: ignore[attr-defined]
    jsonl_files.Directory.keep_aside = lambda *_: None  # type: ignore[method-assign]

    def longer(data: bytes, path: str) -> Any:
        found = scan(data, path)
        return type(found)(found.lines, len(data), found.unended, found.torn) if found.torn else found

    jsonl_runs.scan = longer  # type: ignore[attr-defined]


def _no_fence() -> None:
    """An owner's number is never compared: position and bytes alone decide."""
    real = sqlite_history.advance

    def refuses(self: rules.Position, incarnation: int, expected_seq: int, fence: int) -> Any:
        return self.refuses_outside(incarnation, expected_seq)

    def advance(db: Any, at: tuple[str, int, int, int], *rest: Any) -> bool:
        return real(db, (at[0], at[1], sqlite_history.found(db, at[0]).fence, at[3]), *rest)

    rules.Position.refuses_owner = refuses  # type: ignore[method-assign]
    vars(sqlite)["advance"] = advance
    server_plants.without_fences()


def _fence_before() -> None:
    """An owner's number is compared by a read of its own; then what it writes is taken, whatever number is current."""
    _no_fence()
    stores: list[type[Any]] = [jsonl.JsonlStore, sqlite.SqliteStore]
    for kind in (*stores, *server_plants.server_stores()):

        def append(self: Any, run_id: str, *args: Any, _real: Any = kind.append, **how: Any) -> Any:
            head, fence = self.head(run_id), how.get("fence")
            if head is not None and fence is not None and head.fence != fence:
                return Fenced(head.fence)
            return _real(self, run_id, *args, **how)

        kind.append = append


def _forgotten_step() -> None:
    """A history that ends in a step is folded without it, so what is recorded runs again."""
    real = vars(loading)["read_tail"]

    def shorter(tail: Any, run_id: str) -> list[Any]:
        found = real(tail, run_id)
        return found[:-1] if found and isinstance(found[-1], events.Step) else found

    vars(loading)["read_tail"] = shorter


def _rerun_on_unknown() -> None:
    """Nobody asks once more what became of an append by its attempt id: the steps that it told of run again."""
    record, settle = session.Session._record_outcomes, recorder.settle
    of_steps: list[bool] = []

    class LostError(Exception):
        pass

    def hasty(attempt: Callable[[], Any], clock: Any) -> Any:
        if not of_steps:
            return settle(attempt, clock)
        outcome = attempt()
        if isinstance(outcome, Unknown):
            raise LostError
        return settle(attempt, clock) if isinstance(outcome, NotApplied) else outcome

    def recorded(self: session.Session) -> bool:
        of_steps.append(True)
        try:
            return record(self)
        except LostError:
            self._outcomes.clear()
            return True
        finally:
            of_steps.clear()

    recorder.settle = hasty  # type: ignore[assignment]
    session.Session._record_outcomes = recorded  # type: ignore[method-assign]


def _dead_owner_stays() -> None:
    """Nobody looks whether the owner of a lease still lives, so what it left waits for the lease to lapse."""
    liveness.Owners.alive = lambda *_: True  # type: ignore[method-assign]


def _no_sync_on_open() -> None:
    """What a dead writer may not have synced is trusted as it is."""
    jsonl_files.Directory.sync = lambda *_: None  # type: ignore[method-assign]
    vars(sqlite_schema)["_sync_log"] = lambda *_: None


def _exists_before() -> None:
    """Whether a run id is taken is looked for by a read of its own; then the run is made, whatever is there."""
    in_file, in_rows = jsonl.JsonlStore.create, sqlite.SqliteStore.create

    def into_files(self: Any, run_id: str, *args: Any, **how: Any) -> Any:
        if self.head(run_id) is None:
            self._runs.load = lambda *_, **__: None
        try:
            return in_file(self, run_id, *args, **how)
        finally:
            vars(self._runs).pop("load", None)

    def into_rows(self: Any, run_id: str, *args: Any, **how: Any) -> Any:
        if self.head(run_id) is None:
            self._database.write(lambda db: [db.execute(statement, (run_id,)) for statement in sqlite_rows.DELETE])
        return in_rows(self, run_id, *args, **how)

    jsonl.JsonlStore.create = into_files  # type: ignore[method-assign]
    sqlite.SqliteStore.create = into_rows  # type: ignore[method-assign]
    server_plants.blind_creates()


def _any_lease() -> None:
    """Every lease is taken for one that has lapsed."""
    jsonl.JsonlStore._live = lambda *_: False  # type: ignore[method-assign]
    sqlite_leases.Leases.live = lambda *_: False  # type: ignore[method-assign]
    server_plants.lapsed_leases()


def _error_swallowed() -> None:
    """A write that failed is taken for one that went well."""
    append, transaction = jsonl_files.Directory.append, sqlite_database.Database._transaction

    def appended(*args: Any) -> None:
        with contextlib.suppress(jsonl_files.WriteError):
            append(*args)

    def committed(self: Any, handle: Any, db: Any, work: Callable[[Any], Any]) -> Any:
        results: list[Any] = []

        def kept(db: Any) -> Any:
            results.append(work(db))
            return results[-1]

        try:
            return transaction(self, handle, db, kept)
        except (AmbiguousError, NotWrittenError):
            if not results:
                raise
            return results[-1]

    vars(jsonl_files)["Directory"].append = appended
    sqlite_database.Database._transaction = committed  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "ack before write": lambda: None,  # see AckStore
    "another attempt after Unknown": lambda: None,  # see NewAttempts
    "dead owner keeps its lease": _dead_owner_stays,
    "error swallowed": _error_swallowed,
    "existing run looked for before the transaction": _exists_before,
    "fence checked before the transaction": _fence_before,
    "live lease not respected": _any_lease,
    "no directory fsync": _no_directory_fsync,
    "no fence": _no_fence,
    "no fsync": _no_fsync,
    "no sync on open": _no_sync_on_open,
    "no torn-tail cut": _no_torn_cut,
    "re-run on Unknown": _rerun_on_unknown,
    "recorded step runs again": _forgotten_step,
    "synchronous=NORMAL": _normal,
    "synchronous_commit=off": server_plants.asynchronously,
    **GROUP_PLANTS,
}
"""By name. They hold for the whole process, so a harness plants in processes of their own."""


def plant(name: str | None) -> None:
    """Put a bug into this process, if one is named."""
    if name is not None:
        PLANTS[name]()

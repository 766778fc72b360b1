"""`stepwell doctor`: what a store is, what it survives, how its runs stand, and what wants to be looked at.

What is told of a store is what it says itself: its `durability`, and its `path` if it has one.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from ..engine import Engine
from ..errors import CorruptHistoryError, NewerFormatError, StepwellError
from ..outcomes import RunRecord
from ..store import Durability, Store
from .describing import many
from .mistakes import ENDED_BADLY, OK, exit_code_of
from .opening import open_engine
from .terminal import Terminal, cut, safe

__all__ = ["EXTRAS", "doctor", "readable_bytes"]

EXTRAS = {
    "cli": ("rich", "tables that fit, and progress bars"),
    "cron": ("cronsim", "schedules by cron expressions"),
    "crypto": ("cryptography", "encrypted histories"),
    "postgres": ("psycopg", "runs in a Postgres database"),
    "redis": ("redis", "runs on a Redis or Valkey server"),
    "s3": ("obstore", "runs in a bucket"),
}
"""What is optional for who uses the library: by extra, the module that it brings and what that is for."""

_LITTLE = 100 * 1024 * 1024  # bytes of free space that are soon gone
_LATE = timedelta(minutes=1)  # after which what is due looks forgotten
_FIRST = 5  # blocked runs that are shown
_PAGE = 10_000
_SAFE_SQLITE = (3, 51, 3)  # the first whose checkpoint and commit don't lose each other's pages
_TOLD = {
    "store",
    "path",
    "place",
    "advice",
    "file_system",
    "sqlite",
    "wal_reset_guard",
    "owners",
}  # settings with a line of their own
_STATUSES = ("pending", "running", "suspended", "paused", "completed", "failed", "cancelled")
_SAID = {True: "yes", False: "no", None: "can't be told"}


def doctor(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell doctor`: 1 when something endangers data, 4 when a record is damaged."""
    with open_engine(options) as engine:
        runs = _Runs()
        runs.count(engine)  # this opens the store, and tells what keeps it from being opened
        place = _place_of(engine.store)
        advice = [*_advice_on_place(place), *runs.advice()]
    if options.json:
        terminal.json(_json(place, runs, advice))
    else:
        _show(terminal, place, runs, advice)
    if runs.unreadable is not None:
        return exit_code_of(runs.unreadable)
    return ENDED_BADLY if any(one.safety for one in advice) else OK


@frozen
class _Advice:
    """Something unusual, and what to do about it. `safety`: data are in danger."""

    text: str
    safety: bool = False


# ---- the store


@frozen
class _Place:
    """Where a store is and what it says of itself; None where that can't be told.

    Attributes:
        free: bytes that are left on its file system.
        mode: permission bits.
        owners: the directory in which living owners of leases are known.
    """

    kind: str
    path: str | None
    durability: Durability
    free: int | None
    mode: int | None
    owners: str | None

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.durability.settings

    @property
    def file_system(self) -> str | None:
        found = self.settings.get("file_system")
        return None if found is None else str(found)


def _place_of(store: Store) -> _Place:
    durability = store.durability
    path = getattr(store, "path", None)
    kind = str(durability.settings.get("store", type(store).__name__))
    if not isinstance(path, str) or not Path(path).exists():
        return _Place(kind, path, durability, None, None, None)
    owners = durability.settings.get("owners") or next(filter(os.path.isdir, _owners(path)), None)
    mode = stat.S_IMODE(Path(path).stat().st_mode) if os.name == "posix" else None
    return _Place(kind, path, durability, shutil.disk_usage(path).free, mode, owners)


def _owners(path: str) -> Iterator[str]:
    """Where stores with a path keep the lock files of those who take leases: beside a file, in a directory."""
    yield f"{path}-owners"
    yield str(Path(path) / ".owners")


def _advice_on_place(place: _Place) -> Iterator[_Advice]:
    survives, where = place.durability, place.path or place.settings.get("place") or f"the {place.kind} store"
    if advice := place.settings.get("advice"):  # the store knows better what its settings lack
        yield _Advice(f"{where}: {advice}", safety=True)
    elif survives.process_crash is False:
        yield _Advice(f"{where}: everything is lost with the process; keep real runs in sqlite: or file:", safety=True)
    elif survives.power_loss is False:
        yield _Advice(f"{where}: a power cut loses what was acknowledged last; leave the sync= option out", safety=True)
    elif survives.power_loss is None and "conditional_writes" in place.settings:  # a bucket
        yield _Advice(f"{where}: what a power cut loses hangs on its server; see that it has written what it answers")
    elif survives.power_loss is None:
        on = f": it is on {place.file_system}, whose locks and syncs can't be trusted" if place.file_system else ""
        yield _Advice(f"{where}: nobody can tell what a power cut loses{on}; use a local disk", safety=True)
    if place.mode is not None and (others := _others(place.mode)):
        octal = "700" if Path(str(place.path)).is_dir() else "600"
        yield _Advice(f"{where}: {others} it, and histories hold payloads; chmod {octal} it", safety=True)
    if place.free is not None and place.free < _LITTLE:
        yield _Advice(f"{where}: only {readable_bytes(place.free)} are free; a full disk stops every run", safety=True)
    sqlite = place.settings.get("sqlite")
    if sqlite and place.settings.get("wal_reset_guard") == "none" and _version(str(sqlite)) < _SAFE_SQLITE:
        yield _Advice(
            f"SQLite {sqlite} may damage the file when two processes write, and nothing guards against it here; use "
            f"{'.'.join(map(str, _SAFE_SQLITE))} or newer",
            safety=True,
        )


def _others(mode: int) -> str:
    """Who but the owner may do what, or ""."""
    who = [name for name, bits in (("group", 0o060), ("others", 0o006)) if mode & bits]
    what = [name for name, bits in (("read", 0o044), ("write", 0o022)) if mode & bits]
    return f"{' and '.join(who)} may {' and '.join(what)}" if who else ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


# ---- the runs


@define
class _Runs:
    """How the runs stand.

    Attributes:
        due: how many are due and held by nobody; `late` of them for a while.
        unreadable: why they could not all be counted.
    """

    statuses: Counter[str] = field(factory=Counter)
    leases: int = 0
    due: int = 0
    late: int = 0
    blocked: int = 0
    first_blocked: list[RunRecord] = field(factory=list)
    unreadable: StepwellError | None = None

    def count(self, engine: Engine) -> None:
        """Look at every run; a damaged one ends it."""
        now, after = datetime.now(UTC), None
        try:
            while page := engine.runs(limit=_PAGE, after=after):
                for record in page:
                    self._add(record, now)
                after = page[-1].id
        except NewerFormatError:
            raise
        except CorruptHistoryError as error:
            self.unreadable = error

    def _add(self, record: RunRecord, now: datetime) -> None:
        self.statuses[record.status] += 1
        if record.lease_until is not None:
            self.leases += 1
        elif record.blocked is not None:
            self.blocked += 1
            if len(self.first_blocked) < _FIRST:
                self.first_blocked.append(record)
        elif record.completed is None and record.due is not None and record.due <= now:
            self.due += 1
            self.late += record.due <= now - _LATE

    def advice(self) -> Iterator[_Advice]:
        """What is unusual."""
        if self.unreadable is not None:
            yield _Advice(f"{self.unreadable.message}; stepwell verify tells all that is damaged", safety=True)
        if self.blocked:
            shown = self.first_blocked[0].id
            yield _Advice(
                f"{many(self.blocked, 'run')} can't be driven with the code that was tried: see stepwell show {shown}, "
                "and stepwell list --blocked"
            )
        if self.late:
            yield _Advice(
                f"{many(self.late, 'run')} should have been driven more than a minute ago: is a worker running? "
                "(stepwell worker --app MODULE:ENGINE)"
            )


# ---- telling


def _json(place: _Place, runs: _Runs, advice: list[_Advice]) -> dict[str, Any]:
    survives = place.durability
    return {
        "store": place.kind,
        "path": place.path,
        "settings": {name: _plain(value) for name, value in place.settings.items()},
        "survives": {
            "processCrash": survives.process_crash,
            "powerLoss": survives.power_loss,
            "failover": survives.failover,
        },
        "fileSystem": place.file_system,
        "freeBytes": place.free,
        "permissions": None if place.mode is None else f"{place.mode:04o}",
        "ownerOnly": None if place.mode is None else not _others(place.mode),
        "owners": place.owners,
        "runs": {name: runs.statuses[name] for name in _STATUSES},
        "leases": runs.leases,
        "due": runs.due,
        "overdue": runs.late,
        "blocked": runs.blocked,
        "firstBlocked": [
            {"runId": one.id, "code": one.blocked.code, "message": one.blocked.message}
            for one in runs.first_blocked
            if one.blocked is not None
        ],
        "python": platform.python_version(),
        "stepwell": _stepwell(),
        "missingExtras": [name for name, _ in _missing()],
        "advice": [{"text": one.text, "safety": one.safety} for one in advice],
    }


def _show(terminal: Terminal, place: _Place, runs: _Runs, advice: list[_Advice]) -> None:
    terminal.fields([(name, safe(value)) for name, value in (*_place_lines(place), *_run_lines(runs)) if value])
    terminal.line()
    for one in advice:
        head = terminal.styled("danger", "bad") if one.safety else terminal.styled("advice", "wait")
        terminal.write(f"{head}  {safe(' '.join(one.text.split()))}")
    if not advice:
        terminal.line("nothing wants to be looked at", "good")


def _place_lines(place: _Place) -> Iterator[tuple[str, str]]:
    survives, settings = place.durability, place.settings
    named = place.path or settings.get("place")
    yield "store", f"{place.kind}, {named}" if named else place.kind
    told = (
        ("kill -9", survives.process_crash),
        ("power cut", survives.power_loss),
        ("loss of the disk or server", survives.failover),
    )
    yield "survives", ", ".join(f"{what}: {_SAID[answer]}" for what, answer in told)
    if place.path:
        free = "" if place.free is None else f", {readable_bytes(place.free)} free"
        yield "file system", (place.file_system or "of unknown type") + free
    if place.mode is not None:
        yield "permissions", f"{place.mode:04o}: {_others(place.mode) or 'its owner only'}"
    if "sqlite" in settings:
        guard = settings.get("wal_reset_guard", "none")
        yield "SQLite", f"{settings['sqlite']}; guard against the WAL-reset bug: {guard}"
    yield "settings", ", ".join(f"{name} {value}" for name, value in settings.items() if name not in _TOLD)
    yield "owners", place.owners or ""


def _run_lines(runs: _Runs) -> Iterator[tuple[str, str]]:
    counts = [f"{runs.statuses[name]:,} {name}" for name in _STATUSES if runs.statuses[name]]
    at_least = " at least" if runs.unreadable is not None else ""
    yield "runs", (", ".join(counts) or "none") + at_least
    yield "leases", f"{runs.leases:,} held now"
    yield "due", f"{runs.due:,} now" + (f", {runs.late:,} of them for more than a minute" if runs.late else "")
    yield "blocked", f"{runs.blocked:,}"
    for one in runs.first_blocked:
        assert one.blocked is not None  # that is why it is there
        yield "", cut(f"{one.id}: {one.blocked.code}: {' '.join(one.blocked.message.split())}", 160)
    yield "Python", f"{platform.python_version()}, stepwell {_stepwell()}"
    for name, what in _missing():
        yield "missing", f"pip install 'stepwell[{name}]' brings {what}"


def _missing() -> list[tuple[str, str]]:
    return [(name, what) for name, (module, what) in EXTRAS.items() if find_spec(module) is None]


def _stepwell() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stepwell")
    except PackageNotFoundError:
        return "(not installed)"


def readable_bytes(number: int) -> str:
    """A size for people."""
    size, unit = float(number), "bytes"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, bigger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it."""
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

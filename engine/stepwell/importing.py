"""Runs read back from JSONL files: a directory of journals, or histories that were written to files. Floor 4.

Everything is read and checked first, to its last byte. Then all runs are staged, and when all of them are there, each
lands: so none is half imported, and a mistake in one file leaves the store as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from . import events as e
from .checks import checked_run_id
from .ends import STATUS
from .environment import new_token
from .errors import (
    ConflictError,
    CorruptHistoryError,
    InvalidInputError,
    RunArrivingError,
    StepwellError,
    StoreError,
)
from .loading import Parts
from .logs import replaying
from .machine import Machine
from .migrating import as_movable, place_of
from .moves import Arrival
from .moving import PAGE, MovableStore
from .store import Envelope, Head, RunHead, envelope
from .wire import read_event

__all__ = ["Imported", "import_runs"]

_JOURNAL = re.compile(r"([^.]+)\.([0-9]+)\.jsonl")
_ENDINGS = (".history.jsonl", ".jsonl")
_EXTRA = b'{"stepwell":'


class Imported(msgspec.Struct, frozen=True):
    """What was imported.

    Attributes:
        run_ids: the runs that are new in the store.
        events: how many events they have.
        there: how many runs were there before, with the very same records.
        replayed: how many were replayed against the code at hand.
    """

    run_ids: tuple[str, ...]
    events: int
    there: int
    replayed: int


class _File(msgspec.Struct):
    """A file with the records of one incarnation; `first` and `last` are the envelopes of its outermost records."""

    path: Path
    run_id: str
    start: e.Start
    first: Envelope
    last: Envelope
    updated: str
    count: int


class _Header(msgspec.Struct):
    stepwell: str
    run: str = ""


_read_header = msgspec.json.Decoder(_Header).decode


class _Fence(msgspec.Struct, rename="camel"):
    run_id: str


_read_fence = msgspec.json.Decoder(_Fence).decode


def import_runs(
    parts: Parts,
    paths: Iterable[Path],
    run_id: str | None = None,
    *,
    replay: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> Imported:
    """Read runs from files into an engine's store.

    Args:
        paths: files, each with one incarnation, or directories of them.
        run_id: that of all files, when neither they nor their names say it.
        replay: see that the engine's code fits each history that is not older than the run's newest.
        progress: is told how much is done, 0 to 1.

    Raises:
        InvalidInputError: there is no such file, or no history in it.
        CorruptHistoryError: a record is damaged, or records are missing; file and line are named.
        DivergenceError, CodecError, NotFoundError, VersionMismatchError: with `replay`, the code does not fit.
        ConflictError: the store has another run of that id.
        StoreError: the store failed. The same call goes on.
    """
    store = as_movable(parts.store, place_of(parts.store))
    found = list(_files(paths))
    read = []
    for done, path in enumerate(found):
        progress(done / len(found) / 2)
        read.append(_read(path, run_id))
    runs = _by_run(read)
    replayed = 0
    new: list[list[_File]] = []
    for files in runs:
        if replay:
            _replay(parts, files[-1])
            replayed += 1
        if not _is_there(store, files):
            new.append(files)
    tokens = []
    for done, files in enumerate(new):
        progress(0.5 + done / len(new) / 2)
        tokens.append(_stage(store, files))
    for files, token in zip(new, tokens, strict=True):
        store.land(files[0].run_id, token)
    events = sum(file.count for files in new for file in files)
    return Imported(tuple(files[0].run_id for files in new), events, len(runs) - len(new), replayed)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        names = sorted(one for one in path.iterdir() if one.name.endswith(".jsonl"))
        if not names:
            raise InvalidInputError(f"{path} has no *.jsonl files; name a directory of journals, or a history")
        yield from names


# ---- reading


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The records of a file, each with the number of its line and the byte at which that begins."""
    byte = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.startswith(_EXTRA) and line != b"\n":
                    yield number, byte, line.removesuffix(b"\n")
                byte += len(line)
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror or error}") from error


def _read(path: Path, run_id: str | None) -> _File:
    """Check every record of a file."""
    start: e.EventBase | None = None
    first = last = None
    updated, seq, number, place = "", 0, 0, str(path)
    for number, byte, line in _lines(path):
        place = f"{path}, line {number}, byte {byte}"
        last = envelope(line, place)
        if last.offset != seq:
            raise CorruptHistoryError(f"{place}: holds record {last.offset} where {seq} belongs", place=place, seq=seq)
        event = read_event(line, place)
        first, start = first or last, start or event
        updated, seq = event.timestamp or updated, seq + 1
    if first is None or last is None:
        raise InvalidInputError(f"{path} has no records: it is no history")
    if not isinstance(start, e.Start):
        raise CorruptHistoryError(f"{path}, line 1: a history begins with a start event", place=str(path), seq=0)
    if last.more:
        raise CorruptHistoryError(f"{place}: the last append was cut short; remove its records", place=place)
    return _File(path, checked_run_id(run_id or _run_of(path)), start, first, last, updated, seq)


def _run_of(path: Path) -> str:
    """The run id that a file says, or that its name does."""
    with path.open("rb") as file:
        line = file.readline()
    if line.startswith(_EXTRA):
        try:
            said = _read_header(line).run
        except msgspec.DecodeError as error:
            raise CorruptHistoryError(f"{path}, line 1: {error}", place=str(path)) from error
        if said:
            return said
    journal = _JOURNAL.fullmatch(path.name)
    stem = journal[1] if journal else next(path.name.removesuffix(end) for end in _ENDINGS if path.name.endswith(end))
    if journal and "~" in stem:  # the name was too long, and the file beside has the run's id
        try:
            return _read_fence(path.with_name(f"{stem}.fence").read_bytes()).run_id
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidInputError(f"{path}: {stem}.fence, which has the run's id, can't be read: {error}") from error
    return unquote_to_bytes(stem).decode("utf-8", "replace") if journal else stem


def _by_run(files: Iterable[_File]) -> list[list[_File]]:
    """The incarnations of each run, all of them."""
    runs: dict[str, dict[int, _File]] = {}
    for file in files:
        there = runs.setdefault(file.run_id, {})
        other = there.setdefault(file.start.incarnation, file)
        if other is not file:
            what = f"incarnation {file.start.incarnation} of run {file.run_id!r}"
            raise InvalidInputError(f"{file.path}: {what} is in {other.path} too; name one of them")
    whole = []
    for run_id, there in runs.items():
        newest = max(there)
        for number in range(newest):
            if number not in there:
                raise InvalidInputError(
                    f"{there[newest].path} holds incarnation {newest} of run {run_id!r}, and incarnation {number} is "
                    "in no file: write it out too, as by stepwell show --raw --incarnation, and name both files"
                )
            file, after = there[number], there[number + 1]
            if file.last.then != "closed" and after.first.left != file.count:
                raise CorruptHistoryError(
                    f"{file.path}, line {file.count}: the history of incarnation {number} is not closed, though "
                    f"{after.path} holds the next one",
                    place=str(file.path),
                )
        whole.append([there[number] for number in range(newest + 1)])
    return whole


def _replay(parts: Parts, file: _File) -> None:
    """See that the code at hand fits a history.

    Raises:
        StepwellError: it does not; the text names the file, and the line where that is known.
    """
    seq = 0
    try:
        workflow = parts.registry.find(file.start.workflow, file.start.version)
        with replaying():
            machine = Machine(workflow, file.start, codec=parts.codec, run_id=file.run_id)
            try:
                for seq, (_, _, line) in enumerate(_lines(file.path)):
                    if seq:
                        machine.fold((read_event(line),))
            finally:
                machine.close()
    except StepwellError as error:
        error.args = (f"{file.path}, record {seq}: {error.message}", *error.args[1:])
        raise


# ---- writing


def _is_there(store: MovableStore, files: list[_File]) -> bool:
    """Whether the store has this very run.

    Raises:
        ConflictError: it has another one of that id.
        RunArrivingError, RunMovedError: that one is on its way, here or elsewhere.
    """
    run_id = files[0].run_id
    try:
        if store.head(run_id) is None:
            return False
    except RunArrivingError as error:
        if error.origin != str(files[-1].path):
            raise
        return False  # an import of this file was killed
    for file in files:
        seq = 0
        for page in _pages(file.path):
            tail = store.read(run_id, seq, incarnation=file.start.incarnation, limit=len(page))
            if tail is None or tail.records != page:
                what = f"{file.path}: the store has another run {run_id!r}"
                raise ConflictError(f"{what}, or does not have record {seq}; delete that one first", run_id=run_id)
            seq += len(page)
    return True


def _pages(path: Path) -> Iterator[list[bytes]]:
    page = list[bytes]()
    for _, _, line in _lines(path):
        page.append(line)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def _stage(store: MovableStore, files: list[_File]) -> str:
    """Have a run arrive with all of its records; the token of its arrival."""
    run, counts = _head(files), tuple(file.count for file in files)
    there = store.arrive(Arrival(run, counts, str(files[-1].path), new_token()))
    if there is None or there.run != run:
        raise ConflictError(f"{files[0].path}: another run {run.run_id!r} came meanwhile", run_id=run.run_id)
    for number, file in enumerate(files):
        seq = 0
        for page in _pages(file.path):
            store.stage(run.run_id, there.token, number, seq, page)
            seq += len(page)
        if seq != file.count:
            raise StoreError(f"{file.path} was changed while it was read")
    return there.token


def _head(files: list[_File]) -> RunHead:
    """How a run stands, by its records: an open one is due, so that whoever drives it finds out what it waits for."""
    start, newest = files[-1].start, files[-1]
    closed = newest.last.then == "closed"
    created, updated = (_micros(text) for text in (start.timestamp, newest.updated))
    head = Head(
        STATUS.get(newest.last.type, "completed") if closed else "pending",
        start.workflow,
        start.version,
        created,
        updated,
        None if closed else updated,
        (),
        start.tags,
    )
    return RunHead(newest.run_id, len(files) - 1, newest.count, newest.last.session, closed, None, head)


def _micros(text: Any) -> int:
    return e.micros(e.parse_instant(text)) if text else 0

"""What `pytest --stepwell-record` does: the histories of the runs that a test made, written as files.

Every engine that is made in the process is watched from its making on: which runs are begun or driven in its store. A
store is read before it closes, and when the test is over.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ..codec import Codec
from ..digests import digest
from ..engine import Engine
from ..errors import StepwellError, StoreError
from ..loading import read_tails
from ..registry import Registry
from ..store import Store
from ..wire import read_event
from ..workflows import Workflow
from .history_files import ENDING, HistoryFile, find_workflow, steady

__all__ = ["Recorder"]

_BEGIN = ("create", "open_incarnation", "append", "transact")
_MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=@-]+")
_LONGEST = 120  # characters of a name

_Key: TypeAlias = tuple[object, str, int]


class _Watched:
    """A store that engines of this process work with; held while a test that has written to it is under way."""

    def __init__(self, store: Store) -> None:
        self.store = weakref.ref(store)
        self.held: Store | None = None
        self.engines: list[tuple[Registry, Codec]] = []
        self.touched: dict[str, None] = {}  # run ids, in the order in which they were first written to
        for name in _BEGIN:
            if callable(method := getattr(store, name, None)):
                setattr(store, name, self._noting(store, method))

    def _noting(self, store: Store, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def noting(run_id: str, *args: Any, **options: Any) -> Any:
            self.held = store
            self.touched[run_id] = None
            return method(run_id, *args, **options)

        return noting

    def forget(self) -> None:
        """Begin anew, and hold the store no longer."""
        self.held = None
        self.touched.clear()


class _Seen(msgspec.Struct):
    """A history as it was read last."""

    records: list[bytes]
    engines: list[tuple[Registry, Codec]]
    went_on: str | None = None  # the arguments of the next one, after a ContinueAsNew


class Recorder:
    """Watches engines, and writes the histories of their runs, test by test.

    Args:
        folder: where the files go.

    Attributes:
        written: how many files are "new", "changed" and "same".
        skipped: (test, run, why) of histories that can't be replayed by themselves.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: Counter[str] = Counter()
        self.skipped: list[tuple[str, str, str]] = []
        self._plain: Any = None
        self._stores: dict[int, _Watched] = {}
        self._seen: dict[_Key, _Seen] = {}

    def install(self) -> None:
        """Watch every engine that is made from now on."""
        plain = self._plain = Engine.__init__
        recorder = self

        @functools.wraps(plain)
        def init(engine: Engine, *args: Any, **options: Any) -> None:
            plain(engine, *args, **options)
            recorder.watch(engine)

        setattr(Engine, "__init__", init)  # noqa: B010 - a type checker is right to object

    def uninstall(self) -> None:
        """Watch no more engines."""
        if self._plain is not None:
            setattr(Engine, "__init__", self._plain)  # noqa: B010 - as above
            self._plain = None

    def watch(self, engine: Engine) -> None:
        """Watch an engine's store."""
        parts = engine._parts
        known = self._stores.get(id(parts.store))
        if known is None or known.store() is not parts.store:
            known = self._stores[id(parts.store)] = _Watched(parts.store)
            setattr(parts.store, "close", self._closing(parts.store, parts.store.close))  # noqa: B010 - on this one only
        known.engines.append((parts.registry, parts.codec))

    def begin(self) -> None:
        """A test begins: what was written before is not its own."""
        self._seen.clear()
        for watched in self._stores.values():
            watched.forget()

    def look(self) -> None:
        """Read what was written so far."""
        for watched in list(self._stores.values()):
            for run_id in list(watched.touched):
                try:
                    self._read(watched, run_id)
                except (StepwellError, OSError):  # deleted, or its store was closed by somebody else
                    continue

    def write(self, test: str) -> None:
        """A test is over: write the histories that were read."""
        names = _names_of([run_id for _, run_id, _ in self._seen])
        taken: set[str] = set()
        for (place, run_id, number), seen in self._seen.items():
            seen.went_on = _went_on(self._seen.get((place, run_id, number + 1)))
            why = self._write(test, run_id, number, seen, names, taken)
            if why:
                self.skipped.append((test, names.get(run_id, run_id), why))
        self._seen.clear()

    def _closing(self, store: Store, close: Callable[[], None]) -> Callable[[], None]:
        def closing() -> None:
            if id(store) in self._stores:
                self.look()  # all of them: one may be a wrapper around another
                del self._stores[id(store)]
            close()

        return closing

    def _read(self, watched: _Watched, run_id: str) -> None:
        store = watched.store()
        head = None if store is None else store.head(run_id)
        if store is None or head is None:
            return
        place = getattr(store, "path", None) or id(store)
        for number in range(head.incarnation + 1):
            records = [line for tail in read_tails(store, run_id, incarnation=number) for line in tail.records]
            if records:
                before = self._seen.get((place, run_id, number))
                engines = watched.engines if before is None else [*before.engines, *watched.engines]
                self._seen[place, run_id, number] = _Seen(records, engines)

    def _write(
        self, test: str, run_id: str, number: int, seen: _Seen, names: dict[str, str], taken: set[str]
    ) -> str | None:
        """Write a history; why not, when it can't be replayed by itself."""
        found = _workflow_of(seen)
        if isinstance(found, str):
            return found
        workflow, codec = found
        try:
            file = _fitting(workflow, codec, seen, names, names.get(run_id, run_id), test)
        except StoreError as error:
            return error.message
        if isinstance(file, str):
            return file
        name = _file_name(test, file.run, number)
        again = 1
        while name in taken:  # the same id in several stores of one test
            if self._has(name, file):
                return None
            again += 1
            name = _file_name(test, f"{file.run}+{again}", number)
        taken.add(name)
        self.written[file.write(self.folder / name)] += 1
        return None

    def _has(self, name: str, file: HistoryFile) -> bool:
        return file.says_the_same(HistoryFile.read(self.folder / name))


def _workflow_of(seen: _Seen) -> tuple[Workflow[..., Any], Codec] | str:
    """The code of a history as another process will find it, or why it can't."""
    start: Any = read_event(seen.records[0])
    known = [one for one in seen.engines if one[0].knows(start.workflow, start.version)]
    if not known:
        return f"no engine of the test knows workflow {start.workflow!r}"
    registry, codec = known[-1]
    workflow = registry.find(start.workflow, start.version)
    module, qualname = workflow.fn.__module__, getattr(workflow.annotated, "__qualname__", "")
    if module == "__main__":
        return f"workflow {workflow.name!r} is made in the program itself, which no other process can import"
    try:
        importable = find_workflow(module, qualname, workflow.name, workflow.version)
    except StepwellError:
        importable = None
    if importable is None or importable != workflow:
        return f"workflow {workflow.name!r} has no name in {module}: make it at the module's top, not in a function"
    return workflow, codec


def _went_on(following: _Seen | None) -> str | None:
    """The arguments that a run went on with as new, as JSON; None when it did not, or was retried."""
    if following is None:
        return None
    start: Any = read_event(following.records[0])
    return bytes(start.input).decode() if start.epoch == start.incarnation else None


def _fitting(
    workflow: Workflow[..., Any], codec: Codec, seen: _Seen, names: dict[str, str], run: str, test: str
) -> HistoryFile | str:
    """The history as a file, without what is made up for every run where the workflow does not look at that."""
    misfit = None
    for lines in (steady(seen.records, names), steady(seen.records, {}), seen.records):
        file = HistoryFile.of(workflow, lines, run=run, test=test, codec=codec, next_input=seen.went_on)
        misfit = file.check(workflow, codec=codec)
        if misfit is None:
            return file
    return f"the code of the test itself does not fit it: {misfit.headline if misfit else ''}"


def _names_of(run_ids: list[str]) -> dict[str, str]:
    """What stands for the run ids that were made up: `run-1`, `run-2`, in order."""
    made_up: dict[str, str] = {}
    for run_id in run_ids:
        found = _MADE_UP.match(run_id)
        if found is not None and found[0] not in made_up:
            made_up[found[0]] = f"run-{len(made_up) + 1}"
    names = dict(made_up)
    for run_id in run_ids:
        for known, name in made_up.items():
            if run_id.startswith(known):
                names[run_id] = name + run_id[len(known) :]
    return names


def _file_name(test: str, run: str, number: int) -> str:
    """Where a history goes: a folder for the test's module, and a name of the test and the run."""
    module, _, name = test.partition("::")
    folder = "/".join(_safe(part) for part in module.removesuffix(".py").split("/") if part not in ("", ".", ".."))
    parts = [_safe(name.replace("::", ".") or "module"), _safe(run or "run")]
    if number:
        parts.append(f"i{number}")
    return f"{folder}/{'.'.join(parts)}{ENDING}"


def _safe(text: str) -> str:
    """The text as part of a file's name; what is lost of it is made up for by a digest."""
    plain = _UNSAFE.sub("-", text).strip("-.") or "x"
    if plain == text and len(plain) <= _LONGEST:
        return plain
    return f"{plain[:_LONGEST]}-{digest(text.encode('utf-8', 'surrogatepass'))[:8]}"


def told(recorder: Recorder) -> Iterator[str]:
    """What a recorder did, in lines."""
    counts = ", ".join(f"{recorder.written[kind]} {kind}" for kind in ("new", "changed", "same"))
    yield f"histories in {recorder.folder}: {counts}"
    for test, run, why in recorder.skipped:
        yield f"not recorded: {test}, run {run}: {why}"

"""`*.history.jsonl`: the history of one run as a file beside the tests, to be replayed against the code of every day.

The first line says whose history it is; the records follow as a store keeps them; the last lines have the arguments of
steps, of which a history itself has digests only:

    {"stepwell":"history","format":1,"workflow":"order","version":"1","module":"shop.flows","qualname":"order",...}
    {"v":1,"type":"start","session":1,"offset":0,...,"crc":"..."}
    {"v":1,"type":"step","session":1,"offset":1,...,"crc":"..."}
    {"stepwell":"inputs","at":"0","stepId":"reserve","inputs":["teapot"]}
    {"stepwell":"next","inputs":[2]}

The one with "next" is of a history that ended with ContinueAsNew: the input that the run went on with.

A file without the first line is one too: what `stepwell show RUN --raw` prints, or a journal of a `file:` store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
from msgspec import Raw

from .. import commands as c
from .. import events as e
from ..codec import Codec
from ..differences import diff
from ..errors import CorruptHistoryError, InvalidInputError, NotFoundError, StepwellError, VersionMismatchError
from ..histories import History
from ..inputs import inputs_digest
from ..logs import replaying
from ..machine import Machine
from ..registry import Registry
from ..store import Draft, envelope, seal
from ..wire import read_event, to_draft
from ..workflows import Workflow
from .digesting import encoded_inputs
from .fitting import check_history
from .misfits import Misfit
from .remedies import misfit_of

__all__ = ["ENDING", "HistoryFile", "find_workflow", "inputs_of", "steady"]

ENDING = ".history.jsonl"
"""How the names of such files end."""

FORMAT = 1
_LONGEST = 1 << 16  # bytes of the arguments of one step that are kept


class _Line(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A line that is no record."""

    stepwell: str
    format: int = 0
    workflow: str = ""
    version: str = ""
    module: str = ""
    qualname: str = ""
    run: str = ""
    incarnation: int = 0
    test: str = ""
    at: str = ""
    step_id: str = ""
    inputs: Raw | msgspec.UnsetType = msgspec.UNSET


_read_line = msgspec.json.Decoder(_Line).decode


class HistoryFile(msgspec.Struct, frozen=True):
    """The history of a run, and whose it is; `check()` replays it against the code at hand.

    Attributes:
        workflow, version: as the start event has them.
        records: the sealed records, as a store keeps them.
        module, qualname: where the workflow was found when the file was written; "" when nobody knows.
        run, incarnation: the run's id, and which of its histories this is.
        test: id of the test that made the run.
        inputs: arguments of steps as JSON, by `at`.
        next_input: the arguments as JSON that the run went on with as new; None when it did not.
        place: the file that it was read from.

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> engine = Engine("memory:", workflows=[hello])
        >>> outcome = engine.start(hello, "ada", run_id="h1")
        >>> file = HistoryFile.of(hello, engine.store.read("h1").records, run="h1")
        >>> file.write("hello.history.jsonl"), HistoryFile.read("hello.history.jsonl").check(hello)
        ('new', None)
    """

    workflow: str
    version: str
    records: tuple[bytes, ...]
    module: str = ""
    qualname: str = ""
    run: str = ""
    incarnation: int = 0
    test: str = ""
    inputs: dict[str, tuple[str, str]] = {}
    next_input: str | None = None
    place: str = ""

    @classmethod
    def of(
        cls,
        workflow: Workflow[..., Any],
        records: Iterable[bytes],
        *,
        run: str = "",
        test: str = "",
        codec: Codec | None = None,
        next_input: str | None = None,
    ) -> HistoryFile:
        """Make one of the records of a run, as `store.read` gives them.

        Args:
            workflow: its code, which has to fit: the arguments of steps are had from it.
            run: the run's id.
            test: id of the test that made it.
            codec: the engine's codec, when it is not the default one.
            next_input: of a history that ended with ContinueAsNew, the arguments as JSON that the next one began with.

        Raises:
            CorruptHistoryError: a record is damaged.
            InvalidInputError: the records are no history of this workflow.
        """
        lines = tuple(records)
        start = read_event(lines[0]) if lines else None
        if not isinstance(start, e.Start) or start.workflow != workflow.name:
            raise InvalidInputError(f"these records are no history of {workflow!r}")
        return cls(
            start.workflow,
            start.version,
            lines,
            workflow.fn.__module__,
            getattr(workflow.annotated, "__qualname__", ""),
            run,
            start.incarnation,
            test,
            inputs_of(workflow, [read_event(line) for line in lines], codec or Codec()),
            next_input,
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> HistoryFile:
        """Read a file.

        Raises:
            CorruptHistoryError: a line is no record, or damaged; the text names file and line.
            NewerFormatError: it was written by a newer stepwell.
            OSError: it can't be read.
        """
        place = os.fspath(path)
        header, records, inputs = _Line("history"), list[bytes](), dict[str, tuple[str, str]]()
        next_input: str | None = None
        for number, text in enumerate(Path(path).read_bytes().splitlines(), 1):
            line = text.strip()
            if line.startswith(b'{"stepwell":'):
                found = _line(line, f"{place}, line {number}")
                if found.stepwell == "history":
                    header = found
                elif found.stepwell == "inputs" and found.inputs is not msgspec.UNSET:
                    inputs[found.at] = found.step_id, bytes(found.inputs).decode()
                elif found.stepwell == "next" and found.inputs is not msgspec.UNSET:
                    next_input = bytes(found.inputs).decode()
            elif line:
                event = read_event(line, f"{place}, line {number}")
                if event.offset != len(records):
                    problem = f"{place}, line {number}: holds event {event.offset}, and event {len(records)} is missing"
                    raise CorruptHistoryError(f"{problem}; restore the file", place=place, seq=event.offset)
                records.append(line)
        start = read_event(records[0]) if records else None
        if not isinstance(start, e.Start):
            raise CorruptHistoryError(f"{place}: its history does not begin with a start event", place=place)
        return cls(
            start.workflow,
            start.version,
            tuple(records),
            header.module,
            header.qualname,
            header.run,
            start.incarnation,
            header.test,
            inputs,
            next_input,
            place,
        )

    def write(self, path: str | os.PathLike[str]) -> Literal["new", "changed", "same"]:
        """Write it, unless a file is there that differs in nothing that a workflow sees: then that one stays.

        So times, session numbers and made-up ids of a run that is made again change no file.

        Returns:
            What became of the file.
        """
        target = Path(path)
        there = target.exists()
        if there and (known := self._known(target)) is not None and self.says_the_same(known):
            return "same"
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        beside.write_bytes(b"".join(line + b"\n" for line in self._lines()))
        beside.replace(target)  # so that nobody sees half of it
        return "changed" if there else "new"

    @property
    def events(self) -> History:
        """The events, the start first."""
        return History([read_event(line, self.place) for line in self.records], run_id=self.run)

    def find(self, app: Registry | None = None) -> Workflow[..., Any]:
        """The workflow that it is a history of, in the code at hand.

        Args:
            app: the workflows of an engine, which are looked at before the module that the file names.

        Raises:
            NotFoundError: it is nowhere to be found; the text says what to do.
            VersionMismatchError: it is there in other versions only.
        """
        if app is not None and app.versions(self.workflow):
            return app.find(self.workflow, self.version)
        if not self.module:
            raise NotFoundError(
                f"{self.place}: it does not say where workflow {self.workflow!r} is; name an engine that knows it: "
                "stepwell_app = module:engine in pytest's settings, or --stepwell-app"
            )
        return find_workflow(self.module, self.qualname, self.workflow, self.version)

    def check(
        self, workflow: Workflow[..., Any] | None = None, *, app: Registry | None = None, codec: Codec | None = None
    ) -> Misfit | None:
        """Replay it against the code at hand; nothing is performed.

        Args:
            workflow: the code; looked for as `find` does when None.
            app: the workflows of an engine.
            codec: the engine's codec, when it is not the default one.

        Returns:
            None when it fits, else what is wrong and what mends it.
        """
        try:
            code = self.find(app) if workflow is None else workflow
        except (NotFoundError, VersionMismatchError) as error:
            kind: Any = "version" if isinstance(error, VersionMismatchError) else "workflow"
            known = {"workflow": self.workflow, "version": self.version, "incarnation": self.incarnation}
            found = misfit_of(error, kind, self.run, known.__getitem__)
            return found if kind == "version" or app is not None else msgspec.structs.replace(found, remedies=())
        inputs = {at: value for at, (_, value) in self.inputs.items()}
        return check_history(code, self.events, run_id=self.run, codec=codec, inputs=inputs, next_input=self.next_input)

    def _lines(self) -> Iterator[bytes]:
        header = _Line(
            "history",
            FORMAT,
            self.workflow,
            self.version,
            self.module,
            self.qualname,
            self.run,
            self.incarnation,
            self.test,
        )
        yield msgspec.json.encode(header)
        yield from self.records
        for at, (step_id, value) in self.inputs.items():
            yield msgspec.json.encode(_Line("inputs", at=at, step_id=step_id, inputs=Raw(value.encode())))
        if self.next_input is not None:
            yield msgspec.json.encode(_Line("next", inputs=Raw(self.next_input.encode())))

    def _known(self, path: Path) -> HistoryFile | None:
        try:
            return HistoryFile.read(path)
        except StepwellError:
            return None

    def says_the_same(self, other: HistoryFile) -> bool:
        """Whether another file says the same but for times, session numbers and ids that are made up."""
        own = (self.module, self.qualname, self.run, self.test, self.inputs, self.next_input)
        if own != (other.module, other.qualname, other.run, other.test, other.inputs, other.next_input):
            return False
        return diff(self.events, other.events).same


def _line(line: bytes, place: str) -> _Line:
    try:
        found = _read_line(line)
    except msgspec.DecodeError as error:
        raise CorruptHistoryError(f"{place}: no line of a history file: {error}", place=place) from error
    if found.format > FORMAT:
        raise CorruptHistoryError(f"{place}: written by a newer stepwell (format {found.format}); upgrade", place=place)
    return found


# ---- the code


def find_workflow(module: str, qualname: str, name: str, version: str) -> Workflow[..., Any]:
    """The workflow of a name and version in a module; the one of that qualified name, when there are several.

    Raises:
        NotFoundError: there is no such module, or no workflow of that name in it; or importing it failed.
        VersionMismatchError: the module has other versions of it only.
    """
    space = _module(module, name)
    found: Any = space
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Workflow) and (found.name, found.version) == (name, version):
        return found
    known = [one for one in vars(space).values() if isinstance(one, Workflow) and one.name == name]
    for one in known:
        if one.version == version:
            return one
    if known:
        has = ", ".join(sorted({one.version for one in known}))
        raise VersionMismatchError(
            f"workflow {name!r}: the history is of version {version!r}, and module {module!r} has {has}; keep the old "
            "version until its runs are closed"
        )
    raise NotFoundError(
        f"module {module!r} has no workflow {name!r}; where it has moved, change the file's first line, or name an "
        "engine that knows it: stepwell_app = module:engine"
    )


def _module(module: str, name: str) -> ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:
        raise NotFoundError(
            f"module {module!r}, where workflow {name!r} was, can't be imported: {type(error).__name__}: {error}; put "
            "it on Python's path (pytest's pythonpath), or name an engine that knows it: stepwell_app = module:engine"
        ) from error


def inputs_of(workflow: Workflow[..., Any], events: Sequence[e.EventBase], codec: Codec) -> dict[str, tuple[str, str]]:
    """The arguments that recorded steps were called with, by `at`: step id, and JSON. Those that fit the digest."""
    start, *rest = events
    assert isinstance(start, e.Start)
    wanted = {event.at: event for event in rest if isinstance(event, e.Step) and event.inputs is not None}
    found: dict[str, tuple[str, str]] = {}
    trace: list[tuple[str, c.Command[Any]]] = []

    def look() -> None:
        for at, command in trace:
            event = wanted.get(at)
            if event is not None and isinstance(command, c.Step) and inputs_digest(codec, command) == event.inputs:
                encoded = encoded_inputs(codec, command)
                if encoded is not None and len(encoded) <= _LONGEST:
                    found[at] = event.step_id, encoded
        trace.clear()

    machine = None
    with replaying(), suppress(StepwellError):
        machine = Machine(workflow, start, codec=codec, trace=trace)
        for event in rest:
            look()
            machine.feed(event)
        look()
    if machine is not None:
        machine.close()
    return {at: found[at] for at in wanted if at in found}


# ---- what is the same each time


def steady(records: Sequence[bytes], names: dict[str, str]) -> list[bytes]:
    """Records without what is made anew for every run: ids of attempts and signals that nobody chose, and of runs.

    Args:
        names: what stands for which run id.
    """
    ids: dict[str, str] = {}
    lines = []
    for line in records:
        seen = envelope(line)
        event = read_event(line)
        other = _steady(event, names, ids)
        draft = Draft(seen.type, seen.body) if other is event else to_draft(other)
        lines += seal([draft], session=seen.session, offset=seen.offset, then=seen.then, left=seen.left)
    return lines


def _steady(event: e.EventBase, names: dict[str, str], ids: dict[str, str]) -> e.EventBase:
    changes: dict[str, Any] = {}
    if isinstance(event, e.Resume) and _is_token(event.id):
        changes["id"] = ids.setdefault(event.id, f"{len(ids) + 1:032x}")
    elif isinstance(event, (e.Child, e.ChildResult)):
        changes["child_id"] = _named(event.child_id, names)
    elif isinstance(event, e.Start):
        changes["seen"] = [ids.setdefault(one, f"{len(ids) + 1:032x}") if _is_token(one) else one for one in event.seen]
        for key in ("parent", "source"):
            told = getattr(event, key)
            if told and "runId" in told:
                changes[key] = {**told, "runId": _named(told["runId"], names)}
    if all(getattr(event, key) == value for key, value in changes.items()):
        return event
    return msgspec.structs.replace(event, **changes)


def _is_token(text: str) -> bool:
    return len(text) == 32 and all(char in "0123456789abcdef" for char in text)


def _named(run_id: str, names: dict[str, str]) -> str:
    """A run id, or what stands for it; a child's begins with its parent's."""
    for known, name in names.items():
        if run_id == known or run_id.startswith(f"{known}/"):
            return name + run_id[len(known) :]
    return run_id

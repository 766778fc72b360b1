"""Which of `Patched`, a new version and a fork mends a misfit, and how: read from the history and the code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isfunction, isgeneratorfunction
from types import CellType, CodeType
from typing import Any

from .. import events as e
from ..errors import StepwellError
from ..workflows import Workflow
from .misfits import Misfit, MisfitKind, Remedy

__all__ = ["Place", "misfit_of", "remedies_for"]

_NAMED = 3
_DONE = (e.Step, e.ChildResult, e.Emit)


class Place:
    """Where code and history part.

    Args:
        workflow: the code.
        seq: of the first event that does not fit.
        rest: the recorded events from there on.
        yielded: kind and name of what the workflow asks for there; None when it has ended.
        subject: what the event is about, in words.
        open_run: whether the history is not closed.
        cancelled: whether a cancel is recorded before.
    """

    def __init__(
        self,
        workflow: Workflow[..., object],
        seq: int,
        rest: Sequence[e.EventBase],
        yielded: tuple[str, str] | None,
        subject: str,
        *,
        open_run: bool,
        cancelled: bool,
    ) -> None:
        self.workflow = workflow
        self.seq = seq
        self.rest = rest
        self.yielded = yielded
        self.subject = subject
        self.open_run = open_run
        self.cancelled = cancelled

    @property
    def asked_later(self) -> bool:
        """Whether what the workflow asks for now is recorded further on: the code has left something out."""
        return self.yielded is not None and any(_asked(event) == self.yielded for event in self.rest)

    @property
    def is_rewrite(self) -> bool:
        """Whether the code speaks of none of the steps and signals that are recorded from here on."""
        names = {name for event in self.rest if (asked := _asked(event)) and (name := asked[1])}
        return (len(names) > 1 or (bool(names) and self.seq == 1)) and not names & _words_of(self.workflow)


def remedies_for(kind: MisfitKind, place: Place | None) -> tuple[Remedy, ...]:
    """What mends a misfit, the best first.

    Args:
        place: where they part; None when the code was not asked at all.
    """
    if place is None:
        return _BY_KIND.get(kind, ())
    if kind == "command":
        return _kept(_patch_command(place), _version(place), _fork(place), first=place.is_rewrite)
    if kind == "tail":
        how = (
            f"the code ends before {place.subject}; let old runs go on to it, with the early end behind "
            '`if (yield from Patched("...")):`'
        )
        return _kept(Remedy("Patched", how), _version(place), _fork(place), first=place.is_rewrite)
    if kind == "end":
        how = 'put what comes after the recorded end behind `if (yield from Patched("...")):`'
        return (Remedy("Patched", how), _version(place), _RECORD)
    if kind == "inputs":
        how = f'call {place.subject} with the old arguments where `Patched("...")` is False'
        switch = Remedy(
            "strict_inputs", "where the recorded result holds for the new inputs too: @workflow(strict_inputs=False)"
        )
        return tuple(one for one in (Remedy("Patched", how), _version(place), _fork(place), switch) if one)
    if kind == "value":
        how = f"let the type of {place.subject} read what was recorded: give a new field a default, keep an old one"
        return tuple(one for one in (Remedy("types", how), _version(place), _fork(place)) if one)
    if kind == "result":
        old = Remedy(
            "Patched", 'keep the old outcome for old runs, the new one behind `if (yield from Patched("...")):`'
        )
        return (_RECORD, old)
    return _BY_KIND.get(kind, ())


_RECORD = Remedy(
    "record", "if that is meant and no open run is like this one, write the file anew: pytest --stepwell-record"
)
_BY_KIND: dict[str, tuple[Remedy, ...]] = {
    "input": (
        Remedy("types", "let the parameters read the recorded arguments: give a new one a default, keep an old one"),
        Remedy("version", "give the new code another @workflow(version=...), and keep the old one in workflows=[...]"),
    ),
    "version": (
        Remedy("version", "keep the workflow of that version in workflows=[...] until its runs are closed"),
        Remedy("fork", "or close the run and start its work anew, under the version that is here"),
    ),
    "workflow": (Remedy("workflows", "add the workflow to workflows=[...] of the engine that the app names"),),
    "yield": (Remedy("code", "mend the code: it yields what is no command"),),
    "damaged": (Remedy("backup", "the history can't be read; run `stepwell verify`, and restore it from a backup"),),
}


def _kept(patch: Remedy, version: Remedy, fork: Remedy | None, *, first: bool) -> tuple[Remedy, ...]:
    """The three in order; a new version first where little is left of the old code."""
    pair = (version, patch) if first else (patch, version)
    return pair if fork is None else (*pair, fork)


def _patch_command(place: Place) -> Remedy:
    kind, name = place.yielded or ("", "")
    asked = f"{kind} {name!r}" if name else kind or "the new commands"
    if place.asked_later:
        how = f'the code leaves {place.subject} out; keep it for old runs, behind `if not (yield from Patched("...")):`'
    else:
        how = (
            f'put {asked}, which this history has not, behind `if (yield from Patched("...")):`; where it takes the '
            f"place of {place.subject}, keep that in the else branch"
        )
    return Remedy("Patched", how)


def _version(place: Place) -> Remedy:
    name, version = place.workflow.name, place.workflow.version
    how = (
        f"give the new code another version than {version!r}, @workflow(name={name!r}, version=...), and keep the old "
        "code in workflows=[...] until its runs are closed"
    )
    return Remedy("version", how)


def _fork(place: Place) -> Remedy | None:
    """A fork from before the event; None where an engine would refuse one."""
    if place.seq < 1 or place.cancelled:
        return None
    done = [_name(event) for event in place.rest if isinstance(event, _DONE)]
    repeats = "nothing that is recorded is done again"
    if done:
        more = f" and {len(done) - _NAMED} more" if len(done) > _NAMED else ""
        repeats = f"what is recorded after it is done again: {', '.join(done[:_NAMED])}{more}"
    stays = "; cancel the old run" if place.open_run else ""
    return Remedy("fork", f"begin another run from there, engine.fork(run_id, before={place.seq}): {repeats}{stays}")


def _name(event: e.EventBase) -> str:
    if isinstance(event, e.Step):
        return f"step {event.step_id!r}"
    return f"child {event.child_id!r}" if isinstance(event, e.ChildResult) else event.kind


def _asked(event: e.EventBase) -> tuple[str, str] | None:
    """Kind and name of the command that an event answers, as `describe` has them."""
    if isinstance(event, e.Step):
        return "step", event.name
    if isinstance(event, (e.Begin, e.Attempt, e.Chunk, e.Heartbeat)):
        return "step", event.step_id.partition("#")[0]
    if isinstance(event, e.Suspend):
        return "suspend", event.waiting_for
    if isinstance(event, e.Child):
        return "child", event.workflow
    if isinstance(event, (e.Sleep, e.Now, e.Random, e.Uuid)):
        return event.kind, ""
    if isinstance(event, e.Emit):
        return "emit", event.topic or ""
    return None


def _words_of(workflow: Workflow[..., object]) -> set[str]:
    """Every name and text in the code of a workflow and of the helpers that it calls, and what those names stand for.

    A step is recorded by the name of its function, or a text of `options`; a signal and a child by what they are named.
    """
    found: set[str] = {getattr(getattr(workflow, "called", None), "__name__", "")}
    ahead: list[object] = [workflow.fn]
    seen: set[int] = set()
    while ahead:
        one = ahead.pop()
        if not isfunction(one) or id(one) in seen:
            continue
        seen.add(id(one))
        own: set[str] = set()
        _collect(one.__code__, own)
        cells = zip(one.__code__.co_freevars, one.__closure__ or (), strict=False)
        known = {**one.__globals__, **{name: _content(cell) for name, cell in cells}}
        for value in [known[name] for name in own if name in known]:
            texts = (getattr(value, name, None) for name in ("name", "__name__"))
            own.update(text for text in texts if isinstance(text, str))
            inner = getattr(value, "fn", value)
            if isgeneratorfunction(inner):
                ahead.append(inner)
        found |= own
    return found


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _collect(code: CodeType, found: set[str]) -> None:
    found.update(code.co_names)
    found.update(code.co_freevars)
    for const in code.co_consts:
        if isinstance(const, str):
            found.add(const)
        elif isinstance(const, CodeType):
            _collect(const, found)


def misfit_of(error: StepwellError, kind: MisfitKind, run_id: str, start: Callable[[str], Any]) -> Misfit:
    """A misfit for code that could not be asked at all: an unknown workflow or version, a damaged history.

    Args:
        start: gives what is known of the run: `workflow`, `version`, `incarnation`.
    """
    return Misfit(
        kind,
        error.code,
        " ".join(error.message.split()),
        run_id,
        start("incarnation"),
        start("workflow"),
        start("version"),
        remedies=remedies_for(kind, None),
    )

"""Divergence in words: where, what is recorded, what the workflow asks for now, and what to do. Floor 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from . import events as e
from .errors import CodecError, DivergenceError
from .fibers import Pending, describe
from .workflows import Workflow

__all__ = ["divergence", "unfit"]


class Folded(Protocol):
    """What is asked of the machine."""

    @property
    def run_id(self) -> str: ...
    @property
    def workflow(self) -> Workflow[..., Any]: ...
    @property
    def status(self) -> str: ...
    @property
    def pending(self) -> Mapping[str, Pending]: ...


def divergence(machine: Folded, event: e.EventBase, seq: int, why: str = "") -> DivergenceError:
    """The error for an event that answers nothing which the workflow has asked for."""
    name = next((v for k in ("name", "waiting_for") if (v := getattr(event, k, None))), "")
    recorded = f"{event.kind} {name!r}" if name else event.kind
    pending = machine.pending.get(event.at) if event.at is not None else None
    if pending is not None:
        yielded = f"{describe(pending.command)} there"
    elif machine.status != "open":
        yielded = f"nothing more: the workflow has ended ({machine.status})"
    else:
        frontier = ", ".join(f"{describe(p.command)} at {p.at}" for p in machine.pending.values())
        yielded = f"nothing there; it waits for: {frontier or 'nothing'}"
    at = f" at {event.at}" if event.at is not None else ""
    return DivergenceError(
        f"run {machine.run_id!r} diverges at event {seq}{at}: recorded is {recorded}, the workflow "
        f"{machine.workflow.name!r} yielded {yielded}{'; ' + why if why else ''}. The code has changed since, or it "
        "reads something that no command gave it. Guard the change with Patched, give the workflow a new version, or "
        "fork the run from before this event.",
        run_id=machine.run_id,
        seq=seq,
        at=event.at or "",
        recorded=recorded,
        yielded=yielded,
    )


def unfit(run_id: str, seq: int, step_id: str, error: CodecError) -> CodecError:
    """The error for a recorded result that does not fit the type of the code at hand."""
    return CodecError(
        f"run {run_id!r}, event {seq}: the recorded result of step {step_id!r} does not fit the type that the code "
        f"asks for now: {error.message}",
        path=error.path,
    )

"""What a workflow asks for when it is given a history, told so that two processes can compare it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .. import commands as c
from .. import events as e
from ..codec import Codec
from ..errors import CodecError
from ..fibers import describe
from ..machine import Machine
from ..workflows import Workflow
from .wording import place_of

__all__ = ["Told", "fold_and_tell", "tell"]

Told = list[list[list[str]]]
"""For each event, what the workflow came to: a list of [what it is, where, what it holds, the line]; all text."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def fold_and_tell(workflow: Workflow[..., Any], events: Iterable[e.EventBase], codec: Codec) -> Told:
    """Feed a history to a workflow from the start, and tell what it came to after each event.

    What it raises, and a divergence, is told too: it is the last entry then.
    """
    told: Told = []
    trace: list[tuple[str, c.Command[Any]]] = []
    machine: Machine | None = None
    try:
        for event in events:
            if machine is None:
                assert isinstance(event, e.Start)
                machine = Machine(workflow, event, codec=codec, run_id="replay", trace=trace)
            else:
                machine.feed(event)
            told.append(tell(machine, trace))
            trace.clear()
    except Exception as error:  # noqa: BLE001 - to be compared
        text = _ADDRESS.sub("0x...", f"{type(error).__name__}: {error}")
        told.append([*([] if machine is None else tell(machine, trace)), ["an error", "", text, ""]])
    finally:
        if machine is not None:
            machine.close()
    return told


def tell(machine: Machine, trace: Iterable[tuple[str, c.Command[Any]]]) -> list[list[str]]:
    """What the turn that has just ended came to: the commands that were issued, and the state that is left."""
    codec = machine.codec
    lines = {at: place_of(pending) for at, pending in machine.pending.items()}
    found = [[describe(command), at, _held(codec, command), lines.get(at, "")] for at, command in trace]
    if machine.asking is not None:
        found.append([f"Patched({machine.asking!r})", "", "", ""])
    if machine.state:
        found.append(["state", "", "{" + ", ".join(f"{k}: {v.decode()}" for k, v in machine.state.items()) + "}", ""])
    if machine.status == "complete":
        found.append(["return", "", machine.result_raw.decode(), ""])
    elif machine.status == "continue":
        found.append(["continue as new", "", bytes(machine.next_input or b"").decode(), ""])
    elif machine.status != "open":
        error = machine.error
        text = "" if error is None else _ADDRESS.sub("0x...", f"{type(error).__name__}: {error}")
        found.append([f"end ({machine.status})", "", text, ""])
    return found


def _held(codec: Codec, command: c.Command[Any]) -> str:
    """The arguments of a command; what does not encode is told by its class alone."""
    parts: list[str] = []
    if isinstance(command, c.Step):
        parts += [_value(codec, one) for one in command.args]
        parts += [f"{name}={_value(codec, command.kwargs[name])}" for name in sorted(command.kwargs)]
    elif isinstance(command, c.Child):
        parts += [_value(codec, one) for one in command.args]
        parts += [f"run_id={command.run_id}"] if command.run_id else []
    elif isinstance(command, c.Suspend):
        parts += [f"timeout={command.timeout:g}"] if command.timeout is not None else []
        parts += [f"reason={command.reason}"] if command.reason is not None else []
        parts += [f"show={_value(codec, command.show)}"] if command.show is not c.UNSET else []
    elif isinstance(command, c.Sleep):
        parts.append(f"{command.seconds:g} s" if command.seconds is not None else f"until {command.until}")
    elif isinstance(command, c.Emit):
        parts.append(_value(codec, command.value))
    elif isinstance(command, c.Spend):
        parts.append(f"{command.amount:g}")
    elif isinstance(command, (c.All, c.Race)):
        parts.append(f"{len(command.branches)} branches")
        parts += list(getattr(command, "names", None) or ())
    return ", ".join(parts)


def _value(codec: Codec, value: Any) -> str:
    for into in (c.UNSET, type(value)):
        try:
            return codec.encode(value, into).decode()
        except CodecError:
            continue
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(codec, one) for one in value)}]"
    return f"a {type(value).__name__}"

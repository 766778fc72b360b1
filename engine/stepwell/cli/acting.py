"""Verbs that move runs: start, resume, signal, pause, unpause, cancel, retry, fork, delete."""

from __future__ import annotations

import argparse
from typing import Any

from ..engine import Engine
from ..outcomes import Outcome, RunCancelled, RunFailed, Running, RunSuspended
from .describing import next_step, record_json, story
from .mistakes import ENDED_BADLY, OK, UsageError
from .opening import codec_of, open_engine, registry_of
from .terminal import Terminal, safe
from .values import arguments, metadata, plain_value, tags

__all__ = ["cancel", "delete", "fork", "pause", "resume", "retry", "signal", "start", "unpause"]


def start(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell start WORKFLOW [JSON ...]`: run a workflow here until it is closed or parked."""
    labels = tags(options.tag)
    with open_engine(options, needs_code=True, may_create=True) as engine:
        workflow = registry_of(engine).named(options.workflow)
        args = arguments(codec_of(engine), workflow, options.args)
        outcome = engine.start(
            workflow,
            *args,
            run_id=options.run_id,
            tags=labels,
            budget=options.budget,
            if_open=options.if_open,
            if_closed=options.if_closed,
        )
        return _tell(options, terminal, engine, outcome)


def resume(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell resume RUN SIGNAL [JSON]`: give the signal that the run waits for, and drive it on here."""
    known = metadata(options.meta)
    with open_engine(options, needs_code=True) as engine:
        value = plain_value(codec_of(engine), options.value)
        outcome = engine.resume(
            options.run, options.signal, value, wait=options.wait, id=options.id, actor=options.actor, metadata=known
        )
        return _tell(options, terminal, engine, outcome)


def signal(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell signal RUN SIGNAL [JSON]`: record a signal; nobody is driven here."""
    starts = options.start is not None
    if not starts and (options.arg or options.tag or options.if_closed != "error"):
        raise UsageError("--arg, --tag and --if-closed are for a signal that may start its run; add --start WORKFLOW")
    known = metadata(options.meta)
    with open_engine(options, needs_code=starts, may_create=starts) as engine:
        value = plain_value(codec_of(engine), options.value)
        if options.start is not None:
            workflow = registry_of(engine).named(options.start)
            engine.signal(
                options.run,
                options.signal,
                value,
                wait=options.wait,
                id=options.id,
                actor=options.actor,
                metadata=known,
                start=(workflow, *arguments(codec_of(engine), workflow, options.arg)),
                tags=tags(options.tag),
                if_closed=options.if_closed,
            )
        else:
            how = {"wait": options.wait, "id": options.id, "actor": options.actor, "metadata": known}
            engine.signal(options.run, options.signal, value, **how)
        return _sent(options, terminal, engine, f"signal {options.signal!r} is recorded")


def pause(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell pause RUN`: stop it at its next yield."""
    with open_engine(options) as engine:
        outcome = engine.pause(options.run, options.reason)
        return _controlled(options, terminal, engine, outcome, "pause")


def unpause(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell unpause RUN`: let it go on."""
    with open_engine(options) as engine:
        outcome = engine.unpause(options.run)
        return _controlled(options, terminal, engine, outcome, "unpause")


def cancel(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell cancel RUN`: with `--app`, clean-up is performed here."""
    with open_engine(options) as engine:
        outcome = engine.cancel(options.run, options.reason, force=options.force)
        return _controlled(options, terminal, engine, outcome, "cancel")


def retry(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell retry RUN`: go on with a failed run from what failed."""
    with open_engine(options, needs_code=True) as engine:
        return _tell(options, terminal, engine, engine.retry(options.run))


def fork(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell fork RUN --before STEP`, or `--replace STEP --value JSON`: another run with this one's history."""
    if (options.replace is None) != (options.value is None):
        raise UsageError("--replace STEP and --value JSON go together: which step, and what it is to have given")
    if options.replace is None and options.before is None:
        raise UsageError("fork needs to know where: --before STEP|SEQ, or --replace STEP --value JSON")
    where: dict[str, Any] = {"new_run_id": options.run_id}
    if options.before is not None:
        where["before"] = int(options.before) if options.before.isdecimal() else options.before
    with open_engine(options, needs_code=True) as engine:
        if options.replace is not None:
            where["replace"] = (options.replace, plain_value(codec_of(engine), options.value))
        return _tell(options, terminal, engine, engine.fork(options.run, **where))


def delete(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell delete RUN --yes`: remove a closed run."""
    if not options.yes:
        raise UsageError("delete removes the run's whole history for good; say --yes if you mean it")
    with open_engine(options) as engine:
        engine.delete(options.run)
    if options.json:
        terminal.json({"runId": options.run, "deleted": True})
    else:
        terminal.line(f"{options.run} is deleted")
    return OK


def _tell(options: argparse.Namespace, terminal: Terminal, engine: Engine, outcome: Outcome[Any]) -> int:
    """Show how a call left the run."""
    record = engine.get(outcome.run_id)
    if options.json:
        terminal.json(record_json(record))
    else:
        reason = outcome.reason if isinstance(outcome, RunSuspended) else None
        text = f"{terminal.styled(record.id, 'bold')}  {terminal.status(record.status)}"
        said = story(record, reason)
        terminal.write(f"{text}  {safe(said)}" if said else text)
        if record.status == "completed" and record.result is not None:
            _show_result(terminal, record.result)
        if hint := next_step(record):
            terminal.line(f"  next: {hint}", "dim")
    return ENDED_BADLY if isinstance(outcome, (RunFailed, RunCancelled)) else OK


def _show_result(terminal: Terminal, result: Any) -> None:
    """Text line by line, as it was meant to be read; anything else as JSON."""
    if not isinstance(result, str):
        terminal.json(result)
        return
    for line in result.splitlines():
        terminal.line(f"  {line}")


def _controlled(
    options: argparse.Namespace, terminal: Terminal, engine: Engine, outcome: Outcome[Any], verb: str
) -> int:
    """Show what came of pause, unpause or cancel: that is what was asked for, so a cancelled run is no failure."""
    if isinstance(outcome, Running):
        return _sent(options, terminal, engine, f"{verb} is recorded; whoever drives the run next carries it out")
    code = _tell(options, terminal, engine, outcome)
    return OK if isinstance(outcome, RunCancelled) and verb == "cancel" else code


def _sent(options: argparse.Namespace, terminal: Terminal, engine: Engine, text: str) -> int:
    if options.json:
        terminal.json(record_json(engine.get(options.run)))
    else:
        terminal.write(f"{terminal.styled(options.run, 'bold')}  {safe(text)}")
    return OK

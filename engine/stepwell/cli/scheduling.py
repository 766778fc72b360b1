"""`stepwell schedule`: list, next, ensure, trigger, pause, unpause."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..engine import Engine
from ..errors import NotFoundError
from . import acting
from .describing import instant_json, record_json
from .mistakes import OK
from .opening import open_engine, parts_of
from .terminal import Terminal, safe

__all__ = ["ensure_all", "schedule"]


def schedule(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell schedule ACTION`."""
    actions: dict[str, Callable[[argparse.Namespace, Terminal], int]] = {
        "list": _list,
        "next": _next,
        "ensure": _ensure,
        "trigger": _trigger,
        "pause": _pause,
        "unpause": _pause,
    }
    return actions[options.action](options, terminal)


def ensure_all(engine: Engine) -> Mapping[str, str]:
    """Ensure the schedules that an app has; how, by name."""
    from ..schedules import ensure

    return ensure(engine)


def _list(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..schedules import records

    with open_engine(options, needs_code=True) as engine:
        found = records(engine)
    if options.json:
        terminal.json([_json(one) for one in found])
    elif not found:
        terminal.line("no schedules: give them to the engine as workflows")
    else:
        rows = [
            (
                one.schedule.name,
                one.schedule.workflow.name,
                str(one.schedule.plan),
                "not started" if one.run is None else "blocked" if one.run.blocked else one.run.status,
                _local(one.next),
                "" if one.last is None else f"{one.last.id} {one.last.status}",
            )
            for one in found
        ]
        terminal.table(("schedule", "workflow", "when", "status", "next", "newest run"), rows)
    return OK


def _json(record: Any) -> dict[str, Any]:
    one = record.schedule
    found: dict[str, Any] = {
        "name": one.name,
        "workflow": one.workflow.name,
        "cron": one.plan.cron,
        "every": one.plan.every,
        "tz": one.plan.tz,
        "missed": one.plan.missed,
        "overlap": one.plan.overlap,
        "next": instant_json(record.next),
        "run": None if record.run is None else record_json(record.run),
        "last": None if record.last is None else record_json(record.last),
    }
    return {name: value for name, value in found.items() if value is not None}


def _local(slot: datetime | None) -> str:
    return "" if slot is None else slot.isoformat(sep=" ")


def _next(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..schedules import upcoming

    with open_engine(options, needs_code=True, may_create=True) as engine:
        one = _named(engine, options.name)
        slots = upcoming(one, options.after or parts_of(engine).now(), options.n)
    if options.json:
        terminal.json(
            [{"slot": instant_json(slot), "local": slot.isoformat(), "runId": one.slot_id(slot)} for slot in slots]
        )
    else:
        terminal.table(("slot", "run"), [(f"{slot:%a} {_local(slot)}", one.slot_id(slot)) for slot in slots])
    return OK


def _ensure(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..schedules import ensure

    with open_engine(options, needs_code=True, may_create=True) as engine:
        if options.names:
            done = ensure(engine, [_named(engine, name) for name in dict.fromkeys(options.names)], revive=True)
        else:
            done = ensure(engine)
    if options.json:
        terminal.json(done)
    else:
        for name, how in done.items():
            terminal.write(f"{terminal.styled(name, 'bold')}  {how}")
        if not done:
            terminal.line("no schedules: give them to the engine as workflows")
    return OK


def _trigger(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..schedules import trigger

    with open_engine(options, needs_code=True, may_create=True) as engine:
        outcome = trigger(engine, _named(engine, options.name), options.slot)
        record = engine.get(outcome.run_id)
    if options.json:
        terminal.json(record_json(record))
    else:
        terminal.write(f"{terminal.styled(record.id, 'bold')}  {terminal.status(record.status)}")
    return OK


def _pause(options: argparse.Namespace, terminal: Terminal) -> int:
    from ..schedules import PREFIX

    options.run = f"{PREFIX}{options.name}"
    act = acting.pause if options.action == "pause" else acting.unpause
    try:
        return act(options, terminal)
    except NotFoundError as error:
        raise NotFoundError(
            f"schedule {options.name!r} is not started in this store: see `stepwell schedule list` and `ensure`"
        ) from error


def _named(engine: Engine, name: str) -> Any:
    """The schedule of that name."""
    from ..schedules import schedules_of

    known = {one.name: one for one in schedules_of(engine)}
    if name not in known:
        has = ", ".join(map(repr, known)) or "none"
        raise NotFoundError(f"the app has no schedule {safe(name)!r}; it has: {has}")
    return known[name]

"""From declared schedules to runs in a store: `ensure`, `trigger` and what there is to see."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from attrs import frozen

from .. import events as e
from ..engine import Engine
from ..errors import ConflictError, InvalidInputError, NotFoundError, RunClosedError, StoreUnavailableError
from ..outcomes import Outcome, RunRecord
from .plan import Plan
from .schedule import CHANGED, TAG, Schedule, upcoming

__all__ = ["Ensured", "ScheduleRecord", "ensure", "records", "schedules_of", "trigger"]

Ensured = Literal["started", "unchanged", "changed", "restarted", "cancelled"]

_TRIES = 20
_SLACK = timedelta(minutes=1)
"""How much later than its next slot a schedule may be due, and is left alone."""


@frozen
class ScheduleRecord:
    """What there is to see of a schedule.

    Attributes:
        schedule: as the code has it.
        run: its own run; None before `ensure`.
        last: the newest run that it, or `trigger`, has started, without payloads; None when there is none.
        next: when its next slot is, in its time zone; None while its run is not there, paused or closed.
    """

    schedule: Schedule
    run: RunRecord | None
    last: RunRecord | None
    next: datetime | None


def schedules_of(engine: Engine) -> list[Schedule]:
    """The schedules that an engine knows, by name."""
    known = engine._parts.registry.all()
    return sorted((one for one in known if isinstance(one, Schedule)), key=lambda one: one.name)


def ensure(engine: Engine, schedules: Iterable[Schedule] | None = None, *, revive: bool = False) -> dict[str, Ensured]:
    """See that each schedule has its run, with the plan that the code has now. To be called when a process starts.

    Harmless however often it is called, and by however many at once; nothing is driven here. A run that is there goes
    on from where it was: slots that came up to now are started or skipped as its old plan says, later ones go by the
    new one. While it is paused it stays so. When two releases of a program differ, the plan of who called last holds.

    Args:
        engine: where; the schedules become known to it, as do their workflows.
        schedules: which; those that the engine knows when None.
        revive: begin those anew, from now on, whose run was cancelled. Else what a person has ended stays ended.

    Returns:
        By name. "started"; "unchanged"; "changed": it gets another plan, or looks at the clock anew, since it was due
        later than it should be; "restarted": its run had failed, or was cancelled with `revive`; "cancelled": it is,
        and stays so.

    Raises:
        ConflictError: another run has the schedule's run id.
        InvalidInputError: something is no schedule, or two have one name.
        StoreError: the store failed.
    """
    if not isinstance(engine, Engine):
        raise InvalidInputError(f"ensure takes an Engine, got {engine!r}")
    wanted = schedules_of(engine) if schedules is None else list(schedules)
    for one in wanted:
        _check(one)
        engine._parts.registry.add(one)
        engine._parts.registry.add(one.workflow)
    return {one.name: _ensured(engine, one, revive) for one in wanted}


def trigger(engine: Engine, schedule: Schedule, slot: datetime | None = None) -> Outcome[Any]:
    """Record a run of a schedule that is due at once, whatever its plan says, also while it is paused.

    Args:
        slot: the slot that it stands for, an aware datetime: nothing happens when that was started before. The present
            instant when None.

    Returns:
        As `Engine.submit`.

    Raises:
        ConflictError: the slot was started with other arguments.
        InvalidInputError: an argument is wrong.
    """
    _check(schedule)
    when = engine._parts.now() if slot is None else slot
    run_id = schedule.slot_id(when)  # which checks it
    args = schedule.args_of(when)
    return engine.submit(schedule.workflow, *args, run_id=run_id, tags=schedule.tags, budget=schedule.budget)


def records(engine: Engine, schedules: Iterable[Schedule] | None = None) -> list[ScheduleRecord]:
    """What there is to see of schedules, those that the engine knows when None, in their order."""
    wanted = schedules_of(engine) if schedules is None else list(schedules)
    return [_record(engine, one) for one in wanted]


def _check(schedule: object) -> None:
    if not isinstance(schedule, Schedule):
        raise InvalidInputError(f"schedules are made with Schedule(name, workflow, ...), got {schedule!r}")


def _record(engine: Engine, schedule: Schedule) -> ScheduleRecord:
    _check(schedule)
    try:
        run = engine.get(schedule.run_id)
    except NotFoundError:
        run = None
    newest = engine.runs(tag=(TAG, schedule.name), limit=1)
    waits = run is not None and run.completed is None and run.status != "paused"
    after = engine._parts.now()
    slots = upcoming(schedule, after) if waits else []
    return ScheduleRecord(schedule, run, newest[0] if newest else None, slots[0] if slots else None)


def _ensured(engine: Engine, schedule: Schedule, revive: bool) -> Ensured:
    for _ in range(_TRIES):  # another process may do the same
        try:
            return _ensure_once(engine, schedule, revive)
        except (NotFoundError, RunClosedError):
            continue
        except ConflictError:
            _check_owner(engine, schedule)
    raise StoreUnavailableError(f"the run of schedule {schedule.name!r} is changed by too many at once; try again")


def _check_owner(engine: Engine, schedule: Schedule) -> None:
    run = engine.get(schedule.run_id)
    if run.workflow != schedule.name:
        raise ConflictError(
            f"run {schedule.run_id!r} is there already, and is of workflow {run.workflow!r}: give the schedule another "
            "name, or remove that run",
            run_id=schedule.run_id,
        )


def _ensure_once(engine: Engine, schedule: Schedule, revive: bool) -> Ensured:
    now = engine._parts.now()
    try:
        run = engine.get(schedule.run_id)
    except NotFoundError:
        engine.submit(schedule, schedule.plan, now, (), run_id=schedule.run_id, if_open="error", if_closed="error")
        return "started"
    _check_owner(engine, schedule)
    if run.completed is None:
        if _plan_told(engine, schedule) == _plain(engine, schedule) and not _is_late(run, schedule, now):
            return "unchanged"
        engine.signal(schedule.run_id, CHANGED, schedule.plan)
        return "changed"
    if run.status == "cancelled" and not revive:
        return "cancelled"
    after, ready = now, tuple[datetime, ...]()
    if run.status == "failed":  # what it had not started is not lost
        after, ready = _left(run)
    engine.submit(schedule, schedule.plan, after, ready, run_id=schedule.run_id, if_open="error", if_closed="restart")
    return "restarted"


def _plain(engine: Engine, schedule: Schedule) -> Any:
    """The plan of the code as plain JSON shapes."""
    return msgspec.json.decode(engine._parts.codec.encode(schedule.plan, Plan))


def _plan_told(engine: Engine, schedule: Schedule) -> Any:
    """The plan that the schedule's run has, or was last told of, as plain JSON shapes."""
    told: Any = None
    for event in engine.history(schedule.run_id):
        if isinstance(event, e.Start):
            told = msgspec.json.decode(event.input)[0]
        elif isinstance(event, e.Resume) and event.event_name == CHANGED.name:
            told = msgspec.json.decode(event.value)
    return told


def _is_late(run: RunRecord, schedule: Schedule, now: datetime) -> bool:
    """Whether a schedule waits beyond its next slot: the clock was ahead when it last looked."""
    if run.due is None or run.status != "suspended" or run.waiting_for != (CHANGED.name,):
        return False
    slots = upcoming(schedule, now)
    return bool(slots) and run.due > slots[0] + _SLACK


def _left(run: RunRecord) -> tuple[datetime, tuple[datetime, ...]]:
    """Up to when a run that has failed had considered slots, and which it was to start."""
    _, after, ready = run.input
    considered = run.created if after is None else datetime.fromisoformat(after)
    return considered.astimezone(UTC), tuple(datetime.fromisoformat(slot) for slot in ready)

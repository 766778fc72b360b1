"""A schedule: a workflow that waits for the next slot, starts its run, and continues as new.

It needs no table, no leader and no thread of its own. What has been considered is the input of its present incarnation;
the run id of a slot follows from the schedule's name and the slot's instant, so a slot that two look at is started by
whoever creates that run. Slots are worked out only for what is recorded next: which are to be started is the input of
the next incarnation. So a time zone whose rules have changed, or another release of the library that reads expressions,
never contradicts a history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from attrs import field, frozen

from ..checks import checked_tags
from ..commands import Child, ContinueAsNew, Flow, Now, Signal, Suspend, check_amount
from ..errors import ChildFailed, InvalidInputError, SignalRejected
from ..retry import as_seconds
from ..workflows import Workflow, check_workflow, checked_workflow_options
from .expressions import checked_cron
from .plan import Missed, Overlap, Plan
from .planning import due_slots
from .slots import slots_after

__all__ = ["CHANGED", "PREFIX", "TAG", "Schedule", "upcoming"]

CHANGED = Signal("schedule", Plan)
"""What tells a schedule's run that it has another plan, or is to look at the clock anew."""

PREFIX = "schedule:"
"""With what the run ids of schedules begin."""

TAG = "schedule"
"""The tag of the runs that a schedule has started; its value is the schedule's name."""

_MOST_NAME = 120
_LONGEST = timedelta(days=366)
"""After which a schedule whose next slot is not known looks again."""


@frozen(init=False, eq=False, slots=False)
class Schedule(Workflow[..., None]):
    """When a workflow is to be started, again and again. It is a workflow itself: give it to the engine as one.

    Nothing happens before `ensure`, which starts the schedule's own run; whoever drives due runs, such as a worker,
    then starts the slots. That run can be listed, shown, paused, unpaused, cancelled, moved and simulated as any other.

    Args:
        name: its name, printable text of at most 120 bytes, no workflow's; run ids are made of it.
        workflow: what is started.
        cron: when: "0 3 * * *" (minute, hour, day of the month, month, day of the week), six fields with the seconds
            first, or "@daily" and its like. Needs `pip install 'stepwell[cron]'`.
        every: how far apart, timedelta or seconds, at least 1 second: the multiples of it since 1970 in UTC.
        tz: the name of the time zone that `cron` is meant in; UTC when None. A fixed time of day that the clocks skip
            is due when they have skipped, one that they repeat is due the first time.
        args: the arguments of each run: a tuple, or a pure function that is given the slot, an aware datetime in the
            schedule's zone, and returns one.
        missed: what becomes of slots that nobody was there for. "skip": nothing; "last": when no slot is in time, the
            newest is started; "all": each is.
        at_most: with "all", how many of the missed, the newest, are started; at most 1,000.
        grace: how late a slot may be started and is not missed, timedelta or seconds. 1 minute.
        overlap: what becomes of a slot that comes while the run of an earlier one is open. "allow": it is started too;
            "skip": it is not. With "skip", that run is a child: one who cancels the schedule cancels it.
        tags: labels of each run; "schedule" is one anyway.
        budget: what each run may spend; None without a limit.

    Attributes:
        workflow: what is started.
        plan: the part that is recorded in the schedule's run.
        args, tags, budget: as given.

    Raises:
        InvalidInputError: an argument is wrong, or a package is missing.

    Example:
        >>> from datetime import timedelta
        >>> from stepwell import Flow, workflow
        >>> from stepwell.schedules import Schedule
        >>> from stepwell.testing import simulate
        >>> @workflow
        ... def report(day: str) -> Flow[None]:
        ...     yield from ()
        >>> nightly = Schedule("nightly", report, every=timedelta(days=1), args=lambda slot: (str(slot.date()),))
        >>> len(simulate(nightly, fakes={report: None}, until=timedelta(days=30)).children)
        30
    """

    workflow: Workflow[..., Any] = field(kw_only=True)
    plan: Plan = field(kw_only=True)
    args: tuple[Any, ...] | Callable[[datetime], Sequence[Any]] = field(kw_only=True)
    tags: dict[str, str] = field(kw_only=True)
    budget: float | None = field(kw_only=True)

    def __init__(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *,
        cron: str | None = None,
        every: timedelta | float | None = None,
        tz: str | None = None,
        args: Sequence[Any] | Callable[[datetime], Sequence[Any]] = (),
        missed: Missed = "last",
        at_most: int = 100,
        grace: timedelta | float = 60.0,
        overlap: Overlap = "allow",
        tags: Mapping[str, str] | None = None,
        budget: float | None = None,
    ) -> None:
        check_workflow(workflow)
        _check_name(name, workflow)
        try:
            if every is not None and tz is not None:
                raise InvalidInputError("tz is for cron=: a fixed time is the same in every zone")
            given = Plan(
                cron=None if cron is None else checked_cron(cron),
                every=None if every is None else as_seconds(every, "every"),
                tz="UTC" if tz is None else tz,
                missed=missed,
                at_most=at_most,
                grace=as_seconds(grace, "grace"),
                overlap=overlap,
            )
            labels = {TAG: name, **checked_tags(tags or {})}
            if budget is not None:
                check_amount(budget, "budget")
            taken = args if callable(args) else _checked_args(workflow, args)
        except InvalidInputError as error:
            raise InvalidInputError(f"schedule {name!r}: {error.message}") from error

        def run(plan: Plan = given, after: datetime | None = None, ready: tuple[datetime, ...] = ()) -> Flow[None]:
            yield from _run(self, plan, after, ready)

        run.__name__, run.__qualname__ = name, f"Schedule({name!r}, {workflow.name})"
        run.__doc__ = f"Starts {workflow.name!r}: {given}."
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            run,
            name=name,
            strict_inputs=False,  # arguments are code, and may change from one slot to the next
            workflow=workflow,
            plan=given,
            args=taken,
            tags=labels,
            budget=budget,
        )

    def __repr__(self) -> str:
        return f"<schedule {self.name}: {self.workflow.name}, {self.plan}>"

    @property
    def sources(self) -> tuple[Callable[..., Any], ...]:
        """Its own code, that of its workflow, and the function that gives arguments."""
        own = (*super().sources, *self.workflow.sources)
        return (*own, self.args) if callable(self.args) else own

    @property
    def run_id(self) -> str:
        """The id of the schedule's own run: what to pause, cancel or look at."""
        return f"{PREFIX}{self.name}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of its slots."""
        return ZoneInfo(self.plan.tz)

    def slot_id(self, slot: datetime) -> str:
        """The id of the run of a slot, an aware datetime."""
        if not isinstance(slot, datetime) or slot.tzinfo is None:
            raise InvalidInputError(f"a slot is a datetime with a time zone, got {slot!r}")
        return f"{self.name}@{slot.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"

    def args_of(self, slot: datetime) -> tuple[Any, ...]:
        """The arguments of the run of a slot.

        Raises:
            InvalidInputError: what `args` returned is not what the workflow takes.
        """
        if not callable(self.args):
            return self.args
        return _checked_args(self.workflow, self.args(slot.astimezone(self.zone)))

    def child(self, slot: datetime, overlap: Overlap) -> Child[Any]:
        """The command that starts the run of a slot."""
        made: Child[Any] = Child(self.workflow, *self.args_of(slot))
        named = {"run_id": self.slot_id(slot), "tags": self.tags, "budget": self.budget, "join": True}
        how: dict[str, Any] = named if overlap == "skip" else {**named, "detached": True}
        return made.options(**how)


def upcoming(schedule: Schedule, after: datetime, n: int = 1) -> list[datetime]:
    """The next slots of a schedule after an instant, in its time zone; no more than it has.

    Args:
        after: an aware datetime.
        n: how many at most, 1 to 10,000.

    Raises:
        InvalidInputError: an argument is wrong.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> from stepwell import Flow, workflow
        >>> from stepwell.schedules import Schedule, upcoming
        >>> @workflow
        ... def report() -> Flow[None]:
        ...     yield from ()
        >>> hourly = Schedule("hourly", report, every=timedelta(hours=1))
        >>> [str(slot) for slot in upcoming(hourly, datetime(2026, 3, 1, 9, 30, tzinfo=UTC), 2)]
        ['2026-03-01 10:00:00+00:00', '2026-03-01 11:00:00+00:00']
    """
    if not isinstance(schedule, Schedule):
        raise InvalidInputError(f"upcoming takes a Schedule, got {schedule!r}")
    if not isinstance(after, datetime) or after.tzinfo is None:
        raise InvalidInputError(f"after must be a datetime with a time zone, got {after!r}")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 10_000:
        raise InvalidInputError(f"n must be a whole number from 1 to 10,000, got {n!r}")
    found = zip(range(n), slots_after(schedule.plan, after.astimezone(UTC)), strict=False)
    return [slot.astimezone(schedule.zone) for _, slot in found]


def _run(schedule: Schedule, plan: Plan, after: datetime | None, ready: tuple[datetime, ...]) -> Flow[None]:
    """Start what is ready, wait for the next slot or another plan, and continue as new.

    Args:
        plan: what holds now.
        after: up to when slots have been considered; None: from now on.
        ready: the slots to start.
    """
    for slot in ready:
        with suppress(ChildFailed):  # how the run ended is its own affair, and is in this history
            yield schedule.child(slot, plan.overlap)
    now: datetime = yield from Now()
    if after is None or (ready and plan.overlap == "skip"):  # what came while those runs were open is skipped
        after = now if after is None else max(after, now)
    coming = next(slots_after(plan, after), None)
    wait = _LONGEST if coming is None else max(coming - now, timedelta(0))
    told = None if coming is None else f"next slot {coming.astimezone(ZoneInfo(plan.tz)).isoformat()}"
    changed: Plan | None = None
    with suppress(SignalRejected):  # it was sent by somebody without this code, and is no plan
        changed = yield from Suspend(CHANGED, timeout=wait, default=None, reason=told)
    now = yield from Now()
    due = due_slots(plan, after, now)
    if changed is None:
        # a clock that was set back starts nothing again
        yield ContinueAsNew(plan, max(after, now), due)
    else:
        yield ContinueAsNew(changed, now, due)


def _check_name(name: object, workflow: Workflow[..., Any]) -> None:
    checked_workflow_options(name, "1", None, None, None)
    text = str(name)
    if len(text.encode("utf-8", "replace")) > _MOST_NAME:
        raise InvalidInputError(
            f"a schedule's name can have {_MOST_NAME} bytes at most, for run ids are made of it, got {name!r}"
        )
    if text == workflow.name:
        raise InvalidInputError(
            f"schedule {name!r} has the name of its workflow, and is a workflow too: give it another name"
        )


def _checked_args(workflow: Workflow[..., Any], args: Any) -> tuple[Any, ...]:
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise InvalidInputError(f"args must be a tuple, or a function that returns one, got {args!r}")
    try:
        return workflow.filled(args)
    except TypeError as error:
        raise InvalidInputError(f"args: workflow {workflow.name!r} takes {workflow.signature}: {error}") from error

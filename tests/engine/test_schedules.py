"""Schedules as runs: each slot once, what is missed, what overlaps, clocks that jump, and plans that change."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest

from stepwell import (
    Child,
    ConflictError,
    Engine,
    Flow,
    InvalidInputError,
    RunCompleted,
    RunSuspended,
    Step,
    StepwellError,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.schedules import PREFIX, Schedule, ensure, records, schedules_of, trigger
from stepwell.schedules.schedule import CHANGED
from stepwell.testing import assert_deterministic, received, replay, returned, simulate
from stepwell.testing.environments import EPOCH
from stepwell.testing.fakes import takes

from .dying import every_death
from .tools import HandClock

HOUR = timedelta(hours=1)
RUN = f"{PREFIX}s"


@workflow
def report(hour: str) -> Flow[str]:
    yield from ()
    return hour


@workflow
def asks() -> Flow[str]:
    return (yield from Suspend("go", into=str))


def hours(slot: datetime) -> tuple[str]:
    return (f"{slot:%d %H}",)


def hourly(**how: Any) -> Schedule:
    return Schedule("s", report, **{"every": HOUR, "args": hours, **how})


def driven(bench: Any, one: Schedule, clock: HandClock) -> Engine:
    """An engine in which a schedule has begun."""
    engine: Engine = bench.engine(one.workflow, one, clock=clock, park_after=0)
    assert {"s": "started"} == ensure(engine)
    engine.run_due()
    return engine


def pass_time(engine: Engine, clock: HandClock, times: int, step: timedelta = HOUR) -> None:
    for _ in range(times):
        clock.advance(step.total_seconds())
        engine.run_due()


def started(engine: Engine, name: str = "s") -> list[str]:
    """The hours of the slots that were started, day first, in their order."""
    ids = sorted(run.id for run in engine.runs(tag=("schedule", name), limit=10_000))
    return [datetime.fromisoformat(one.removeprefix(f"{name}@")).strftime("%d %H") for one in ids]


def test_each_slot_is_a_run_with_its_arguments_tags_and_id(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(tags={"team": "a"}, budget=5), clock)
    assert [] == started(engine)
    pass_time(engine, clock, 4)
    assert ["01 01", "01 02", "01 03", "01 04"] == started(engine)
    run = engine.get("s@2026-01-01T03:00:00Z")
    assert ("completed", "01 03", ["01 03"], 5) == (run.status, run.result, run.input, run.budget)
    assert ({"schedule": "s", "team": "a"}, RUN) == (run.tags, run.parent)
    own = engine.get(RUN)
    assert ("suspended", EPOCH + 5 * HOUR) == (own.status, own.due)


def test_a_schedule_waits_for_the_slot_and_says_so(memory: Any) -> None:
    clock = HandClock()
    engine = driven(memory, hourly(every=None, cron="30 9 * * *", tz="Asia/Tokyo"), clock)
    outcome = engine.wait(RUN, timeout=0)
    assert isinstance(outcome, RunSuspended)
    assert "next slot 2026-01-01T09:30:00+09:00" == outcome.reason
    assert [] == engine.run_due()
    (record,) = records(engine)
    assert datetime(2026, 1, 1, 0, 30, tzinfo=UTC) == record.next
    assert (None, "suspended") == (record.last, record.run and record.run.status)
    pass_time(engine, clock, 1)
    (record,) = records(engine)
    assert "s@2026-01-01T00:30:00Z" == (record.last and record.last.id)


@pytest.mark.parametrize(
    ("how", "made_up"),
    [
        ({"missed": "skip"}, []),
        ({"missed": "last"}, ["02 08"]),
        ({"missed": "all", "at_most": 3}, ["02 06", "02 07", "02 08"]),
        ({"missed": "all"}, [f"{1 + hour // 24:02} {hour % 24:02}" for hour in range(3, 33)]),
        ({"missed": "skip", "grace": 2 * HOUR}, ["02 07", "02 08"]),
        ({"missed": "last", "grace": 2 * HOUR}, ["02 07", "02 08"]),
    ],
)
def test_what_nobody_was_there_for_goes_by_the_policy(bench: Any, how: dict[str, Any], made_up: list[str]) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(**how), clock)
    pass_time(engine, clock, 2)
    clock.advance(30.5 * 3600)  # nobody is there until half past 8 of the next day
    engine.run_due()
    assert ["01 01", "01 02", *made_up] == started(engine)
    pass_time(engine, clock, 1, HOUR / 2)
    assert ["02 09"] == started(engine)[2 + len(made_up) :]


def test_the_history_of_a_schedule_stays_short(memory: Any) -> None:
    clock = HandClock()
    engine = driven(memory, hourly(), clock)
    pass_time(engine, clock, 300)
    assert (300, 301) == (len(started(engine)), engine.get(RUN).attempts)
    assert ["start", "child", "childResult", "now", "suspend"] == [event.kind for event in engine.history(RUN)]


def test_slots_that_overlap_are_started_or_skipped(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, Schedule("s", asks, every=HOUR, overlap="skip"), clock)
    pass_time(engine, clock, 3)
    assert ["01 01"] == started(engine)
    engine.resume("s@2026-01-01T01:00:00Z", "go", "done")
    engine.run_due()
    assert ["01 01"] == started(engine)  # those that came while it was open are skipped
    pass_time(engine, clock, 2)
    assert ["01 01", "01 04"] == started(engine)
    other = Schedule("allowed", asks, every=HOUR)
    ensure(engine, [other])
    engine.run_due()
    pass_time(engine, clock, 3)
    assert ["01 06", "01 07", "01 08"] == started(engine, "allowed")


def test_a_run_that_fails_leaves_its_schedule_alone(memory: Any) -> None:
    def fail() -> None:
        raise ValueError("no")

    @workflow
    def fails() -> Flow[None]:
        yield Step(fail)

    clock = HandClock()
    for overlap in ("allow", "skip"):
        engine = memory.engine(clock=clock, park_after=0)
        one = Schedule(overlap, fails, every=HOUR, overlap=overlap)
        ensure(engine, [one])
        engine.run_due()
        pass_time(engine, clock, 2)
        assert ["failed", "failed"] == [run.status for run in engine.runs(tag=("schedule", overlap))]
        assert "suspended" == engine.get(one.run_id).status


# ---- clocks


def test_a_clock_that_is_set_back_starts_nothing_again(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(), clock)
    pass_time(engine, clock, 3)
    clock.advance(-1.5 * 3600)
    engine.run_due()
    pass_time(engine, clock, 5, HOUR / 2)
    assert ["01 01", "01 02", "01 03", "01 04"] == started(engine)


def test_a_clock_that_was_far_ahead_does_not_stop_a_schedule_for_good(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(), clock)
    pass_time(engine, clock, 2)
    pass_time(engine, clock, 1, timedelta(days=365))
    assert 3 == len(started(engine))
    clock.advance(-timedelta(days=365).total_seconds() - 3600)
    assert [] == engine.run_due()  # it waits for next year
    assert {"s": "changed"} == ensure(engine)
    engine.run_due()
    assert {"s": "unchanged"} == ensure(engine)
    pass_time(engine, clock, 3)
    assert ["01 01", "01 02", "01 03", "01 04", "01 02"] == started(engine)  # the last one is next year's
    assert {1} == {run.attempts for run in engine.runs(tag="schedule")}  # slot 2 was considered twice, and found


# ---- deaths


def test_whatever_dies_at_any_write_each_slot_is_started_once(bench: Any) -> None:
    """Shows S13 (P6)."""
    schedules = [Schedule(f"s{n}", report, every=120, missed="all", args=(f"{n}",)) for n in range(60)]

    def act(engine: Engine, number: int) -> None:
        ensure(engine, [schedules[number]])
        engine.run_due()
        engine._parts.environment.clock.advance(120)  # type: ignore[attr-defined]
        engine.run_due()

    def check(engine: Engine, number: int) -> None:
        one = schedules[number]
        if ensure(engine, [one])[one.name] == "started":  # it died before there was one
            assert [] == engine.runs(tag=("schedule", one.name))
        else:
            runs = engine.runs(tag=("schedule", one.name))
            slots = sorted(datetime.fromisoformat(run.id.partition("@")[2]) for run in runs)
            assert [slots[0] + place * timedelta(minutes=2) for place in range(len(slots))] == slots
            assert timedelta(0) <= engine._parts.now() - slots[-1] < timedelta(minutes=2)
            assert {("completed", 1)} == {(run.status, run.attempts) for run in runs}
            began = [engine.history(one.run_id, incarnation=n) for n in range(engine.get(one.run_id).attempts)]
            told = [event.child_id for history in began for event in history if isinstance(event, e.ChildResult)]
            assert sorted(told) == sorted(run.id for run in runs)
        engine.cancel(one.run_id)

    deaths = every_death(bench, (report, *schedules), act, check)
    assert deaths > 15


def test_runs_of_slots_may_be_removed_while_the_schedule_goes_on(bench: Any) -> None:
    @workflow(ttl=HOUR)
    def brief() -> Flow[None]:
        yield from ()

    clock = HandClock()
    engine = driven(bench, Schedule("s", brief, every=HOUR), clock)
    pass_time(engine, clock, 5)
    assert 4 == engine.prune().removed
    pass_time(engine, clock, 1)
    assert ["01 05", "01 06"] == started(engine)


# ---- plans that change


def test_another_plan_takes_effect_from_when_it_was_told(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(missed="all"), clock)
    pass_time(engine, clock, 1)
    clock.advance(2 * 3600)  # slots 2 and 3 are missed by the old plan
    changed = hourly(every=None, cron="15,45 * * * *", missed="all")
    engine = bench.engine(report, changed, clock=clock, park_after=0)
    assert {"s": "changed"} == ensure(engine)
    assert {"s": "unchanged"} == ensure(engine)  # it is told, though nobody has driven it
    engine.run_due()
    pass_time(engine, clock, 4, HOUR / 4)
    runs = sorted(run.id for run in engine.runs(tag=("schedule", "s")))
    assert ["01:00", "02:00", "03:00", "03:15", "03:45"] == [one[-9:-4] for one in runs]
    assert {"s": "unchanged"} == ensure(engine)


def test_a_paused_schedule_starts_nothing_and_keeps_its_pause_when_its_plan_changes(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engine = driven(bench, hourly(), clock)
    assert "paused" == engine.pause(RUN, "holidays").status
    pass_time(engine, clock, 3)
    (record,) = records(engine)
    assert ([], None) == (started(engine), record.next)
    changed = hourly(every=2 * HOUR, missed="skip")
    engine = bench.engine(report, changed, clock=clock, park_after=0)
    assert {"s": "changed"} == ensure(engine)
    assert {"s": "unchanged"} == ensure(engine)
    engine.run_due()
    assert "paused" == engine.get(RUN).status
    clock.advance(1)
    engine.unpause(RUN)
    engine.run_due()
    assert ["01 03"] == started(engine)  # of what came meanwhile, as the plan of that time says
    pass_time(engine, clock, 3)
    assert ["01 03", "01 04", "01 06"] == started(engine)


def test_other_arguments_are_those_of_the_code_that_starts_the_slot(memory: Any) -> None:
    clock = HandClock()
    engine = driven(memory, hourly(), clock)
    pass_time(engine, clock, 1)
    engine = memory.engine(report, hourly(args=("fixed",)), clock=clock, park_after=0)
    assert {"s": "unchanged"} == ensure(engine)
    pass_time(engine, clock, 1)
    assert ["01 01", "fixed"] == [engine.get(f"s@2026-01-01T0{hour}:00:00Z").result for hour in (1, 2)]


# ---- ensure


def test_many_who_ensure_at_once_start_it_once(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    engines = [bench.engine(report, hourly(), clock=clock, park_after=0) for _ in range(4)]
    together = threading.Barrier(len(engines))
    done: list[str] = []

    def begin(engine: Engine) -> None:
        together.wait(30)
        done.extend(ensure(engine).values())
        engine.run_due()

    def look(engine: Engine) -> None:
        together.wait(30)
        engine.run_due()

    for act in (begin, look, look):
        threads = [threading.Thread(target=act, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        clock.advance(3600)
    assert ["started", "unchanged", "unchanged", "unchanged"] == sorted(done)
    engines[0].run_due()
    assert ["01 01", "01 02", "01 03"] == started(engines[0])
    assert 0 == max(run.attempts - 1 for run in engines[0].runs(tag="schedule"))


def test_what_was_cancelled_stays_so_until_somebody_revives_it(bench: Any) -> None:
    clock = HandClock()
    engine = driven(bench, hourly(), clock)
    engine.cancel(RUN)
    assert {"s": "cancelled"} == ensure(engine)
    pass_time(engine, clock, 2)
    assert [] == started(engine)
    assert {"s": "restarted"} == ensure(engine, revive=True)
    engine.run_due()
    pass_time(engine, clock, 2)
    assert ["01 03", "01 04"] == started(engine)  # from then on: what came while it was cancelled was not wanted


def test_a_schedule_that_failed_goes_on_where_it_was(bench: Any) -> None:
    """Shows S13 (P6)."""

    def broken(slot: datetime) -> tuple[str]:
        if slot.hour == 2:
            raise ValueError("no argument for this hour")
        return hours(slot)

    clock = HandClock()
    engine = driven(bench, hourly(args=broken, missed="all"), clock)
    pass_time(engine, clock, 3)
    failure = engine.get(RUN).failure
    assert failure is not None
    assert "no argument for this hour" in str(failure)
    assert ["01 01"] == started(engine)
    engine = bench.engine(report, hourly(missed="all"), clock=clock, park_after=0)
    assert {"s": "restarted"} == ensure(engine)
    engine.run_due()
    assert ["01 01", "01 02", "01 03"] == started(engine)


def test_a_schedule_whose_arguments_do_not_fit_is_blocked_until_the_code_changes(memory: Any) -> None:
    clock = HandClock()
    engine = driven(memory, hourly(args=lambda _: ("a", "b")), clock)
    pass_time(engine, clock, 2)
    blocked = engine.get(RUN).blocked
    assert blocked is not None
    assert "args: workflow 'report' takes (hour: 'str')" in blocked.message
    engine = memory.engine(report, hourly(args=lambda _: ("a",)), clock=clock, park_after=0)
    ensure(engine)
    engine.run_due()
    assert ["01 01", "01 02"] == started(engine)


def test_names_that_are_taken_are_refused_or_passed_by(memory: Any) -> None:
    clock = HandClock()
    with pytest.raises(InvalidInputError, match=r"Schedule\('s', report\) and .*Schedule\('s', asks\)"):
        Engine("memory:", [hourly(), Schedule("s", asks, every=60)])
    engine = memory.engine(asks, report, hourly(), clock=clock, park_after=0)
    engine.start(asks, run_id=RUN)
    with pytest.raises(ConflictError, match="give the schedule another name, or remove that run"):
        ensure(engine)
    engine.cancel(RUN)
    engine.delete(RUN)
    engine.start(asks, run_id="s@2026-01-01T01:00:00Z")
    ensure(engine)
    engine.run_due()
    pass_time(engine, clock, 2)
    assert ["01 02"] == started(engine)  # that slot can't be started, and the schedule goes on
    assert ["start", "child", "childResult"] == [event.kind for event in engine.history(RUN, incarnation=1)][:3]
    refused = engine.history(RUN, incarnation=1)[2]
    assert isinstance(refused, e.ChildResult)
    assert "CONFLICT" == (refused.error and refused.error.code)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine: ensure(engine, [report]), "schedules are made with Schedule"),  # type: ignore[list-item]
        (lambda engine: ensure("sqlite:"), "ensure takes an Engine"),  # type: ignore[arg-type]
        (lambda engine: trigger(engine, report), "schedules are made with Schedule"),  # type: ignore[arg-type]
        (lambda engine: trigger(engine, hourly(), datetime(2026, 1, 1)), "with a time zone"),  # noqa: DTZ001
    ],
)
def test_what_is_no_schedule_is_refused(memory: Any, call: Any, message: str) -> None:
    with pytest.raises(StepwellError, match=message):
        call(memory.engine())


def test_an_engine_knows_its_schedules(memory: Any) -> None:
    one, other = hourly(), Schedule("a", report, every=60, args=("x",))
    engine = memory.engine(report, one, other)
    assert [other, one] == schedules_of(engine)
    assert [None, None] == [record.run for record in records(engine)]


# ---- trigger


def test_a_run_can_be_triggered_beside_its_slots_and_for_one(bench: Any) -> None:
    """Shows S13 (P6)."""
    clock = HandClock()
    one = hourly()
    engine = driven(bench, one, clock)
    engine.pause(RUN)
    clock.advance(61.5)
    assert "s@2026-01-01T00:01:01.500000Z" == trigger(engine, one).run_id
    slot = EPOCH + HOUR
    assert "s@2026-01-01T01:00:00Z" == trigger(engine, one, slot).run_id
    engine.run_due()
    assert RunCompleted("s@2026-01-01T01:00:00Z", "01 01") == trigger(engine, one, slot)
    engine.unpause(RUN)
    pass_time(engine, clock, 2)
    assert ["01 00", "01 01", "01 02"] == started(engine)
    assert 1 == engine.get("s@2026-01-01T01:00:00Z").attempts  # its slot finds it, and starts nothing


# ---- the testing kit


def test_thirty_days_are_simulated_in_no_time_and_through_every_crash() -> None:
    """Shows S13 (P6)."""
    nightly = hourly(every=None, cron="0 3 * * *", tz="Europe/Berlin")
    run = simulate(nightly, fakes={report: "done"}, until=timedelta(days=30), crash_after="every")
    assert [f"s@2026-01-{day:02}T02:00:00Z" for day in range(1, 31)] == sorted(run.children)
    assert run.crashes > 100
    assert timedelta(days=30) == run.elapsed
    assert 30 == len({(call.args, call.run_id) for call in run.calls}) == len(run.calls)


def test_overlaps_are_simulated() -> None:
    """Shows S13 (P6)."""
    one = hourly(overlap="skip")
    run = simulate(one, fakes={report: takes(1.5 * HOUR)}, until=timedelta(days=1), crash_after="every")
    assert [f"s@2026-01-01T{hour:02}:00:00Z" for hour in range(1, 24, 2)] == sorted(run.children)


def test_a_schedule_can_be_replayed_against_answers() -> None:
    one = hourly()
    run = replay(one, one.plan, EPOCH, (EPOCH,), history=[])
    assert Child(report, "01 00") == run.next
    slot = "s@2026-01-01T00:00:00Z"
    run = replay(one, one.plan, EPOCH, (EPOCH,), history=[returned(slot), returned(EPOCH)])
    assert Suspend(CHANGED) == run.next
    other = hourly(every=60).plan
    answers = [returned(slot), returned(EPOCH), received(CHANGED, other), returned(EPOCH + 2.5 * HOUR)]
    run = replay(one, one.plan, EPOCH, (EPOCH,), history=answers)
    assert (other, EPOCH + 2.5 * HOUR, (EPOCH + 2 * HOUR,)) == run.continued


def test_any_history_of_a_schedule_is_answered_the_same_twice() -> None:
    one = hourly()
    plans = st.sampled_from([one.plan, hourly(every=None, cron="@daily", tz="Europe/Berlin").plan])
    assert_deterministic(one, one.plan, EPOCH, (EPOCH,), signals={CHANGED: plans}, examples=30, hash_seeds=())


@pytest.mark.parametrize("known", [True, False])
def test_a_plan_that_is_none_is_refused_or_passed_by(memory: Any, known: bool) -> None:
    clock = HandClock()
    one = hourly()
    engine = driven(memory, one, clock)
    sender = engine if known else memory.engine(clock=clock)
    for wrong in ({"cron": "61 * * * *"}, {"every": 0.1}, {"every": 60, "tz": "Nowhere"}, {"every": 60, "more": 1}):
        if known:
            with pytest.raises(StepwellError):
                sender.signal(RUN, "schedule", wrong)
        else:
            sender.signal(RUN, "schedule", wrong)  # it has no code to check it by
            engine.run_due()
    pass_time(engine, clock, 2)
    assert ["01 01", "01 02"] == started(engine)

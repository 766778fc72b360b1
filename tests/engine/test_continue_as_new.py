"""ContinueAsNew: a loop that runs for ever with a short history, and signals that are neither lost nor doubled."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Child,
    Compensate,
    ContinueAsNew,
    Engine,
    Flow,
    HistoryLimit,
    HistoryLimitError,
    InvalidInputError,
    InvalidYieldError,
    Random,
    RunCancelled,
    RunCompleted,
    Spend,
    Step,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.lifecycle import HistoryGrows, RunContinued

from .dying import every_death
from .tools import Tally, kinds


def double(x: int) -> int:
    return 2 * x


@workflow
def loop(left: int, total: int) -> Flow[int]:
    doubled = yield from Step(double, left)
    if left == 0:
        return total
    yield ContinueAsNew(left - 1, total + doubled)
    raise AssertionError("never comes here")


@workflow
def collecting(left: int, seen: list[int]) -> Flow[list[int]]:
    seen.append((yield from Suspend("number", into=int)))
    if left == 1:
        return seen
    yield ContinueAsNew(left - 1, seen)
    return []


def test_a_loop_keeps_a_short_history(bench: Any) -> None:
    engine = bench.engine(loop)
    assert RunCompleted("r", 110) == engine.start(loop, 10, 0, run_id="r")
    history = engine.history("r")
    assert (["start", "step", "complete"], 11) == (kinds(engine, "r"), engine.get("r").attempts)
    start = history[0]
    assert isinstance(start, e.Start)
    assert (10, {"runId": "r", "incarnation": 9, "offset": 2}) == (start.incarnation, start.source)
    assert ["start", "step"] == [event.kind for event in engine.history("r", incarnation=4)]
    assert [] == [part.problem for part in engine.store.verify() if part.problem]


def test_ten_thousand_turns_keep_a_bounded_history(memory: Any) -> None:
    engine = memory.engine(loop)
    assert 10_000 * 10_001 == engine.start(loop, 10_000, 0, run_id="r").unwrap()
    assert (3, 10_001) == (len(engine.history("r")), engine.get("r").attempts)


def test_a_run_goes_on_in_another_process_after_its_turn(disk: Any) -> None:
    engine = disk.engine(collecting)
    engine.start(collecting, 3, [], run_id="r")
    engine.close()
    again = disk.engine(collecting)
    outcomes = [again.resume("r", "number", number) for number in (5, 6, 7)]
    assert RunCompleted("r", [5, 6, 7]) == outcomes[-1]


def test_signals_that_came_early_are_carried_over_and_ids_count_once(bench: Any) -> None:
    engine = bench.engine(collecting)
    engine.start(collecting, 4, [], run_id="r")
    for number in (1, 2, 2, 3):
        engine.signal("r", "number", number, id=f"id-{number}")
    assert "suspended" == engine.advance("r").status
    engine.signal("r", "number", 1, id="id-1")
    assert ["start", "suspend", "resume"] != kinds(engine, "r")[:3]
    assert "suspended" == engine.advance("r").status
    engine.signal("r", "number", 4)
    assert RunCompleted("r", [1, 2, 3, 4]) == engine.advance("r")


def test_a_thousand_signals_at_random_instants_keep_count_and_order(bench: Any) -> None:
    """Shows S11 (P5)."""
    count = 1000

    @workflow
    def batches(left: int, seen: list[int]) -> Flow[list[int]]:
        for _ in range(7):
            seen.append((yield from Suspend("number", into=int)))
            if left - len(seen) == 0:
                return seen
        yield ContinueAsNew(left, seen)
        return []

    engine, sender = bench.engine(batches), bench.engine(batches)
    engine.start(batches, count, [], run_id="r")
    chance = random.Random(7)

    def send() -> None:
        for number in range(count):
            sender.signal("r", "number", number, id=str(number))
            if chance.random() < 0.05:
                sender.signal("r", "number", number, id=str(number))

    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive() or engine.get("r").due is not None:
        engine.run_due()
    thread.join()
    engine.run_due()
    assert list(range(count)) == engine.get("r").result


def test_budget_and_tags_are_kept_and_compensations_forgotten(bench: Any) -> None:
    undone: list[int] = []

    @workflow
    def spending(left: int) -> Flow[float | None]:
        yield Compensate(undone.append, left)
        remaining = yield from Spend(10)
        if left == 0:
            raise ValueError("over")
        yield ContinueAsNew(left - 1)
        return remaining

    engine = bench.engine(spending)
    assert "failed" == engine.start(spending, 3, run_id="r", budget=100, tags={"team": "a"}).status
    record = engine.get("r")
    assert (40, 100, {"team": "a"}, [0]) == (record.spent, record.budget, record.tags, undone)


def test_clean_up_is_performed_and_a_cancel_that_comes_before_wins(bench: Any) -> None:
    tally = Tally()

    @workflow
    def careful(left: int) -> Flow[int]:
        try:
            if left == 0:
                return 0
            yield from Suspend("go", into=int)
            yield ContinueAsNew(left - 1)
        finally:
            yield from tally.step("clean-up")
        return -1

    engine = bench.engine(careful)
    engine.start(careful, 2, run_id="r")
    engine.resume("r", "go", 1)
    assert 1 == tally["clean-up"]
    assert RunCancelled("r") == engine.cancel("r")
    assert 2 == tally["clean-up"]

    @workflow
    def cancelled() -> Flow[int]:
        try:
            yield from Suspend("go", into=int)
        except Cancelled:
            yield ContinueAsNew()
        return 1

    engine = bench.engine(cancelled)
    engine.start(cancelled, run_id="c")
    assert RunCancelled("c") == engine.cancel("c")
    assert 1 == engine.get("c").attempts


def test_only_the_workflow_itself_may_go_on_as_new(memory: Any) -> None:
    def branch() -> Flow[int]:
        yield ContinueAsNew(1)
        return 1

    @workflow
    def wrong(n: int) -> Flow[int]:
        yield All(branch())
        return n

    with pytest.raises(InvalidYieldError, match="not in a branch"):
        memory.engine(wrong).start(wrong, 1)

    @workflow
    def unfit(n: int) -> Flow[int]:
        yield ContinueAsNew("text")
        return n

    with pytest.raises(InvalidInputError, match="argument 'n'"):
        memory.engine(unfit).start(unfit, 1)


def test_a_child_that_goes_on_as_new_gives_its_result_in_the_end(bench: Any) -> None:
    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(loop, 5, 0))

    assert 30 == bench.engine(parent).start(parent, run_id="r").unwrap()


def test_a_listener_hears_of_each_turn(memory: Any) -> None:
    heard: list[Any] = []
    memory.engine(loop, on_event=heard.append).start(loop, 2, 0, run_id="r")
    assert [RunContinued("r", 1), RunContinued("r", 2)] == [one for one in heard if isinstance(one, RunContinued)]


def test_whatever_dies_at_a_turn_it_is_taken_once(bench: Any) -> None:
    tally = Tally()

    @workflow
    def turning(number: int, left: int, seen: list[int]) -> Flow[list[int]]:
        yield from tally.step(f"{number}-{left}")
        seen.append((yield from Suspend("n", into=int, timeout=60, default=-1)))
        if left == 1:
            return seen
        yield ContinueAsNew(number, left - 1, seen)
        return []

    def act(engine: Engine, number: int) -> None:
        engine.submit(turning, number, 3, [], run_id=f"r{number}")
        for value in (1, 2, 3):
            engine.signal(f"r{number}", "n", value, id=str(value))
        engine.advance(f"r{number}")

    def check(engine: Engine, number: int) -> None:
        if engine.store.head(f"r{number}") is None:
            return
        outcome = engine.advance(f"r{number}")
        assert isinstance(outcome, RunCompleted)
        sent = [value for value in outcome.result if value != -1]
        assert sent == list(range(1, len(sent) + 1))
        assert 3 == len(outcome.result)
        assert sum(tally[f"{number}-{left}"] for left in (1, 2, 3)) <= 4

    assert every_death(bench, (turning,), act, check) > 20
    assert [] == [part.problem for part in bench.store().verify() if part.problem]


def test_a_history_that_is_too_long_is_refused_before_anything_is_performed(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows S20 (P7)."""
    tally, heard = Tally(), []  # type: ignore[var-annotated]

    @workflow
    def endless(turns: int) -> Flow[int]:
        for _ in range(turns):
            yield from tally.step("turn")
        return turns

    limit = HistoryLimit(warn_events=5, max_events=8)
    engine = bench.engine(endless, history_limit=limit, on_event=heard.append)
    with pytest.raises(HistoryLimitError, match="yield ContinueAsNew from time to time, or raise the limit") as caught:
        engine.start(endless, 20, run_id="r")
    assert (8, 7) == (caught.value.events, tally["turn"])
    assert 1 == caplog.text.count("at 8 events or")
    assert [5] == [one.events for one in heard if isinstance(one, HistoryGrows)]
    blocked = engine.get("r").blocked
    assert blocked is not None
    assert "HISTORY_LIMIT" == blocked.code
    more = bench.engine(endless, history_limit=None)
    assert RunCompleted("r", 20) == more.advance("r")
    small = bench.engine(endless, history_limit=HistoryLimit(max_bytes=2_000))
    with pytest.raises(HistoryLimitError, match="bytes"):
        small.start(endless, 100, run_id="s")
    assert RunCancelled("s") == small.cancel("s")
    with pytest.raises(InvalidInputError, match="max_events"):
        HistoryLimit(max_events=0)


def test_a_loop_without_steps_is_stopped_too(memory: Any) -> None:
    @workflow
    def drawing(count: int) -> Flow[int]:
        for _ in range(count):
            yield Random()
        return count

    engine = memory.engine(drawing, history_limit=HistoryLimit(max_events=2_000))
    assert 1_000 == engine.start(drawing, 1_000).unwrap()
    with pytest.raises(HistoryLimitError):
        engine.start(drawing, 5_000)

"""start and submit: what they give, what they refuse, and run ids."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest
from attrs import frozen

from stepwell import (
    ConflictError,
    Engine,
    Flow,
    InvalidInputError,
    NotFoundError,
    RunCompleted,
    RunFailed,
    Running,
    RunSuspended,
    Step,
    StoreMisconfiguredError,
    Suspend,
    workflow,
)
from stepwell.environment import Environment
from stepwell.events import Start
from stepwell.testing.environments import VirtualClock

from .tools import Tally, kinds


@frozen
class Order:
    """What the shop sells."""

    sku: str
    count: int


def price(order: Order) -> int:
    return 3 * order.count


@workflow
def buy(order: Order) -> Flow[int]:
    return (yield from Step(price, order))


@workflow
def ask(name: str) -> Flow[str]:
    answer = yield from Suspend("answer", into=str)
    return f"{name}: {answer}"


def test_a_run_that_waits_for_nothing_is_completed_by_start(bench: Any) -> None:
    engine = bench.engine()
    outcome = engine.start(buy, Order("tea", 2), run_id="r")
    assert RunCompleted("r", 6) == outcome
    assert 6 == outcome.unwrap()
    assert ["start", "step", "complete"] == kinds(engine)


def test_a_run_is_found_by_another_engine(bench: Any) -> None:
    bench.engine().start(buy, Order("tea", 2), run_id="r")
    assert RunCompleted("r", 6) == bench.engine(buy).start(buy, Order("tea", 2), run_id="r")


def test_starting_a_closed_run_again_gives_its_outcome_and_performs_nothing(bench: Any) -> None:
    tally = Tally()

    @workflow
    def once(x: int) -> Flow[int]:
        return (yield from Step(tally.add, str(x)))

    engine = bench.engine()
    assert [1, 1] == [engine.start(once, 7, run_id="r").unwrap() for _ in range(2)]
    assert 1 == tally["7"]


def test_starting_a_parked_run_again_gives_its_outcome(bench: Any) -> None:
    engine = bench.engine()
    first = engine.start(ask, "ada", run_id="r")
    assert RunSuspended("r", ("answer",)) == first
    assert first == engine.start(ask, "ada", run_id="r")
    assert 1 == kinds(engine).count("suspend")


def test_a_run_without_an_id_gets_a_uuid_of_version_7(memory: Any) -> None:
    engine = memory.engine()
    first, second = (engine.start(buy, Order("tea", 1)).run_id for _ in range(2))
    assert 7 == uuid.UUID(first).version
    assert first < second


def test_other_input_under_the_same_run_id_is_a_conflict(bench: Any) -> None:
    engine = bench.engine()
    engine.start(ask, "ada", run_id="open")
    engine.start(buy, Order("tea", 1), run_id="closed")
    with pytest.raises(ConflictError, match=r"other input: recorded .*ada.*given .*bob"):
        engine.start(ask, "bob", run_id="open")
    with pytest.raises(ConflictError, match="other input"):
        engine.submit(buy, Order("tea", 2), run_id="closed")


def test_another_workflow_under_the_same_run_id_is_a_conflict(bench: Any) -> None:
    engine = bench.engine()
    engine.start(ask, "ada", run_id="r")
    with pytest.raises(ConflictError, match="it is of workflow 'ask', not 'buy'"):
        engine.start(buy, Order("tea", 1), run_id="r")


@pytest.mark.parametrize("not_one", [price, "buy", None, buy(Order("tea", 1))])
def test_only_workflows_can_be_started(memory: Any, not_one: Any) -> None:
    engine = memory.engine()
    with pytest.raises(InvalidInputError, match="made with @workflow"):
        engine.start(not_one, run_id="r")
    with pytest.raises(NotFoundError):
        engine.get("r")


def test_two_workflows_of_one_name_and_version_are_refused(memory: Any) -> None:
    @workflow(name="buy")
    def other(order: Order) -> Flow[int]:
        return (yield from Step(price, order))

    with pytest.raises(InvalidInputError, match="two workflows are named 'buy' in version '1'"):
        memory.engine(buy, other)
    engine = memory.engine(buy, buy)
    with pytest.raises(InvalidInputError, match="two workflows"):
        engine.start(other, Order("tea", 1))


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "missing a required argument: 'order'"),
        ((Order("tea", 1), 2), "too many positional arguments"),
        ((Order("tea", cast(int, "2")),), r"argument 'order'.*count"),
        (("tea",), "argument 'order'"),
    ],
)
def test_wrong_arguments_write_nothing(memory: Any, args: tuple[Any, ...], text: str) -> None:
    engine = memory.engine()
    with pytest.raises(InvalidInputError, match=text):
        engine.start(buy, *args, run_id="r")
    assert [] == engine.runs()


@pytest.mark.parametrize(
    "run_id", ["r", "orders/12", "..", "ÄÖ", "\u00e9", "e\u0301", "🙂", " x ", "CON", "quote'\"", "x" * 200, "é" * 100]
)
def test_any_printable_text_is_a_run_id(bench: Any, run_id: str) -> None:
    engine = bench.engine()
    assert RunCompleted(run_id, 3) == engine.start(buy, Order("tea", 1), run_id=run_id)
    assert run_id == engine.get(run_id).id
    assert [run_id] == [record.id for record in engine.runs()]


@pytest.mark.parametrize("run_id", ["", "a\nb", "\0", "\x1b[0m", "a\u2028b", "\ud800", "x" * 201, "é" * 101, 7, b"r"])
def test_other_run_ids_are_refused_by_every_call(memory: Any, run_id: Any) -> None:
    engine = memory.engine()
    calls = [
        lambda: engine.start(buy, Order("tea", 1), run_id=run_id),
        lambda: engine.submit(buy, Order("tea", 1), run_id=run_id),
        lambda: engine.get(run_id),
        lambda: engine.advance(run_id),
        lambda: engine.signal(run_id, "answer"),
        lambda: engine.cancel(run_id),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="run id"):
            call()


def test_calls_for_a_run_that_is_not_there_say_so(bench: Any) -> None:
    engine = bench.engine(ask)
    calls = [
        lambda: engine.advance("gone"),
        lambda: engine.wait("gone"),
        lambda: engine.resume("gone", "answer", "x"),
        lambda: engine.signal("gone", "answer", "x"),
        lambda: engine.pause("gone"),
        lambda: engine.unpause("gone"),
        lambda: engine.cancel("gone"),
        lambda: engine.cancel("gone", force=True),
        lambda: engine.query("gone"),
        lambda: engine.get("gone"),
        lambda: engine.history("gone"),
        lambda: engine.fork("gone", before=1),
        lambda: engine.retry("gone"),
        lambda: engine.reset("gone"),
        lambda: engine.delete("gone"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match="no run 'gone'"):
            call()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tags": {"a": 1}}, "tags must be a mapping of text to text"),
        ({"tags": ["a"]}, "tags must be"),
        ({"tags": {"": "a"}}, "tags must be"),
        ({"tags": {"a\n": "b"}}, "a tag's name must be printable text of 1 to 200 characters"),
        ({"tags": {"\ud800": "b"}}, "a tag's name must be printable"),
        ({"tags": {"x" * 201: "b"}}, "a tag's name must be printable"),
        ({"tags": {"a": "\ud800"}}, "the value of tag 'a' holds a lone surrogate"),
        ({"tags": {"a": "x" * 10_001}}, "the value of tag 'a' can have 10,000 characters at most, got 10,001"),
        ({"if_open": "go"}, "if_open must be .*join.*, got 'go'"),
        ({"if_closed": None}, "if_closed must be .*retry_failed.*, got None"),
    ],
)
def test_wrong_options_of_start_are_refused(memory: Any, options: dict[str, Any], text: str) -> None:
    engine = memory.engine()
    with pytest.raises(InvalidInputError, match=text):
        engine.start(buy, Order("tea", 1), **options)
    assert [] == engine.runs()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on_event": 3}, "on_event must be a callable"),
        ({"lease": 0.01}, "lease must be at least 0.1 seconds"),
        ({"park_after": -1}, "park_after must be between 0 seconds"),
        ({"environment": Environment(), "clock": VirtualClock()}, "give an environment, or a clock .* not both"),
        ({"workflows": [price]}, "made with @workflow.*decorate it"),
    ],
)
def test_wrong_options_of_an_engine_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        Engine("memory:", **options)


def test_an_engine_needs_a_store() -> None:
    with pytest.raises(StoreMisconfiguredError, match="unknown store scheme"):
        Engine("carrier-pigeon:coop")
    with pytest.raises(InvalidInputError, match="store must be a URL"):
        Engine(42)  # type: ignore[arg-type]


def test_submit_only_records_the_start(bench: Any) -> None:
    tally = Tally()

    @workflow
    def work() -> Flow[int]:
        return (yield from tally.step("work"))

    engine = bench.engine()
    assert Running("r") == engine.submit(work, run_id="r")
    assert Running("r") == engine.submit(work, run_id="r")
    assert ("pending", ["start"], 0) == (engine.get("r").status, kinds(engine), tally["work"])
    assert RunCompleted("r", 1) == engine.advance("r")
    assert RunCompleted("r", 1) == engine.advance("r")
    assert RunCompleted("r", 1) == engine.submit(work, run_id="r")
    assert 1 == tally["work"]


def test_start_drives_what_was_submitted(bench: Any) -> None:
    engine = bench.engine()
    engine.submit(buy, Order("tea", 1), run_id="r")
    assert RunCompleted("r", 3) == engine.start(buy, Order("tea", 1), run_id="r")


def test_a_failing_workflow_is_recorded_as_failed(bench: Any) -> None:
    @workflow
    def fails(x: int) -> Flow[int]:
        yield from Step(price, Order("tea", x))
        raise LookupError("nothing there")

    engine = bench.engine()
    outcome = engine.start(fails, 1, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert ("builtins.LookupError", "nothing there") == (outcome.failure.type, outcome.failure.message)
    assert "test_start:" in outcome.failure.where.replace("tests.engine.", "")
    assert outcome == engine.start(fails, 1, run_id="r")


def test_defaults_of_arguments_are_recorded(bench: Any) -> None:
    @workflow
    def greet(name: str, mark: str = "!") -> Flow[str]:
        return (yield from Step(str.__add__, name, mark).options(into=str))

    engine = bench.engine()
    assert "ada!" == engine.start(greet, "ada", run_id="r").unwrap()
    assert ["ada", "!"] == engine.get("r").input
    first = engine.history("r")[0]
    assert isinstance(first, Start)
    assert (b'["ada","!"]', {}) == (bytes(first.input), first.tags)

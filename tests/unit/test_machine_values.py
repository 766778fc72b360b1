"""Values: what was decoded enters, live as on replay, and nobody shares a mutable one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import pytest

from stepwell import (
    All,
    CodecError,
    CorruptHistoryError,
    Flow,
    InvalidInputError,
    SetState,
    Step,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.machine import Machine
from stepwell.testing import received, replay, returned

from .tools import CODEC, Fold, ask, check_replay, did, fold, picture, raw, start_of, task


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Point:
    x: int
    y: int = 0


@dataclass
class Box:
    items: list[Point]
    label: str | None = None


VALUES: list[tuple[Any, Any]] = [
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (list[Point], [Point(1), Point(2, 3)]),
    (Box, Box([Point(1)], "x")),
    (dict[str, Box], {"a": Box([])}),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (Colour, Colour.RED),
    (bytes, b"\x00\xff"),
    (Point | None, None),
    (float, 0.1),
    (int, 2**63 - 1),
    (bool, False),
    (str, "é\u2028\U0001f40d"),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=[str(annotation) for annotation, _ in VALUES])
def test_a_value_comes_back_as_its_type_live_and_on_replay(annotation: Any, value: Any) -> None:
    """From a step, from a signal and as an input. Shows S7 (P3)."""
    seen: list[Any] = []

    @workflow
    def taking(given: annotation) -> Flow[annotation]:
        stepped = yield Step(ask).options(into=annotation)
        signalled = yield Suspend("go", into=annotation)
        seen.append((given, stepped, signalled))
        return stepped

    taking.fn.__annotations__.update(given=annotation, **{"return": Flow[annotation]})
    run = replay(taking, value, history=[returned(value), received("go", value)])
    assert [(value, value, value)] == seen
    assert [type(value)] * 3 == [type(one) for one in seen[0]]
    assert value == run.result
    check_replay(run)
    assert [(value, value, value)] * 2 == seen


def test_a_tuple_is_never_a_list_on_replay_only() -> None:
    """Without a type it is a list from the start: what is seen live is what is seen for ever."""
    seen: list[str] = []

    @workflow
    def taking() -> Flow[None]:
        seen.append(repr((yield task("t"))))

    check_replay(replay(taking, history=[returned([1, 2])]))
    assert ["[1, 2]", "[1, 2]"] == seen


def test_each_machine_has_an_input_of_its_own() -> None:
    """A workflow that changes its input in place finds it whole when it is replayed."""
    given = [3, 1, 2]

    @workflow
    def sorting(items: list[int]) -> Flow[list[int]]:
        items.sort()
        items.append((yield task("t")))
        return items

    run = replay(sorting, given, history=[returned(9)])
    assert [1, 2, 3, 9] == run.result
    assert [3, 1, 2] == given
    check_replay(run)


def test_each_signal_is_decoded_for_its_own_wait() -> None:
    """Two waits that take the same payload share nothing."""
    seen: list[list[int]] = []

    @workflow
    def twice() -> Flow[None]:
        def one() -> Flow[None]:
            got = yield Suspend("go", into=list[int])
            got.append(0)
            seen.append(got)

        yield All(one(), one())

    payload = [1]
    replay(twice, history=[received("go", payload), received("go", payload)])
    assert [[1, 0], [1, 0]] == seen
    assert [1] == payload


def test_the_result_is_what_is_read_back() -> None:
    """What the workflow keeps and changes afterwards is not what was recorded."""
    kept: list[Box] = []

    @workflow
    def giving() -> Flow[Box]:
        box = Box([Point(1)])
        kept.append(box)
        yield SetState(x=1)
        return box

    run = replay(giving)
    kept[0].items.clear()
    assert Box([Point(1)]) == run.result
    assert b'{"items":[{"x":1,"y":0}],"label":null}' == run.machine.result_raw


def test_a_result_that_can_not_be_recorded_fails_the_run() -> None:
    @workflow
    def giving() -> Flow[Any]:
        yield SetState(x=1)
        return {"ok": [1, object()]}

    run = replay(giving)
    assert run.failure.is_a(CodecError)
    assert "$.ok[1]" == run.error.path  # type: ignore[union-attr]


def test_a_result_of_another_type_than_declared_fails_the_run() -> None:
    @workflow
    def giving() -> Flow[int]:
        yield SetState(x=1)
        return "three"  # type: ignore[return-value]

    assert replay(giving).failure.is_a(CodecError)


def test_a_recorded_input_that_fits_no_more_is_an_error() -> None:
    @workflow
    def taking(point: Point) -> Flow[None]:
        yield task("t")

    with pytest.raises(CodecError) as caught:
        Machine(taking, start_of(taking, "no point"), codec=CODEC)
    assert "$" == caught.value.path


@pytest.mark.parametrize("inputs", [(), (1, 2, 3)])
def test_another_number_of_recorded_inputs_is_an_error(inputs: tuple[int, ...]) -> None:
    @workflow
    def taking(a: int, b: int) -> Flow[None]:
        yield task("t")

    with pytest.raises(CodecError, match="<workflow taking version 1>"):
        Machine(taking, start_of(taking, *inputs), codec=CODEC)


def test_a_parameter_that_was_added_with_a_default_is_no_error() -> None:
    @workflow
    def taking(a: int, b: int = 5) -> Flow[int]:
        yield SetState(x=1)
        return a + b

    machine = Machine(taking, start_of(taking, 1), codec=CODEC)
    assert 6 == machine.result


def test_an_input_that_is_no_list_is_corrupt() -> None:
    @workflow
    def taking() -> Flow[None]:
        yield task("t")

    start = e.Start(workflow="taking", version="1", input=raw({"a": 1}))
    with pytest.raises(CorruptHistoryError, match="no JSON list"):
        Machine(taking, start, codec=CODEC)


def test_wrong_inputs_are_refused_before_anything_starts() -> None:
    started: list[int] = []

    @workflow
    def taking(number: int) -> Flow[None]:
        started.append(number)
        yield task("t")

    with pytest.raises(InvalidInputError, match="workflow 'taking', argument 'number'"):
        replay(taking, "one")  # type: ignore[arg-type]
    assert [] == started


def test_the_bytes_of_a_signal_that_fits_no_type_stay_in_the_buffer() -> None:
    """Until somebody waits nobody knows what it should be."""

    @workflow
    def later() -> Flow[Any]:
        yield task("t")
        return (yield Suspend("go"))

    anything = {"deep": [{"x": None}]}
    run = fold(later, e.Resume(event_name="go", value=raw(anything)), did("0", "t"))
    assert anything == run.machine.result


def test_a_step_whose_annotation_can_not_be_read_says_so() -> None:
    def wrong() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        ...

    @workflow
    def calling() -> Flow[Any]:
        return (yield Step(wrong))

    run = fold(calling)
    before = picture(run.machine)
    with pytest.raises(CodecError, match="Nowhere"):
        run.machine.feed(did("0", "wrong", 1))
    assert before == picture(run.machine)


def test_what_was_issued_is_not_recorded_twice_by_a_fold() -> None:
    """A trace holds every command once, in the order of issue."""

    @workflow
    def many() -> Flow[None]:
        for n in range(50):
            yield task(f"t{n}")

    run = Fold(many, [start_of(many), *(did(str(n), f"t{n}") for n in range(50))])
    assert [f"{n} t{n}" for n in range(50)] == run.asked

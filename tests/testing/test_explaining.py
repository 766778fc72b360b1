"""`explain_difference`: which field of a command differs."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    Child,
    Compensate,
    Emit,
    Flow,
    Now,
    Race,
    Random,
    RetryPolicy,
    SetState,
    Sleep,
    Step,
    Suspend,
    Transaction,
    workflow,
)
from stepwell.testing import explain_difference, replay


@frozen
class Found:
    kind: str
    severity: int
    more: dict[str, Any]


def draft(found: Any, note: str = "") -> str:
    return "x"


def book(db: sqlite3.Connection, n: int) -> None: ...


def send(found: Any) -> None: ...


@workflow
def inner(n: int) -> Flow[int]:
    return (yield from Step(draft, n))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (Step(draft, 1), Step(send, 1), [f"fn: {__name__}.draft != {__name__}.send"]),
        (Step(draft, 1), Step(draft, 2), ["args[0]: 1 != 2"]),
        (Step(draft, 1), Step(draft, "1"), ["args[0]: 1 != '1'   (int and str)"]),
        (
            Step(draft, Found("bug", 1, {"a": [1, 2]})),
            Step(draft, Found("bug", 2, {"a": [1, 3], "b": 0})),
            ["args[0].severity: 1 != 2", "args[0].more['a'][1]: 2 != 3", "args[0].more['b']: missing on the left: 0"],
        ),
        (
            Step(draft, 1, "x"),
            Step(draft, 1, note="x"),
            ["args[1]: missing on the right: 'x'", "kwargs['note']: missing on the left: 'x'"],
        ),
        (Step(draft, 1), Suspend("go"), ["a Step != a Suspend: Step(draft, 1) != Suspend('go')"]),
        (Step(draft, 1), Transaction(book, 1), ["a Step != a Transaction: Step(draft, 1) != Transaction(book, 1)"]),
        (None, Step(draft, 1), ["None != Step(draft, 1)   (NoneType and Step)"]),
        (Suspend("go"), Suspend("stop"), ["signal: 'go' != 'stop'"]),
        (Sleep(5), Sleep(6), ["seconds: 5.0 != 6.0"]),
        (Now(), Random(), ["a Now != a Random: Now() != Random()"]),
        (Child(inner, 1), Child(inner, 2), ["args[0]: 1 != 2"]),
        (SetState(a=1), SetState(a=2), ["values['a']: 1 != 2"]),
        (Emit(1, topic="a"), Emit(1, topic="b"), ["topic: 'a' != 'b'"]),
        (Compensate(send, 1), Compensate(send, 2), ["step.args[0]: 1 != 2"]),
        (All(Step(draft, 1), Sleep(1)), All(Step(draft, 2), Sleep(1)), ["branches[0].args[0]: 1 != 2"]),
        (Race(a=Sleep(1)), Race(b=Sleep(1)), ["names[0]: 'a' != 'b'"]),
        ([Step(draft, 1)], [Step(draft, 1), Sleep(5)], ["[1]: missing on the left: Sleep(5.0)"]),
        (
            [Step(draft, 1), Sleep(5)],
            [Step(draft, 2)],
            ["[0].args[0]: 1 != 2", "[1]: missing on the right: Sleep(5.0)"],
        ),
    ],
)
def test_the_fields_that_differ_are_named(left: Any, right: Any, expected: list[str]) -> None:
    lines = explain_difference(left, right)
    assert lines is not None
    assert [f"  {line}" for line in expected] == lines[1:-1]
    assert "don't count" in lines[-1]


def test_the_first_line_sums_it_up() -> None:
    run = replay(inner, 3)
    lines = explain_difference(run.next, Step(draft, 4))
    assert lines is not None
    assert "Step(draft, 3) == Step(draft, 4)" == lines[0]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 2),
        ("a", None),
        ([1], [2]),
        (Step(draft, 1), Step(draft, 1)),
        (Step(draft, 1), Step(draft, 1).options(retry=RetryPolicy(3), timeout=5)),
        (Suspend("go", timeout=5), Suspend("go")),
    ],
)
def test_what_is_equal_or_no_command_is_left_to_others(left: Any, right: Any) -> None:
    assert explain_difference(left, right) is None


def test_much_is_shortened() -> None:
    lines = explain_difference(Step(draft, list(range(100))), Step(draft, list(range(1, 101))))
    assert lines is not None
    assert "  ... and 80 more" == lines[-2]
    long = explain_difference(Step(draft, "x" * 1000), Step(draft, "y" * 1000))
    assert long is not None
    assert max(map(len, long)) < 700


class Odd:
    """Its `==` gives no answer."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_a_value_that_can_not_be_compared_is_shown_as_it_is() -> None:
    lines = explain_difference(Step(draft, Odd()), Step(draft, Odd()))
    assert lines is not None
    assert "args" in lines[1]

"""RetryPolicy: how often, after what delay, and for which failures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import InvalidInputError, RetryPolicy, RunBusyError, StoreError
from stepwell.failures import failure_of
from stepwell.retry import NO_RETRY, as_seconds


def test_the_delay_grows_by_the_factor_up_to_the_cap() -> None:
    policy = RetryPolicy(9, initial=1, factor=2, cap=10, jitter=0)
    assert [1, 2, 4, 8, 10, 10] == [policy.delay(n, "seed") for n in range(1, 7)]


def test_a_factor_of_one_keeps_the_delay() -> None:
    policy = RetryPolicy(9, initial=3, factor=1, jitter=0)
    assert [3, 3, 3] == [policy.delay(n, "seed") for n in (1, 2, 100)]


def test_durations_may_be_timedeltas() -> None:
    policy = RetryPolicy(initial=timedelta(minutes=1), cap=timedelta(hours=1), jitter=0)
    assert (60.0, 3600.0) == (policy.initial, policy.cap)
    assert 120 == policy.delay(2, "")


def test_the_jitter_is_drawn_from_run_step_and_attempt() -> None:
    """A resumed run computes the same delay; other runs, steps and attempts get others."""
    policy = RetryPolicy(9, initial=100, factor=1, jitter=0.5, cap=1000)
    assert policy.delay(1, "run/step") == policy.delay(1, "run/step")
    delays = {policy.delay(n, seed) for n in (1, 2, 3) for seed in ("a", "b", "c")}
    assert 9 == len(delays)


def test_the_jitter_is_the_same_on_every_machine() -> None:
    """It is part of what a history leads to, so it may never change."""
    policy = RetryPolicy(9, initial=100, factor=1, jitter=1, cap=1000)
    assert [45.8, 78.3, 23.0] == [round(policy.delay(n, "run/step"), 1) for n in (1, 2, 3)]


@given(
    st.integers(1, 10**9),
    st.floats(0, 1e9),
    st.floats(1, 1e6),
    st.floats(0, 1e9),
    st.floats(0, 1),
    st.text(),
)
def test_a_delay_is_never_negative_nor_beyond_the_cap(
    attempt: int, initial: float, factor: float, cap: float, jitter: float, seed: str
) -> None:
    policy = RetryPolicy(10**9, initial=initial, factor=factor, cap=cap, jitter=jitter)
    delay = policy.delay(attempt, seed)
    most = cap if attempt > 1 or initial > cap else initial
    assert 0 <= delay <= most


def test_three_attempts_unless_said_otherwise_and_one_without_a_policy() -> None:
    assert [True, True, False] == [RetryPolicy().wants(OSError(), n) for n in (1, 2, 3)]
    assert not NO_RETRY.wants(OSError(), 1)


@pytest.mark.parametrize(
    ("expected", "policy"),
    [
        (True, RetryPolicy()),
        (True, RetryPolicy(on=OSError)),
        (True, RetryPolicy(on=(KeyError, Exception))),
        (False, RetryPolicy(on=KeyError)),
        (False, RetryPolicy(on=())),
        (False, RetryPolicy(give_up_on=OSError)),
        (False, RetryPolicy(on=ConnectionError, give_up_on=OSError)),
        (True, RetryPolicy(give_up_on=(KeyError, TimeoutError))),
    ],
)
def test_classes_say_which_failures_are_worth_it(expected: bool, policy: RetryPolicy) -> None:
    """Subclasses too, live and by the record; giving up is stronger."""
    assert expected is policy.wants(ConnectionError("x"), 1)
    assert expected is policy.wants_recorded(failure_of(ConnectionError("x")), 1)


def test_a_predicate_is_asked_last_and_with_the_live_exception() -> None:
    seen: list[BaseException] = []

    def when(error: BaseException) -> bool:
        seen.append(error)
        return "busy" in str(error)

    policy = RetryPolicy(on=OSError, when=when)
    busy, other = OSError("busy"), OSError("gone")
    assert [True, False, False, False] == [
        policy.wants(busy, 1),
        policy.wants(other, 1),
        policy.wants(KeyError("busy"), 1),
        policy.wants(busy, 3),
    ]
    assert [busy, other] == seen
    assert policy.wants_recorded(failure_of(other), 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_is_no_exception_is_never_tried_again(error: BaseException) -> None:
    assert not RetryPolicy(on=BaseException).wants(error, 1)


def test_errors_of_the_library_say_themselves_whether_it_is_worth_it() -> None:
    assert RetryPolicy().wants(RunBusyError("x"), 1)
    assert not RetryPolicy().wants(StoreError("x"), 1)


def test_policies_are_values() -> None:
    assert RetryPolicy(3, on=OSError) == RetryPolicy(3, on=(OSError,))
    assert RetryPolicy(3) != RetryPolicy(4)
    assert hash(RetryPolicy(3)) == hash(RetryPolicy(3))
    with pytest.raises(AttributeError):
        RetryPolicy(3).attempts = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("attempts must be a whole number of 1 or more, got 0", {"attempts": 0}),
        ("got 1.5", {"attempts": 1.5}),
        ("got True", {"attempts": True}),
        ("RetryPolicy initial must be between 0 seconds and 10,000 years, got -1", {"initial": -1}),
        ("RetryPolicy cap must be a timedelta or a number of seconds, got 'x'", {"cap": "x"}),
        ("factor must be between 1 and 1,000,000, got 0.5", {"factor": 0.5}),
        ("got nan", {"factor": float("nan")}),
        ("jitter must be between 0 and 1, got 1.1", {"jitter": 1.1}),
        ("jitter must be between 0 and 1, got 'x'", {"jitter": "x"}),
        ("on takes exception classes, got 'OSError'", {"on": "OSError"}),
        ("on takes exception classes, got <class 'int'>", {"on": (OSError, int)}),
        ("give_up_on takes exception classes, got 3", {"give_up_on": 3}),
        ("when must be a callable that takes the exception, got 3", {"when": 3}),
    ],
)
def test_wrong_options_are_refused_at_once(told: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RetryPolicy(**options)
    assert told in str(caught.value)


@pytest.mark.parametrize(("seconds", "value"), [(0, 0), (1.5, 1.5), (90, timedelta(minutes=1.5)), (3.2e11, 3.2e11)])
def test_durations_are_seconds(seconds: float, value: Any) -> None:
    assert seconds == as_seconds(value, "x")
    assert isinstance(as_seconds(value, "x"), float)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e12, "1", None, True, timedelta(seconds=-1)])
def test_durations_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="the wait must be"):
        as_seconds(value, "the wait")

"""ContinueAsNew: what a fake history shows of the end of one history and the start of the next."""

from __future__ import annotations

import pytest

from stepwell import ContinueAsNew, Flow, InvalidInputError, Step, Suspend, workflow
from stepwell.testing import cancelled, received, replay, returned
from stepwell.testing.answers import cancel


def save(total: int) -> None: ...


@workflow
def counter(total: int, name: str = "n") -> Flow[int]:
    try:
        total += yield from Suspend("add", into=int)
        if total > 100:
            return total
        yield ContinueAsNew(total, name)
    finally:
        yield Step(save, total)
    return -1


def test_it_ends_the_history_after_clean_up_with_the_arguments_of_the_next() -> None:
    run = replay(counter, 5, history=[received("add", 2)])
    assert (Step(save, 7), None) == (run.next, run.continued)
    run.feed(returned(None))
    assert ("continue", (7, "n")) == (run.status, run.continued)
    again = replay(counter, *(run.continued or ()), history=[received("add", 200), returned(None)])
    assert (207, None) == (again.result, again.continued)


def test_a_cancel_that_comes_during_clean_up_wins() -> None:
    run = replay(counter, 5, history=[received("add", 2), cancel(), cancelled()])
    assert ("cancelled", None) == (run.status, run.continued)


def test_arguments_that_do_not_fit_are_told_at_the_yield() -> None:
    @workflow
    def wrong(total: int) -> Flow[int]:
        yield ContinueAsNew("seven")
        return total

    with pytest.raises(InvalidInputError, match="argument 'total'"):
        replay(wrong, 1)


def test_two_are_equal_when_they_go_on_with_the_same() -> None:
    assert ContinueAsNew(1, "a") == ContinueAsNew(1, "a") != ContinueAsNew(2)

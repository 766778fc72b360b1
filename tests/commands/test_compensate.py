"""Compensate: what a fake history shows of what is undone."""

from __future__ import annotations

from stepwell import Compensate, Flow, RetryPolicy, Step, Suspend, workflow
from stepwell.testing import raised, received, replay, returned
from stepwell.testing.answers import cancel


def undo(what: str) -> None: ...
def act(what: str) -> None: ...


@workflow
def acting(names: list[str]) -> Flow[int]:
    for name in names:
        yield Compensate(undo, name)
        yield Step(act, name)
    yield Suspend("go")
    return len(names)


def test_nothing_is_undone_when_the_run_succeeds() -> None:
    assert 2 == replay(acting, ["a", "b"], history=[returned(None), returned(None), received("go", None)]).result


def test_a_failure_undoes_in_reverse_and_keeps_how_that_failed() -> None:
    run = replay(acting, ["a", "b"], history=[returned(None), raised(ValueError("no"))])
    assert ("open", Step(undo, "b")) == (run.status, run.next)
    run.feed(raised(OSError("stuck")))
    assert Step(undo, "a") == run.next
    run.feed(returned(None))
    assert "error" == run.status
    assert run.failure.is_a(ValueError)
    assert ["step 'undo' failed: OSError: stuck"] == [one.message for one in run.machine.suppressed]


def test_a_cancel_undoes_too() -> None:
    run = replay(acting, ["a"], history=[returned(None), cancel()])
    assert Step(undo, "a") == run.next
    run.feed(returned(None))
    assert "cancelled" == run.status


def test_options_are_those_of_its_step() -> None:
    command = Compensate(undo, "a").options(name="put-back", retry=RetryPolicy(3))
    assert ("put-back", 3) == (command.label, command.step.given.retry.attempts)  # type: ignore[union-attr]
    assert Compensate(undo, "a") == Compensate(undo, "a") != Compensate(undo, "b")

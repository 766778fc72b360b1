"""Wrong yields, commands that nobody yields, loops that never wait: mistakes of a workflow, told at its own line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    All,
    Emit,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    Now,
    Patched,
    Race,
    Random,
    SetState,
    Sleep,
    Step,
    StepwellWarning,
    Suspend,
    Uuid,
    workflow,
)
from stepwell.commands import Command
from stepwell.testing import Replay, raised, replay, returned

from .tools import ask, task


def helper() -> Flow[int]:
    yield task("inner")
    return 1


class Loud:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


WRONG: list[tuple[Any, str]] = [
    (None, "it yielded None, which is no command"),
    (3, "it yielded 3, which is no command"),
    ("text", "it yielded 'text', which is no command"),
    ([1], "it yielded [1], which is no command"),
    ("x" * 500, "xxx..., which is no command"),
    (Loud(), "it yielded a Loud, which is no command"),
    (Now, "which is no command; write Now(...)"),
    (ask, "which is no command; write Step(function, arguments)"),
]


@pytest.mark.parametrize(("value", "told"), WRONG, ids=[told for _, told in WRONG])
@pytest.mark.parametrize("when", ["first", "later", "in a branch", "in a helper"])
def test_a_wrong_yield_shows_the_value_and_the_workflows_own_line(value: Any, told: str, when: str) -> None:
    def wrongly() -> Flow[None]:
        if when != "first":
            yield task("before")
        yield value  # the line

    @workflow
    def wrong() -> Flow[None]:
        if when == "in a branch":
            yield All(wrongly(), Sleep(60))
        else:
            yield from wrongly()

    def provoke() -> None:
        run = replay(wrong)
        run.feed(returned())

    with pytest.raises(InvalidYieldError) as caught:
        provoke()
    line = wrongly.__code__.co_firstlineno + 3
    assert f"workflow 'wrong', {Path(__file__).name}:{line}, in " in str(caught.value)
    assert told in str(caught.value)
    assert "wrongly: it yielded" in str(caught.value)
    assert ("INVALID_YIELD", False) == (caught.value.code, caught.value.retryable)


def test_a_generator_is_told_how_to_be_run() -> None:
    @workflow
    def wrong() -> Flow[None]:
        yield helper()  # type: ignore[misc]

    with pytest.raises(InvalidYieldError, match="write `yield from` to run a generator in this workflow"):
        replay(wrong)


def test_a_call_that_is_yielded_shows_what_it_gave() -> None:
    """`yield f(x)` in place of `yield Step(f, x)`."""

    @workflow
    def wrong() -> Flow[None]:
        yield len("abc")  # type: ignore[misc]

    with pytest.raises(InvalidYieldError, match="it yielded 3, which is no command"):
        replay(wrong)


def test_it_is_not_thrown_into_the_workflow() -> None:
    seen: list[BaseException] = []

    @workflow
    def wrong() -> Flow[None]:
        try:
            yield 3  # type: ignore[misc]
        except Exception as error:
            seen.append(error)

    with pytest.raises(InvalidYieldError):
        replay(wrong)
    assert [] == seen


def test_the_line_of_a_command_that_is_a_branch_is_that_of_its_group() -> None:
    @workflow
    def wrong() -> Flow[None]:
        yield All(Now(), Step(lambda: 3))

    with pytest.raises(InvalidYieldError, match=r"test_machine_yields.py:\d+, in .*\.wrong: a lambda has no name"):
        replay(wrong)


# ---- what is not yielded

MAKES: dict[str, Callable[[], Command[Any]]] = {
    "Step(work)": lambda: task("work"),
    "Suspend(go)": lambda: Suspend("go"),
    "Sleep()": lambda: Sleep(1),
    "Now()": lambda: Now(),
    "Random()": lambda: Random(),
    "Uuid()": lambda: Uuid(),
    "Emit(topic)": lambda: Emit(1, topic="topic"),
    "SetState()": lambda: SetState(a=1),
    "Patched(fix)": lambda: Patched("fix"),
    "All()": lambda: All(),
    "Race()": lambda: Race(Now()),
}


@pytest.mark.parametrize("made", MAKES)
def test_a_command_that_was_made_and_never_yielded_warns(made: str) -> None:
    @workflow
    def forgetful() -> Flow[int]:
        MAKES[made]()
        yield task("other")
        return 1

    run: Replay[int] = replay(forgetful)
    with pytest.warns(StepwellWarning) as caught:
        run.feed(returned())
    assert [f"workflow 'forgetful' made commands and never yielded them: {made}"] == [str(w.message) for w in caught]
    assert 1 == run.result


def test_several_are_named_in_their_order() -> None:
    @workflow
    def forgetful() -> Flow[None]:
        Now()
        yield SetState(a=1)
        task("one")
        task("two")

    with pytest.warns(StepwellWarning, match=r"never yielded them: Now\(\), Step\(one\), Step\(two\)$"):
        replay(forgetful)


@pytest.mark.parametrize("made", [name for name in MAKES if name not in ("SetState()", "Patched(fix)")])
@pytest.mark.parametrize("group", [All, Race])
def test_a_branch_counts_as_yielded_with_its_group(made: str, group: Any) -> None:
    @workflow
    def careful() -> Flow[None]:
        yield group(MAKES[made]())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(careful).close()


def test_a_step_that_is_replaced_by_its_options_need_not_be_yielded() -> None:
    @workflow
    def careful() -> Flow[Any]:
        return (yield Step(ask).options(name="a").options(timeout=3))

    assert 1 == replay(careful, history=[returned(1)]).result


def test_a_command_may_be_made_long_before_it_is_yielded() -> None:
    @workflow
    def planning() -> Flow[list[Any]]:
        plan = [task("a"), task("b"), Now()]
        got = [(yield plan[0]), (yield plan[1]), (yield plan[0])]
        yield plan[2]
        return got

    run = replay(planning, history=[returned(1), returned(2), returned(3)])
    assert ["0", "1", "2", "3"] == [at for at, _ in run.commands]


def test_a_command_that_was_made_outside_of_the_workflow_may_be_left() -> None:
    constant = Sleep(60)

    @workflow
    def careful(snooze: bool) -> Flow[int]:
        yield SetState(a=1)
        if snooze:
            yield constant
        return 1

    assert 1 == replay(careful, False).result


def test_what_a_workflow_leaves_when_it_fails_is_no_mistake() -> None:
    """It had no chance to yield it."""

    @workflow
    def failing() -> Flow[None]:
        first, second = task("a"), task("b")
        yield first
        yield second

    assert "error" == replay(failing, history=[raised(OSError("x"))]).status


def test_two_machines_in_turn_do_not_hear_of_each_others_commands() -> None:
    @workflow
    def inner() -> Flow[int]:
        yield SetState(a=1)
        return 1

    @workflow
    def outer() -> Flow[int]:
        kept = task("a")
        nested = replay(inner).result
        yield kept
        return nested

    assert 1 == replay(outer, history=[returned()]).result


# ---- loops


@pytest.mark.parametrize("command", [SetState(a=1), All()], ids=["set state", "empty group"])
def test_a_loop_that_never_waits_is_told(command: Any) -> None:
    """What is answered at once could go on for ever, and nobody could cancel it."""

    @workflow
    def endless() -> Flow[None]:
        while True:
            yield command

    with pytest.raises(InvalidYieldError, match=r"endless: one turn issued more than 100,000 commands: it loops"):
        replay(endless)


def test_a_long_loop_that_waits_is_fine() -> None:
    @workflow
    def long() -> Flow[int]:
        total = 0
        for _ in range(5000):
            yield SetState(total=total)
            total += yield task("t").options(into=int)
        return total

    run = replay(long)
    for _ in range(5000):
        run.feed(returned(1))
    assert 5000 == run.result


# ---- what a workflow may be


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_never_the_outcome_of_a_run(stop: type[BaseException]) -> None:
    @workflow
    def stopping() -> Flow[None]:
        yield task("a")
        raise stop

    run = replay(stopping)
    with pytest.raises(stop):
        run.feed(returned())
    assert ("open", None) == (run.status, run.error)


@pytest.mark.parametrize("error", [ValueError("own"), GeneratorExit(), BaseException("base")])
def test_every_other_error_of_own_code_fails_the_run(error: BaseException) -> None:
    @workflow
    def failing() -> Flow[None]:
        yield task("a")
        raise error

    run = replay(failing, history=[returned()])
    assert "error" == run.status
    assert run.failure.where.endswith(":" + str(failing.fn.__code__.co_firstlineno + 3))


def test_a_stop_iteration_of_own_code_is_no_end() -> None:
    """Python turns it into a RuntimeError, live as on replay."""

    @workflow
    def failing() -> Flow[None]:
        yield task("a")
        next(iter([]))

    assert replay(failing, history=[returned()]).failure.is_a(RuntimeError)


def test_a_wrong_command_is_an_error_of_the_code() -> None:
    """It is found while nothing is written, and the run can go on once the code is mended."""

    @workflow
    def wrong() -> Flow[None]:
        yield Sleep("soon")  # type: ignore[call-overload]

    with pytest.raises(InvalidInputError, match="got 'soon'"):
        replay(wrong)


def test_another_workflow_can_be_put_inline() -> None:
    """Its commands are numbered as the caller's own."""

    @workflow
    def inner(n: int) -> Flow[int]:
        got: int = yield task(f"inner{n}")
        return got

    @workflow
    def outer() -> Flow[list[int]]:
        first = yield from inner(1)
        return [first, (yield from inner(2)), (yield task("own"))]

    run = replay(outer, history=[returned(1), returned(2), returned(3)])
    assert [1, 2, 3] == run.result
    assert ["0", "1", "2"] == [at for at, _ in run.commands]


def test_a_step_of_the_workflow_itself_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="yield from"):
        Step(helper)

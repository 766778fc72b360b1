"""Closing: what parking does to the generators of a run that goes on later."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from stepwell import (
    All,
    Emit,
    Flow,
    InvalidYieldError,
    Now,
    Patched,
    Race,
    Random,
    SetState,
    Sleep,
    StepwellWarning,
    Suspend,
    Uuid,
    workflow,
)
from stepwell.commands import Command
from stepwell.testing import patched, replay, returned

from .tools import asked, task

YIELDS: dict[str, Callable[[], Command[Any]]] = {
    "step": lambda: task("work"),
    "suspend": lambda: Suspend("go"),
    "sleep": lambda: Sleep(60),
    "now": lambda: Now(),
    "random": lambda: Random(),
    "uuid": lambda: Uuid(),
    "all": lambda: All(task("work")),
    "race": lambda: Race(task("work"), Sleep(1)),
    "patched": lambda: Patched("fix"),
}
"""Every kind of yield that a run can be parked at."""


@contextmanager
def noted(log: list[str], what: str) -> Iterator[None]:
    """A context manager that says when it is left."""
    try:
        yield
    finally:
        log.append(what)


@pytest.mark.parametrize("kind", YIELDS)
def test_plain_code_round_every_kind_of_yield_runs(kind: str) -> None:
    """`finally`, `with` and a bare `except` run at each park, in their order; nothing after the yield does."""
    log: list[str] = []

    @workflow
    def careful() -> Flow[None]:
        try:
            with noted(log, "with"), ExitStack() as stack:
                stack.callback(log.append, "stack")
                try:
                    yield YIELDS[kind]()
                    log.append("went on")
                except:
                    log.append("except")
                    raise
                else:
                    log.append("else")
        finally:
            log.append("finally")

    run = replay(careful)
    commands = asked(run)
    run.close()
    assert ["except", "stack", "with", "finally"] == log
    assert commands == asked(run)
    assert "open" == run.status


@pytest.mark.parametrize("kind", YIELDS)
@pytest.mark.parametrize("cleanup", [*YIELDS, "emit", "set state"])
def test_a_command_that_is_yielded_while_closing_is_never_performed(kind: str, cleanup: str) -> None:
    """It is neither issued nor answered; the code behind it does not run. Shows S19 (P3)."""
    log: list[str] = []
    clean = {**YIELDS, "emit": lambda: Emit(1), "set state": lambda: SetState(a=1)}[cleanup]

    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield YIELDS[kind]()
        finally:
            yield clean()
            log.append("behind it")

    run = replay(cleaning)
    commands = asked(run)
    run.close()
    assert [] == log
    assert commands == asked(run)
    assert ({}, []) == (run.state, run.emitted)


@pytest.mark.parametrize("form", ["yield", "yield from"])
def test_both_forms_of_yield_close_alike(form: str) -> None:
    log: list[str] = []

    @workflow
    def cleaning() -> Flow[None]:
        try:
            if form == "yield":
                yield task("work")
            else:
                yield from task("work")
        finally:
            log.append("finally")
            yield from task("clean")
            log.append("behind it")

    replay(cleaning).close()
    assert ["finally"] == log


def test_a_bare_except_does_not_keep_it_alive() -> None:
    """A workflow that swallows everything is closed again at its next yield."""
    log: list[str] = []

    @workflow
    def stubborn() -> Flow[None]:
        for n in range(5):
            try:
                yield task(f"t{n}")
            except:  # noqa: E722 - what this test is about
                log.append(f"t{n}")

    run = replay(stubborn)
    run.close()
    assert ["t0", "t1", "t2", "t3", "t4"] == log
    assert ["0 t0"] == asked(run)


@pytest.mark.parametrize("yields", [99, 100, 101, 1000])
def test_after_a_hundred_commands_it_warns_and_lets_go(yields: int) -> None:
    log: list[int] = []

    @workflow
    def stubborn() -> Flow[None]:
        for n in range(yields + 1):
            try:
                yield task("t")
            except BaseException:
                log.append(n)

    run = replay(stubborn)
    if yields < 100:
        run.close()
    else:
        with pytest.warns(StepwellWarning, match="'stubborn'.*yielded 100 commands while it was closed; none was"):
            run.close()
    assert min(yields + 1, 100) == len(log)
    del run
    with_unraisable_ignored(gc.collect)


def with_unraisable_ignored(call: Callable[[], Any]) -> None:
    """What is left to the garbage collector complains once more."""
    import sys

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        call()
    finally:
        sys.unraisablehook = hook


def test_branches_are_closed_innermost_first() -> None:
    log: list[str] = []

    @workflow
    def nested() -> Flow[None]:
        def watched(name: str, command: Any) -> Flow[None]:
            try:
                yield command
            finally:
                log.append(name)

        yield from watched(
            "root",
            All(
                watched("left", All(watched("left.0", task("a")), watched("left.1", Sleep(1)))),
                watched("right", Race(watched("right.0", Suspend("x")))),
            ),
        )

    replay(nested).close()
    assert "root" == log[-1]
    assert log.index("left.0") < log.index("left") < log.index("root")
    assert log.index("left.1") < log.index("left")
    assert log.index("right.0") < log.index("right") < log.index("root")


def test_branches_that_have_not_started_never_run() -> None:
    log: list[str] = []

    @workflow
    def limited() -> Flow[None]:
        def watched(name: str) -> Flow[None]:
            try:
                yield task(name)
            finally:
                log.append(name)

        yield All(watched("a"), watched("b"), limit=1)

    replay(limited).close()
    assert ["a"] == log


def test_inner_generators_are_closed_before_the_one_that_delegates_to_them() -> None:
    """Each to its end, however often it yields in its clean-up."""
    log: list[str] = []

    def inner() -> Flow[None]:
        try:
            yield task("work")
        finally:
            try:
                yield task("one")
            finally:
                log.append("one")
                try:
                    yield task("two")
                finally:
                    log.append("two")

    @workflow
    def outer() -> Flow[None]:
        try:
            yield from inner()
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append("outer")

    replay(outer).close()
    gc.collect()
    assert ["one", "two", "GeneratorExit", "outer"] == log


def test_an_outer_generator_never_sees_that_an_inner_one_yields_once_more() -> None:
    """`except Exception` round a helper would otherwise meet Python's own RuntimeError, and take it for a failure."""
    log: list[str] = []

    def helper() -> Flow[None]:
        try:
            yield task("work")
        finally:
            yield task("clean")

    @workflow
    def outer() -> Flow[None]:
        try:
            yield from helper()
        except Exception:
            log.append("handled")
            yield task("never")

    run = replay(outer)
    run.close()
    assert [] == log
    assert ["0 work"] == asked(run)


def test_a_deep_chain_of_generators_is_closed_to_its_end() -> None:
    """The hundred is for each that goes on yielding, not for how many there are."""
    log: list[int] = []

    def down(depth: int) -> Flow[None]:
        try:
            if depth:
                yield from down(depth - 1)
            else:
                yield task("work")
        finally:
            log.append(depth)

    @workflow
    def deep() -> Flow[None]:
        yield from down(150)

    replay(deep).close()
    assert list(range(151)) == log


def test_an_error_of_clean_up_code_is_a_warning() -> None:
    """The run is not over: it goes on from its history."""

    @workflow
    def broken() -> Flow[None]:
        try:
            yield task("work")
        finally:
            raise ValueError("no good")

    run = replay(broken)
    with pytest.warns(StepwellWarning, match="clean-up code failed when the run was parked: ValueError: no good"):
        run.close()
    assert "open" == run.status


def test_all_generators_are_closed_even_when_one_complains() -> None:
    """Also where warnings are errors."""
    log: list[str] = []

    @workflow
    def many() -> Flow[None]:
        def watched(name: str) -> Flow[None]:
            try:
                yield task(name)
            finally:
                log.append(name)
                raise ValueError(name)

        yield All(watched("a"), watched("b"))

    run = replay(many)
    with pytest.raises(StepwellWarning):
        run.close()
    assert ["b", "a"] == log


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_not_held_up(stop: type[BaseException]) -> None:
    @workflow
    def stopping() -> Flow[None]:
        try:
            yield task("work")
        finally:
            raise stop

    run = replay(stopping)
    with pytest.raises(stop):
        run.close()


def test_closing_twice_does_nothing_more() -> None:
    log: list[str] = []

    @workflow
    def watched() -> Flow[None]:
        with noted(log, "with"):
            yield task("work")

    run = replay(watched)
    run.close()
    run.close()
    assert ["with"] == log


def test_closing_a_run_that_has_ended_does_nothing() -> None:
    @workflow
    def quick() -> Flow[int]:
        yield Patched("x")
        return 1

    run = replay(quick, history=[patched()])
    run.close()
    assert 1 == run.result


def test_finally_runs_for_good_when_the_run_really_passes_there() -> None:
    """Not each time it is parked: the release is performed once, after the step. Shows S19 (P3)."""

    @workflow
    def locking() -> Flow[str]:
        try:
            yield task("work")
        finally:
            yield task("release")
        return "done"

    first = replay(locking)
    first.close()
    assert ["0 work"] == asked(first)
    assert "done" == replay(locking, history=[returned(), returned()]).result


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_wrong_yield_closes_the_generators_too(when: str) -> None:
    """In the same thread and at once, not when the garbage collector comes."""
    log: list[str] = []

    @workflow
    def wrong() -> Flow[None]:
        def beside() -> Flow[None]:
            with noted(log, "beside"):
                yield task("a")

        def broken() -> Flow[None]:
            with noted(log, "broken"):
                if when == "later":
                    yield task("b")
                yield 3  # type: ignore[misc]

        with noted(log, "root"):
            yield All(beside(), broken())

    def provoke() -> None:
        run = replay(wrong)
        run.feed(returned(step="b"))

    with pytest.raises(InvalidYieldError):
        provoke()
    assert ["broken", "beside", "root"] == log

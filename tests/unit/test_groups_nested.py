"""Branches nested three deep: every order in which they are answered leads to the same commands, live and on replay."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from stepwell import All, Flow, Race, Sleep, StepFailed, Suspend, workflow
from stepwell.testing import Replay, cancelled, fired, raised, received, replay, returned

from .tools import asked, check_replay, frontier, task


@workflow
def deep() -> Flow[list[Any]]:
    """Groups in groups in groups; five commands can be answered at once."""
    log: list[Any] = []

    def leaf(name: str) -> Flow[str]:
        got = yield task(name)
        log.append(name)
        return got

    def inner(name: str) -> Flow[list[Any]]:
        return list((yield All(leaf(f"{name}0"), leaf(f"{name}1"))))

    def middle() -> Flow[list[Any]]:
        return list((yield All(inner("a"), inner("b"))))

    values = yield All(middle(), leaf("c"))
    return [list(values), log]


FIVE = ("a0", "a1", "b0", "b1", "c")


@workflow
def chains() -> Flow[list[Any]]:
    """Five chains of two steps, three deep: ten answers."""
    log: list[str] = []

    def chain(name: str) -> Flow[str]:
        yield task(f"{name}-first")
        yield task(f"{name}-second")
        log.append(name)
        return name

    def inner(*names: str) -> Flow[Any]:
        return list((yield All(*map(chain, names))))

    def middle() -> Flow[Any]:
        return list((yield All(inner("a", "b"), inner("c"))))

    values = yield All(middle(), chain("d"), inner("e"))
    return [list(values), log]


@workflow
def mixed() -> Flow[list[Any]]:
    """Every kind of answer: steps, a signal, timers, a race that is decided."""
    log: list[Any] = []

    def raced(name: str) -> Flow[Any]:
        index, value = yield Race(task(f"{name}-work"), Suspend(f"{name}-go"), Sleep(60))
        log.append([name, index])
        return [index, value]

    def inner(name: str) -> Flow[Any]:
        got = yield All(raced(name), task(f"{name}-beside"))
        log.append(name)
        return list(got)

    values = yield All(All(inner("a"), inner("b")), inner("c"))
    return [str(values), log]


@workflow
def failing() -> Flow[list[Any]]:
    """Groups that catch what fails in them."""
    log: list[str] = []

    def guarded(name: str) -> Flow[str]:
        try:
            yield All(task(f"{name}0"), task(f"{name}1"))
        except StepFailed as error:
            log.append(f"{name}: {error.step_id}")
            yield task(f"{name}-mend")
            return "mended"
        return "fine"

    values = yield All(guarded("a"), All(guarded("b")), settle=True)
    return [str(values), log]


def answered(workflow: Any, order: Sequence[str]) -> Replay[Any]:
    """A run in which the steps are answered in this order."""
    return replay(workflow, history=[returned(name, step=name) for name in order])


def test_paths_tell_where_a_command_stands() -> None:
    run = replay(deep)
    expected = [
        "0 all",
        "0.0.0 all",
        "0.1.0 c",
        "0.0.0.0.0 all",
        "0.0.0.1.0 all",
        "0.0.0.0.0.0.0 a0",
        "0.0.0.0.0.1.0 a1",
        "0.0.0.1.0.0.0 b0",
        "0.0.0.1.0.1.0 b1",
    ]
    assert expected == asked(run)


@pytest.mark.parametrize("first", FIVE)
def test_all_orders_of_five_completions_give_the_same_commands(first: str) -> None:
    """And the values come in the order of the branches, while what they share shows the order of the history."""
    commands = asked(replay(deep))
    for rest in permutations([name for name in FIVE if name != first]):
        run = answered(deep, (first, *rest))
        assert [[[["a0", "a1"], ["b0", "b1"]], "c"], [first, *rest]] == run.result
        assert commands == asked(run)
        check_replay(run)


def play(workflow: Any, rng: random.Random) -> Replay[Any]:
    """A run in which whatever may come next comes in random order, failures and late results included."""
    run: Replay[Any] = replay(workflow)
    while run.status == "open":
        pending = rng.choice(list(run.machine.pending.values()))
        kind, at, label = pending.command.kind, pending.at, pending.command.label
        if kind == "sleep":
            run.feed(fired(at=at))
        elif kind == "suspend":
            run.feed(received(label, rng.randrange(9)))
        elif pending.cancelling and rng.random() < 0.7:
            run.feed(cancelled(at=at))
        elif workflow is failing and rng.random() < 0.5 and not label.endswith("mend"):
            run.feed(raised(OSError(label), at=at))
        else:
            run.feed(returned(label, at=at))
    return run


@pytest.mark.parametrize("workflow", [deep, chains, mixed, failing], ids=lambda workflow: workflow.name)
@pytest.mark.parametrize("seed", range(40))
def test_random_orders_give_the_same_commands_on_replay(workflow: Any, seed: int) -> None:
    """Beyond five, by seed."""
    check_replay(play(workflow, random.Random(seed)))


@pytest.mark.parametrize("seed", range(40))
def test_paths_do_not_depend_on_the_order(seed: int) -> None:
    """What has no choice in it issues the same commands at the same paths, whatever comes first."""
    run = play(chains, random.Random(seed))
    assert {step: at for at, step in map(str.split, asked(answered_in_turn()))} == {
        step: at for at, step in map(str.split, asked(run))
    }
    assert [["a", "b"], ["c"]] == run.result[0][0]


def answered_in_turn() -> Replay[Any]:
    """The chains, always the oldest first."""
    run: Replay[Any] = replay(chains)
    while run.status == "open":
        [pending, *_] = run.machine.pending.values()
        run.feed(returned(pending.command.label))
    return run


def test_the_orders_are_worth_their_name() -> None:
    """Random runs differ, and some of them meet failures and lost races."""
    results = {str(play(workflow, random.Random(seed)).result) for workflow in (mixed, failing) for seed in range(40)}
    assert len(results) > 20
    assert any("mended" in result for result in results)
    assert any("'fine'" in result for result in results)


def test_a_failure_three_deep_cancels_every_branch_above_it() -> None:
    """From the inside out; each group ends before the one around it."""
    order: list[str] = []

    @workflow
    def collapsing() -> Flow[str]:
        def watched(name: str, *branches: Any) -> Flow[None]:
            try:
                yield All(*branches)
            finally:
                order.append(name)

        try:
            yield from watched(
                "outer", watched("middle", watched("inner", task("boom"), Suspend("x")), Suspend("y")), Sleep(60)
            )
        except StepFailed as error:
            return error.at
        return "fine"

    run = replay(collapsing, history=[raised(OSError("boom"))])
    assert "0.0.0.0.0.0.0" == run.result
    assert ["inner", "middle", "outer"] == order
    check_replay(run)


def test_a_branch_may_open_a_group_again_and_again() -> None:
    @workflow
    def rounds() -> Flow[list[Any]]:
        def one() -> Flow[list[Any]]:
            got: list[Any] = []
            for n in range(3):
                got += yield All(task(f"x{n}"), task(f"y{n}"))
            return got

        return list((yield All(one(), one())))

    run = replay(rounds)
    assert ["0.0.0.0.0 x0", "0.0.0.1.0 y0", "0.1.0.0.0 x0", "0.1.0.1.0 y0"] == frontier(run)
    while run.status == "open":
        run.feed(returned(asked(run)[-1]))
    assert "0.1.2.1.0 y2" == asked(run)[-1]
    check_replay(run)


def test_repeats_are_numbered_in_the_order_of_issue() -> None:
    """The step id is for people; what a record answers is found by its path."""

    @workflow
    def same() -> Flow[None]:
        def two() -> Flow[None]:
            yield task("s")
            yield task("s")

        yield All(two(), two())

    run = replay(same, history=[returned(at="0.1.0")])
    assert [("0.0.0", "s"), ("0.1.1", "s#3")] == [(p.at, p.step_id) for p in run.machine.pending.values()]
    run.feed(returned(at="0.0.0"))
    assert [("0.1.1", "s#3"), ("0.0.1", "s#4")] == [(p.at, p.step_id) for p in run.machine.pending.values()]
    check_replay(run)

"""The kinds of histories in Temporal's replayer corpus, and the workflow tests around them, as fake histories here.

The first paragraph of each docstring is a row of docs/reference/scenarios.md; "Here:" tells what is otherwise.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Child,
    DivergenceError,
    Engine,
    Flow,
    NotFoundError,
    Patched,
    Race,
    SetState,
    Signal,
    SignalRejected,
    Sleep,
    Step,
    Suspend,
    workflow,
)
from stepwell.testing import (
    cancel,
    cancelled,
    check_history,
    fired,
    patched,
    prefixes,
    raised,
    received,
    replay,
    returned,
    simulate,
)
from stepwell_stores.memory import MemoryStore

from .shop import add_one, hello, save, ship


@workflow(name="say-hello")
def say_hello(name: str) -> Flow[str]:
    text = yield from Step(hello, name)
    yield Sleep(60)
    yield Suspend("finish")
    return text


@workflow(name="say-hello")
def say_it_otherwise(name: str) -> Flow[str]:
    yield Sleep(60)
    text = yield from Step(hello, name)
    yield Suspend("finish")
    return text


def recorded(name: str = "ada", *, finished: bool = True) -> list[Any]:
    """A history as an engine wrote it."""
    signals: dict[Any, Any] = {"finish": (timedelta(hours=1), None)} if finished else {}
    return list(simulate(say_hello, name, fakes={hello: f"Hello, {name}!"}, signals=signals).history)


# ---- the replayer


def test_complete_history() -> None:
    """Temporal: Replay of a complete history. The code of today goes through it to the recorded end."""
    assert "Hello, ada!" == replay(say_hello, "ada", history=recorded()).result
    assert check_history(say_hello, recorded()) is None


def test_incomplete_history() -> None:
    """Temporal: Replay of an incomplete history. One of a run that is still open fits as far as it goes."""
    run = replay(say_hello, "ada", history=recorded(finished=False))
    assert ("open", Suspend("finish")) == (run.status, run.next)


def test_every_prefix() -> None:
    """Temporal: Replay from any task. Wherever a run was when its worker went away, the code goes on from there."""
    for part in prefixes(recorded()):
        assert check_history(say_hello, part) is None


def test_failed_history() -> None:
    """Temporal: Replay of a failed workflow. A recorded failure is no failure of the replay."""

    @workflow
    def failing() -> Flow[None]:
        yield Step(save, "one")

    failed = simulate(failing, fakes={save: ValueError("disk full")})
    assert failed.failure.is_a(ValueError)
    run = replay(failing, history=failed.history)
    assert "error" == run.status


def test_nondeterministic_history() -> None:
    """Temporal: Non-deterministic history. Code that asks for other things than recorded is found.

    Here: the misfit also shows changed arguments of a step, which a replayer does not compare.
    """
    misfit = check_history(say_it_otherwise, recorded())
    assert misfit is not None
    with pytest.raises(DivergenceError):
        replay(say_it_otherwise, "ada", history=recorded())

    @workflow(name="say-hello")
    def shouting(name: str) -> Flow[str]:
        return (yield from Step(hello, name.upper()))

    assert check_history(shouting, recorded()) is not None


def test_many_histories() -> None:
    """Temporal: Several histories, failing slow or fast. Each one is told by itself, or the first misfit ends it.

    Here: for a whole store it is `stepwell check`.
    """
    histories = {name: recorded(name) for name in ("ada", "bob", "eve")}
    assert [None] * 3 == [check_history(say_hello, history) for history in histories.values()]
    assert ["ada", "bob", "eve"] == [name for name in histories if check_history(say_it_otherwise, histories[name])]


def test_not_registered() -> None:
    """Temporal: Workflow not registered. A history of a workflow that the replayer does not know is refused.

    Here: a history is replayed against the function that one gives, whatever its name; an engine does look it up.
    """

    @workflow(name="greet")
    def renamed(name: str) -> Flow[str]:
        return (yield from say_hello(name))

    assert check_history(renamed, recorded()) is None
    store = MemoryStore()
    Engine(store, workflows=[say_hello]).submit(say_hello, "ada", run_id="r")
    with pytest.raises(NotFoundError, match="say-hello"):
        Engine(store, workflows=[renamed]).advance("r")


def test_command_reordering() -> None:
    """Temporal: Command reordering. What is scheduled in one turn may be scheduled in another order by newer code.

    Here: a command is known by its path, not by its place in time: only what swaps branches diverges.
    """

    @workflow(name="both")
    def both() -> Flow[list[Any]]:
        return list((yield All(Step(hello, "ada"), Sleep(5))))

    @workflow(name="both")
    def swapped() -> Flow[list[Any]]:
        return list((yield All(Sleep(5), Step(hello, "ada"))))

    for history in ([returned("Hello"), fired()], [fired(), returned("Hello")]):
        assert ["Hello", None] == replay(both, history=history).result
    recorded = simulate(both, fakes={hello: "Hello"}).history
    assert check_history(swapped, recorded) is not None


def test_ordering_within_one_turn() -> None:
    """Temporal: Ordering of what arrives at once. Signal, timer and result of one task are always taken alike.

    Here: nothing arrives at once: events are taken one by one, in the order of the history, live as on replay.
    """

    @workflow
    def watched() -> Flow[list[str]]:
        seen: list[str] = []

        def note(what: str, branch: Any) -> Flow[None]:
            yield branch
            seen.append(what)

        yield All(note("step", Step(hello, "ada")), note("timer", Sleep(5)), note("signal", Suspend("go")))
        return seen

    one = [received("go"), fired(), returned("Hello")]
    assert ["signal", "timer", "step"] == replay(watched, history=one).result
    assert ["step", "timer", "signal"] == replay(watched, history=one[::-1]).result


def test_swallowed_activity_cancellation() -> None:
    """Temporal: Swallowed activity cancellation. A workflow catches the cancel of an activity, and returns a value.

    Here: it closes as cancelled, whatever it returns; `Cancelled` is no `Exception`, so it is not swallowed by mistake.
    """

    @workflow
    def deaf() -> Flow[str]:
        try:
            yield Step(ship, "lamp")
        except Cancelled:
            return "I go on"
        return "shipped"

    @workflow
    def careless() -> Flow[str]:
        try:
            yield Step(ship, "lamp")
        except Exception:
            return "I go on"
        return "shipped"

    for flow in (deaf, careless):
        assert "cancelled" == replay(flow, history=[cancel(), cancelled()]).status


def test_double_signal_at_the_start() -> None:
    """Temporal: Two signals before the first task. Both are there when the workflow begins, in their order."""

    @workflow
    def letters() -> Flow[list[str]]:
        return [(yield from Suspend("letter", into=str)), (yield from Suspend("letter", into=str))]

    assert ["A", "B"] == replay(letters, history=[received("letter", "A"), received("letter", "B")]).result
    signals: dict[Any, Any] = {"letter": [(0, "A"), (0, "B")]}
    assert ["A", "B"] == simulate(letters, signals=signals, crash_after="every").result


# ---- cancel


@workflow
def waiting(name: str) -> Flow[str]:
    try:
        return (yield from Suspend("go", into=str))
    finally:
        yield Step(save, name)


def test_cancel_before_run() -> None:
    """Temporal: Cancel before the first task. The workflow meets it at its first wait."""
    run = replay(waiting, "ada", history=[cancel()])
    assert Step(save, "ada") == run.next
    run.feed(returned())
    assert "cancelled" == run.status


def test_cancel_beside_a_signal() -> None:
    """Temporal: Cancel and condition in the same task. What comes first decides, and always the same.

    Here: the order in the history is the order; a value that came before the cancel is kept.
    """
    first = replay(waiting, "ada", history=[received("go", "now"), cancel(), cancelled()])
    assert "cancelled" == first.status
    second = replay(waiting, "ada", history=[cancel(), received("go", "now"), returned()])
    assert "cancelled" == second.status
    done = replay(waiting, "ada", history=[received("go", "now"), returned()])
    assert "now" == done.result


def test_cancel_an_activity_under_way() -> None:
    """Temporal: Cancel of an activity under way. The workflow waits for how it ended.

    Here: a step under way keeps its real outcome, and `Cancelled` comes at the next effect.
    """

    @workflow
    def shipping() -> Flow[str]:
        text = yield from Step(ship, "lamp")
        yield Step(save, text)
        return text

    run = replay(shipping, history=[cancel(), returned("on its way")])
    assert "cancelled" == run.status
    assert [Step(ship, "lamp")] == [command for _, command in run.commands]


@workflow
def greeter(name: str) -> Flow[str]:
    return (yield from Step(hello, name))


def test_cancel_a_child() -> None:
    """Temporal: Cancel of a child, started or not. The parent's cancel reaches it, and the parent sees its end."""

    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(greeter, "ada"))

    assert "cancelled" == replay(parent, history=[cancel(), cancelled()]).status


def test_clean_up_under_shield() -> None:
    """Temporal: Shielded clean-up. Activities of clean-up run although the workflow is cancelled.

    Here: no shield is needed: steps after `Cancelled` are performed, waits raise it again.
    """
    run = replay(waiting, "ada", history=[cancel()])
    assert Step(save, "ada") == run.next
    assert "cancelled" == simulate(waiting, "ada", fakes={save: None}, cancel=5, crash_after="every").status


# ---- signals, timers, patches


def test_wait_condition() -> None:
    """Temporal: Wait for a condition, with a time-out. It goes on when signals have made it true, or gives up.

    Here: a loop over `Suspend` against a `Sleep` is the condition.
    """

    @workflow
    def three_votes() -> Flow[str]:
        def votes() -> Flow[int]:
            yes = 0
            while yes < 3:
                yes += yield from Suspend("vote", into=int)
            return yes

        winner, _ = yield Race(enough=votes(), late=Sleep(timedelta(days=1)))
        return str(winner)

    assert "enough" == replay(three_votes, history=[received("vote", 1)] * 3).result
    assert "late" == simulate(three_votes, signals={"vote": [(60, 1), (120, 1)]}).result


def test_bad_signal() -> None:
    """Temporal: Signal with a wrong parameter. It does not stop the workflow.

    Here: the sender is refused before anything is written; one that came before the wait throws `SignalRejected` there.
    """
    number = Signal("number", int)

    @workflow
    def patient() -> Flow[int]:
        yield Step(save, "one")
        while True:
            try:
                return (yield from Suspend(number))
            except SignalRejected:
                continue

    assert 5 == replay(patient, history=[received("number", "five"), returned(), received(number, 5)]).result


def test_query() -> None:
    """Temporal: Query. The state can be read from outside at any point, and reading changes nothing.

    Here: a workflow says what can be read with `SetState`; no code of it runs for a query.
    """

    @workflow
    def counting() -> Flow[int]:
        for number in range(3):
            yield SetState(number=number)
            yield Step(add_one, number)
        return 3

    assert {"number": 1} == replay(counting, history=[returned(1)]).state


def test_patch() -> None:
    """Temporal: Patch. Old runs go the old way and new runs the new one, each for good."""

    @workflow
    def patchwork() -> Flow[str]:
        return (yield from Step(ship if (yield from Patched("by-ship")) else hello, "ada"))

    assert Step(ship, "ada") == replay(patchwork, history=[patched()]).next
    assert "old" == replay(patchwork, history=[returned("old")]).result


def test_patch_memoized() -> None:
    """Temporal: Patch asked again. A run answers the same each time, whatever was recorded meanwhile."""

    @workflow
    def loop() -> Flow[list[bool]]:
        seen = []
        for _ in range(2):
            seen.append((yield from Patched("new-loop")))
            yield Step(save, "turn")
        return seen

    assert [True, True] == replay(loop, history=[patched(), returned(), returned()]).result
    assert [False, False] == replay(loop, history=[returned(), returned()]).result


def test_as_completed() -> None:
    """Temporal: as_completed and wait. Results are taken in the order in which they come, the same on replay."""

    @workflow
    def as_they_come() -> Flow[list[str]]:
        seen: list[str] = []

        def one(name: str) -> Flow[None]:
            seen.append((yield from Step(hello, name)))

        yield All(one("a"), one("b"), one("c"))
        return seen

    history = [returned("C", step="hello#3"), returned("A", step="hello"), returned("B", step="hello#2")]
    assert ["C", "A", "B"] == replay(as_they_come, history=history).result


def test_activity_time_out() -> None:
    """Temporal: Activity time-out. One that takes too long fails with its time-out, which the workflow can catch."""

    @workflow
    def hurried() -> Flow[str]:
        return (yield from Step(hello, "ada").options(timeout=5))

    assert replay(hurried, history=[raised(TimeoutError("too slow"))]).failure.is_a(TimeoutError)

"""What the orchestration tests of durabletask go through, as fake histories here: events, ends, children, changes.

The first paragraph of each docstring is a row of docs/reference/scenarios.md; "Here:" tells what is otherwise.
"""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import (
    All,
    Child,
    ChildFailed,
    ContinueAsNew,
    DivergenceError,
    Flow,
    Patched,
    Race,
    SetState,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    TimedOut,
    Uuid,
    workflow,
)
from stepwell.testing import (
    cancel,
    cancelled,
    fired,
    patched,
    pause,
    raised,
    received,
    replay,
    returned,
    simulate,
    unpause,
)

from .shop import add_one, fetch, hello, save, ship


@workflow
def count_up(start: int) -> Flow[int]:
    one = yield from Step(add_one, start)
    return (yield from Step(add_one, one))


# ---- external events


@workflow
def two_letters() -> Flow[list[str]]:
    first = yield from Suspend("letter", into=str)
    return [first, (yield from Suspend("letter", into=str))]


def test_raise_event() -> None:
    """durabletask: External event. An orchestration that waits for a name goes on with the payload."""
    run = replay(two_letters)
    assert Suspend("letter") == run.next
    assert ["A", "B"] == replay(two_letters, history=[received("letter", "A"), received("letter", "B")]).result


def test_buffered_event() -> None:
    """durabletask: Buffered external events. Those that come before the wait are kept, in their order."""

    @workflow
    def busy() -> Flow[list[str]]:
        yield Step(save, "first")
        return (yield from two_letters())

    history = [received("letter", "A"), received("letter", "B"), returned()]
    assert ["A", "B"] == replay(busy, history=history).result
    signals: dict[Any, Any] = {"letter": [(1, "A"), (2, "B")]}
    assert ["A", "B"] == simulate(two_letters, signals=signals, crash_after="every").result


def test_event_names() -> None:
    """durabletask: Event names ignore case. An event meets the wait whatever the case of its name.

    Here: names of signals are compared as they are; another case is another signal, kept in the buffer.
    """
    assert "open" == replay(two_letters, history=[received("Letter", "A")]).status


def test_event_time_out() -> None:
    """durabletask: External event with a time-out. Without an event the wait ends with an error, or a default."""

    @workflow
    def asked(patience: int) -> Flow[str]:
        try:
            return (yield from Suspend("reply", into=str, timeout=patience))
        except TimedOut:
            return "nobody"

    assert "nobody" == replay(asked, 60, history=[fired()]).result
    assert "me" == simulate(asked, 60, signals={"reply": (59, "me")}).result
    assert "nobody" == simulate(asked, 60, signals={"reply": (61, "me")}).result


def test_competing_events() -> None:
    """durabletask: Competing external events. Of two waits the one that is not met is given up."""

    @workflow
    def decided() -> Flow[str]:
        winner, by = yield Race(yes=Suspend("approve", into=str), no=Suspend("reject", into=str))
        return f"{winner} by {by}"

    run = replay(decided, history=[received("reject", "bob")])
    assert ("no by bob", []) == (run.result, run.pending)


def test_suspend_resume() -> None:
    """durabletask: Suspend and resume. While suspended, events are kept; when resumed, they are processed.

    Here: the words are `pause` and `unpause`; a run is "suspended" while it waits for a signal.
    """
    run = replay(two_letters, history=[pause(), received("letter", "A"), unpause(), received("letter", "B")])
    assert ["A", "B"] == run.result


# ---- the end before the end


def test_terminate() -> None:
    """durabletask: Terminate. The orchestration is over at once, whatever it waits for.

    Here: `cancel` lets the workflow clean up, which is performed; it closes as cancelled, with a reason and no output.
    """

    @workflow
    def tidy() -> Flow[None]:
        try:
            yield Suspend("never")
        finally:
            yield Step(save, "tidied up")

    run = replay(tidy, history=[cancel("enough")])
    assert Step(save, "tidied up") == run.next
    run.feed(returned())
    assert "cancelled" == run.status
    assert "cancelled" == simulate(tidy, fakes={save: None}, cancel=60, crash_after="every").status


@workflow
def collect(number: int) -> Flow[int]:
    return (yield from Step(fetch, number))


@workflow
def family(numbers: list[int]) -> Flow[int]:
    return sum((yield All(*(Child(collect, number) for number in numbers))))


def test_terminate_recursive() -> None:
    """durabletask: Recursive terminate. The sub-orchestrations of a terminated one are terminated too.

    Here: always so, unless a child is `detached`; the parent is over when they are.
    """
    run = replay(family, [1, 2], history=[cancel(), cancelled(at="0.0.0")])
    assert "open" == run.status
    run.feed(cancelled(at="0.1.0"))
    assert "cancelled" == run.status


# ---- sub-orchestrations


def test_sub_orchestration() -> None:
    """durabletask: Sub-orchestration. Its output is the value of the call."""

    @workflow
    def parent() -> Flow[int]:
        return 1 + (yield from Child(collect, 3))

    run = replay(parent)
    assert Child(collect, 3) == run.next
    run.feed(returned(41))
    assert 42 == run.result
    assert 42 == simulate(parent, fakes={fetch: 41}, crash_after="every").result


def test_sub_orchestration_failed() -> None:
    """durabletask: Sub-orchestration failed. Its failure is raised in the parent, with its type and text."""

    @workflow
    def parent() -> Flow[str]:
        try:
            yield Child(collect, 3)
        except ChildFailed as error:
            return error.failure.message
        return "well"

    assert "no line" == replay(parent, history=[raised(ConnectionError("no line"))]).result


def test_sub_orchestration_fan_out() -> None:
    """durabletask: Sub-orchestration fan-out. Many children run at once, and their outputs are gathered."""
    assert 6 == replay(family, [1, 2], history=[returned(4, at="0.1.0"), returned(2)]).result
    assert 30 == simulate(family, [1, 2, 3], fakes={fetch: lambda number: number * 5}).result


# ---- for ever


def test_continue_as_new() -> None:
    """durabletask: Continue-as-new. The orchestration restarts with new input; unprocessed events are carried over.

    Here: they always are, first in first out; there is no flag to lose them.
    """

    @workflow
    def counter(total: int) -> Flow[int]:
        total += yield from Suspend("add", into=int)
        if total < 100:
            yield ContinueAsNew(total)
        return total

    run = replay(counter, 1, history=[received("add", 2)])
    assert ("continue", (3,)) == (run.status, run.continued)
    signals: dict[Any, Any] = {"add": [(1, 40), (1, 40), (1, 40)]}
    assert 120 == simulate(counter, 0, signals=signals, crash_after="every").result


def test_custom_status() -> None:
    """durabletask: Custom status. What the orchestrator sets can be read from outside while it runs.

    Here: named values, merged: `SetState(phase="two")`, read by `engine.query`.
    """

    @workflow
    def phases() -> Flow[None]:
        yield SetState(phase="one", done=0)
        yield Suspend("go")
        yield SetState(phase="two")

    run = replay(phases)
    assert {"phase": "one", "done": 0} == run.state
    run.feed(received("go"))
    assert {"phase": "two", "done": 0} == run.state


def test_new_uuid() -> None:
    """durabletask: New UUID. A generated id is the same on every replay.

    Here: it is drawn once and recorded, not derived from the instance id.
    """

    @workflow
    def ids() -> Flow[list[str]]:
        one = yield from Uuid()
        yield Suspend("go")
        return [str(one), str((yield from Uuid()))]

    run = simulate(ids, signals={"go": (5, None)}, crash_after="every")
    assert 2 == len(set(run.result))


# ---- changed code


CHANGES: dict[str, Any] = {
    "timer expected": Sleep(5),
    "another activity": Step(ship, "lamp"),
    "a sub-orchestration in its place": Child(collect, 1),
    "an event in its place": Suspend("letter"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_non_determinism(change: str) -> None:
    """durabletask: Non-determinism. A timer, another name or another kind where an activity is recorded is an error.

    Here: `DivergenceError`; the run is blocked and left as it is until the code fits, and never fails by it.
    """

    @workflow(name="count_up")
    def changed(start: int) -> Flow[int]:
        yield CHANGES[change]
        return start

    recorded = simulate(count_up, 1, fakes={add_one: 2}).history
    with pytest.raises(DivergenceError) as caught:
        replay(changed, 1, history=recorded)
    assert "step 'add_one'" in str(caught.value.recorded)


def test_versioned_orchestration() -> None:
    """durabletask: Orchestration versioning. Old instances take the old path through code that has a new one.

    Here: `Patched` asks whether a run is old; whole versions can also stand side by side.
    """

    @workflow
    def greeting() -> Flow[str]:
        text = "Hello"
        if (yield from Patched("politer")):
            text = "Good morning"
        return f"{text}, {(yield from Step(hello, 'ada'))}"

    assert "Hello, ada" == replay(greeting, history=[returned("ada")]).result
    assert "Good morning, ada" == replay(greeting, history=[patched(), returned("ada")]).result


def test_a_failure_in_own_code() -> None:
    """durabletask: Exception in the orchestrator. It fails the orchestration with its type and message."""

    @workflow
    def broken() -> Flow[None]:
        yield Step(save, "one")
        raise LookupError("no such page")

    run = replay(broken, history=[returned()])
    assert run.failure.is_a(LookupError)
    assert not isinstance(run.error, StepFailed)

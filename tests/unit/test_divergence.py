"""Divergence: code that has changed under a history, in every form; and what an event that does not fit leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepwell import (
    All,
    CorruptHistoryError,
    DivergenceError,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    Sleep,
    StepFailed,
    Suspend,
    Uuid,
    Workflow,
    workflow,
)
from stepwell import events as e
from stepwell.commands import Command
from stepwell.failures import failure_of

from .tools import STAMP, Fold, begun, broke, did, fold, picture, raw, sent, start_of, task, tried, waits

KINDS: dict[str, tuple[Callable[[], Command[Any]], Callable[[str], list[e.EventBase]]]] = {
    "step": (lambda: task("work"), lambda at: [did(at, "work")]),
    "suspend": (lambda: Suspend("go"), lambda at: [waits(at, "go"), sent("go")]),
    "sleep": (lambda: Sleep(60), lambda at: [e.Sleep(at=at, due=STAMP), e.Wake(at=at)]),
    "now": (lambda: Now(), lambda at: [e.Now(at=at, value=STAMP)]),
    "random": (lambda: Random(), lambda at: [e.Random(at=at, value=0.5)]),
    "uuid": (lambda: Uuid(), lambda at: [e.Uuid(at=at, value="0d0ec0fe-6d39-4c5d-9a52-0b9d8f3f6a01")]),
    "emit": (lambda: Emit(1), lambda at: [e.Emit(at=at, value=raw(1))]),
}
"""Of each kind that takes an answer: the command, and the events that answer it."""

PAIRS = [(here, there) for here in KINDS for there in KINDS if here != there]


def yields(*commands: Callable[[], Command[Any]]) -> Workflow[[], None]:
    """A workflow that yields these commands, one after the other."""

    @workflow(name="w")
    def w() -> Flow[None]:
        for command in commands:
            yield command()

    return w


def named(*names: str) -> Workflow[[], None]:
    """A workflow of these steps."""
    return yields(*(lambda name=name: task(name) for name in names))


def recorded(*names: str) -> list[e.EventBase]:
    """What these steps leave in a history."""
    return [did(str(at), name) for at, name in enumerate(names)]


def closed(status: str) -> e.EventBase:
    """The closing event of a status."""
    if status == "complete":
        return e.Complete(result=raw(None))
    if status == "cancelled":
        return e.Cancelled()
    return e.Error(error=failure_of(ValueError("x")), cause=1)


def refused(run: Fold, event: e.EventBase) -> DivergenceError:
    """Feed an event that does not fit; the machine must be as it was."""
    before = picture(run.machine)
    commands = list(run.commands)
    with pytest.raises(DivergenceError) as caught:
        run.machine.feed(event)
    assert before == picture(run.machine)
    assert commands == run.commands
    return caught.value


# ---- every form


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_in_its_place_is_no_divergence(kind: str) -> None:
    command, events = KINDS[kind]
    assert "complete" == fold(yields(command, command), *events("0"), *events("1")).machine.status


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_another_kind_diverges(here: str, there: str) -> None:
    """Whichever two kinds; and the right event can still be fed."""
    command, right = KINDS[here]
    for wrong in KINDS[there][1]("0"):
        if wrong.at is not None:
            run = fold(yields(command))
            found = refused(run, wrong)
            assert ("0", 1, "r") == (found.at, found.seq, found.run_id)
            for event in right("0"):
                run.machine.feed(event)
            assert "complete" == run.machine.status


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_at_a_path_that_is_not_pending_diverges(kind: str) -> None:
    command, events = KINDS[kind]
    for at in ("1", "0.0.0", "00", "", "undo.0"):
        for event in events(at):
            if event.at is not None:
                refused(fold(yields(command, command)), event)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sleep"])
def test_a_second_answer_diverges(kind: str) -> None:
    """But for a second wake, which an owner may write before and after a crash."""
    command, events = KINDS[kind]
    run = fold(yields(command, lambda: task("next")), *events("0"))
    for event in events("0"):
        if event.at is not None:
            assert refused(run, event).yielded.startswith("nothing there; it waits for: step 'next' at 1")


def test_a_renamed_step_diverges() -> None:
    found = refused(fold(named("greet")), did("0", "hello"))
    assert ("step 'hello'", "step 'greet' there") == (found.recorded, found.yielded)


@pytest.mark.parametrize("event", [tried("0", "hello"), tried("0", "hello#2"), begun("0", "hello")])
def test_a_renamed_step_is_found_by_its_attempts_and_its_beginning_too(event: e.EventBase) -> None:
    refused(fold(named("greet")), event)


def test_attempts_name_the_repeat() -> None:
    """The number of a repeat is no part of the name."""
    run = fold(named("a", "a"), did("0", "a"), tried("1", "a#2"))
    assert [1] == [p.attempts for p in run.machine.pending.values()]


def test_a_renamed_signal_diverges() -> None:
    found = refused(fold(yields(lambda: Suspend("approval"))), waits("0", "review"))
    assert ("suspend 'review'", "suspend 'approval' there") == (found.recorded, found.yielded)


@pytest.mark.parametrize(
    ("form", "code", "seq"),
    [
        ("renamed", "abX", 3),
        ("swapped", "bac", 1),
        ("swapped at the end", "acb", 2),
        ("inserted at the start", "Xabc", 1),
        ("inserted in the middle", "abXc", 3),
        ("removed at the start", "bc", 1),
        ("removed in the middle", "ac", 2),
        ("ends early", "ab", 3),
        ("ends at once", "", 1),
    ],
)
def test_a_change_of_the_steps_is_found_where_it_shows(form: str, code: str, seq: int) -> None:
    """Shows S8 (P3)."""
    with pytest.raises(DivergenceError) as caught:
        fold(named(*code), *recorded(*"abc"))
    assert seq == caught.value.seq, form


def test_a_workflow_that_ends_early_is_named_so() -> None:
    with pytest.raises(DivergenceError, match=r"yielded nothing more: the workflow has ended \(complete\)"):
        fold(named("a"), *recorded("a", "b"))


def test_more_steps_at_the_end_of_an_open_history_are_no_divergence() -> None:
    """Nothing says that the run had ended there."""
    assert ["2 c"] == [
        f"{p.at} {p.command.label}" for p in fold(named(*"abc"), *recorded("a", "b")).machine.pending.values()
    ]


@pytest.mark.parametrize("status", ["complete", "error", "cancelled"])
def test_going_on_after_the_recorded_end_diverges(status: str) -> None:
    """However the run had ended; the error names what is yielded now."""
    run = fold(named("a", "b"), did("0", "a"))
    found = refused(run, closed(status))
    assert "nothing there; it waits for: step 'b' at 1" == found.yielded
    run.machine.feed(did("1", "b"))
    assert "complete" == run.machine.status


@pytest.mark.parametrize("status", ["error", "cancelled"])
def test_ending_otherwise_than_recorded_diverges(status: str) -> None:
    run = fold(named("a"), did("0", "a"))
    refused(run, closed(status))
    run.machine.feed(closed("complete"))
    assert run.machine.closed


def test_completing_where_a_failure_was_diverges() -> None:
    refused(fold(named("a"), broke("0", "a", ValueError("x"))), closed("complete"))


EVENTS = [
    did("0", "a"),
    closed("complete"),
    sent("go"),
    e.Cancel(),
    e.Pause(),
    e.Unpause(),
    e.Patch(change_id="x"),
    e.Retry(cut=1),
    e.Cancelled(forced=True),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_nothing_comes_after_the_event_that_closed_the_run(event: e.EventBase) -> None:
    """Shows S5 (P1)."""
    run = fold(named("a"), did("0", "a"), closed("complete"))
    with pytest.raises(DivergenceError, match="the history goes on after the event that closed the run"):
        run.machine.feed(event)
    assert 3 == run.machine.seq


def test_a_second_start_has_no_place() -> None:
    run = fold(named("a"))
    assert "start" == refused(run, start_of(named("a"))).recorded


def test_a_cancelled_that_nobody_asked_for_diverges() -> None:
    run = fold(named("a"))
    with pytest.raises(DivergenceError, match="nobody cancels that step"):
        run.machine.feed(e.Cancelled(at="0"))
    run.machine.feed(e.Cancel())
    run.machine.feed(e.Cancelled(at="0"))
    assert "cancelled" == run.machine.status


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "step"])
def test_only_a_step_is_cancelled_by_an_event(kind: str) -> None:
    refused(fold(yields(KINDS[kind][0])), e.Cancelled(at="0"))


@pytest.mark.parametrize("kind", ["sleep", "suspend"])
def test_a_wake_without_a_timer_diverges(kind: str) -> None:
    refused(fold(yields(KINDS[kind][0])), e.Wake(at="0"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("sleep", "suspend")])
def test_what_has_no_timer_can_not_wake(kind: str) -> None:
    refused(fold(yields(KINDS[kind][0])), e.Wake(at="0"))


# ---- in branches


@workflow(name="w")
def branched() -> Flow[None]:
    def two(name: str) -> Flow[None]:
        yield task(f"{name}1")
        yield task(f"{name}2")

    yield All(two("a"), two("b"))


def test_branches_that_are_swapped_diverge() -> None:
    refused(fold(branched), did("0.0.0", "b1"))


def test_an_event_of_a_branch_that_is_further_on_diverges() -> None:
    refused(fold(branched, did("0.0.0", "a1")), did("0.1.1", "b2"))


def test_a_branch_that_was_removed_diverges() -> None:
    found = refused(fold(branched), did("0.2.0", "c1"))
    assert "nothing there; it waits for: step 'a1' at 0.0.0, step 'b1' at 0.1.0" == found.yielded


def test_a_group_in_place_of_a_step_diverges() -> None:
    refused(fold(branched), did("0", "a1"))


@pytest.mark.parametrize("group", [All, Race])
def test_a_step_in_place_of_a_group_diverges(group: Any) -> None:
    refused(fold(named("a1")), did("0.0.0", "a1"))


def test_the_order_of_branches_in_time_is_no_divergence() -> None:
    for order in (("0.0.0", "a1"), ("0.1.0", "b1")), (("0.1.0", "b1"), ("0.0.0", "a1")):
        assert "open" == fold(branched, *(did(at, name) for at, name in order)).machine.status


# ---- what it says, and whom it tells


def test_it_says_where_what_was_recorded_what_is_yielded_and_what_to_do() -> None:
    """Shows S8 (P3)."""
    found = refused(fold(named("greet")), did("0", "hello"))
    text = str(found)
    assert text.startswith(
        "run 'r' diverges at event 1 at 0: recorded is step 'hello', the workflow 'w' yielded step 'greet' there."
    )
    for remedy in ("Patched", "version", "fork"):
        assert remedy in text
    assert ("DIVERGENCE", False) == (found.code, found.retryable)


def test_it_is_never_thrown_into_the_workflow() -> None:
    seen: list[BaseException] = []

    @workflow
    def watchful() -> Flow[None]:
        try:
            yield task("a")
        except BaseException as error:
            seen.append(error)
            raise

    refused(fold(watchful), did("0", "b"))
    assert [] == seen


def test_a_step_without_an_outcome_is_corrupt() -> None:
    """It is no divergence: the code can't be at fault."""
    run = fold(named("a"))
    before = picture(run.machine)
    with pytest.raises(CorruptHistoryError, match="run 'r', event 1: a step without an outcome"):
        run.machine.feed(did("0", "a", result=e.UNSET))
    assert before == picture(run.machine)


def test_the_event_that_decides_a_patched_may_diverge_all_the_same() -> None:
    """The answer stays, which is what any right event of an old run would have said."""

    @workflow
    def asking() -> Flow[None]:
        if not (yield Patched("fix")):
            yield task("old")

    run = fold(asking)
    with pytest.raises(DivergenceError):
        run.machine.feed(did("0", "other"))
    assert {"fix": False} == run.machine.patches
    run.machine.feed(did("0", "old"))
    assert "complete" == run.machine.status


def test_what_depends_on_chance_is_found_on_replay() -> None:
    """Something that no command gave the workflow shows as soon as it leads elsewhere."""
    coin = iter(["a", "b"])

    @workflow
    def chancy() -> Flow[None]:
        yield task(next(coin))

    fold(chancy, did("0", "a"))
    with pytest.raises(DivergenceError, match="it reads something that no command gave it"):
        fold(chancy, did("0", "a"))


def test_a_failure_that_was_recorded_is_not_compared() -> None:
    """How a step fails is data; the workflow decides what it makes of it."""

    @workflow
    def mended() -> Flow[str]:
        try:
            yield task("a")
        except StepFailed:
            return "mended"
        return "fine"

    assert "mended" == fold(mended, broke("0", "a", ValueError("x"))).machine.result

"""Patched: whether this run has a change of the code."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import All, DivergenceError, Emit, Flow, InvalidInputError, Now, Patched, Sleep, Suspend, workflow
from stepwell import events as e
from stepwell.testing import (
    WrongAnswerError,
    cancel,
    cancelled,
    fired,
    patched,
    pause,
    received,
    replay,
    returned,
    unpause,
)

from ..unit.tools import STAMP, asked, begun, check_replay, did, fold, frontier, raw, sent, slept, task, tried, waits


def patch(change_id: str, **fields: Any) -> e.Patch:
    return e.Patch(change_id=change_id, timestamp=STAMP, **fields)


@workflow
def changed() -> Flow[list[Any]]:
    """Old runs have a step `old`, new ones a step `new`; both end with `last`."""
    if (yield Patched("fix")):
        got = yield task("new")
    else:
        got = yield task("old")
    return [got, (yield task("last"))]


@workflow
def repeatedly() -> Flow[list[bool]]:
    first = yield Patched("fix")
    yield task("work")
    return [first, (yield Patched("fix"))]


@workflow
def two_in_a_row() -> Flow[list[Any]]:
    answers = [(yield Patched("one")), (yield Patched("two"))]
    return [*answers, (yield task("work"))]


def test_it_is_true_on_a_new_run() -> None:
    run = replay(changed)
    assert Patched("fix") == run.next
    run.feed(patched())
    assert ["0 new"] == frontier(run)
    check_replay(run)


def test_it_is_false_on_a_run_that_was_recorded_before_the_change() -> None:
    """Any other event of the owner in its place says so, and is fed after the answer."""
    run = fold(changed, did("0", "old", 1), did("1", "last", 2))
    assert [1, 2] == run.machine.result
    assert {"fix": False} == run.machine.patches


@pytest.mark.parametrize(
    "kind", ["step", "attempt", "begin", "suspend", "sleep", "now", "emit", "complete", "other patch"]
)
def test_every_other_event_of_the_owner_makes_it_false(kind: str) -> None:
    @workflow
    def asking() -> Flow[Any]:
        if (yield Patched("fix")):
            yield task("new")
        elif kind in ("step", "attempt", "begin"):
            yield task("old")
        elif kind == "suspend":
            yield Suspend("go")
        elif kind == "sleep":
            yield Sleep(60)
        elif kind == "now":
            yield Now()
        elif kind == "emit":
            yield Emit(1)

    events: dict[str, e.EventBase] = {
        "step": did("0", "old"),
        "attempt": tried("0", "old"),
        "begin": begun("0", "old"),
        "suspend": waits("0", "go"),
        "sleep": slept("0")[0],
        "now": e.Now(at="0", value=STAMP),
        "emit": e.Emit(at="0", value=raw(1)),
        "complete": e.Complete(result=raw(None)),
        "other patch": patch("other"),
    }
    assert fold(asking, events[kind]).machine.patches["fix"] is False


def test_a_fake_history_answers_false_with_any_other_answer() -> None:
    run = replay(changed, history=[returned("was old"), returned("end")])
    assert ["was old", "end"] == run.result
    check_replay(run)


@pytest.mark.parametrize("answer", [returned(1), fired(), received("go", 1)])
def test_a_fake_history_of_an_old_run_may_begin_with_anything(answer: Any) -> None:
    @workflow
    def asking() -> Flow[Any]:
        if (yield Patched("fix")):
            yield task("new")
        yield Emit("old")
        return list((yield All(task("a"), Sleep(60), Suspend("go", timeout=60, default=0))))

    run = replay(asking, history=[answer])
    held = answer.kind == "received"  # what comes from outside says nothing about the code
    assert ([] if held else ["old"]) == run.emitted
    assert ("fix" if held else None) == run.machine.asking
    check_replay(run)


def test_an_answer_that_an_old_run_does_not_wait_for_is_wrong() -> None:
    run = replay(changed)
    with pytest.raises(WrongAnswerError, match="nothing pending takes this answer"):
        run.feed(returned(step="new"))
    assert Patched("fix") == run.next


def test_patched_without_a_question_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswerError, match="no Patched is asked"):
        replay(changed, history=[patched(), patched()])


def test_it_takes_no_number() -> None:
    assert ["0 new", "1 last"] == asked(replay(changed, history=[patched(), returned()]))
    assert ["0 old", "1 last"] == asked(replay(changed, history=[returned()]))


def test_the_answer_holds_for_the_whole_run() -> None:
    """Asked again, it is answered at once."""
    assert [True, True] == replay(repeatedly, history=[patched(), returned()]).result
    assert [False, False] == replay(repeatedly, history=[returned()]).result


def test_two_in_a_row_each_have_an_answer_of_their_own() -> None:
    run = replay(two_in_a_row, history=[patched()])
    assert Patched("two") == run.next
    run.feed(patched())
    run.feed(returned("x"))
    assert [True, True, "x"] == run.result
    check_replay(run)


def test_an_old_event_answers_two_in_a_row() -> None:
    assert [False, False, "x"] == replay(two_in_a_row, history=[returned("x")]).result


def test_the_second_of_two_may_be_newer_than_the_run() -> None:
    assert [True, False, "x"] == replay(two_in_a_row, history=[patched(), returned("x")]).result


def test_the_first_of_two_may_be_newer_than_the_run() -> None:
    """The event of the second is no event of the first."""
    assert [False, True, "x"] == fold(two_in_a_row, patch("two"), did("0", "work", "x")).machine.result


# ---- while it is asked


@workflow
def branched() -> Flow[list[Any]]:
    log: list[Any] = []

    def asking() -> Flow[None]:
        log.append(["asked", (yield Patched("fix"))])
        yield task("a")

    def other() -> Flow[None]:
        log.append(["other starts"])
        yield Suspend("go")
        log.append(["other goes on"])

    yield All(asking(), other())
    return log


def test_while_one_is_asked_no_fiber_advances() -> None:
    """Not even one that was in the queue."""
    run = replay(branched)
    assert ["0 all"] == asked(run)
    run.feed(patched())
    assert ["0 all", "0.0.0 a", "0.1.0 go"] == asked(run)


def test_signals_are_held_until_the_owner_has_decided() -> None:
    """The fiber that asked goes on first, then the queue, then the held events, then the event itself."""
    run = replay(branched, history=[received("go")])
    assert Patched("fix") == run.next
    run.feed(patched())
    run.feed(returned())
    assert [["asked", True], ["other starts"], ["other goes on"]] == run.result
    check_replay(run)


def test_the_event_that_makes_it_false_comes_after_the_held_ones() -> None:
    order: list[str] = []

    @workflow
    def ordered() -> Flow[None]:
        def asking() -> Flow[None]:
            yield Patched("fix")
            order.append("asked")
            yield task("a")
            order.append("a")

        def other() -> Flow[None]:
            order.append("queue")
            yield Suspend("go")
            order.append("held")

        yield All(asking(), other())

    run = fold(ordered, sent("go"), did("0.0.0", "a"))
    assert ["asked", "queue", "held", "a"] == order
    assert "complete" == run.machine.status


def test_a_cancel_is_held_too() -> None:
    run = replay(changed, history=[cancel("why"), patched()])
    assert [("0", True)] == [(p.at, p.cancelling) for p in run.machine.pending.values()]
    run.feed(cancelled())
    assert "cancelled" == run.status
    assert "why" == run.machine.cancel_reason
    check_replay(run)


def test_pause_and_unpause_are_never_held() -> None:
    run = replay(changed, history=[pause()])
    assert run.machine.paused
    run.feed(unpause())
    assert not run.machine.paused
    assert Patched("fix") == run.next
    run.feed(pause())
    run.feed(patched())
    assert ["0 new"] == frontier(run)
    assert run.machine.paused


def test_a_held_event_keeps_its_place_in_the_history() -> None:
    """What is thrown because of it names the event, not the one that let it through."""

    @workflow
    def typed() -> Flow[Any]:
        yield Patched("fix")
        try:
            yield Suspend("go", into=int)
        except Exception as error:
            return error.seq  # type: ignore[attr-defined]

    run = replay(typed, history=[received("go", "no number"), pause(), patched()])
    assert 1 == run.result


def test_held_events_stop_at_the_next_question() -> None:
    """An event that leads to another Patched leaves those after it held."""

    @workflow
    def asking_again() -> Flow[list[Any]]:
        yield Patched("one")
        first = yield Suspend("go")
        answer = yield Patched("two")
        return [first, answer, (yield Suspend("go"))]

    run = replay(asking_again, history=[received("go", 1), received("go", 2), patched()])
    assert Patched("two") == run.next
    run.feed(patched())
    assert [1, True, 2] == run.result
    check_replay(run)


def test_a_forced_close_needs_no_decision() -> None:
    run = fold(changed, e.Cancelled(forced=True))
    assert ("cancelled", True, None) == (run.machine.status, run.machine.closed, run.machine.asking)


# ---- retiring


def test_a_patch_event_sets_the_answer_whether_or_not_anyone_asks() -> None:
    """So the question can be taken out of the code once every open run has the change."""

    @workflow
    def retired() -> Flow[list[Any]]:
        return [(yield task("new")), (yield task("last"))]

    history = replay(changed, history=[patched(), returned(1), returned(2)]).events[1:]
    run = fold(retired, *history)
    assert [1, 2] == run.machine.result
    assert {"fix": True} == run.machine.patches


def test_a_patch_event_that_comes_first_answers_what_is_asked_later() -> None:
    @workflow
    def later() -> Flow[list[Any]]:
        first = yield task("work")
        return [first, (yield Patched("fix"))]

    assert [1, True] == fold(later, patch("fix"), did("0", "work", 1)).machine.result


def test_retiring_too_early_diverges() -> None:
    """A run without the change is found out by its first recorded step."""

    @workflow
    def retired() -> Flow[Any]:
        return (yield task("new"))

    with pytest.raises(DivergenceError, match=r"recorded is step 'old'.*yielded step 'new' there"):
        fold(retired, did("0", "old"))


def test_a_recorded_decision_of_a_retry_counts() -> None:
    asked_again = e.Retry(cut=1, patches={"fix": True})
    assert fold(changed, asked_again, did("0", "new"), did("1", "last")).machine.patches == {"fix": True}
    assert fold(changed, e.Retry(cut=1, patches={"fix": False}), did("0", "old")).machine.patches == {"fix": False}


@pytest.mark.parametrize("change_id", ["", "a\nb", "x" * 201, None, 3])
def test_a_change_id_is_printable_text(change_id: Any) -> None:
    with pytest.raises(InvalidInputError, match="change id of 1 to 200 printable characters"):
        Patched(change_id)


def test_they_are_equal_when_their_ids_are() -> None:
    assert Patched("a") == Patched("a")
    assert hash(Patched("a")) == hash(Patched("a"))
    assert Patched("a") != Patched("b")

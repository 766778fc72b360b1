"""Suspend: a wait for a signal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from attrs import frozen

from stepwell import (
    All,
    Decision,
    DivergenceError,
    Flow,
    InvalidInputError,
    Now,
    Signal,
    SignalRejected,
    Sleep,
    Suspend,
    TimedOut,
    workflow,
)
from stepwell import events as e
from stepwell.commands import UNSET
from stepwell.testing import cancel, fired, received, replay, returned

from ..unit.tools import STAMP, check_replay, did, fold, frontier, picture, sent, task, waits


@frozen
class Verdict:
    """A typed payload."""

    approved: bool
    reviewer: str


review = Signal("review", Verdict)


@workflow
def reviewed() -> Flow[str]:
    verdict = yield from Suspend(review, reason="please")
    return f"{verdict.approved} by {verdict.reviewer}"


@workflow
def counted() -> Flow[list[Any]]:
    """Takes three signals, one after the other."""
    return [(yield Suspend("go")), (yield Suspend("go")), (yield Suspend("go"))]


@workflow
def both() -> Flow[Any]:
    """Waits twice for the same signal at once."""
    return list((yield All(Suspend("go"), Suspend("go"))))


def test_the_payload_is_what_the_yield_gives() -> None:
    run = replay(reviewed)
    assert Suspend(review) == run.next
    run.feed(received(review, Verdict(True, "ada")))
    assert "True by ada" == run.result
    check_replay(run)


def test_a_signal_by_its_name_is_plain_json() -> None:
    @workflow
    def plain() -> Flow[Any]:
        return (yield Suspend("go"))

    assert {"a": [1]} == replay(plain, history=[received("go", {"a": [1]})]).result
    assert replay(plain, history=[received("go")]).result is None


def test_a_signal_by_its_name_can_have_a_type() -> None:
    @workflow
    def typed() -> Flow[str]:
        return (yield from Suspend("go", into=Verdict)).reviewer

    assert "bob" == replay(typed, history=[received("go", {"approved": True, "reviewer": "bob"})]).result


def test_a_signal_goes_to_the_oldest_wait_of_its_name() -> None:
    """Oldest is first issued; the order of paths has no say."""

    @workflow
    def late_and_early() -> Flow[Any]:
        def late() -> Flow[Any]:
            yield task("first")
            return (yield Suspend("go"))

        return list((yield All(late(), Suspend("other"), Suspend("go"))))

    run = replay(late_and_early, history=[returned(step="first")])
    assert ["0.1.0 other", "0.2.0 go", "0.0.1 go"] == frontier(run)
    for value in (1, 2):
        run.feed(received("go", value))
    run.feed(received("other", 3))
    assert [2, 3, 1] == run.result
    check_replay(run)


def test_an_early_signal_is_buffered_first_in_first_out() -> None:
    run = replay(counted, history=[received("go", 1)])
    assert "open" == run.status
    assert [1, 2, 3] == replay(counted, history=[received("go", n) for n in (1, 2, 3)]).result


def test_signals_that_came_before_the_wait_are_found_at_once() -> None:
    """The wait never becomes pending; its number in the path is taken all the same."""

    @workflow
    def later() -> Flow[Any]:
        yield task("work")
        got = [(yield Suspend("go")), (yield Suspend("go"))]
        yield task("after")
        return got

    early = [received("go", "a"), received("other", "x"), received("go", "b")]
    run = replay(later, history=[*early, returned()])
    assert ["3 after"] == frontier(run)
    run.feed(returned())
    assert ["a", "b"] == run.result
    check_replay(run)


def test_a_fresh_wait_ignores_what_is_buffered() -> None:
    """What it ignored is still there for the next wait that is not fresh."""

    @workflow
    def fresh() -> Flow[Any]:
        yield task("work")
        new = yield Suspend("go", fresh=True)
        return [new, (yield Suspend("go"))]

    run = replay(fresh, history=[received("go", "old"), returned()])
    assert ["1 go"] == frontier(run)
    run.feed(received("go", "new"))
    assert ["new", "old"] == run.result
    check_replay(run)


def test_each_wait_has_an_id_of_its_own() -> None:
    """Signal, incarnation and path; two waits for one signal can be told apart."""
    run = fold(both)
    assert ["go@0:0.0.0", "go@0:0.1.0"] == [p.wait for p in run.machine.waits]
    again = fold(both, waits("0.1.0", "go", "another")).machine
    assert ["go@0:0.0.0", "another"] == [p.wait for p in again.waits]


def test_a_signal_that_names_a_wait_goes_there() -> None:
    run = replay(both, history=[received("go", "right", wait="go@0:0.1.0"), received("go", "left")])
    assert ["left", "right"] == run.result
    check_replay(run)


def test_a_signal_that_names_a_wait_that_is_over_is_dropped() -> None:
    """A late click never answers the next question, not even from the buffer."""
    run = replay(counted, history=[received("go", 1), received("go", "late", wait="go@0:0"), received("go", 2)])
    assert ["2 go"] == frontier(run)
    assert {} == {name: list(events) for name, events in run.machine.mailbox.buffered.items() if events}
    run.feed(received("go", "early", wait="go@0:3"))
    run.feed(received("go", 3, wait="go@0:2"))
    assert [1, 2, 3] == run.result
    check_replay(run)


def test_the_same_id_counts_once() -> None:
    run = fold(counted, sent("go", 1, id="x"), sent("go", 1, id="x"), sent("go", 2, id="y"))
    assert ["2 go"] == frontier(run)
    assert 4 == run.machine.seq


def test_the_same_id_counts_once_in_the_buffer_too() -> None:
    @workflow
    def later() -> Flow[Any]:
        yield task("work")
        return (yield Suspend("go")), (yield Suspend("go"))

    run = fold(later, sent("go", 1, id="x"), sent("go", 1, id="x"), did("0", "work"))
    assert ["2 go"] == frontier(run)


def test_signals_without_an_id_all_count() -> None:
    assert [1, 1, 1] == fold(counted, *[sent("go", 1)] * 3).machine.result


@pytest.mark.parametrize("payload", [{"approved": "no", "reviewer": "x"}, {"approved": True}, None, "yes", [True, "x"]])
def test_a_payload_that_does_not_fit_is_rejected_and_consumed(payload: Any) -> None:
    """Scalars are strict: the text "no" never becomes True."""

    @workflow
    def patient() -> Flow[list[str]]:
        told = []
        while True:
            try:
                verdict = yield from Suspend(review)
            except SignalRejected as error:
                told.append(f"{error.signal} {error.at} {error.seq}")
            else:
                return [*told, verdict.reviewer]

    run = replay(patient, history=[sent("review", payload), received(review, Verdict(True, "ada"))])
    assert ["review 0 1", "ada"] == run.result
    check_replay(run)


def test_a_buffered_payload_that_does_not_fit_is_rejected_on_delivery() -> None:
    """The text says what was wrong; a sender that was too early can't be told."""

    @workflow
    def later() -> Flow[str]:
        yield task("work")
        try:
            yield Suspend(review)
        except SignalRejected as error:
            return f"{error} ({error.seq})"
        return "taken"

    run = replay(later, history=[received("review", {"approved": 1, "reviewer": "x"}), returned()])
    assert run.result.startswith("signal 'review' was refused: ")
    assert "$.approved" in run.result
    assert run.result.endswith("(1)")  # the signal's own event, from which a retry has to be without it
    check_replay(run)


def test_a_rejected_signal_that_is_not_caught_fails_the_run() -> None:
    run = replay(reviewed, history=[sent("review", "yes")])
    assert run.failure.is_a(SignalRejected)


def test_a_time_out_throws() -> None:
    @workflow
    def short() -> Flow[str]:
        try:
            return (yield Suspend("go", timeout=timedelta(days=1)))
        except TimedOut as error:
            return f"{error}; {error.signal} {error.at} {error.seq}"

    run = replay(short, history=[fired()])
    assert "no signal 'go' in time; go 0 2" == run.result
    check_replay(run)


@pytest.mark.parametrize("default", [None, 0, "none", [1]])
def test_a_default_is_given_on_time_out(default: Any) -> None:
    @workflow
    def short() -> Flow[Any]:
        return (yield Suspend("go", timeout=60, default=default))

    assert default == replay(short, history=[fired()]).result
    assert "yes" == replay(short, history=[received("go", "yes")]).result


@workflow
def hurried() -> Flow[list[Any]]:
    """Waits a while for one signal, then takes another."""
    first = yield Suspend("go", timeout=60, default="too late")
    return [first, (yield Suspend("go"))]


def test_signal_against_time_out_is_decided_by_the_order_in_the_history() -> None:
    """The late one of the two is ignored, or buffered."""
    wait, wake = waits("0", "go", due=STAMP), e.Wake(at="0", timestamp=STAMP)
    assert ["in time", "next"] == fold(hurried, wait, sent("go", "in time"), wake, sent("go", "next")).machine.result
    assert ["too late", "late"] == fold(hurried, wait, wake, sent("go", "late")).machine.result


def test_a_wake_for_a_wait_that_was_cancelled_is_ignored() -> None:
    @workflow
    def stopped() -> Flow[None]:
        try:
            yield Suspend("go", timeout=60)
        finally:
            yield task("clean")

    run = fold(stopped, waits("0", "go", due=STAMP), e.Cancel(timestamp=STAMP), e.Wake(at="0", timestamp=STAMP))
    assert ["1 clean"] == frontier(run)


def test_a_wake_without_a_timer_diverges() -> None:
    run = fold(counted, waits("0", "go"))
    before = picture(run.machine)
    with pytest.raises(DivergenceError, match="no timer is set there"):
        run.machine.feed(e.Wake(at="0", timestamp=STAMP))
    assert before == picture(run.machine)


def test_writing_the_wait_down_answers_nothing() -> None:
    run = fold(reviewed, waits("0", "review", due=STAMP))
    [pending] = run.machine.waits
    assert (True, "review@0:0", STAMP) == (pending.recorded, pending.wait, pending.due)
    assert "open" == run.machine.status


def test_a_wait_for_another_signal_than_recorded_diverges() -> None:
    with pytest.raises(DivergenceError, match=r"recorded is suspend 'approval'.* yielded suspend 'review' there"):
        fold(reviewed, waits("0", "approval"))


def test_a_cancel_interrupts_the_wait_at_once() -> None:
    run = replay(reviewed, history=[cancel()])
    assert "cancelled" == run.status
    assert [] == run.pending
    check_replay(run)


@pytest.mark.parametrize("other", [Sleep(3), Now(), task("go"), Suspend("stop")])
def test_waits_are_equal_when_they_are_for_the_same_signal(other: Any) -> None:
    """Options and the reason do not count, and a typed signal is as good as its name."""
    full = Suspend(review, reason="why", timeout=3, default=None, show={"a": 1}, fresh=True)
    assert Suspend("review") == full
    assert hash(Suspend("review")) == hash(full)
    assert other != Suspend("go")


def test_what_is_given_can_be_read_from_the_command() -> None:
    full = Suspend(review, reason="why", timeout=timedelta(minutes=2), default=None, show=[1], fresh=True)
    found = (full.signal, full.into, full.reason, full.timeout, full.default, full.show, full.fresh)
    assert ("review", Verdict, "why", 120.0, None, [1], True) == found
    bare = Suspend("go")
    assert (Any, None, None, UNSET, False) == (bare.into, bare.timeout, bare.reason, bare.default, bare.fresh)


@pytest.mark.parametrize(
    ("told", "signal", "options"),
    [
        ("got 3", 3, {}),
        ("got ''", "", {}),
        ("got 'a\\nb'", "a\nb", {}),
        ("1 to 200 characters", "x" * 201, {}),
        ("reason must be text or None, got 3", "go", {"reason": 3}),
        ("Suspend's reason holds a lone surrogate", "go", {"reason": "a\ud800"}),
        ("Suspend's reason can have 10,000 characters at most, got 10,001", "go", {"reason": "x" * 10_001}),
        ("give a timeout too", "go", {"default": 3}),
        ("got 'soon'", "go", {"timeout": "soon"}),
        ("got -1", "go", {"timeout": -1}),
    ],
)
def test_wrong_arguments_are_refused_at_once(told: str, signal: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Suspend(signal, **options)
    assert told in str(caught.value)


def test_signals_are_values() -> None:
    assert Signal("review", Verdict) == review
    assert Signal("review") != review
    assert Signal("review").type is Any


@pytest.mark.parametrize("reason", [None, "", "two\nlines", "x" * 10_000, "\N{SNOWMAN}"])
def test_any_text_that_can_be_recorded_is_a_reason(reason: str | None) -> None:
    assert reason == Suspend("go", reason=reason).reason


@workflow
def approved() -> Flow[Any]:
    got = yield from Suspend(review, timeout=60, default=None).decided()
    assert isinstance(got, Decision)
    return [got.actor, got.metadata, got.value is not None and got.value.approved]


def test_a_wait_may_ask_who_decided() -> None:
    said = received(review, Verdict(True, ""), actor="ada", metadata={"via": "mail"})
    assert ["ada", {"via": "mail"}, True] == replay(approved, history=[said]).result
    assert [None, {}, True] == replay(approved, history=[received(review, Verdict(True, ""))]).result
    assert [None, {}, False] == replay(approved, history=[fired()]).result


def test_asking_who_decided_changes_nothing_that_is_waited_for() -> None:
    wait: Any = Suspend(review, reason="please", timeout=60, default=None, show=[1], fresh=True)
    who: Any = wait.decided()
    assert wait == who == replay(approved).next
    assert (wait.reason, wait.timeout, wait.default, wait.show, wait.fresh, wait.into) == (
        who.reason,
        who.timeout,
        who.default,
        who.show,
        who.fresh,
        who.into,
    )
    assert (False, True, True) == (wait.asks_who, who.asks_who, who.decided().asks_who)


def test_a_payload_that_does_not_fit_is_rejected_whoever_sent_it() -> None:
    @workflow
    def late() -> Flow[str]:
        yield Now()
        try:
            yield Suspend(review).decided()
        except SignalRejected as error:
            return error.signal
        return ""

    assert (
        "review"
        == replay(late, history=[received("review", 3, actor="ada"), returned(datetime(2026, 1, 1, tzinfo=UTC))]).result
    )


def test_a_recorded_answer_of_before_has_no_actor() -> None:
    event = e.Resume(event_name="review", value=msgspec.Raw(b'{"approved":true,"reviewer":""}'), timestamp=STAMP)
    assert [None, {}, True] == replay(approved, history=[event]).result

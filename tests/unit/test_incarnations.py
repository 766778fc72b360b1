"""Retry and fork: which events of a history are taken over, what is offered anew, and where the cut lies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from stepwell import (
    All,
    ConflictError,
    Emit,
    Flow,
    InvalidInputError,
    NotFoundError,
    Now,
    Patched,
    Race,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    TimedOut,
    Workflow,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.failures import failure_of
from stepwell.incarnations import find_cut, plan_fork, plan_retry
from stepwell.inputs import inputs_digest

from .tools import CODEC, STAMP, Fold, ask, did, fold, raw, start_of, task, through_the_wire, words


class Story:
    """A run that is told event by event, with step ids and digests as an owner writes them."""

    def __init__(self, workflow: Workflow[..., Any], *events: e.EventBase) -> None:
        self.workflow = workflow
        self.events: list[e.EventBase] = list(events) or [start_of(workflow)]
        self.fold = Fold(workflow, self.events)

    def tell(self, *events: e.EventBase) -> Story:
        for event in events:
            self.fold.machine.feed(event)
            self.events.append(event)
        return self

    def _step(self, name: str, **outcome: Any) -> Story:
        [pending] = [p for p in self.fold.machine.pending.values() if name in (p.step_id, p.at)]
        assert isinstance(pending.command, Step)
        label, digest = pending.command.label, inputs_digest(CODEC, pending.command)
        return self.tell(
            e.Step(
                at=pending.at,
                step_id=pending.step_id,
                name=label,
                attempts=1,
                started=STAMP,
                inputs=digest,
                timestamp=STAMP,
                **outcome,
            )
        )

    def ok(self, name: str, value: Any = None) -> Story:
        """The step of that id, or at that path, gave a value."""
        return self._step(name, result=raw(value))

    def fails(self, name: str) -> Story:
        return self._step(name, error=failure_of(OSError(name), attempts=1))

    def dropped(self, *names: str) -> Story:
        """These steps were cancelled before they ran."""
        for name in names:
            [pending] = [p for p in self.fold.machine.pending.values() if name in (p.step_id, p.at)]
            self.tell(e.Cancelled(at=pending.at, timestamp=STAMP))
        return self

    def suspends(self, at: str, *, due: bool = False) -> Story:
        pending = self.fold.machine.pending[at]
        return self.tell(
            e.Suspend(
                at=at,
                waiting_for=pending.command.label,
                wait=pending.wait,
                due=STAMP if due else None,
                timestamp=STAMP,
            )
        )

    def sends(self, signal: str, value: Any = None, *, wait: str | None = None) -> Story:
        return self.tell(e.Resume(event_name=signal, value=raw(value), wait=wait, timestamp=STAMP))

    def wakes(self, at: str) -> Story:
        return self.tell(e.Wake(at=at, timestamp=STAMP))

    def sleeps(self, at: str) -> Story:
        return self.tell(e.Sleep(at=at, due=STAMP, timestamp=STAMP))

    def closes(self) -> list[e.EventBase]:
        """The history of the failed run, as it is read back."""
        machine = self.fold.machine
        assert machine.status == "error", machine.status
        assert machine.error is not None
        cut = machine.cut()
        cause = len(self.events) if cut is None else cut
        self.tell(e.Error(error=failure_of(machine.error), cause=cause, timestamp=STAMP))
        return through_the_wire(self.events)

    @property
    def waits_for(self) -> list[str]:
        return words((p.at, p.command) for p in self.fold.machine.pending.values())


def retried(workflow: Workflow[..., Any], history: Sequence[e.EventBase], incarnation: int = 1) -> Story:
    """The run as its retry begins."""
    plan = plan_retry(workflow, history, incarnation=incarnation, codec=CODEC, run_id="r", stamp=STAMP)
    return Story(workflow, *plan.events)


def shown(events: Sequence[e.EventBase]) -> list[str]:
    """Events in short: kind and what it is about; `+` for those that were kept from after the cut."""
    about = ("step_id", "event_name", "waiting_for", "change_id")
    return [
        ("+" if event.kept else "")
        + " ".join([event.kind, *(v for k in about if (v := getattr(event, k, None)) is not None)])
        for event in events[1:]
    ]


@workflow
def three() -> Flow[list[Any]]:
    return [(yield task("a")), (yield task("b")), (yield task("c"))]


@workflow
def parallel() -> Flow[list[Any]]:
    """Branches of two steps each."""

    def chain(name: str) -> Flow[Any]:
        yield task(f"{name}1")
        return (yield task(f"{name}2"))

    yield task("first")
    values = yield All(chain("a"), chain("b"), chain("c"))
    return list(values)


# ---- where the cut lies


def test_the_cut_is_the_failed_outcome() -> None:
    history = Story(three).ok("a", 1).fails("b").closes()
    assert 2 == history[-1].cause  # type: ignore[attr-defined]
    run = retried(three, history)
    assert ["step a", "retry"] == shown(run.events)
    assert ["1 b"] == run.waits_for
    assert [1, 2, 3] == run.ok("b", 2).ok("c", 3).fold.machine.result


def test_the_start_of_a_retry_tells_where_it_comes_from() -> None:
    history = Story(three).ok("a", 1).fails("b").closes()
    start, *_, retry = retried(three, history, 4).events
    assert isinstance(start, e.Start)
    assert isinstance(retry, e.Retry)
    assert (4, 0, 1) == (start.incarnation, start.epoch, start.prefix)
    assert {"runId": "r", "incarnation": 0, "offset": 2} == start.source
    assert (2, STAMP) == (retry.cut, retry.timestamp)


def test_an_error_of_own_code_in_the_root_drops_only_the_close() -> None:
    """Everything that was recorded stays; the code is run again from there."""

    @workflow
    def wrong() -> Flow[Any]:
        got = yield task("a")
        return 1 / got

    story = Story(wrong).ok("a", 0)
    assert story.fold.machine.cut() is None
    run = retried_with(wrong, mended, story.closes())
    assert ["step a", "retry"] == shown(run.events)
    assert 0 == run.fold.machine.result


@workflow(name="wrong")
def mended() -> Flow[Any]:
    return (yield task("a"))


def retried_with(old: Workflow[..., Any], new: Workflow[..., Any], history: Sequence[e.EventBase]) -> Story:
    """A retry under code that was changed meanwhile."""
    assert old.name == new.name
    return retried(new, history)


def test_an_error_of_own_code_in_a_branch_cuts_after_the_event_that_led_there() -> None:
    """Its siblings were cancelled for it, and must be run again; the step before it stays."""

    @workflow
    def wrong() -> Flow[Any]:
        def broken() -> Flow[Any]:
            return 1 / (yield task("a"))

        return list((yield All(broken(), task("b"))))

    @workflow(name="wrong")
    def right() -> Flow[Any]:
        def broken() -> Flow[Any]:
            return (yield task("a"))

        return list((yield All(broken(), task("b"))))

    history = Story(wrong).ok("a", 0).dropped("b").closes()
    assert 2 == history[-1].cause  # type: ignore[attr-defined]
    run = retried_with(wrong, right, history)
    assert ["step a", "retry"] == shown(run.events)
    assert ["0.1.0 b"] == run.waits_for


@pytest.mark.parametrize("how", ["from", "while handling"])
def test_what_an_error_comes_from_is_tried_again(how: str) -> None:
    """Cause and context lead to the step that failed."""

    @workflow
    def wrapping() -> Flow[None]:
        yield task("a")
        try:
            yield task("b")
        except StepFailed as error:
            yield task("told")
            if how == "from":
                raise ValueError("wrapped") from error
            raise ValueError("wrapped")  # noqa: B904 - the context is what is looked at

    history = Story(wrapping).ok("a").fails("b").ok("told").closes()
    assert 2 == history[-1].cause  # type: ignore[attr-defined]
    assert ["1 b"] == retried(wrapping, history).waits_for


def test_of_several_failures_the_earliest_is_the_cut() -> None:
    @workflow
    def twice() -> Flow[None]:
        try:
            yield task("a")
        except StepFailed:
            yield task("b")

    history = Story(twice).fails("a").fails("b").closes()
    assert 1 == history[-1].cause  # type: ignore[attr-defined]
    assert ["0 a"] == retried(twice, history).waits_for


def test_a_failure_that_was_handled_for_good_stays() -> None:
    @workflow
    def handled() -> Flow[None]:
        with suppress(StepFailed):
            yield task("a")
        yield task("b")

    run = retried(handled, Story(handled).fails("a").fails("b").closes())
    assert ["step a", "retry"] == shown(run.events)
    assert ["1 b"] == run.waits_for


def test_later_failures_of_a_group_are_looked_at_too() -> None:
    """The earliest of them all is the cut: an earlier one may hide behind clean-up."""

    @workflow
    def group() -> Flow[None]:
        def late() -> Flow[None]:
            try:
                yield task("early")
            except StepFailed:
                yield task("slow")
                raise

        yield All(task("boom"), late())

    history = Story(group).fails("early").fails("boom").ok("slow").closes()
    assert 1 == history[-1].cause  # type: ignore[attr-defined]
    run = retried(group, history)
    assert ["retry"] == shown(run.events)
    assert ["0.0.0 boom", "0.1.0 early"] == run.waits_for


# ---- siblings


def test_siblings_that_finished_before_the_cut_stay_done() -> None:
    story = Story(parallel).ok("first").ok("a1").ok("a2", 1).ok("b1").fails("b2").dropped("c1")
    run = retried(parallel, story.closes())
    assert ["step first", "step a1", "step a2", "step b1", "retry"] == shown(run.events)
    assert ["1.2.0 c1", "1.1.1 b2"] == run.waits_for
    assert [1, 2, 3] == run.ok("b2", 2).ok("c1").ok("c2", 3).fold.machine.result


def test_siblings_in_flight_that_finished_after_the_cut_stay_done() -> None:
    """Their real outcome was recorded although they were cancelled; it answers the same step in the new fold."""
    story = Story(parallel).ok("first").fails("b1").ok("a1").dropped("c1")
    run = retried(parallel, story.closes())
    assert ["step first", "retry", "+step a1"] == shown(run.events)
    assert ["1.1.0 b1", "1.2.0 c1", "1.0.1 a2"] == run.waits_for


def test_siblings_that_failed_after_the_cut_are_tried_again() -> None:
    run = retried(parallel, Story(parallel).ok("first").fails("b1").fails("a1").fails("c1").closes())
    assert ["step first", "retry"] == shown(run.events)
    assert ["1.0.0 a1", "1.1.0 b1", "1.2.0 c1"] == run.waits_for


def test_siblings_that_never_started_start() -> None:
    @workflow
    def limited() -> Flow[Any]:
        return list((yield All(task("a"), task("b"), task("c"), limit=1)))

    run = retried(limited, Story(limited).ok("a", 1).fails("b").closes())
    assert ["0.1.0 b"] == run.waits_for
    assert [1, 2, 3] == run.ok("b", 2).ok("c", 3).fold.machine.result


def test_the_recorded_end_of_a_cancelled_step_is_not_taken_over() -> None:
    """Nobody cancels it in the new fold, where it would be a divergence."""
    history = Story(parallel).ok("first").fails("a1").dropped("b1", "c1").closes()
    assert ["step first", "retry"] == shown(retried(parallel, history).events)


def test_clean_up_of_siblings_is_forgotten_with_what_it_cleaned_up_after() -> None:
    @workflow
    def cleaning() -> Flow[Any]:
        def careful() -> Flow[Any]:
            try:
                return (yield Suspend("go"))
            except BaseException:
                yield task("clean")
                raise

        return list((yield All(careful(), task("b"))))

    run = retried(cleaning, Story(cleaning).fails("b").ok("clean").closes())
    assert ["retry"] == shown(run.events)
    assert ["0.0.0 go", "0.1.0 b"] == run.waits_for
    assert [1, 2] == run.ok("b", 2).sends("go", 1).fold.machine.result


def test_nested_groups_keep_what_is_done_on_every_level() -> None:
    @workflow
    def nested() -> Flow[Any]:
        def inner(name: str) -> Flow[Any]:
            return list((yield All(task(f"{name}1"), task(f"{name}2"))))

        def middle() -> Flow[Any]:
            return list((yield All(inner("a"), inner("b"))))

        return str(list((yield All(middle(), task("c")))))

    story = Story(nested).ok("a1", 1).ok("b2", 4).fails("b1").ok("a2", 2).ok("c", 5)
    run = retried(nested, story.closes())
    assert ["step a1", "step b2", "retry", "+step a2", "+step c"] == shown(run.events)
    [left] = run.waits_for
    assert left.endswith(" b1")
    assert "[[[1, 2], [3, 4]], 5]" == run.ok("b1", 3).fold.machine.result


def test_the_losers_of_a_race_that_was_decided_stay_lost() -> None:
    @workflow
    def raced() -> Flow[Any]:
        yield Race(task("a"), task("b"))
        return (yield task("c"))

    run = retried(raced, Story(raced).ok("b").dropped("a").fails("c").closes())
    assert ["step b", "cancelled", "retry"] == shown(run.events)
    assert ["1 c"] == run.waits_for


def test_a_race_whose_winner_failed_is_run_again() -> None:
    @workflow
    def raced() -> Flow[Any]:
        return list((yield Race(task("a"), Sleep(60), Suspend("go"))))

    run = retried(raced, Story(raced).sleeps("0.1.0").fails("a").closes())
    assert ["sleep", "retry"] == shown(run.events)
    assert [STAMP] == [p.due for p in run.fold.machine.pending.values() if p.due]
    assert [0, 1] == run.ok("a", 1).fold.machine.result


# ---- under code that was changed


@workflow
def pair() -> Flow[Any]:
    return list((yield All(task("a"), task("b", 1), Emit("x", topic="t"))))


def changed(*, name: str = "b", argument: int = 1, topic: str = "t", into: Any = None) -> Workflow[..., Any]:
    """The same workflow, otherwise."""

    @workflow(name="pair")
    def other() -> Flow[Any]:
        step = task(name, argument)
        return list((yield All(task("a"), step.options(into=into) if into else step, Emit("x", topic=topic))))

    return other


def pair_history() -> list[e.EventBase]:
    story = Story(pair).fails("a").ok("b", "one")
    return story.tell(e.Emit(at="0.2.0", value=raw("x"), topic="t", timestamp=STAMP)).closes()


def test_what_came_after_the_cut_is_kept_while_it_answers_the_same() -> None:
    assert ["retry", "+step b", "+emit"] == shown(retried(pair, pair_history()).events)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"name": "other"}, ["retry", "+emit"]),
        ({"argument": 2}, ["retry", "+emit"]),
        ({"into": int}, ["retry", "+emit"]),
        ({"into": str}, ["retry", "+step b", "+emit"]),
        ({"topic": "other"}, ["retry", "+step b"]),
    ],
    ids=str,
)
def test_what_no_longer_answers_the_same_is_performed_again(change: dict[str, Any], kept: list[str]) -> None:
    """Another name, other arguments, a type that the record does not fit, another topic."""
    run = retried(changed(**change), pair_history())
    assert kept == shown(run.events)


# ---- signals, waits and timers


@workflow
def asking() -> Flow[list[Any]]:
    first = yield Suspend("go")
    got = yield task("a")
    return [first, got, (yield Suspend("go"))]


def test_signals_after_the_cut_are_kept() -> None:
    """What people have sent is not asked for twice."""
    story = Story(asking).suspends("0").sends("go", 1).sends("go", 2).fails("a").sends("other", 3)
    run = retried(asking, story.closes())
    assert ["suspend go", "resume go", "resume go", "retry", "+resume other"] == shown(run.events)
    assert [1, "x", 2] == run.ok("a", "x").fold.machine.result


def test_a_signal_that_named_a_recorded_wait_still_does() -> None:
    story = Story(asking).suspends("0").sends("go", 1, wait="go@0:0").fails("a")
    run = retried(asking, story.closes())
    assert ["suspend go", "resume go", "retry"] == shown(run.events)
    assert ["1 a"] == run.waits_for


def test_a_signal_that_named_a_wait_before_it_was_written_down_still_does() -> None:
    """The id holds the incarnation; where no event holds the id, the new fold gives another."""
    run = retried(asking, Story(asking).sends("go", 1, wait="go@0:0").fails("a").closes())
    assert ["1 a"] == run.waits_for
    again = retried(asking, run.fails("a").closes(), 2)
    assert ["1 a"] == again.waits_for
    assert [1, "x", 2] == again.ok("a", "x").sends("go", 2).fold.machine.result


def test_such_a_signal_after_the_cut_is_kept_too() -> None:
    @workflow
    def settled() -> Flow[Any]:
        values = yield All(task("a"), Suspend("go"), settle=True)
        if isinstance(values[0], BaseException):
            raise values[0]
        return list(values)

    run = retried(settled, Story(settled).fails("a").sends("go", 1, wait="go@0:0.1.0").closes())
    assert ["retry", "+resume go"] == shown(run.events)
    assert ["0.0.0 a"] == run.waits_for


def test_a_stale_signal_stays_stale() -> None:
    run = retried(asking, Story(asking).sends("go", 1).sends("go", 7, wait="go@0:0").fails("a").closes())
    assert [1, None, 2] == run.ok("a").sends("go", 2).fold.machine.result


@workflow
def hurried() -> Flow[Any]:
    return (yield Suspend("go", timeout=60))


def test_a_wait_that_timed_out_is_begun_anew() -> None:
    """With a due instant of its own, and another id: a late click on the old question is no answer to the new one."""
    story = Story(hurried).suspends("0", due=True).wakes("0")
    history = story.sends("go", "late", wait="go@0:0").closes()
    assert 2 == history[-1].cause  # type: ignore[attr-defined]
    run = retried(hurried, history)
    assert ["retry"] == shown(run.events)
    [pending] = run.fold.machine.pending.values()
    assert (False, None, "go@1:0") == (pending.recorded, pending.due, pending.wait)


def test_a_late_signal_without_an_id_answers_the_wait_that_is_begun_anew() -> None:
    run = retried(hurried, Story(hurried).suspends("0", due=True).wakes("0").sends("go", "late").closes())
    assert ["retry", "+resume go"] == shown(run.events)
    assert "late" == run.fold.machine.result


def test_a_time_out_is_a_failure_like_any_other() -> None:
    @workflow
    def wrapped() -> Flow[Any]:
        yield task("a")
        try:
            yield Suspend("go", timeout=60)
        except TimedOut as error:
            raise ValueError("nobody came") from error

    run = retried(wrapped, Story(wrapped).ok("a").suspends("1", due=True).wakes("1").closes())
    assert ["step a", "retry"] == shown(run.events)


@pytest.mark.parametrize("early", [False, True])
def test_a_signal_that_did_not_fit_is_offered_again_where_it_fits(early: bool) -> None:
    """Under the same code the run waits again, for a better one; under code that takes it, the run goes on."""

    @workflow
    def typed() -> Flow[Any]:
        yield task("a")
        return (yield Suspend("go", into=int))

    @workflow(name="typed")
    def lenient() -> Flow[Any]:
        yield task("a")
        return (yield Suspend("go", into=str))

    story = Story(typed)
    story = story.sends("go", "three").ok("a") if early else story.ok("a").suspends("1").sends("go", "three")
    history = story.closes()
    same = retried(typed, history)
    assert ["1 go"] == same.waits_for
    assert "resume go" not in " ".join(shown(same.events))
    assert 3 == same.sends("go", 3).fold.machine.result
    assert "three" == retried(lenient, history).fold.machine.result


def test_a_signal_that_happens_to_lie_at_the_cut_is_kept() -> None:
    """It came right after the event that made own code fail, and has nothing to do with it."""

    @workflow
    def wrong() -> Flow[Any]:
        def breaks() -> Flow[None]:
            yield task("a")
            raise ValueError("own")

        yield All(breaks(), task("b"))
        return (yield Suspend("go"))

    run = retried(wrong, Story(wrong).ok("a").sends("go", 1).dropped("b").closes())
    assert ["step a", "retry", "+resume go"] == shown(run.events)


def test_timers_that_were_set_keep_their_instant() -> None:
    @workflow
    def sleepy() -> Flow[Any]:
        return list((yield All(Sleep(60), task("a"), Suspend("go", timeout=60, default=1))))

    run = retried(sleepy, Story(sleepy).sleeps("0.0.0").suspends("0.2.0", due=True).fails("a").closes())
    assert ["sleep", "suspend go", "retry"] == shown(run.events)
    assert [STAMP, None, STAMP] == [p.due for p in run.fold.machine.pending.values()]


def test_a_timer_that_was_set_or_fired_after_the_cut_is_kept_and_a_time_out_is_not() -> None:
    @workflow
    def sleepy() -> Flow[Any]:
        values = yield All(task("a"), Sleep(60), Suspend("go", timeout=60), settle=True)
        for value in values:
            if isinstance(value, StepFailed):
                raise value
        return str(values)

    story = Story(sleepy).fails("a").sleeps("0.1.0").suspends("0.2.0", due=True).wakes("0.1.0").wakes("0.2.0")
    run = retried(sleepy, story.closes())
    assert ["retry", "+sleep", "+suspend go", "+wake"] == shown(run.events)
    assert ["0.0.0 a", "0.2.0 go"] == run.waits_for


def test_pure_values_after_the_cut_are_kept() -> None:
    @workflow
    def timed() -> Flow[Any]:
        values = yield All(task("a"), Now(), settle=True)
        if isinstance(values[0], StepFailed):
            raise values[0]
        return str(values[1])

    run = retried(timed, Story(timed).fails("a").tell(e.Now(at="0.1.0", value=STAMP, timestamp=STAMP)).closes())
    assert ["retry", "+now"] == shown(run.events)


# ---- what every prefix loses


def attempt(at: str, name: str, number: int = 1) -> e.Attempt:
    return e.Attempt(at=at, step_id=name, attempt=number, error=failure_of(OSError("x")), due=STAMP, timestamp=STAMP)


def test_a_prefix_loses_pause_and_unpause() -> None:
    pause, unpause = e.Pause(timestamp=STAMP), e.Unpause(timestamp=STAMP)
    run = retried(three, Story(three).tell(pause).ok("a").tell(unpause, pause).fails("b").closes())
    assert ["step a", "retry"] == shown(run.events)
    assert not run.fold.machine.paused


def test_a_prefix_loses_attempts_without_an_outcome() -> None:
    """The count begins anew, for the failed step and for those that were under way."""
    story = Story(parallel).ok("first").tell(attempt("1.0.0", "a1"), attempt("1.1.0", "b1")).ok("b1")
    run = retried(parallel, story.tell(attempt("1.2.0", "c1")).fails("c1").dropped("a1", "b2").closes())
    assert ["step first", "attempt b1", "step b1", "retry"] == shown(run.events)
    assert [0] * 3 == [p.attempts for p in run.fold.machine.pending.values()]


def begin(at: str, name: str) -> e.Begin:
    return e.Begin(at=at, step_id=name, name=name, timestamp=STAMP)


def test_a_prefix_loses_the_beginning_of_steps_that_failed() -> None:
    """Their outcome is known, so they may be begun once more."""
    run = retried(three, Story(three).tell(begin("0", "a")).ok("a").tell(begin("1", "b")).fails("b").closes())
    assert ["begin a", "step a", "retry"] == shown(run.events)
    assert [False] == [p.begun for p in run.fold.machine.pending.values()]


def test_a_prefix_keeps_the_beginning_of_a_step_whose_outcome_nobody_knows() -> None:
    """A crash took it: at most once is at most once in every incarnation."""
    story = Story(parallel).ok("first").tell(begin("1.0.0", "a1")).fails("b1").dropped("a1", "c1")
    run = retried(parallel, story.closes())
    assert ["step first", "begin a1", "retry"] == shown(run.events)
    assert [True, False, False] == [p.begun for p in run.fold.machine.pending.values()]


def test_a_fork_loses_the_beginning_of_a_step_whose_outcome_it_leaves_behind() -> None:
    history = Story(three).tell(begin("0", "a")).ok("a").tell(begin("1", "b")).ok("b").events
    assert ["begin a", "step a"] == shown(plan_fork(history, 4, {}, {}).events)


def test_a_fork_loses_signals_that_name_a_wait_it_begins_anew() -> None:
    @workflow
    def waiting() -> Flow[Any]:
        try:
            yield Suspend("go", timeout=60)
        except TimedOut:
            yield task("late")

    story = Story(waiting).suspends("0", due=True).wakes("0").sends("go", 1, wait="go@0:0")
    assert [] == shown(plan_fork(story.events, 2, {}, {}).events)
    assert ["suspend go", "wake", "resume go"] == shown(plan_fork(story.events, 4, {}, {}).events)


# ---- twice in a row


def test_a_run_can_be_retried_again_and_again() -> None:
    """Each time from where it failed; what was kept stays kept."""
    run = retried(parallel, Story(parallel).ok("first").fails("b1").ok("a1").dropped("c1").closes(), 1)
    run = retried(parallel, run.ok("b1").fails("c1").ok("a2", 1).dropped("b2").closes(), 2)
    assert ["step first", "retry", "+step a1", "step b1", "retry", "+step a2"] == shown(run.events)
    run = retried(parallel, run.ok("c1").ok("c2", 3).fails("b2").closes(), 3)
    assert ["1.1.1 b2"] == run.waits_for
    assert [1, 2, 3] == run.ok("b2", 2).fold.machine.result
    assert (3, 0) == (run.events[0].incarnation, run.events[0].epoch)  # type: ignore[attr-defined]


def test_a_second_retry_may_cut_before_the_first() -> None:
    """A failure that was handled before the first cut leaves the run as the context of a later one."""

    @workflow
    def chained() -> Flow[Any]:
        try:
            yield task("a")
        except failed(OSError):
            yield task("b")
            while True:
                try:
                    yield task("c")
                    return "done"
                except failed(ValueError):
                    yield task("d")

    run = retried(chained, Story(chained).fails("a").ok("b").fails("c").closes(), 1)
    assert ["retry"] == shown(run.events)[:1]
    assert ["0 a"] == run.waits_for
    run = retried(chained, run.fails("a").ok("b").fails("c").closes(), 2)
    assert ["0 a"] == run.waits_for
    assert run.ok("a").fold.machine.result is None


def test_a_retry_that_changes_nothing_fails_in_the_same_place() -> None:
    history = Story(three).ok("a").fails("b").closes()
    again = retried(three, history).fails("b").closes()
    assert 3 == again[-1].cause  # type: ignore[attr-defined]
    assert ["step a", "retry", "retry"] == shown(retried(three, again, 2).events)


def test_a_run_that_was_forked_can_be_retried() -> None:
    history = Story(three).ok("a", 1).ok("b", 2).fails("c").closes()
    fork = Story(three, *plan_fork(history, 2, {"runId": "r"}, {}).events)
    run = retried(three, fork.fails("b").closes())
    assert ["step a", "retry"] == shown(run.events)


# ---- Patched


@workflow
def patched_pair() -> Flow[Any]:
    """The question is pending where the run failed: right behind the first step."""

    def one() -> Flow[Any]:
        yield task("a")
        return (yield Patched("fix")), (yield task("b"))

    return list((yield All(one(), task("c"))))


def test_a_question_that_is_pending_at_the_cut_keeps_its_answer() -> None:
    """A run does not change its mind by being retried."""
    story = Story(patched_pair).ok("a").tell(e.Patch(change_id="fix", timestamp=STAMP)).fails("b").dropped("c")
    run = retried(patched_pair, story.closes())
    assert ["step a", "patch fix", "retry"] == shown(run.events)

    old = Story(patched_pair).ok("a")
    assert "fix" == old.fold.machine.asking
    old.tell(failing_step("0.1.0", "c")).dropped("b")
    run = retried(patched_pair, old.closes())
    assert ["step a", "retry"] == shown(run.events)
    assert {"fix": False} == run.events[-1].patches  # type: ignore[attr-defined]
    assert {"fix": False} == run.fold.machine.patches


def failing_step(at: str, name: str) -> e.Step:
    error = failure_of(OSError(name), attempts=1)
    return e.Step(at=at, step_id=name, name=name, attempts=1, started=STAMP, error=error, timestamp=STAMP)


def test_an_answer_of_yes_at_the_cut_is_kept_by_the_retry_event() -> None:
    """The own `patch` event came after the failed outcome."""

    @workflow
    def late() -> Flow[Any]:
        def one() -> Flow[Any]:
            try:
                yield task("a")
            finally:
                yield Patched("fix")

        yield All(one())

    story = Story(late).fails("a").tell(e.Patch(change_id="fix", timestamp=STAMP))
    run = retried(late, story.closes())
    assert ["retry", "+patch fix"] == shown(run.events)
    assert {"fix": True} == run.fold.machine.patches


def test_a_question_that_the_failed_run_never_came_to_is_answered_yes() -> None:
    """What is asked for the first time is asked in a new run, as it were."""

    @workflow
    def asks() -> Flow[Any]:
        def one() -> Flow[Any]:
            yield task("a")
            return (yield Patched("fix"))

        return list((yield All(one(), task("b"))))

    @workflow(name="asks")
    def unasked() -> Flow[Any]:
        def one() -> Flow[Any]:
            yield task("a")
            yield task("more")

        return list((yield All(one(), task("b"))))

    history = Story(unasked).fails("b").ok("a").closes()
    run = retried(asks, history)
    assert ["retry", "+step a"] == shown(run.events)
    assert "fix" == run.fold.machine.asking
    both = Story(unasked).fails("b").ok("a").sends("go").closes()
    assert ["retry", "+step a", "+patch fix", "+resume go"] == shown(retried(asks, both).events)


def test_the_close_of_the_failed_run_answers_no_question() -> None:
    """A mend that is guarded by Patched where the old code broke is what the retry is for."""

    @workflow(name="mended")
    def broken() -> Flow[Any]:
        got = yield task("a")
        return 1 / got

    @workflow(name="mended")
    def guarded() -> Flow[Any]:
        got = yield task("a")
        if (yield Patched("by nought")) and (yield Patched("by less")):
            return "mended"
        return 1 / got

    run = retried(guarded, Story(broken).ok("a", 0).closes())
    assert ["step a", "retry"] == shown(run.events)
    assert {"by nought": True, "by less": True} == run.events[-1].patches  # type: ignore[attr-defined]
    assert "mended" == run.fold.machine.result


@pytest.mark.parametrize("answers", [(True, True), (True, False), (False, False)])
def test_two_questions_in_a_row_at_the_cut_keep_their_answers(answers: tuple[bool, bool]) -> None:
    """Own code failed in one branch, in the turn in which another began to ask."""

    @workflow
    def asks() -> Flow[Any]:
        def breaks() -> Flow[None]:
            yield Suspend("go")
            raise ValueError("own")

        def one() -> Flow[Any]:
            yield Suspend("go")
            log = [(yield Patched("one")), (yield Patched("two"))]
            yield task("b")
            return log

        values = yield All(one(), breaks(), settle=True)
        if isinstance(values[1], ValueError):
            raise values[1]
        return list(values)

    story = Story(asks).sends("go").sends("go")
    assert "one" == story.fold.machine.asking
    for change_id, yes in zip(("one", "two"), answers, strict=True):
        if yes:
            story.tell(e.Patch(change_id=change_id, timestamp=STAMP))
    if story.fold.machine.asking:
        digest = inputs_digest(CODEC, task("b"))
        story.tell(did("0.0.1", "b", inputs=digest))
    else:
        story.ok("b")
    history = story.closes()
    run = retried(asks, history)
    assert dict(zip(("one", "two"), answers, strict=True)) == run.fold.machine.patches
    assert "+step b" == shown(run.events)[-1]


def test_an_answer_of_no_from_after_the_cut_is_told_by_the_retry_event() -> None:
    @workflow
    def asks() -> Flow[Any]:
        first = yield All(task("a"), settle=True)
        answer = yield Patched("fix")
        yield task("b")
        if isinstance(first[0], BaseException):
            raise first[0]
        return answer

    story = Story(asks).fails("a")
    story.tell(e.Step(at="1", step_id="b", name="b", attempts=1, started=STAMP, result=raw(1), timestamp=STAMP))
    run = retried(asks, story.closes())
    assert {"fix": False} == run.events[1].patches  # type: ignore[attr-defined]
    run.ok("a", 1)
    assert run.fold.machine.asking is None


# ---- forks


def test_a_fork_takes_over_what_lies_before_the_cut() -> None:
    history = Story(three).ok("a", 1).ok("b", 2).ok("c", 3).events
    source = {"runId": "r", "incarnation": 0, "offset": 2}
    plan = plan_fork(history, 2, source, {"team": "x"})
    start = plan.events[0]
    assert isinstance(start, e.Start)
    assert (source, {"team": "x"}, 0, 0, 1) == (start.source, start.tags, start.incarnation, start.epoch, start.prefix)
    fork = Story(three, *plan.events)
    assert ["1 b"] == fork.waits_for
    assert [1, "other", "end"] == fork.ok("b", "other").ok("c", "end").fold.machine.result


def test_a_fork_begins_paths_of_its_own() -> None:
    """Its steps are other steps: a fork of a retried run is no retry."""
    history = Story(three).ok("a").fails("b").closes()
    run = retried(three, history, 3)
    start = plan_fork(run.events, 2, {}, {}).events[0]
    assert (0, 0) == (start.incarnation, start.epoch)  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_fork_at_any_point_goes_on_from_there(cut: int) -> None:
    history = Story(three).ok("a", 1).ok("b", 2).ok("c", 3).events
    fork = Story(three, *plan_fork(history, cut, {}, {}).events)
    for name in "abc"[cut - 1 :]:
        fork.ok(name, name)
    assert [1, 2, 3][: cut - 1] + list("abc"[cut - 1 :]) == fork.fold.machine.result


def test_a_fork_after_a_cancel_is_refused() -> None:
    """It would be cancelled too."""
    story = Story(three).ok("a").tell(e.Cancel(timestamp=STAMP)).ok("b")
    with pytest.raises(ConflictError, match="event 3 comes after a cancel"):
        plan_fork(story.events, 3, {}, {})
    assert ["step a"] == shown(plan_fork(story.events, 2, {}, {}).events)


def test_a_fork_in_a_group_keeps_the_siblings_that_had_finished() -> None:
    history = Story(parallel).ok("first").ok("a1").ok("b1").ok("a2", 1).ok("c1").events
    fork = Story(parallel, *plan_fork(history, find_cut(history, "a2"), {}, {}).events)
    assert ["1.2.0 c1", "1.0.1 a2", "1.1.1 b2"] == fork.waits_for


def test_a_cut_is_named_by_a_step() -> None:
    @workflow
    def twice() -> Flow[None]:
        yield task("a")
        yield task("b")
        yield task("a")

    history = Story(twice).ok("a").ok("b").ok("a#2").events
    assert [1, 2, 3] == [find_cut(history, name) for name in ("a", "b", "a#2")]
    with pytest.raises(NotFoundError, match="no step 'c' is recorded in this history; recorded steps: a, b, a#2"):
        find_cut(history, "c")
    with pytest.raises(NotFoundError, match="recorded steps: none"):
        find_cut(history[:1], "c")


@pytest.mark.parametrize("before", [0, -1, 4, True, None, 1.0])
def test_a_cut_is_a_position_of_the_history(before: Any) -> None:
    history = Story(three).ok("a").ok("b").events
    assert [1, 2, 3] == [find_cut(history, n) for n in (1, 2, 3)]
    with pytest.raises(InvalidInputError, match="a seq from 1 to 3"):
        find_cut(history, before)


def test_plans_leave_the_history_as_it_is() -> None:
    history = Story(parallel).ok("first").fails("b1").ok("a1").dropped("c1").closes()
    before = msgspec.json.encode(history)
    retried(parallel, history)
    plan_fork(history, 3, {}, {})
    assert before == msgspec.json.encode(history)


def test_a_plan_folds_to_where_the_old_run_stood_before_the_cut() -> None:
    """Whatever the step that failed."""
    names = ["first", "a1", "b1", "c1", "a2", "b2", "c2"]
    for n, failing in enumerate(names):
        story = Story(parallel)
        for name in names[:n]:
            story.ok(name)
        before = story.waits_for
        story.fails(failing)
        while story.fold.machine.status == "open":
            story.dropped(next(iter(story.fold.machine.pending)))
        run = retried(parallel, story.closes())
        assert before == run.waits_for
        assert fold(parallel, *run.events[1:]).asked == run.fold.asked


def test_no_step_is_performed_by_a_plan() -> None:
    """Planning folds; what it yields is closed again."""
    log: list[str] = []

    @workflow
    def watched() -> Flow[None]:
        try:
            yield Step(ask, 1).options(name="a")
        finally:
            log.append("closed")

    history = Story(watched).fails("a").closes()
    log.clear()
    plan_retry(watched, history, incarnation=1, codec=CODEC, run_id="r", stamp=STAMP)
    assert ["closed"] * 2 == log

"""Who waits for whom, and decisions: by whom, under which wait id, made once and for good."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    ContinueAsNew,
    Decision,
    Engine,
    EventMismatchError,
    Flow,
    InvalidInputError,
    NotFoundError,
    RunClosedError,
    RunCompleted,
    Running,
    RunSuspended,
    Signal,
    Sleep,
    Step,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.testing.environments import EPOCH

from .tools import HandClock, Tally, kinds


@frozen
class Verdict:
    """What a person decides."""

    approved: bool
    note: str = ""


REVIEW = Signal("review", Verdict)
YES, NO = Verdict(True), Verdict(False)


@workflow
def expense(cents: int) -> Flow[list[Any]]:
    decision = yield from Suspend(REVIEW, reason=f"{cents} cents", show={"cents": cents, "signal": "x"}).decided()
    return [decision.value.approved, decision.actor, decision.metadata, decision.at.isoformat()]


@workflow
def twice() -> Flow[list[bool]]:
    first = yield from Suspend(REVIEW, reason="first")
    second = yield from Suspend(REVIEW, reason="second")
    return [first.approved, second.approved]


def ask(engine: Any, flow: Any = expense, *args: Any, run_id: str = "r") -> str:
    """Start a run; the wait id of its question."""
    engine.start(flow, *(args or ((5,) if flow is expense else ())), run_id=run_id)
    return next(w.wait for w in engine.waiting() if w.run_id == run_id)


def resumes(engine: Any, run_id: str = "r") -> list[e.Resume]:
    return [event for event in engine.history(run_id) if isinstance(event, e.Resume)]


# ---- what waits


def test_a_wait_tells_its_question_its_age_and_what_it_shows(bench: Any) -> None:
    engine = bench.engine(clock=HandClock())
    engine.start(expense, 5, run_id="r")
    (wait,) = bench.engine().waiting(REVIEW)  # another program, without the workflow's code
    assert ("r", "review", "review@0:0", "5 cents", EPOCH, None) == (
        wait.run_id,
        wait.signal,
        wait.wait,
        wait.reason,
        wait.since,
        wait.due,
    )
    assert {"cents": 5, "signal": "x"} == wait.show
    assert [] == engine.waiting("x"), "what a question shows is no signal"


def test_what_a_question_shows_is_found_however_much_was_recorded_after_it(bench: Any) -> None:
    tally = Tally()

    def busy() -> Flow[None]:
        for _ in range(40):
            yield tally.step("work")
        yield Suspend("other")

    @workflow
    def w() -> Flow[None]:
        from stepwell import All

        yield All(Suspend("long", timeout=timedelta(days=1), show=["here"]), busy())

    engine = bench.engine()
    engine.start(w, run_id="r")
    shown = {wait.signal: wait.show for wait in engine.waiting()}
    assert {"long": ["here"], "other": None} == shown


def test_waits_are_given_page_by_page(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    for number in range(7):
        engine.start(expense, number, run_id=str(number))
        clock.advance(1)
    assert list("0123456") == [w.run_id for w in engine.waiting()], "all: the oldest wait first"
    assert list("65") == [w.run_id for w in engine.waiting(REVIEW, limit=2)], "a page: the newest run first"
    assert list("43") == [w.run_id for w in engine.waiting(REVIEW, limit=2, after="5")]
    assert list("10") == [w.run_id for w in engine.waiting(limit=3, after="2")]
    assert [] == engine.waiting(limit=3, after="0")


def test_a_page_of_waits_is_checked(memory: Any) -> None:
    engine = memory.engine()
    for wrong in (0, True, 10_001, "3"):
        with pytest.raises(InvalidInputError, match="limit must be a whole number from 1 to 10,000"):
            engine.waiting(limit=wrong)
    with pytest.raises(InvalidInputError, match="give a limit too"):
        engine.waiting(after="r")


# ---- who decided


def test_a_decision_is_recorded_with_its_actor_and_metadata(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    wait = ask(engine)
    clock.advance(60)
    done = engine.resume("r", REVIEW, YES, wait=wait, actor="alice", metadata={"via": "web", "ip": None})
    at = EPOCH + timedelta(minutes=1)
    assert RunCompleted("r", [True, "alice", {"via": "web", "ip": None}, at.isoformat()]) == done
    (recorded,) = resumes(engine)
    assert ("alice", {"via": "web", "ip": None}) == (recorded.actor, json.loads(bytes(recorded.metadata)))  # type: ignore[arg-type]


def test_a_signal_has_an_actor_too_and_one_without_is_as_before(bench: Any) -> None:
    engine = bench.engine(expense)
    ask(engine)
    engine.signal("r", REVIEW, YES, actor="bob")
    assert ["True", "bob", "{}"] == [str(part) for part in engine.advance("r").unwrap()[:3]]
    ask(engine, run_id="s")
    assert [True, None, {}] == engine.resume("s", REVIEW, YES).unwrap()[:3]
    assert b'"actor"' not in engine.store.read("s").records[-2]
    assert b'"metadata"' not in engine.store.read("s").records[-2]


def test_a_decision_says_when_nobody_made_it(bench: Any) -> None:
    @workflow
    def patient() -> Flow[list[Any]]:
        got = yield from Suspend(REVIEW, timeout=0, default=NO).decided()
        assert isinstance(got, Decision)
        return [got.value.approved, got.actor, got.metadata, isinstance(got.at, datetime)]

    assert [False, None, {}, True] == bench.engine().start(patient, run_id="r").unwrap()


def test_a_decision_that_came_early_has_its_actor(bench: Any) -> None:
    @workflow
    def late() -> Flow[str | None]:
        yield Sleep(0)
        return (yield from Suspend(REVIEW).decided()).actor

    engine = bench.engine(late)
    engine.submit(late, run_id="r")
    engine.signal("r", REVIEW, YES, actor="ada")
    assert RunCompleted("r", "ada") == engine.advance("r")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"actor": ""}, "actor must be printable text of 1 to 200 characters"),
        ({"actor": "a\nb"}, "actor must be printable text"),
        ({"actor": "a" * 201}, "actor must be printable text"),
        ({"actor": 7}, "actor must be printable text"),
        ({"metadata": ["a"]}, "metadata must be a mapping of text to JSON values"),
        ({"metadata": {1: "a"}}, "metadata must be a mapping of text to JSON values"),
        ({"metadata": {"a": object()}}, r"metadata must be a JSON object: \$.a"),
        ({"metadata": {"a": float("nan")}}, r"metadata must be a JSON object: \$.a"),
        ({"metadata": {"a": "x" * 70_000}}, "metadata can have 65,536 bytes of JSON at most"),
    ],
)
def test_what_can_not_be_recorded_of_a_decision_is_refused_before_anything_is_written(
    bench: Any, given: dict[str, Any], words: str
) -> None:
    engine = bench.engine()
    wait = ask(engine)
    before = engine.history("r")
    for send in (engine.resume, engine.signal, bench.engine().signal):
        with pytest.raises(InvalidInputError, match=words):
            send("r", REVIEW, YES, wait=wait, **given)
    assert before == engine.history("r")


# ---- once and for good


def test_the_same_decision_by_the_same_id_counts_once(bench: Any) -> None:
    engine = bench.engine(twice)
    wait = ask(engine, twice)
    sent: dict[str, Any] = {"wait": wait, "id": "click", "actor": "ada", "metadata": {"a": 1, "b": 2}}
    for _ in range(2):
        assert RunSuspended("r", ("review",), "second") == engine.resume("r", REVIEW, YES, **sent)
    engine.signal("r", REVIEW, YES, **{**sent, "metadata": {"b": 2, "a": 1}})
    bench.engine().signal("r", "review", {"approved": True, "note": ""}, **sent)
    assert 1 == len(resumes(engine))


@workflow
def rounds(left: int) -> Flow[Any]:
    """Asks once in each of its histories."""
    answer = yield Suspend(REVIEW)
    if left:
        yield ContinueAsNew(left - 1)
    return answer.approved


def test_the_same_decision_counts_once_after_a_continue_as_new(bench: Any) -> None:
    """Its question is in an earlier history; its id was carried over. The same words to the new question are new."""
    engine = bench.engine(rounds)
    first = ask(engine, rounds, 2)
    for _ in range(2):
        engine.decide("r", first, YES, actor="ada", id="click")
    bench.engine().signal("r", "review", {"approved": True, "note": ""}, wait=first, id="click", actor="ada")
    assert [] == resumes(engine)
    engine.resume("r", REVIEW, YES, id="other")
    (third,) = engine.waiting()
    assert RunCompleted("r", True) == engine.decide("r", third.wait, YES, actor="ada", id="last")


def test_the_same_decision_counts_once_when_the_run_is_over_too(bench: Any) -> None:
    engine = bench.engine(expense)
    wait = ask(engine)
    done = engine.decide("r", wait, YES, actor="ada", id="click")
    assert done == engine.decide("r", wait, YES, actor="ada", id="click")
    assert Running("r") == engine.decide("r", wait, YES, actor="ada", id="click", drive=False)
    engine.signal("r", REVIEW, YES, wait=wait, id="click", actor="ada")
    with pytest.raises(RunClosedError):
        engine.signal("r", REVIEW, YES, id="click")
    assert 1 == len(resumes(engine))


@pytest.mark.parametrize("code", ["with the code", "without it"])
@pytest.mark.parametrize("flow", [twice, expense])
@pytest.mark.parametrize(
    "other",
    [
        {"value": NO, "id": "click", "actor": "ada"},  # the same click, flipped
        {"value": YES, "id": "click", "actor": "bob"},  # in another name
        {"value": YES, "id": "click 2", "actor": "ada"},  # the same, again
        {"value": NO, "id": "click 2", "actor": "bob"},
        {"value": YES, "id": "click", "actor": "ada", "metadata": {"a": 1}},
    ],
)
def test_a_second_decision_is_told_who_decided_and_when(bench: Any, flow: Any, other: Any, code: str) -> None:
    clock = HandClock()
    engine = bench.engine(flow, clock=clock)
    wait = ask(engine, flow)
    engine.resume("r", REVIEW, YES, wait=wait, id="click", actor="ada")
    before = engine.history("r")
    clock.advance(5)
    sends = [engine.signal, engine.resume] if code == "with the code" else [bench.engine().signal]
    for send in sends:
        with pytest.raises(EventMismatchError, match=r"was decided by 'ada' at 2026-01-01T00:00:00") as told:
            send("r", REVIEW, wait=wait, **other)
        assert ("ada", EPOCH, wait) == (told.value.decided_by, told.value.decided_at, told.value.wait)
    assert before == engine.history("r")


def test_a_decision_that_was_recorded_and_not_taken_in_yet_is_final_too(bench: Any) -> None:
    """The index still says that the run waits."""
    stranger = bench.engine()
    wait = ask(bench.engine(expense))
    stranger.signal("r", "review", {"approved": True, "note": ""}, wait=wait, actor="ada")
    with pytest.raises(EventMismatchError, match="was decided by 'ada'"):
        stranger.signal("r", "review", {"approved": False, "note": ""}, wait=wait, actor="bob")
    assert [True, "ada"] == bench.engine(expense).advance("r").unwrap()[:2]


def test_a_question_that_was_answered_by_a_plain_signal_is_decided(bench: Any) -> None:
    engine = bench.engine(twice)
    wait = ask(engine, twice)
    engine.resume("r", REVIEW, YES)
    for one in (engine, bench.engine()):
        with pytest.raises(EventMismatchError, match="was decided by somebody who gave no name at 2") as told:
            one.signal("r", REVIEW, NO, wait=wait, actor="bob")
        assert told.value.decided_by is None
        assert told.value.decided_at is not None


def test_a_question_that_timed_out_can_not_be_decided(bench: Any) -> None:
    @workflow
    def hasty() -> Flow[None]:
        yield Suspend(REVIEW, timeout=0, default=None)
        yield Suspend(REVIEW)

    engine = bench.engine(hasty)
    engine.start(hasty, run_id="r")
    for one in (engine, bench.engine()):
        with pytest.raises(EventMismatchError, match=r"'review@0:0' timed out at 2.*nobody can decide it any more"):
            one.signal("r", REVIEW, NO, wait="review@0:0", actor="bob")


def test_an_id_that_another_signal_had_loses_no_decision(bench: Any) -> None:
    engine = bench.engine(twice)
    first = ask(engine, twice)
    engine.resume("r", REVIEW, YES, wait=first, id="click")
    (second,) = engine.waiting()
    for one in (engine, bench.engine()):
        with pytest.raises(EventMismatchError, match=r"id 'click' was used at .* a decision needs an id of its own"):
            one.signal("r", REVIEW, YES, wait=second.wait, id="click")


def test_a_question_that_was_never_asked_or_is_of_a_cancelled_run_is_told(bench: Any) -> None:
    engine = bench.engine(expense)
    wait = ask(engine)
    for one in (engine, bench.engine()):
        with pytest.raises(EventMismatchError, match="does not wait for signal 'review' with wait 'review@0:7'"):
            one.signal("r", REVIEW, YES, wait="review@0:7")
    engine.cancel("r")
    with pytest.raises(RunClosedError):
        engine.decide("r", wait, YES, actor="ada")


def test_a_decision_about_a_run_that_is_being_cancelled_is_told(bench: Any) -> None:
    wait = ask(bench.engine(expense))
    stranger = bench.engine()
    stranger.cancel("r")
    for one in (stranger, bench.engine(expense)):
        with pytest.raises(EventMismatchError, match="does not wait for signal 'review' with wait 'review@0:0'"):
            one.signal("r", REVIEW, YES, wait=wait)


# ---- decide


def test_decide_names_the_question_and_who_decides(bench: Any) -> None:
    engine = bench.engine(expense)
    wait = ask(engine)
    assert [True, "ada"] == engine.decide("r", wait, {"approved": True, "note": ""}, actor="ada").unwrap()[:2]


def test_a_decision_may_only_be_recorded(bench: Any) -> None:
    engine, stranger = bench.engine(expense), bench.engine()
    wait = ask(engine)
    with pytest.raises(NotFoundError):
        stranger.decide("r", wait, {"approved": True}, actor="ada")
    assert Running("r") == stranger.decide("r", wait, {"approved": True}, actor="ada", drive=False)
    (done,) = engine.run_due()
    assert [True, "ada", {}] == done.unwrap()[:3]


@pytest.mark.parametrize(
    ("wait", "actor", "words"),
    [
        ("review", "ada", "wait must be a wait id"),
        ("", "ada", "wait must be a wait id"),
        (None, "ada", "wait must be a wait id"),
        ("review@0:0", None, "actor must say who decides"),
        ("review@0:0", "", "actor must be printable text"),
    ],
)
def test_decide_checks_what_it_is_given(memory: Any, wait: Any, actor: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        memory.engine().decide("r", wait, YES, actor=actor)


# ---- two at once

RACER = """
import json, sys
from attrs import frozen
from stepwell import Engine, EventMismatchError, Flow, Signal, Suspend, workflow

@frozen
class Verdict:
    approved: bool

review = Signal("review", Verdict)

@workflow
def expense() -> Flow[list]:
    got = yield from Suspend(review).decided()
    return [got.value.approved, got.actor]

url, name, how = sys.argv[1:]
engine = Engine(url, [expense] if how != "stranger" else [])
print("ready", flush=True)
for line in sys.stdin:
    run_id, wait = json.loads(line)
    try:
        engine.decide(run_id, wait, {"approved": name == "ada"}, actor=name, drive=how == "drives")
        print(json.dumps(["won", name]), flush=True)
    except EventMismatchError as error:
        print(json.dumps(["told", error.decided_by]), flush=True)
"""


@pytest.mark.parametrize("how", ["drives", "records", "stranger"])
def test_of_two_deciders_at_once_one_wins_and_the_other_is_told_who(
    disk: Any, python: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    """Two hundred times, in two processes."""

    @workflow(name="expense")
    def asked() -> Flow[list[Any]]:
        got = yield from Suspend("review").decided()
        return [got.value["approved"], got.actor]

    engine: Engine = disk.engine(asked)
    racers = [python(RACER, disk.url, name, how) for name in ("ada", "bob")]
    for racer in racers:
        assert racer.stdout is not None
        assert "ready\n" == racer.stdout.readline()
    winners = set()
    for number in range(200):
        run_id = str(number)
        engine.start(asked, run_id=run_id)
        for racer in racers if number % 2 else reversed(racers):
            assert racer.stdin is not None
            racer.stdin.write(json.dumps([run_id, "review@0:0"]) + "\n")
            racer.stdin.flush()
        said = {}
        for racer, name in zip(racers, ("ada", "bob"), strict=True):
            assert racer.stdout is not None
            said[name] = json.loads(racer.stdout.readline())
        (winner,) = [name for name, (what, _) in said.items() if what == "won"]
        (loser,) = set(said) - {winner}
        assert ["told", winner] == said[loser]
        assert [winner] == [event.actor for event in resumes(engine, run_id)]
        if how != "drives":
            engine.advance(run_id)
        assert RunCompleted(run_id, [winner == "ada", winner]) == engine.wait(run_id, 30)
        winners.add(winner)
    assert {"ada", "bob"} == winners


def test_a_retry_keeps_who_decided(bench: Any) -> None:
    tally = Tally()

    def pay() -> None:
        if tally.add("pay") == 1:
            raise OSError("no")

    @workflow
    def paying() -> Flow[str | None]:
        got = yield from Suspend(REVIEW).decided()
        yield Step(pay)
        return got.actor

    engine = bench.engine(paying)
    wait = ask(engine, paying)
    assert "failed" == engine.decide("r", wait, YES, actor="ada").status
    assert RunCompleted("r", "ada") == engine.retry("r")
    assert ["start", "suspend", "resume", "retry", "step", "complete"] == kinds(engine)

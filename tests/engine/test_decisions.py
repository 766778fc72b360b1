"""What decides over a run is on disk before it touches anything: steps in flight, defaults, payloads, and runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import stepwell.driving
import stepwell.loading
from stepwell import (
    All,
    Engine,
    EventMismatchError,
    Flow,
    InvalidInputError,
    NewerFormatError,
    NotFoundError,
    Now,
    Race,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSuspended,
    Signal,
    Step,
    StepInterrupted,
    Suspend,
    VersionMismatchError,
    current_step,
    workflow,
)
from stepwell import events as e
from stepwell.sealing import seal
from stepwell.wire import to_draft
from stepwell_stores import open_store

from .tools import PATIENCE, Wrapped

STAMP = "2026-01-01T00:00:00Z"


class Surprised(Wrapped):
    """A signal lands right before the first append of an owner that holds an event of `kind`."""

    def __init__(self, inner: Any, kind: str) -> None:
        super().__init__(inner)
        self.kind = kind

    def append(self, run_id: str, incarnation: Any, seq: Any, records: Any, **how: Any) -> Any:
        if how.get("fence") is not None and any(draft.type == self.kind for draft in records):
            self.kind = ""
            signal = to_draft(e.Resume(event_name="x", value=msgspec.Raw(b"1"), id="surprise", timestamp=STAMP))
            self.inner.append(run_id, None, None, [signal], attempt_id="surprise", due=0)
        return self.inner.append(run_id, incarnation, seq, records, **how)


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_race_that_was_decided_and_not_written_drops_no_step(at_most_once: bool) -> None:
    """The deciding Now conflicts with a signal: it is written, or drawn again, before the loser hears of it."""
    started, calls = threading.Event(), []

    def slow() -> None:
        calls.append("slow")
        started.set()
        while not current_step().wait_cancelled(PATIENCE):
            raise AssertionError("nobody cancelled the loser")

    def fast() -> None:
        assert started.wait(PATIENCE)

    def other() -> Flow[str]:
        yield Step(fast)
        yield Now()
        return "other"

    @workflow
    def racing() -> Flow[str]:
        index, _ = yield from Race(Step(slow).options(at_most_once=at_most_once), other())
        return str(index)

    store: Any = Surprised(open_store("memory:"), "now")
    engine = Engine(store, [racing])
    assert RunCompleted("r", "1") == engine.start(racing, run_id="r")
    assert ["slow"] == calls
    assert "cancelled" in [event.kind for event in engine.history("r")]


def test_a_step_whose_arguments_are_shared_gets_them_as_they_were_when_it_was_asked_for() -> None:
    """However long it waits for a place in the pool."""
    shared: list[int] = []
    seen: list[list[int]] = []
    gate = threading.Event()

    def hold() -> None:
        assert gate.wait(PATIENCE)

    def look(values: list[int]) -> None:
        seen.append(values)

    def let_go() -> None:
        gate.set()

    def changing() -> Flow[None]:
        yield Now()
        shared.append(1)
        yield Step(let_go)

    @workflow
    def sharing() -> Flow[None]:
        yield All(Step(hold), Step(look, shared), changing())

    with ThreadPoolExecutor(2) as pool:
        engine = Engine("memory:", [sharing], executor=pool)
        before = list(shared)
        engine.start(sharing, run_id="r")
    assert [] == before
    look_event = next(ev for ev in engine.history("r") if isinstance(ev, e.Step) and ev.name == "look")
    assert engine._parts.codec.digest([seen[0]]) == look_event.inputs


def test_an_at_most_once_step_that_may_have_run_is_not_cancelled_but_interrupted(bench: Any) -> None:
    """The workflow hears of the doubt, and can undo."""
    undone = []

    def charge() -> None:
        raise KeyboardInterrupt

    def refund() -> None:
        undone.append("refund")

    @workflow
    def careful() -> Flow[str]:
        try:
            yield Step(charge).options(at_most_once=True)
        except StepInterrupted:
            yield Step(refund)
        return "done"

    engine = bench.engine(careful)
    with pytest.raises(KeyboardInterrupt):
        engine.start(careful, run_id="r")
    outcome = engine.cancel("r")
    kinds = [event.kind for event in engine.history("r")]
    assert ["start", "begin", "cancel", "step"] == kinds[:4]
    assert isinstance(outcome, RunCancelled)


def test_a_default_is_a_copy_of_what_is_recorded(bench: Any) -> None:
    """It is never shared between runs, nor between a run and its replay."""
    default: list[int] = []

    @workflow
    def patient() -> Flow[list[int]]:
        got = yield from Suspend("x", into=list[int], timeout=0, default=default)
        got.append(1)
        yield Suspend("go")
        return got

    engine = bench.engine(patient)
    for run_id in ("a", "b"):
        engine.start(patient, run_id=run_id)
        assert RunCompleted(run_id, [1]) == engine.resume(run_id, "go")
    assert [] == default
    wake = next(event for event in engine.history("a") if isinstance(event, e.Wake))
    assert isinstance(wake.value, msgspec.Raw)
    assert b"[]" == bytes(wake.value)


def test_a_default_or_show_that_can_not_be_recorded_is_thrown_at_its_yield(bench: Any) -> None:
    """Like any value of the workflow's own."""

    @workflow
    def wrong(what: str) -> Flow[str]:
        if what == "show":
            yield Suspend("x", show=object())
        yield Suspend("x", timeout=1, default=object())
        return ""

    engine = bench.engine(wrong)
    for what in ("show", "default"):
        outcome = engine.start(wrong, what, run_id=what)
        assert isinstance(outcome, RunFailed)
        assert "stepwell.errors.CodecError" == outcome.failure.type


def test_a_signal_id_counts_once_in_an_incarnation_and_again_after_a_reset(bench: Any) -> None:
    """A webhook that is delivered twice changes nothing; a run that begins anew hears it anew."""

    @workflow
    def asking() -> Flow[list[int]]:
        first = yield from Suspend("n", into=int)
        second = yield from Suspend("n", into=int)
        return [first, second]

    engine = bench.engine(asking)
    engine.start(asking, run_id="r")
    wait = engine.waiting()[0].wait
    assert RunSuspended("r", ("n",)) == engine.resume("r", "n", 1, id="hook-1", wait=wait)
    assert RunSuspended("r", ("n",)) == engine.resume("r", "n", 1, id="hook-1", wait=wait)
    engine.signal("r", "n", 1, id="hook-1", wait=wait)
    with pytest.raises(EventMismatchError):
        engine.resume("r", "n", 1, id="hook-2", wait=wait)
    engine.reset("r")
    assert RunSuspended("r", ("n",)) == engine.resume("r", "n", 5, id="hook-1")
    assert RunCompleted("r", [5, 6]) == engine.resume("r", "n", 6)


def test_a_retry_after_a_rejected_signal_waits_for_a_better_one(bench: Any) -> None:
    """The payload that did not fit is not offered again."""

    def work() -> int:
        return 1

    @workflow
    def later() -> Flow[int]:
        yield Step(work)
        return (yield from Suspend("n", into=int))

    engine = bench.engine(later)
    engine.submit(later, run_id="r")
    engine.signal("r", "n", "no number")
    assert isinstance(engine.advance("r"), RunFailed)
    assert RunSuspended("r", ("n",)) == engine.retry("r")
    assert RunCompleted("r", 7) == engine.resume("r", "n", 7)


def test_an_early_signal_is_checked_against_its_own_type(bench: Any) -> None:
    """Whoever sends a typed Signal hears of a mistake at once."""
    number = Signal("n", int)

    @workflow
    def later() -> Flow[int]:
        return (yield from Suspend(number))

    engine = bench.engine(later)
    engine.submit(later, run_id="r")
    with pytest.raises(InvalidInputError, match="signal 'n' does not fit int"):
        engine.signal("r", number, "no number")  # pyright: ignore[reportArgumentType]
    engine.signal("r", number, 3)
    assert RunCompleted("r", 3) == engine.advance("r")


def test_an_engine_without_the_code_leaves_a_run_as_it_is(bench: Any) -> None:
    """Unknown workflow, or another version: an error, and nothing is written."""

    @workflow(name="w")
    def waiting() -> Flow[int]:
        return (yield from Suspend("n", into=int))

    @workflow(name="w", version="2")
    def newer() -> Flow[int]:
        return (yield from Suspend("n", into=int))

    bench.engine(waiting).start(waiting, run_id="r")
    before = bench.engine().get("r")
    with pytest.raises(NotFoundError):
        bench.engine().advance("r")
    with pytest.raises(VersionMismatchError):
        bench.engine(newer).start(newer, run_id="r")
    assert before == bench.engine().get("r")


def test_the_same_number_is_the_same_input(bench: Any) -> None:
    """1 and 1.0 are one argument where a float is asked for."""

    @workflow
    def half(x: float) -> Flow[float]:
        yield Suspend("go")
        return x / 2

    engine = bench.engine(half)
    assert RunSuspended("r", ("go",)) == engine.start(half, 1, run_id="r")
    assert RunSuspended("r", ("go",)) == engine.start(half, 1.0, run_id="r")


def test_one_run_that_breaks_the_engine_does_not_stop_the_others(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised, the run is marked, and the next one is driven."""

    @workflow
    def fine(n: int) -> Flow[int]:
        yield Now()
        return n

    engine = bench.engine(fine)
    for n in range(3):
        engine.submit(fine, n, run_id=str(n))
    load = stepwell.loading.load

    def breaking(parts: Any, run_id: str, **options: Any) -> Any:
        if run_id == "0":
            raise ZeroDivisionError("a bug")
        return load(parts, run_id, **options)

    monkeypatch.setattr(stepwell.driving, "load", breaking)
    assert [RunCompleted("1", 1), RunCompleted("2", 2)] == engine.run_due()
    assert "ZeroDivisionError: a bug" == engine.get("0").blocked.message


@pytest.mark.parametrize(
    "act",
    [
        lambda engine: engine.cancel("r"),
        lambda engine: engine.cancel("r", force=True),
        lambda engine: engine.pause("r"),
        lambda engine: engine.signal("r", "n", 1),
        lambda engine: engine.resume("r", "n", 1),
        lambda engine: engine.advance("r"),
    ],
)
def test_a_run_that_a_newer_release_has_written_to_is_left_as_it_is(
    bench: Any, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    """Nothing is appended to what can't be read."""

    @workflow
    def waiting() -> Flow[int]:
        return (yield from Suspend("n", into=int))

    engine = bench.engine(waiting)
    engine.start(waiting, run_id="r")
    snapshot = written_by_a_newer_release(bench, engine, monkeypatch)
    before = snapshot()
    with pytest.raises(NewerFormatError, match="written in format 2"):
        act(engine)
    assert before == snapshot()


def written_by_a_newer_release(bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Put a signal of format 2 at the end of run "r"; what is given tells the state of the run."""
    signal = to_draft(e.Resume(event_name="other", value=msgspec.Raw(b"1"), id="new", timestamp=STAMP))
    with monkeypatch.context() as newer:
        newer.setattr("stepwell.sealing._PREFIX", b'{"v":2,"type":"')
        if bench.kind != "file":
            engine.store.append("r", None, None, [signal], attempt_id="new")
            return lambda: engine.store.head("r")
        line = seal([signal], session=1, offset=2)[0]
    journal = next(Path(bench.url.removeprefix("file:")).glob("*.jsonl"))
    with journal.open("ab") as file:
        file.write(line + b"\n")
    return journal.read_bytes

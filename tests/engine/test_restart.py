"""@workflow(restart=): a run that fails goes on from what failed, after a while, by itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    All,
    Flow,
    InvalidInputError,
    Patched,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunSuspended,
    Step,
    Suspend,
    durable,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.lifecycle import RunClosed, RunRestarting
from stepwell.store import Conflict, NotApplied, Unknown
from stepwell.testing import VirtualClock, replay, returned, simulate
from stepwell.testing.environments import EPOCH
from stepwell.worker import Worker

from .tools import HandClock, Meddled, Tally, Task, Wrapped, kinds

HOUR = timedelta(hours=1)
HOURLY = RetryPolicy(3, initial=HOUR, factor=1, jitter=0, cap=HOUR)
AT_ONCE = RetryPolicy(3, initial=0)


class Shaky:
    """A workflow of two steps; the second one fails so many times."""

    def __init__(self, failures: int, restart: RetryPolicy, error: type[Exception] = OSError) -> None:
        self.tally = Tally()
        tally = self.tally

        def work() -> str:
            count = tally.add("work")
            if count <= failures:
                raise error(f"failure {count}")
            return f"done at {count}"

        @workflow(name="shaky", restart=restart)
        def shaky() -> Flow[str]:
            yield tally.step("first")
            return (yield from Step(work))

        self.flow = shaky


def retries(engine: Any, run_id: str = "r") -> list[tuple[int, str]]:
    events = [event for event in engine.history(run_id) if isinstance(event, e.Retry)]
    return [(event.restart, "" if event.error is None else event.error.message) for event in events]


def test_a_failed_run_goes_on_from_its_failed_step(bench: Any) -> None:
    shaky = Shaky(2, AT_ONCE)
    engine = bench.engine()
    assert RunCompleted("r", "done at 3") == engine.start(shaky.flow, run_id="r")
    assert (1, 3) == (shaky.tally["first"], shaky.tally["work"])
    words = "step 'work' failed: OSError: failure "
    assert [(1, words + "1"), (2, words + "2")] == retries(engine)
    assert (3, "completed") == (engine.get("r").attempts, engine.get("r").status)
    assert ["start", "step", "step"] == [event.kind for event in engine.history("r", incarnation=0)]


def test_after_so_many_runs_it_has_failed(bench: Any) -> None:
    shaky = Shaky(9, AT_ONCE)
    engine = bench.engine()
    outcome = engine.start(shaky.flow, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "step 'work' failed: OSError: failure 3" == outcome.failure.message
    assert (1, 3, 3) == (shaky.tally["first"], shaky.tally["work"], engine.get("r").attempts)
    assert [] == engine.run_due()


def test_a_retry_by_hand_gives_it_as_many_runs_again(bench: Any) -> None:
    shaky = Shaky(5, AT_ONCE)
    engine = bench.engine()
    engine.start(shaky.flow, run_id="r")
    assert RunCompleted("r", "done at 6") == engine.retry("r")
    assert [1, 2, 0, 1, 2] == [number for number, _ in retries(engine)]


def test_a_long_wait_parks_the_run_and_any_engine_goes_on_when_it_is_due(bench: Any) -> None:
    shaky, clock = Shaky(2, HOURLY), VirtualClock(EPOCH)
    outcome = bench.engine(clock=clock).start(shaky.flow, run_id="r")
    reason = "restart 1 after: step 'work' failed: OSError: failure 1"
    assert RunSuspended("r", (), reason, EPOCH + HOUR) == outcome
    other = bench.engine(shaky.flow, clock=clock)
    record = other.get("r")
    assert ("suspended", EPOCH + HOUR, 2, None) == (record.status, record.due, record.attempts, record.blocked)
    assert [] == other.run_due()
    clock.advance_to(EPOCH + HOUR)
    assert [RunSuspended("r", (), reason.replace("1", "2"), EPOCH + 2 * HOUR)] == other.run_due()
    clock.advance_to(EPOCH + 2 * HOUR)
    assert [RunCompleted("r", "done at 3")] == bench.engine(shaky.flow, clock=clock).run_due()
    assert 1 == shaky.tally["first"]


def test_an_advance_before_its_time_changes_nothing(bench: Any) -> None:
    """Neither does a signal, which makes every run due: the instant is in the history."""
    shaky, clock = Shaky(1, HOURLY), VirtualClock(EPOCH)
    engine = bench.engine(shaky.flow, clock=clock)
    before = engine.start(shaky.flow, run_id="r")
    assert before == engine.advance("r")
    assert before == engine.start(shaky.flow, run_id="r")
    engine.signal("r", "noise")
    assert [before] == engine.run_due()
    assert [] == engine.run_due()
    assert ("suspended", EPOCH + HOUR) == (engine.get("r").status, engine.get("r").due)
    assert 1 == shaky.tally["work"]


def test_a_run_that_waits_for_its_restart_can_be_cancelled(bench: Any) -> None:
    shaky, clock = Shaky(9, HOURLY), VirtualClock(EPOCH)
    engine = bench.engine(shaky.flow, clock=clock)
    engine.start(shaky.flow, run_id="r")
    assert RunCancelled("r", "enough") == engine.cancel("r", "enough")
    assert 1 == shaky.tally["work"]
    engine.start(shaky.flow, run_id="s")
    assert "cancelled" == engine.cancel("s", force=True).status


def test_it_can_be_paused_and_waits_on_after_that(bench: Any) -> None:
    shaky, clock = Shaky(1, HOURLY), VirtualClock(EPOCH)
    engine = bench.engine(shaky.flow, clock=clock)
    before = engine.start(shaky.flow, run_id="r")
    assert RunPaused("r") == engine.pause("r")
    assert before == engine.unpause("r")
    clock.advance_to(EPOCH + HOUR)
    assert [RunCompleted("r", "done at 2")] == engine.run_due()


def test_a_short_wait_keeps_the_thread_and_ends_with_a_cancel(bench: Any) -> None:
    shaky, clock = Shaky(1, RetryPolicy(3, initial=3, jitter=0)), HandClock()
    engine = bench.engine(shaky.flow, clock=clock)
    task = Task(lambda: engine.start(shaky.flow, run_id="r"))
    assert 1.0 == clock.until_somebody_waits()
    assert "running" == engine.get("r").status
    engine.cancel("r")
    clock.advance(0)
    assert "cancelled" == task.result().status
    assert 1 == shaky.tally["work"]


def test_the_policy_judges_what_failed(memory: Any) -> None:
    def attempts(error: type[Exception], **options: Any) -> int:
        engine = memory.engine()
        outcome = engine.start(Shaky(9, RetryPolicy(3, initial=0, **options), error).flow)
        found: int = engine.get(outcome.run_id).attempts
        return found

    assert 3 == attempts(ConnectionError, on=OSError)
    assert 1 == attempts(ValueError, on=OSError)
    assert 1 == attempts(ConnectionError, give_up_on=ConnectionError)
    assert 1 == attempts(OSError, when=lambda error: "failure 1" not in str(error))
    assert 2 == attempts(OSError, when=lambda error: "failure 2" not in str(error))
    assert 1 == attempts(OSError, when=lambda error: 1 / 0 > 1)


def test_code_of_the_workflow_that_raises_is_tried_again_too(bench: Any) -> None:
    """It is deterministic, so that helps only when the code has changed by then."""
    clock = VirtualClock(EPOCH)

    def flow(broken: bool) -> Any:
        @workflow(name="w", restart=HOURLY)
        def w() -> Flow[str]:
            yield Step(str, 1).options(into=str)
            if broken:
                raise ValueError("a bug")
            return "mended"

        return w

    engine = bench.engine(clock=clock)
    assert "restart 1 after: ValueError: a bug" == engine.start(flow(True), run_id="r").reason
    clock.advance_to(EPOCH + HOUR)
    assert [RunCompleted("r", "mended")] == bench.engine(flow(False), clock=clock).run_due()


def test_finished_siblings_stay_finished(bench: Any) -> None:
    tally = Tally()

    def work(name: str, failures: int) -> int:
        if (count := tally.add(name)) <= failures:
            raise OSError(name)
        return count

    @workflow(restart=RetryPolicy(5, initial=0))
    def w() -> Flow[list[int]]:
        jobs = {"a": 0, "b": 2, "c": 0}
        return list((yield All(*(Step(work, name, n).options(name=name) for name, n in jobs.items()), limit=1)))

    assert [1, 3, 1] == bench.engine().start(w, run_id="r").unwrap()


def test_signals_and_patches_are_kept(bench: Any) -> None:
    tally = Tally()

    def work() -> int:
        if tally.add("work") < 2:
            raise OSError("no")
        return 1

    @workflow(restart=HOURLY)
    def w() -> Flow[list[Any]]:
        patched = yield from Patched("change")
        word = yield from Suspend("go", into=str)
        yield Step(work)
        return [patched, word, (yield from Suspend("later", into=str))]

    clock = VirtualClock(EPOCH)
    engine = bench.engine(w, clock=clock)
    engine.start(w, run_id="r")
    engine.signal("r", "later", "early")
    engine.resume("r", "go", "yes")
    engine.signal("r", "later", "ignored")
    clock.advance_to(EPOCH + HOUR)
    assert [RunCompleted("r", [True, "yes", "early"])] == engine.run_due()


def test_a_workflow_that_handles_its_failure_has_not_failed(memory: Any) -> None:
    def work() -> None:
        raise OSError("no")

    @workflow(restart=AT_ONCE)
    def w() -> Flow[str]:
        try:
            yield Step(work)
        except failed(OSError):
            return "handled"
        return "never"

    engine = memory.engine()
    assert RunCompleted("r", "handled") == engine.start(w, run_id="r")
    assert 1 == engine.get("r").attempts


def test_a_step_that_is_called_at_most_once_is_not_called_again_by_a_restart(bench: Any) -> None:
    """Only a person may ask for that."""
    tally = Tally()

    def charge() -> int:
        if tally.add("charge") < 2:
            raise OSError("no")
        return 1

    @workflow(restart=AT_ONCE)
    def w() -> Flow[int]:
        return (yield from Step(charge).options(at_most_once=True))

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    assert (1, 1) == (tally["charge"], engine.get("r").attempts)
    assert RunCompleted("r", 1) == engine.retry("r")


def test_one_that_was_called_well_before_the_failure_stays_so(bench: Any) -> None:
    tally = Tally()

    def work() -> int:
        if tally.add("work") < 2:
            raise OSError("no")
        return 1

    @workflow(restart=AT_ONCE)
    def w() -> Flow[int]:
        yield tally.step("charge").options(at_most_once=True)
        return (yield from Step(work))

    assert RunCompleted("r", 1) == bench.engine().start(w, run_id="r")
    assert 1 == tally["charge"]


def test_durable_can_be_restarted(bench: Any) -> None:
    tally = Tally()

    def work() -> int:
        if (count := tally.add("work")) < 3:
            raise OSError("no")
        return count

    assert RunCompleted("r", 3) == bench.engine().start(durable(work, restart=AT_ONCE), run_id="r")


def test_the_listener_hears_of_it(memory: Any) -> None:
    told: list[Any] = []
    engine = memory.engine(on_event=told.append)
    engine.start(Shaky(1, AT_ONCE).flow, run_id="r")
    (restarting,) = (event for event in told if isinstance(event, RunRestarting))
    assert ("r", 1) == (restarting.run_id, restarting.restart)
    assert ["completed"] == [event.status for event in told if isinstance(event, RunClosed)]


def test_a_worker_restarts_it(bench: Any) -> None:
    shaky = Shaky(2, RetryPolicy(3, initial=0.01))
    engine = bench.engine(shaky.flow, park_after=0)
    engine.submit(shaky.flow, run_id="r")
    worker = Worker(
        engine,
        threads=2,
        poll=0.01,
        on_outcome=lambda outcome: worker.stop() if outcome.status == "completed" else None,
    )
    ended = worker.run(handle_signals=False)
    assert {"suspended": 2, "completed": 1} == dict(ended)
    assert 3 == shaky.tally["work"]


@pytest.mark.parametrize("wrong", [3, "always", True])
def test_a_restart_is_a_policy(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="a workflow's restart must be a RetryPolicy"):
        workflow(restart=wrong)(Shaky(0, AT_ONCE).flow.fn)


# ---- in the testing kit


def test_simulate_lets_virtual_time_pass_between_restarts() -> None:
    shaky = Shaky(0, HOURLY)
    answers = [OSError("a"), OSError("b"), "done"]
    for crashes in (None, "every"):
        fakes = {"first": 1, "work": answers}
        run = simulate(shaky.flow, fakes=fakes, crash_after=crashes)
        assert ("done", 2 * HOUR) == (run.result, run.elapsed)
        assert ["first", "work", "work", "work"] == [call.step_id for call in run.calls]
        assert [0, 0, 1, 2] == [call.incarnation for call in run.calls]


def test_a_recorded_restart_replays(memory: Any) -> None:
    shaky = Shaky(2, AT_ONCE)
    engine = memory.engine()
    engine.start(shaky.flow, run_id="r")
    assert "done at 3" == replay(shaky.flow, history=engine.history("r")).result


def test_a_fake_history_of_a_restarted_run() -> None:
    marked = e.Retry(cut=2, restart=1, due="2026-01-01T00:00:00.000000Z", timestamp="2026-01-01T00:00:00.000000Z")
    run = replay(Shaky(0, AT_ONCE).flow, history=[returned(1), marked, returned("done")])
    assert "done" == run.result


# ---- whatever comes between


def test_a_signal_that_comes_right_before_it_is_not_lost(bench: Any) -> None:
    @workflow(restart=AT_ONCE)
    def w() -> Flow[str]:
        yield tally.step("first")
        yield Step(work)
        return (yield from Suspend("go", into=str))

    tally = Tally()

    def work() -> None:
        if tally.add("work") < 2:
            raise OSError("no")

    stranger = bench.engine()

    class Late(Wrapped):
        told = False

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            if not self.told:
                self.told = True
                stranger.signal("r", "go", "in time")
            return self.inner.open_incarnation(*where, **how)

    assert RunCompleted("r", "in time") == bench.engine(store=Late(bench.store())).start(w, run_id="r")
    assert 2 == tally["work"]


def test_a_cancel_that_comes_right_before_it_ends_the_run(bench: Any) -> None:
    shaky = Shaky(1, AT_ONCE)
    stranger = bench.engine()

    class Late(Wrapped):
        told = False

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            if not self.told:
                self.told = True
                stranger.cancel("r")
            return self.inner.open_incarnation(*where, **how)

    outcome = bench.engine(store=Late(bench.store())).start(shaky.flow, run_id="r")
    assert isinstance(outcome, RunFailed), "it had failed when the cancel came, and is not tried again"
    assert 1 == shaky.tally["work"]


@pytest.mark.parametrize(("answer", "written"), [(NotApplied, False), (Unknown, False), (Unknown, True)])
def test_a_write_that_is_repeated_restarts_once(bench: Any, answer: Any, written: bool) -> None:
    class Flaky(Wrapped):
        failures = 1

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            if not self.failures:
                return self.inner.open_incarnation(*where, **how)
            self.failures -= 1
            if written:
                self.inner.open_incarnation(*where, **how)
            return answer()

    shaky = Shaky(1, AT_ONCE)
    engine = bench.engine(store=Flaky(bench.store()))
    assert RunCompleted("r", "done at 2") == engine.start(shaky.flow, run_id="r")
    assert 2 == engine.get("r").attempts


def test_a_stale_owner_restarts_nothing(bench: Any) -> None:
    shaky = Shaky(1, AT_ONCE)
    other = bench.engine(shaky.flow)

    class Slow(Wrapped):
        late = False

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            if not self.late:
                self.late = True
                other.cancel("r", force=True)
            done = self.inner.open_incarnation(*where, **how)
            assert isinstance(done, Conflict)
            return done

    outcome = bench.engine(store=Slow(bench.store())).start(shaky.flow, run_id="r")
    assert "cancelled" == outcome.status
    assert 1 == other.get("r").attempts


def test_meddled_appends_do_not_disturb_it(bench: Any) -> None:
    stranger = bench.engine()
    for nth in (1, 2, 3):
        shaky = Shaky(1, AT_ONCE)
        run_id = f"r{nth}"
        store = Meddled(bench.store(), nth, lambda run_id=run_id: stranger.signal(run_id, "noise"))  # type: ignore[misc]
        assert RunCompleted(run_id, "done at 2") == bench.engine(store=store).start(shaky.flow, run_id=run_id)
        assert 2 == kinds(stranger, run_id).count("step")


# ---- in processes of their own, killed between any two writes

PROGRAM = """
import json, os, signal, sys, time
from stepwell import Engine, Flow, RetryPolicy, Step, workflow
from stepwell_stores import open_store

url, mode, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])

def mark(name: str) -> int:
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\\n".encode())
    os.close(fd)
    return 1

def work() -> None:
    mark("work")
    raise OSError("always")

@workflow(restart=RetryPolicy(3, initial=0.0 if mode == "at once" else 0.01, jitter=0))
def w() -> Flow[None]:
    yield Step(mark, "first")
    yield Step(work)

class Killing:
    \"\"\"Dies before, or after, so many writes.\"\"\"

    def __init__(self, inner):
        self.inner, self.count = inner, 0

    def __getattr__(self, name):
        call = getattr(self.inner, name)
        if name not in ("create", "append", "open_incarnation", "claim", "claim_due"):
            return call
        def write(*where, **how):
            if "claim" not in name:
                self.die()
            done = call(*where, **how)
            if done:
                self.die()
            return done
        return write

    def die(self):
        self.count += 1
        if self.count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

engine = Engine(Killing(open_store(url)), [w], park_after=5 if mode == "at once" else 0, lease=0.5)
engine.start(w, run_id="r")
deadline = time.monotonic() + 60
while engine.get("r").completed is None and time.monotonic() < deadline:
    engine.run_due()
record = engine.get("r")
again = [(event.restart, event.cut) for event in engine.history("r") if event.kind == "retry"]
print(json.dumps([record.status, record.attempts, again]))
"""


@pytest.mark.parametrize("mode", ["at once", "parked"])
def test_killed_between_any_two_writes_no_restart_is_lost_and_none_happens_twice(
    disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Path, mode: str
) -> None:
    """Each process dies a write later than the one before; whatever the last one finds, there are three runs."""
    finished, kill_at = False, -1 if mode == "parked" else 0
    while not finished:
        kill_at += 2  # every other place, and in the other mode those between
        assert kill_at < 100
        url = disk.beside(kill_at)
        (tmp_path / "effects").unlink(missing_ok=True)
        first = python(PROGRAM, url, mode, str(kill_at))
        said, _ = first.communicate(timeout=90)
        finished = first.returncode == 0
        if not finished:
            second = python(PROGRAM, url, mode, "0")
            said, _ = second.communicate(timeout=90)
            assert 0 == second.returncode
        status, attempts, again = json.loads(said)
        assert ("failed", 3, [1, 2]) == (status, attempts, [number for number, _ in again]), kill_at
        effects = (tmp_path / "effects").read_text().split()
        assert effects.count("first") <= 2, "once more at most, when it died before it was recorded"
        assert 3 <= effects.count("work") <= 4, kill_at
    assert kill_at > 10

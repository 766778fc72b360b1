"""Long random schedules against the real engine: every interleaving that one process can meet, by seed.

One seed is one schedule: a random workflow tree, run by the engine on virtual time, while the harness completes steps
in any order, lets outside events land between any two appends of the owner, crashes it before or after any append,
gives lost and unknown replies, and lets a second owner take over a lease that has lapsed. What must always hold:

* live == replay: whenever the owner waits, its machine equals the fold of what is on disk; every prefix folds
  the same twice;
* a recorded step never runs again; an outcome is recorded once;
* what an effect brought is never lost while its owner lives, also on cancel (losers of a Race excepted);
* fences never fall; once faults stop, every run ends.

One seed again: `python tests/property/schedules.py --seed 123`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script from a bare checkout
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / "engine"), str(ROOT / "stores"), str(ROOT)]

import msgspec
from tests.property.trees import SIGNALS, wander

from stepwell import Engine, EventMismatchError, LeaseLostError, RunClosedError, StoreError
from stepwell import events as e
from stepwell.codec import Codec
from stepwell.commands import Race
from stepwell.environment import Environment
from stepwell.fibers import describe
from stepwell.machine import Machine
from stepwell.performers import idempotency_key
from stepwell.store import Conflict, NotApplied, Unknown
from stepwell.testing import SeededEntropy, VirtualClock
from stepwell.wire import read_event, to_draft
from stepwell_stores.memory import MemoryStore

RUN = "run"
TTL = 30.0


class Violation(AssertionError):
    """Something that must always hold did not."""


class Crash(BaseException):
    """The process dies here."""


class Pool(Executor):
    """Steps that wait for the harness to begin and to finish them."""

    def __init__(self) -> None:
        self.queued: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.running: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.queued.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self, rng: random.Random) -> bool:
        """Begin or finish one, at random; False when there is nothing to do."""
        if self.queued and (not self.running or rng.random() < 0.5):
            future, call = self.queued.pop(rng.randrange(len(self.queued)))
            if future.set_running_or_notify_cancel():
                self.running.append((future, call))
            return True
        if not self.running:
            return False
        future, call = self.running.pop(rng.randrange(len(self.running)))
        try:
            value = call()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(value)
        return True


class HookedStore:
    """A store that lets the harness in before and after each append of an owner."""

    def __init__(self, harness: Schedule) -> None:
        self._harness = harness
        self._store = harness.memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, run_id: str, incarnation: Any, expected_seq: Any, records: Any, **how: Any) -> Any:
        if how.get("fence") is None:
            return self._store.append(run_id, incarnation, expected_seq, records, **how)
        lie = self._harness.before_append()
        if lie == "not applied":
            return NotApplied()
        done = self._store.append(run_id, incarnation, expected_seq, records, **how)
        if not isinstance(done, Conflict):
            self._harness.after_append(lie)
        return Unknown() if lie == "unknown" else done


class Clock(VirtualClock):
    """Where the owner waits, the harness acts."""

    def __init__(self, harness: Schedule) -> None:
        super().__init__()
        self._harness = harness

    def wait(self, wakeup: Any, seconds: float) -> bool:
        self._harness.idle(wakeup, seconds)
        return bool(wakeup.is_set())


class Schedule:
    """One seeded schedule.

    Args:
        seed: everything follows from it.
        failing: whether steps of the tree fail.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"schedule-{seed}")
        self.clock = Clock(self)
        self.memory = MemoryStore(clock=self.clock.micros)
        self.pool = Pool()
        self.codec = Codec()
        self.sometimes: Counter[str] = Counter()
        self.faults = True
        self.depth = 0
        self.cancelled = False
        self.recorded: set[str] = set()
        self.seen_seq = 0
        self.unrecorded: dict[str, str] = {}
        self.checkpoints: dict[int, tuple[Any, ...]] = {}
        self.waits_seen: list[str] = ["alpha@0:0"]
        self.engine = self.new_engine()

    def new_engine(self) -> Engine:
        """An engine as a new process would have it."""
        entropy = SeededEntropy(self.rng.getrandbits(32))
        env = Environment(clock=self.clock, entropy=entropy, executor=self.pool, threads=False)
        return Engine(
            HookedStore(self),
            [wander],
            environment=env,
            perform=self.perform,
            park_after=5,
            lease=TTL,
            codec=self.codec,
        )

    # ---- where the engine meets the harness

    def perform(self, step: Any, context: Any) -> Any:
        """Answer a step; one that is on disk must never come here again."""
        self.note_recorded()
        if context.idempotency_key in self.recorded:
            raise Violation(f"step {context.step_id} runs again though its outcome is recorded")
        self.maybe_outside(0.1)
        _, mode = step.args
        if mode == "fails" or (mode == "flaky" and self.rng.random() < 0.5):
            raise ConnectionError(f"{context.step_id} attempt {context.attempt}")
        self.unrecorded[context.idempotency_key] = context.step_id
        return f"{step.name}!"

    def before_append(self) -> str:
        if not self.faults:
            return ""
        chance = self.rng.random()
        if chance < 0.02:
            self.sometimes["crash before an append"] += 1
            raise Crash
        if chance < 0.05 and self.depth == 0:
            self.take_over()
        self.maybe_outside(0.2)
        return self.rng.choices(["", "not applied", "unknown"], [0.94, 0.03, 0.03])[0]

    def after_append(self, lie: str) -> None:
        self.note_recorded()
        if lie:
            self.sometimes[lie] += 1
        if self.faults and self.rng.random() < 0.05:
            self.sometimes["crash after an append"] += 1
            raise Crash

    def idle(self, wakeup: Any, seconds: float) -> None:
        """The owner waits: check it, and let something happen."""
        holding = self.engine._sessions._held.get(RUN)
        session = None if holding is None else holding.session
        if session is None or wakeup is not session.wakeup:
            self.clock.advance(seconds)  # a pause between two tries of an append
            return
        self.check_live()
        while not wakeup.is_set():
            if self.faults and self.rng.random() < 0.02:
                self.sometimes["crash while waiting"] += 1
                raise Crash
            if self.faults and self.depth == 0 and self.rng.random() < 0.02:
                self.take_over()
            self.maybe_outside(0.15)
            if self.rng.random() < 0.3 or not self.pool.step(self.rng):
                self.clock.advance(seconds)
                return

    # ---- what the world does

    def maybe_outside(self, chance: float) -> None:
        """Let an outside event land, without a word to the owner."""
        if not self.faults or self.rng.random() >= chance:
            return
        kind = self.rng.choices(
            ["resume", "wait", "bad", "again", "cancel", "pause", "unpause"], [9, 3, 1, 1, 1, 2, 3]
        )[0]
        event: e.EventBase
        stamp = e.instant(self.clock.now())
        if kind in ("resume", "wait", "bad", "again"):
            name = self.rng.choice(SIGNALS)
            wait = self.rng.choice(self.waits_seen) if kind == "wait" else None
            raw = b'"no number"' if kind == "bad" else str(self.rng.randrange(100)).encode()
            id_ = "twice" if kind == "again" else str(self.rng.getrandbits(60))
            event = e.Resume(event_name=name, value=msgspec.Raw(raw), id=id_, wait=wait, timestamp=stamp)
        elif kind == "cancel":
            event = e.Cancel(reason="because", timestamp=stamp)
        else:
            event = e.Pause(timestamp=stamp) if kind == "pause" else e.Unpause(timestamp=stamp)
        attempt = str(self.rng.getrandbits(60))
        due = e.micros(self.clock.now())
        if not isinstance(
            self.memory.append(RUN, None, None, [to_draft(event)], attempt_id=attempt, due=due), Conflict
        ):
            self.sometimes[f"outside {kind}"] += 1
            self.cancelled |= kind == "cancel"
            if self.rng.random() < 0.5:
                self.engine._sessions.notify(RUN)

    def take_over(self) -> None:
        """The owner is paused past its lease, and another one takes the run over."""
        self.clock.advance(TTL + 1)
        with self.nested():
            self.engine = other = self.new_engine()
            self.drive(lambda: other.advance(RUN), stale=True)
        self.sometimes["taken over"] += 1

    @contextmanager
    def nested(self) -> Any:
        """Another process: with an engine, threads, and unrecorded results of its own."""
        kept = (self.engine, self.pool.queued, self.pool.running)
        unrecorded, self.unrecorded = self.unrecorded, {}
        self.pool.queued, self.pool.running = [], []
        self.depth += 1
        try:
            yield
        finally:
            self.engine, self.pool.queued, self.pool.running = kept
            self.unrecorded = unrecorded
            self.depth -= 1

    def drive(self, act: Callable[[], Any], *, stale: bool = False) -> None:
        """One session, however it ends."""
        try:
            act()
        except Crash:
            self.unrecorded.clear()
            self.pool.queued.clear()
            self.pool.running.clear()
            if not stale:
                self.engine = self.new_engine()
        except LeaseLostError:
            self.sometimes["lease lost"] += 1
            self.unrecorded.clear()
            self.pool.queued.clear()  # what it began ends for nobody
            self.pool.running.clear()
        except (EventMismatchError, RunClosedError, StoreError):
            self.unrecorded.clear()
        else:
            self.check_nothing_lost()

    # ---- what must always hold

    def note_recorded(self) -> None:
        """Take down which steps have an outcome on disk."""
        tail = self.memory.read(RUN, self.seen_seq)
        for line in tail.records if tail is not None else []:
            event = read_event(line)
            self.seen_seq += 1
            if isinstance(event, e.Step):
                key = idempotency_key(RUN, "0", event.at, event.name)
                if key in self.recorded:
                    raise Violation(f"step {event.step_id} at {event.at} is recorded twice")
                self.recorded.add(key)
                self.unrecorded.pop(key, None)
            elif isinstance(event, e.Suspend):
                self.waits_seen.append(event.wait)

    def check_live(self) -> None:
        """The owner's machine equals the fold of what it knows to be on disk."""
        holding = self.engine._sessions._held.get(RUN)
        session = None if holding is None else holding.session
        assert session is not None
        seq = session.recorder.seq
        if session._batch:
            raise Violation("the owner waits with events that are not on disk")
        self.checkpoints[seq] = signature(session.machine)

    def check_nothing_lost(self) -> None:
        """A session that ended well has recorded what its effects brought; only losers of a Race are dropped."""
        self.note_recorded()
        history = self.history()
        trace: list[Any] = []
        fold(self.codec, history, trace=trace).close()
        races = {at for at, command in trace if isinstance(command, Race)}
        dropped = {event.at for event in history if isinstance(event, e.Cancelled) and event.at is not None}
        names = {idempotency_key(RUN, "0", at, command.label): at for at, command in trace if command.label}
        for key, step_id in self.unrecorded.items():
            at = names.get(key, "")
            if at not in dropped or not any(at.startswith(f"{race}.") for race in races):
                raise Violation(f"what step {step_id} at {at} brought is lost")
            self.sometimes["loser dropped"] += 1
        self.unrecorded.clear()

    def history(self) -> list[Any]:
        tail = self.memory.read(RUN, 0)
        assert tail is not None
        return [read_event(line) for line in tail.records]

    def check_end(self) -> None:
        """Every prefix folds to the same state, twice, and as the owner had it."""
        history = self.history()
        sessions = [event.session for event in history]
        if sessions != sorted(sessions):
            raise Violation(f"fences fall: {sessions}")
        grown = Machine(wander, history[0], codec=self.codec, run_id=RUN)
        for n in range(1, len(history) + 1):
            if n > 1:
                event = history[n - 1]
                if isinstance(event, e.Attempt) and grown.pending[event.at].cancelling:
                    raise Violation(f"event {n - 1}: step {event.step_id} is to be tried again though it is cancelled")
                grown.feed(event)
            fresh = fold(self.codec, history[:n])
            ours = signature(grown)
            if signature(fresh) != ours:
                raise Violation(f"prefix {n} folds to two states:\n{ours}\n{signature(fresh)}")
            if n in self.checkpoints and self.checkpoints[n] != ours:
                raise Violation(f"live differs from replay at {n}:\nlive   {self.checkpoints[n]}\nreplay {ours}")
            fresh.close()
        grown.close()
        self.sometimes["closed " + grown.status] += 1
        if not grown.closed:
            raise Violation("the run is not closed")

    # ---- the whole schedule

    def run(self) -> None:
        """Run the schedule to its end; Violation when something does not hold."""
        args = (self.seed, True, True)
        self.drive(lambda: self.engine.start(wander, *args, run_id=RUN))
        if self.memory.head(RUN) is None:
            self.drive(lambda: self.engine.submit(wander, *args, run_id=RUN))
        for turn in range(400):
            if turn == 60:
                self.faults = False
            head = self.memory.head(RUN)
            assert head is not None
            if head.closed:
                self.check_end()
                return
            self.one_turn(head)
        raise Violation(f"the run does not end: {self.memory.head(RUN)}")

    def one_turn(self, head: Any) -> None:
        """What happens between two sessions."""
        now = e.micros(self.clock.now())
        if head.lease_until is not None and head.lease_until > now:
            self.clock.advance(TTL + 1)  # its owner is dead, or lost
        elif self.faults and self.rng.random() < 0.15:
            self.maybe_outside(1)
        elif head.head.status == "paused" and (not self.faults or self.rng.random() < 0.5):
            self.drive(lambda: self.engine.unpause(RUN))
        elif head.head.due is not None and head.head.due > now:
            self.clock.advance_to(e.from_micros(head.head.due))
        elif head.head.due is None and head.head.waiting:
            wait = self.rng.choice(head.head.waiting)
            named = wait.wait if self.rng.random() < 0.5 else None
            value = self.rng.randrange(100)
            self.drive(lambda: self.engine.resume(RUN, wait.signal, value, wait=named))
        else:
            self.drive(lambda: self.engine.advance(RUN))


def fold(codec: Codec, history: list[Any], trace: list[Any] | None = None) -> Machine:
    """A machine that has taken in these events."""
    machine = Machine(wander, history[0], codec=codec, run_id=RUN, trace=trace)
    for event in history[1:]:
        machine.feed(event)
    return machine


def signature(machine: Machine) -> tuple[Any, ...]:
    """Everything that can be told of a machine."""
    root: Any = machine._fibers.root.gen
    frame = root.gi_frame
    log = repr(frame.f_locals.get("log")) if frame is not None else ""
    pending = tuple(
        (p.at, describe(p.command), p.step_id, p.cancelling, p.lost, p.recorded, p.wait, p.due, p.attempts, p.begun)
        for p in machine.pending.values()
    )
    buffered = {
        name: [bytes(event.value) for event in events] for name, events in machine.mailbox.buffered.items() if events
    }
    failed = f"{type(machine.error).__name__}: {machine.error}" if machine.error is not None else ""
    return (
        machine.status,
        machine.closed,
        pending,
        machine.asking,
        machine.paused,
        machine.cancelled,
        dict(machine.patches),
        buffered,
        dict(machine.state),
        log,
        bytes(machine.result_raw),
        failed,
    )


def run_seed(seed: int) -> Counter[str]:
    """Run one schedule; the text of a Violation says how to run it again."""
    schedule = Schedule(seed)
    try:
        schedule.run()
    except Crash as crash:
        raise Violation(f"seed {seed}: a crash left the harness") from crash
    except BaseException as error:
        with suppress(Exception):
            error.add_note("history:\n" + "\n".join(map(_line, schedule.history())))
        error.add_note(f"again: python tests/property/schedules.py --seed {seed}")
        raise
    return schedule.sometimes


def _line(event: Any) -> str:
    more = {
        k: getattr(event, k)
        for k in ("name", "event_name", "waiting_for", "wait", "change_id", "error", "attempt")
        if getattr(event, k, None)
    }
    return f"  {event.offset:3} s{event.session} {event.kind:9} {event.at or '':10} {more}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run seeded schedules.")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.count)
    for seed in seeds:
        total += run_seed(seed)
    print(f"{len(seeds)} schedules: {dict(sorted(total.items()))}")


if __name__ == "__main__":
    main()

"""What is outside of the simulated processes: what steps do, what clients are told, and what the store has taken.

It watches every write that a store makes, every lease that it grants and every step that is performed, in the one order
in which they happen, and checks each at once: whatever could still come right afterwards is left to `judging`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen
from tests.dst.flows import ATTEMPTS
from tests.dst.kernel import Kernel, Process

from stepwell import events as e
from stepwell.performers import StepContext
from stepwell.store import Draft, Lease

__all__ = ["Effect", "History", "Run", "World"]

TROUBLE = "as the world has it"


class TroubleError(ConnectionError):
    """What a step fails with."""


@frozen
class Effect:
    """A step was performed: under which key, by whom, with what, when."""

    key: str
    at: str
    step_id: str
    attempt: int
    given: tuple[Any, ...]
    process: str
    fence: int
    owner: bool


@define
class History:
    """One incarnation, as the store has taken it in.

    Attributes:
        events: with the fence under which each was written.
        steps: the outcomes that are recorded, by `at`.
        dues: when waits end and steps are tried again, by `at`.
        attempts: how many are recorded as failed, by `at`.
        poured: the newest attempt of each stream of which something is recorded, by `at`.
        draws: random numbers that are recorded.
        performed: the first performance of each step, by `at`.
    """

    number: int
    start: e.Start
    prefix: int = 0
    drafts: list[Draft] = field(factory=list)
    events: list[tuple[e.EventBase, int]] = field(factory=list)
    steps: dict[str, e.Step] = field(factory=dict)
    dues: dict[str, str] = field(factory=dict)
    attempts: Counter[str] = field(factory=Counter)
    poured: dict[str, int] = field(factory=dict)
    draws: set[float] = field(factory=set)
    performed: dict[str, Effect] = field(factory=dict)
    closed: bool = False


@define
class Run:
    """A run id between its creation and its removal.

    Attributes:
        signals: how often each id is recorded, since the run was begun anew last; `all_signals`: at any time.
        accepted: the same signals as (name, id, payload), in order.
    """

    run_id: str
    histories: list[History] = field(factory=list)
    signals: Counter[str] = field(factory=Counter)
    all_signals: set[str] = field(factory=set)
    accepted: list[tuple[str, str, int]] = field(factory=list)
    removed: bool = False
    asked_to_cancel: bool = False

    @property
    def last(self) -> History:
        return self.histories[-1]


@define
class World:
    """The model of one simulation.

    Attributes:
        strike: does something bad to a process that is about to perform a step, or not.
        wrong: what must not be.
        sometimes: how often what was met.
        runs: by id, the ones that were removed too, the newest last.
        fences: the newest lease granted, by run id; it never falls, also not after a removal.
    """

    kernel: Kernel
    strike: Callable[[Process], None]
    wrong: list[str] = field(factory=list)
    sometimes: Counter[str] = field(factory=Counter)
    runs: dict[str, list[Run]] = field(factory=dict)
    fences: dict[str, int] = field(factory=dict)
    holders: dict[tuple[str, int], str] = field(factory=dict)
    children: dict[tuple[str, int, str], str] = field(factory=dict)
    answers: list[tuple[str, str, tuple[Any, ...]]] = field(factory=list)
    made_by: dict[str, str] = field(factory=dict)  # attempt ids of creations
    once: Counter[str] = field(factory=Counter)
    _number: int = 0

    def violate(self, invariant: str, text: str) -> None:
        """Something must not be; the simulation ends here."""
        self.wrong.append(f"{invariant}: {text}")
        self.kernel.tell("VIOLATION", invariant, text)
        self.kernel.stopped = True

    def met(self, what: str) -> None:
        """Something of interest happened."""
        self.sometimes[what] += 1

    # ---- clients

    def answered(self, kind: str, run_id: str, args: tuple[Any, ...]) -> None:
        """A client was told that what it asked for is done."""
        self.answers.append((kind, run_id, args))
        self.met(f"{kind} answered")

    def told(self, run_id: str, result: Any) -> None:
        """A client was given a result."""
        for run in self.runs.get(run_id, []):
            for history in run.histories:
                last = history.events[-1][0]
                if isinstance(last, e.Complete) and msgspec.json.decode(last.result) == result:
                    return
        self.violate("S1", f"a client was told that {run_id} came to {result}, which is in no history")

    def run(self, run_id: str) -> Run | None:
        """The run that has this id now."""
        found = self.runs.get(run_id)
        return None if not found or found[-1].removed else found[-1]

    # ---- steps

    def perform(self, process: Process, context: StepContext, given: tuple[Any, ...]) -> int:
        """Do what a step does: it has its effect, takes its time, and fails as it is planned."""
        name, how, seconds, _ = given
        self._check_effect(process, context, given)
        self.strike(process)
        self.kernel.turn()
        self._number += 1
        number = self._number
        self.kernel.tell("effect", context.run_id, context.step_id, context.attempt)
        if seconds:
            self.kernel.sleep(seconds)
        if how in ("fails", "flaky", "hurried") and (how == "fails" or self.kernel.chance.random() < 0.5):
            raise TroubleError(f"{name}: {TROUBLE}")
        return number

    def post(self, process: Process, context: StepContext, given: tuple[Any, ...], database: Any) -> int:
        """Do what a transaction does; nobody else runs meanwhile, as the store is locked."""
        self._check_effect(process, context, given)
        self._number += 1
        database.execute("INSERT INTO posted VALUES (?)", (self._number,))
        self.kernel.tell("posted", context.run_id, context.step_id, context.attempt)
        if given[1] == "fails":
            raise TroubleError(f"{given[0]}: {TROUBLE}")
        self.met("transaction performed")
        return self._number

    def _check_effect(self, process: Process, context: StepContext, given: tuple[Any, ...]) -> None:
        run_id, at, how = context.run_id, context.at, given[1]
        run, fence = self.run(run_id), process.fences.get(run_id, 0)
        what = f"step {context.step_id} of {run_id} in {process.name}"
        owner = fence == self.fences.get(run_id) and fence > 0
        if how == "once":
            life = f"{len(self.runs.get(run_id, ()))}/{context.idempotency_key}"  # an id that was removed begins anew
            self.once[life] += 1
            if self.once[life] > 1:
                self.violate("S2", f"{what} runs again, though at most once")
        if fence == 0:
            self.violate("S19", f"{what}, which never had a lease of it, is performed")
        if run is None or not owner or run.last.closed or context.cancelled:  # it can't know, or was told too late
            self.met("step performed by an owner that had lost its lease" if not owner else "step begun and not wanted")
            return
        history = run.last
        effect = Effect(
            context.idempotency_key, at, context.step_id, context.attempt, given, process.name, fence, owner
        )
        if at in history.steps:
            self.violate("S2", f"{what} runs again, and its outcome is recorded")
        begun = max(history.attempts[at], history.poured.get(at, 0))
        if context.attempt != begun + 1:
            self.violate("S15", f"{what} runs as attempt {context.attempt} after {begun} recorded ones")
        if how in ("flaky", "hurried") and context.attempt > max(ATTEMPTS, history.poured.get(at, 0) + 1):
            self.violate("S15", f"{what} runs as attempt {context.attempt} of {ATTEMPTS}")
        if given[3] is not None and given[3] not in history.draws:
            self.violate("S1", f"{what} is called with {given[3]}, which was drawn and is not recorded")
        due = history.dues.get(at)
        if due is not None and e.micros(e.parse_instant(due)) > process.clock():
            self.violate("S15", f"{what} runs before its next attempt is due")
        before = history.performed.setdefault(at, effect)
        if before is not effect:
            self.met("step performed again after a fault" if before.attempt == effect.attempt else "another attempt")
            if before.given != given:
                self.violate("S3", f"{what} was given {before.given} first, and {given} now")
            if before.key != effect.key:
                self.violate("S3", f"{what} has another idempotency key than before")

    # ---- leases

    def granted(self, process: Process, lease: Lease | None) -> None:
        """A store has granted a lease."""
        if lease is None:
            return
        run_id, fence = lease.run_id, lease.fence
        if fence < self.fences.get(run_id, 0):
            self.violate("S4", f"lease {fence} of {run_id} was granted after {self.fences[run_id]}")
        holder = self.holders.setdefault((run_id, fence), process.name)
        if holder != process.name:
            self.violate("S4", f"lease {fence} of {run_id} was granted to {holder} and to {process.name}")
        self.fences[run_id] = fence

    def renewed(self, process: Process, lease: Lease, again: Lease | None) -> None:
        """A store was asked to renew a lease."""
        current = self.fences.get(lease.run_id, 0)
        if again is None:
            self.met("renewal refused")
            return
        self.met("lease renewed")
        run = self.run(lease.run_id)
        if lease.fence != current or run is None or run.last.closed:
            self.violate("S4", f"{process.name} renewed lease {lease.fence} of {lease.run_id}, which {current} follows")

    # ---- writes

    def created(self, process: Process, run_id: str, records: Sequence[Draft], fence: int) -> None:
        """A store has created a run."""
        if self.run(run_id) is not None:
            self.violate("S16", f"run {run_id} was created twice")
        if fence <= self.fences.get(run_id, 0) and run_id in self.fences:
            self.violate("S4", f"run {run_id} begins with session {fence} after {self.fences[run_id]}")
        self.fences[run_id] = max(fence, self.fences.get(run_id, 0))
        if self.runs.get(run_id):
            self.met("run id used again")
        self.runs.setdefault(run_id, []).append(Run(run_id))
        self._begun(process, run_id, records, fence)

    def opened(self, process: Process, run_id: str, number: int, records: Sequence[Draft], fence: int) -> None:
        """A store has opened an incarnation."""
        run = self.run(run_id)
        if run is None or number != len(run.histories):
            self.violate("S5", f"incarnation {number} of {run_id} was opened, and it is not the next")
            return
        if fence <= self.fences[run_id]:
            self.violate("S4", f"incarnation {number} of {run_id} begins with session {fence}")
        self.fences[run_id] = fence
        run.last.closed = True
        self._begun(process, run_id, records, fence)

    def _begun(self, process: Process, run_id: str, records: Sequence[Draft], fence: int) -> None:
        start = decoded(records[0])
        assert isinstance(start, e.Start)
        run = self.runs[run_id][-1]
        run.histories.append(History(len(run.histories), start, prefix=len(records)))
        if start.source is None:  # begun anew: an id counts once in a history
            run.signals.clear()
            run.accepted.clear()
        self._take_in(process, run, records, fence, taken_over=True)
        if start.parent is not None:
            place = (start.parent["runId"], start.parent["session"], start.parent["at"])
            if self.children.setdefault(place, run_id) != run_id:
                self.violate("S14", f"{self.children[place]} and {run_id} are children of one command: {place}")
            self.met("child begun")

    def appended(
        self, process: Process, run_id: str, seq: int, records: Sequence[Draft], fence: int | None, *, closed: bool
    ) -> None:
        """A store has appended."""
        run = self.run(run_id)
        if run is None or run.last.closed:
            self.violate("S5", f"a history that is closed or gone goes on: {run_id}")
            return
        current = self.fences.get(run_id, 0)
        if fence is not None and fence != current:
            self.violate("S4", f"session {fence} of {process.name} wrote into {run_id}, which {current} owns")
        if seq != len(run.last.events):
            self.violate("S5", f"records of {run_id} landed at {seq}, not at {len(run.last.events)}")
        self._take_in(process, run, records, current if fence is None else fence, taken_over=False)
        run.last.closed = closed

    def parked(self, run_id: str, due: int | None) -> None:
        """An owner has left a run that is to be driven again at an instant."""
        run = self.run(run_id)
        if run is None or due is None or any(isinstance(event, e.Child) for event, _ in run.last.events):
            return  # who has children looks after them, at instants that are not recorded
        if all(e.micros(e.parse_instant(one)) != due for one in run.last.dues.values()):
            self.violate("S12", f"run {run_id} is to be driven on at {e.from_micros(due)}, which no timer says")

    def removed(self, run_id: str) -> None:
        """A store has removed a run."""
        run = self.run(run_id)
        if run is None or not run.last.closed:
            self.violate("S1", f"run {run_id} was removed while it was open")
            return
        run.removed = True
        self.met("run removed")

    def _take_in(self, process: Process, run: Run, records: Sequence[Draft], fence: int, *, taken_over: bool) -> None:
        history = run.last
        history.drafts.extend(records)
        for record in records:
            event = decoded(record)
            history.events.append((event, fence))
            _INTO.get(type(event), _nothing)(self, process, run, history, event, taken_over)

    # ---- what an event says

    def _step(self, _process: Process, run: Run, history: History, event: e.Step, taken_over: bool) -> None:
        if event.at in history.steps:
            self.violate("S2", f"step {event.step_id} of {run.run_id} is recorded twice")
        history.steps[event.at] = event
        history.dues.pop(event.at, None)
        self._failure(run, event.error)
        if not taken_over and event.error is None and event.at not in history.performed:
            self.violate("S3", f"step {event.step_id} of {run.run_id} has a result, and was never performed")

    def _chunk(self, _process: Process, run: Run, history: History, event: e.Chunk, taken_over: bool) -> None:
        if event.at in history.steps:
            self.violate("S2", f"stream {event.step_id} of {run.run_id} goes on, and its outcome is recorded")
        if event.attempt < history.poured.get(event.at, 0):
            self.violate("S4", f"stream {event.step_id} of {run.run_id} goes on with attempt {event.attempt}")
        history.poured[event.at] = event.attempt
        if not taken_over:
            self.met("chunk recorded")

    def _attempt(self, _process: Process, run: Run, history: History, event: e.Attempt, taken_over: bool) -> None:
        told, poured = history.attempts[event.at], history.poured.get(event.at, 0)
        expected = (poured, poured + 1) if poured > told else (told + 1,)
        history.attempts[event.at] = event.attempt
        history.dues[event.at] = event.due
        if event.attempt not in expected or event.attempt >= ATTEMPTS:
            self.violate("S15", f"attempt {event.attempt} of {event.step_id} of {run.run_id} is recorded")
        self._failure(run, event.error)
        if not taken_over:
            self.met("attempt recorded")

    def _timer(self, _process: Process, run: Run, history: History, event: Any, _taken_over: bool) -> None:
        if event.due is None:
            return
        if history.dues.setdefault(event.at, event.due) != event.due:
            self.violate("S12", f"the timer at {event.at} of {run.run_id} was moved to {event.due}")

    def _wake(self, process: Process, run: Run, history: History, event: e.Wake, taken_over: bool) -> None:
        due = history.dues.get(event.at)
        if due is None:
            self.violate("S12", f"a timer at {event.at} of {run.run_id} fires that was never set")
            return
        late = process.clock() - e.micros(e.parse_instant(due))
        if late < 0 and not taken_over:
            self.violate("S12", f"the timer at {event.at} of {run.run_id} fires {-late / 1e6} s early")
        self.met("timer fired")

    def _resume(self, _process: Process, run: Run, _history: History, event: e.Resume, taken_over: bool) -> None:
        if taken_over:
            return  # carried over: it was counted where it came
        run.signals[event.id] += 1
        run.all_signals.add(event.id)
        run.accepted.append((event.event_name, event.id, int(bytes(event.value))))
        if run.signals[event.id] > 1:
            self.violate("S11", f"signal {event.id} of {run.run_id} is recorded twice")

    def _draw(self, _process: Process, _run: Run, history: History, event: e.Random, _taken_over: bool) -> None:
        history.draws.add(event.value)

    def _cancel(self, _process: Process, run: Run, _history: History, _event: Any, _taken_over: bool) -> None:
        run.asked_to_cancel = True

    def _ended(self, _process: Process, run: Run, _history: History, event: Any, _taken_over: bool) -> None:
        self._failure(run, getattr(event, "error", None))
        if isinstance(event, e.Cancelled):
            if event.at is not None:
                return
            run.asked_to_cancel |= event.forced
        self.met(f"run ended: {event.kind}")

    def _failure(self, run: Run, failure: Any) -> None:
        if failure is not None and any(".errors.Store" in name or "LeaseLost" in name for name in failure.types):
            self.violate("S18", f"what went wrong with the store is recorded as an outcome of {run.run_id}: {failure}")


def decoded(record: Draft) -> e.EventBase:
    """The event of a draft."""
    return _decoder.decode(b'{"type":"%b",%b}' % (record.type.encode(), record.body.rstrip(b",")))


_decoder: msgspec.json.Decoder[e.Event] = msgspec.json.Decoder(e.Event)


def _nothing(*_: object) -> None:
    pass


_INTO: dict[type, Any] = {
    e.Random: World._draw,
    e.Step: World._step,
    e.Attempt: World._attempt,
    e.Chunk: World._chunk,
    e.Sleep: World._timer,
    e.Suspend: World._timer,
    e.Wake: World._wake,
    e.Resume: World._resume,
    e.Cancel: World._cancel,
    e.Complete: World._ended,
    e.Error: World._ended,
    e.Cancelled: World._ended,
}

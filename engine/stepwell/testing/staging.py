"""Where a simulated run is driven: the real engine, virtual time, and what survives when the process 'dies'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar

from attrs import define, field

from stepwell_stores.memory import MemoryStore

from .. import events as e
from ..codec import Codec
from ..engine import Engine
from ..environment import Environment
from ..errors import Failure
from ..machine import Machine
from ..outcomes import Outcome, RunCompleted, RunFailed, RunRecord
from ..retry import RetryPolicy
from ..store import HeadFilter, RunHead
from ..workflows import Workflow
from .answers import Answer
from .chronicle import Chronicle, RecordingStore
from .crashing import CrashingStore, SimulatedCrash
from .environments import InlineExecutor, SeededEntropy, VirtualClock
from .fakes import Abort, Call, SimulationError, World

__all__ = ["Simulation", "Stage"]

R = TypeVar("R")
RUN_ID = "simulation"
_NEVER = datetime.max.replace(tzinfo=UTC)
_MOST_RUNS = 1_000
_MOST_EVENTS = 100_000


@define
class Simulation(Generic[R]):
    """How a simulated run went.

    Attributes:
        outcome: how it ended, or was left: RunSuspended when it waits for a signal that never comes.
        elapsed: virtual time from start to end.
        calls: the steps that were performed, in order.
        history: the recorded events.
        state: what SetState left.
        crashes: how often the process 'died'.
        spent: what it has spent, its children included.
        children: the records of its children and theirs, by run id.
        story: everything that happened, one line each: `trace()`.
    """

    outcome: Outcome[R]
    elapsed: timedelta
    calls: list[Call]
    history: list[e.Event]
    state: dict[str, Any]
    emitted: list[Any]
    crashes: int = 0
    spent: float = 0
    children: dict[str, RunRecord] = field(factory=dict)
    story: str = field(default="", repr=False)

    @property
    def status(self) -> str:
        """Status of the run."""
        return self.outcome.status

    @property
    def result(self) -> R:
        """The result.

        Raises:
            SimulationError: the run is not completed; the text shows everything that happened.
        """
        if isinstance(self.outcome, RunCompleted):
            result: R = self.outcome.result
            return result
        raise SimulationError(f"the run is not completed: {self.outcome}\n{self.trace()}")

    @property
    def failure(self) -> Failure:
        """The recorded failure.

        Raises:
            SimulationError: the run has not failed.
        """
        if isinstance(self.outcome, RunFailed):
            return self.outcome.failure
        raise SimulationError(f"the run has not failed: {self.outcome}\n{self.trace()}")

    def trace(self) -> str:
        """Everything that happened, one line each, with the virtual time since the start.

        That is what was recorded, also of children, what was called, how time has moved, and where the process 'died'.
        """
        return self.story


class Stage:
    """Where one simulated run and its children are driven, until the run is closed or nothing can come any more."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        dies: Callable[[int], bool],
        *,
        fakes: dict[Any, Any],
        events: list[tuple[float, str | None, Any]],
        start: datetime,
        seed: int,
        retry: RetryPolicy | None,
        codec: Codec,
        budget: float | None,
        until: float | None,
    ) -> None:
        self.clock = VirtualClock(start)
        self.start = start
        self.memory = MemoryStore(clock=self.clock.micros)
        self.chronicle = Chronicle(lambda: self.clock.now() - self.start)
        self.world = World(self.clock, fakes, self.memory, self.chronicle)
        self.workflow, self.codec, self.budget = workflow, codec, budget
        self.crashes = 0
        self._events = list(events)
        self._until = None if until is None else start + timedelta(seconds=until)
        self._retry = retry
        self._environment = Environment(
            clock=self.clock, entropy=SeededEntropy(seed), executor=InlineExecutor(), threads=False
        )
        recording: Any = RecordingStore(self.memory, self.chronicle, RUN_ID)
        self._store: Any = _Gate(recording, dies, self.world)
        self._opened = ExitStack()
        self._known: dict[tuple[str, str], Workflow[..., Any]] = {(workflow.name, workflow.version): workflow}
        self._engine: Engine | None = None
        self._outside = self._make(recording, [workflow])
        self._stand_ins: Engine | None = None
        self._timers: dict[str, tuple[tuple[int, int], bool, datetime | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def play(self, inputs: Sequence[Any]) -> Simulation[Any]:
        """Drive the run to where it ends."""
        self._survive(lambda eng: eng.start(self.workflow, *inputs, run_id=RUN_ID, budget=self.budget))
        while True:
            heads = self.memory.heads(HeadFilter(closed=False), limit=_MOST_RUNS)
            if not any(head.run_id == RUN_ID for head in heads):
                break
            due, run_id = min(
                ((self._due_of(head, len(heads) > 1), head.run_id) for head in reversed(heads)),
                key=lambda one: one[0] or _NEVER,
            )
            event = self.start + timedelta(seconds=self._events[0][0]) if self._events else None
            first = min(event or _NEVER, due or _NEVER)
            if first == _NEVER or (self._until is not None and first > self._until):
                break  # it waits for what never comes, or has had its time
            self._pass(first)
            if first == event:
                self._happen()
            else:
                self._drive(run_id)
        if self._until is not None and self.memory.heads(HeadFilter(closed=False), limit=1):
            self._pass(self._until)
        return self._report()

    # ---- time

    def _pass(self, instant: datetime) -> None:
        if instant > self.clock.now():
            self.clock.advance_to(instant)
            self.chronicle.note("time", str(instant))

    def _due_of(self, head: RunHead, kin: bool) -> datetime | None:
        """When a run goes on. That a parent looks at its children from time to time is no reason to wake it."""
        if head.head.due is None:
            return None
        due = e.from_micros(head.head.due)
        if not kin or due <= self.clock.now():
            return due
        version = head.incarnation, head.seq
        if self._timers.get(head.run_id, (None,))[0] != version:
            self._timers[head.run_id] = (version, *self._timer_of(head.run_id))
        _, waits_for_children, timer = self._timers[head.run_id]
        return timer if waits_for_children else due

    def _timer_of(self, run_id: str) -> tuple[bool, datetime | None]:
        """Whether a run waits for children that are all open, and when the first of its own timers is due."""
        history = self._outside.history(run_id)
        start = history[0]
        assert isinstance(start, e.Start)
        machine = Machine(self._known[start.workflow, start.version], start, codec=self.codec, run_id=run_id)
        try:
            machine.fold(history[1:])
            heads = [self.memory.head(child) for child in machine.children]
            dues = [e.parse_instant(one.due) for one in machine.pending.values() if one.due is not None]
        finally:
            machine.close()
        return bool(heads) and all(one is not None and not one.closed for one in heads), min(dues, default=None)

    # ---- what happens

    def _happen(self) -> None:
        """Send the next signal, or ask for the cancel."""
        _, name, value = self._events.pop(0)
        if name is None:
            self.chronicle.note("cancel")
            self._survive(lambda eng: eng.cancel(RUN_ID))
            return
        who: dict[str, Any] = {}
        if isinstance(value, Answer):
            who, value = {"actor": value.actor, "metadata": value.metadata}, value.value
        self._outside.signal(RUN_ID, name, value, **who)

    def _drive(self, run_id: str) -> None:
        head = self.memory.head(run_id)
        assert head is not None
        if not self._store.is_faked(head):
            self._survive(lambda eng: eng.advance(run_id))
            return
        if self._stand_ins is None:
            self._stand_ins = self._make(_OtherGate(self._store), [])
        real = self._known[head.head.workflow, head.head.version]
        registry = self._stand_ins._parts.registry
        if not registry.knows(real.name, real.version):
            registry.add(self.world.stand_in(real))
        try:
            self._stand_ins.advance(run_id)
        except Abort as abort:
            raise self._traced(abort.error) from None

    def _survive(self, act: Callable[[Engine], Any]) -> None:
        """Let an engine act; when it 'dies', the next one goes on."""
        if self._engine is None:
            self._engine = self._make(self._store, list(self._known.values()))
        engine = self._engine
        try:
            act(engine)
        except SimulatedCrash:
            self.crashes += 1
            self._engine = None
            self.chronicle.note("crash", f"number {self.crashes}")
        except Abort as abort:
            raise self._traced(abort.error) from None
        finally:
            for versions in engine._parts.registry._by_name.values():
                self._known.update({(known.name, known.version): known for known in versions.values()})

    def _make(self, on: Any, workflows: list[Workflow[..., Any]]) -> Engine:
        made = Engine(
            on,
            workflows,
            retry=self._retry,
            codec=self.codec,
            park_after=0,
            environment=self._environment,
            perform=self.world.perform,
            strict_inputs=self.workflow.strict_inputs is not False,
        )
        self._opened.callback(made.close)
        return made

    # ---- how it went

    def _report(self) -> Simulation[Any]:
        history = self._outside.history(RUN_ID)
        heads = self.memory.heads(HeadFilter(), limit=_MOST_RUNS)
        return Simulation(
            outcome=self._outside.wait(RUN_ID, timeout=0),
            elapsed=self.clock.now() - self.start,
            calls=self.world.calls,
            history=history,
            state=self._outside.query(RUN_ID),
            emitted=[self.codec.decode(event.value) for event in history if isinstance(event, e.Emit)],
            crashes=self.crashes,
            spent=self._outside.get(RUN_ID).spent,
            children={head.run_id: self._outside.get(head.run_id) for head in reversed(heads) if head.run_id != RUN_ID},
            story=str(self.chronicle),
        )

    def _traced(self, error: SimulationError) -> SimulationError:
        return SimulationError(f"{error}\nwhat had happened:\n{self.chronicle}")


class _OtherGate:
    """The same store for who drives children that are faked: all other runs are not for it to drive."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gate.behind, name)

    def claim(self, run_id: str, owner: str, ttl: float, **how: Any) -> Any:
        head = self._gate.behind.head(run_id)
        return self._gate.behind.claim(run_id, owner, ttl, **how) if head and self._gate.is_faked(head) else None


class _Gate(CrashingStore):
    """A store for the engines that 'die'; children that are faked are not for them to drive."""

    def __init__(self, store: Any, dies: Callable[[int], bool], world: World) -> None:
        super().__init__(store, dies)
        self.behind = store
        self._world = world

    def is_faked(self, head: RunHead) -> bool:
        """Whether a run is a child that is answered from a fake."""
        return head.run_id != RUN_ID and self._world.fakes_child(head.head.workflow)

    def claim(self, run_id: str, owner: str, ttl: float, **how: Any) -> Any:
        head = self._store.head(run_id)
        return None if head is not None and self.is_faked(head) else super().claim(run_id, owner, ttl, **how)

    def _count(self, done: Any, run_id: str, records: Any) -> Any:
        if self.recorded > _MOST_EVENTS:
            text = (
                f"{self.recorded:,} events are recorded, and it goes on: a workflow that never ends is followed "
                "until=timedelta(...), and has to let time pass, with a Sleep or a signal"
            )
            raise Abort(SimulationError(text))
        return super()._count(done, run_id, records)

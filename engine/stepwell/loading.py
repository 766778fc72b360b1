"""From a store's records to a machine that has taken them in. Floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec

from . import commands as c
from . import events as e
from .codec import Codec
from .environment import Environment, new_token
from .errors import CorruptHistoryError, InvalidInputError, NotFoundError, StepwellError
from .hub import Hub
from .lifecycle import LifecycleEvent, StepReplayed
from .logs import replaying
from .machine import Machine
from .parked import Parked
from .performers import Performer
from .registry import Registry, fingerprint
from .retry import RetryPolicy
from .store import Blocked, Head, LeaseRequest, Status, Store, Tail, Waiting
from .strictness import InputCheck, is_strict
from .wire import read_tail
from .workflows import Workflow

__all__ = [
    "DEFAULT_LIMIT",
    "PAGE",
    "HistoryLimit",
    "Loaded",
    "Parts",
    "load",
    "make_head",
    "read_history",
    "read_pages",
]

PAGE = 5_000
"""Records that are read at once."""

MAX_FINGERPRINTS = 16
"""Codes that a blocked run remembers: more than there are kinds of workers on one store."""


class HistoryLimit(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """How long a history may grow. A run that reaches the limit is blocked before anything more is performed.

    Attributes:
        warn_events, max_events: number of events at which a warning is logged, and at which the run is blocked.
        warn_bytes, max_bytes: the same for the size of the history.

    Raises:
        InvalidInputError: one is no whole number of 1 or more.
    """

    warn_events: int = 10_240
    max_events: int = 51_200
    warn_bytes: int = 10_000_000
    max_bytes: int = 50_000_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name} must be a whole number of 1 or more, got {value!r}")


DEFAULT_LIMIT = HistoryLimit()


class Parts(msgspec.Struct, frozen=True):
    """What everything that drives or reads runs works with.

    Attributes:
        tell: gives a lifecycle event to the listener; never raises.
        listens: whether there is a listener, so that nothing is made for nobody.
        retry: default policy of steps.
        park_after: seconds of waiting that a thread is kept for.
        ttl: seconds that a lease lasts.
        owner: names this engine in leases.
        stamp: gives the clock's time as the wire writes it.
        parked: runs that are kept in memory.
        limit: how long histories may grow; None without a limit.
        max_depth: how many ancestors the children of runs that are started here may have.
        strict_inputs: whether a replay compares the inputs of steps, of workflows that don't say.
        hub: those who read runs as they go.
    """

    store: Store
    codec: Codec
    environment: Environment
    performer: Performer
    registry: Registry
    tell: Callable[[LifecycleEvent], None]
    listens: bool
    retry: RetryPolicy
    park_after: float
    ttl: float
    owner: str
    stamp: Callable[[], str]
    parked: Parked[Loaded]
    limit: HistoryLimit | None = None
    max_depth: int | None = None
    strict_inputs: bool = False
    hub: Hub = msgspec.field(default_factory=Hub)

    def lease_request(self) -> LeaseRequest:
        """Ask for a lease; made once for all repeats of one write."""
        return LeaseRequest(self.owner, self.ttl, new_token())

    def now(self) -> datetime:
        """The clock's time."""
        return self.environment.clock.now()


class Loaded(msgspec.Struct, eq=False):
    """A run as its history has it.

    Attributes:
        last: the newest event.
        seq: number of events that were read.
        size: bytes of the history, about.
        replayed: the steps that were answered from the history, when there is a listener.
    """

    run_id: str
    incarnation: int
    start: e.Start
    workflow: Workflow[..., Any]
    machine: Machine
    last: e.EventBase
    size: int = 0
    replayed: list[StepReplayed] = msgspec.field(default_factory=list)

    @property
    def seq(self) -> int:
        return self.machine.seq


def read_pages(
    store: Store, run_id: str, from_seq: int = 0, *, incarnation: int | None = None
) -> Iterator[list[e.Event]]:
    """Read events page by page, in order.

    Raises:
        NotFoundError: no such run or incarnation.
        CorruptHistoryError: a record is damaged.
    """
    for tail in read_tails(store, run_id, from_seq, incarnation=incarnation):
        yield read_tail(tail, run_id)


def read_tails(store: Store, run_id: str, from_seq: int = 0, *, incarnation: int | None = None) -> Iterator[Tail]:
    """Read records page by page, in order; NotFoundError when there is no such run or incarnation."""
    more = True
    while more:
        tail = store.read(run_id, from_seq, incarnation=incarnation, limit=PAGE)
        if tail is None:
            raise NotFoundError(f"no run {run_id!r}")
        incarnation = tail.incarnation  # all pages of one incarnation, also when a new one is opened meanwhile
        yield tail
        from_seq, more = tail.seq, tail.more


def read_history(store: Store, run_id: str, from_seq: int = 0, *, incarnation: int | None = None) -> Iterator[e.Event]:
    """Read events one by one, in order; raises as `read_pages`."""
    for page in read_pages(store, run_id, from_seq, incarnation=incarnation):
        yield from page


def load(parts: Parts, run_id: str, *, incarnation: int | None = None) -> Loaded:
    """Read a run's history and fold it, or what came since it was parked; nothing is written and nothing performed.

    Raises:
        NotFoundError: no such run, or this engine does not know its workflow.
        VersionMismatchError: the engine has other versions of it only.
        DivergenceError, CodecError, InvalidYieldError: the code does not fit the history.
        CorruptHistoryError: the history is damaged.
    """
    kept = parts.parked.take(run_id)
    if kept is not None:
        caught_up = False
        try:
            caught_up = _caught_up(parts, kept, incarnation)
        finally:
            if not caught_up:
                kept.machine.close()
        if caught_up:
            return kept
    tails = read_tails(parts.store, run_id, incarnation=incarnation)
    tail = next(tails)
    size, first = sum(map(len, tail.records)), read_tail(tail, run_id)
    start = first.pop(0) if first else None
    if not isinstance(start, e.Start):
        raise CorruptHistoryError(f"run {run_id!r}: its history does not begin with a start event")
    workflow = parts.registry.find(start.workflow, start.version)
    with replaying():
        check = None
        if is_strict(workflow, parts.strict_inputs):
            check = InputCheck(run_id, workflow.name, parts.codec)
        trace = None if check is None else check.trace
        machine = Machine(workflow, start, codec=parts.codec, run_id=run_id, trace=trace)
        last: e.EventBase = start
        replayed: list[StepReplayed] = []
        try:
            page = first
            while True:
                machine.fold(page if check is None else check.passing(page, machine.seq))
                last = page[-1] if page else last
                if parts.listens:
                    replayed += [StepReplayed(run_id, one.step_id, one.at) for one in page if isinstance(one, e.Step)]
                if not tail.more:
                    break
                tail = next(tails)
                size, page = size + sum(map(len, tail.records)), read_tail(tail, run_id)
        except BaseException:
            machine.close()
            raise
        if check is not None:
            check.end()
    return Loaded(run_id, start.incarnation, start, workflow, machine, last, size, replayed)


def _caught_up(parts: Parts, run: Loaded, incarnation: int | None) -> bool:
    """Have a run that was kept take in what came since; False when its history is another one now."""
    try:
        pages = read_pages(parts.store, run.run_id, run.seq - 1, incarnation=incarnation)
        first = next(pages)
        if not first or first.pop(0) != run.last:
            return False
        for page in chain((first,), pages):
            if is_strict(run.workflow, parts.strict_inputs) and any(type(event) is e.Step for event in page):
                return False  # only a whole replay knows what they were called with
            if page:
                with replaying():
                    run.machine.fold(page)
                run.last = page[-1]
    except StepwellError:  # it is met again, where it can be told
        return False
    return True


def make_head(
    parts: Parts,
    start: e.Start,
    status: Status,
    *,
    machine: Machine | None = None,
    due: datetime | None = None,
    blocked: Blocked | None = None,
) -> Head:
    """The index row of a run; `machine` gives the waits when it is parked."""
    now = e.micros(parts.now())
    return Head(
        status=status,
        workflow=start.workflow,
        version=start.version,
        created=e.micros(e.parse_instant(start.timestamp)) if start.timestamp else now,
        updated=now,
        due=None if due is None else e.micros(due),
        waiting=waits_of(machine, now) if machine is not None else (),
        tags=start.tags,
        blocked=blocked,
    )


def waits_of(machine: Machine, now: int) -> tuple[Waiting, ...]:
    """The signals that a machine waits for."""
    found = []
    for pending in machine.waits:
        command = pending.command
        if isinstance(command, c.Suspend):
            since = e.micros(e.parse_instant(pending.since)) if pending.since else now
            due = e.micros(e.parse_instant(pending.due)) if pending.due else None
            found.append(Waiting(command.signal, pending.wait, since, command.reason, due))
    return tuple(found)


def blocked_by(
    error: StepwellError, workflow: Workflow[..., Any] | None, registry: Registry, before: Blocked | None
) -> Blocked:
    """What a head says of code and history that don't fit; a missing workflow is blamed on the whole registry.

    Args:
        before: why it was blocked already: the code that failed then is remembered, or two workers of different code
            would pass the run to and fro.
    """
    mine = fingerprint(workflow) if workflow is not None else registry.fingerprint()
    others = () if before is None else tuple(known for known in before.fingerprints if known != mine)
    return Blocked(error.code, error.message, (mine, *others[: MAX_FINGERPRINTS - 1]))

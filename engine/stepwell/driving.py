"""Bringing runs into being and driving them: start, advance, run_due, resume. Floor 4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol

from msgspec.structs import replace

from . import events as e
from . import lifecycle as lc
from .blocking import block_leased
from .deciding import is_decided
from .ends import STATUS
from .errands import Began, Errands
from .errors import (
    ConflictError,
    CorruptHistoryError,
    InvalidInputError,
    NotFoundError,
    RunBusyError,
    RunClosedError,
    StepwellError,
    StoreError,
    StoreUnavailableError,
    VersionMismatchError,
)
from .inputs import encode_input, same_input
from .kin import Kin
from .loading import Loaded, Parts, load, read_history
from .logs import held_back, let_out, logger
from .machine import Machine
from .outcomes import Outcome, RunFailed, Running
from .reading import newest_event, outcome_of_head
from .registry import known_workflow
from .session import CODE_ERRORS, PASSING, GoesOn, Session
from .sessions import Sessions
from .signals import Message
from .store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Exists,
    Lease,
    RunHead,
)
from .transacting import check_transactions
from .workflows import Workflow
from .writing import append_outside, create_run

__all__ = ["Driver", "IfClosed", "IfOpen", "RestartAndRetry"]

IfOpen = Literal["join", "error", "restart"]
IfClosed = Literal["return", "retry_failed", "error", "restart"]

CATCHES = 100
"""How often a signal looks again where a run stands that moves on meanwhile: each time somebody else has got ahead."""

_UNFIT = (*CODE_ERRORS, NotFoundError, VersionMismatchError, CorruptHistoryError)


class Driver:
    """Starts runs and drives them in the calling thread.

    Args:
        parts: what the engine works with.
        sessions: the sessions that are open in it.
    """

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        self.parts = parts
        self.sessions = sessions
        self.errands = Errands(parts, self.take)

    # ---- start

    def begin(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        run_id: str,
        tags: Mapping[str, str],
        budget: float | None = None,
    ) -> tuple[e.Start, Machine]:
        """Make the start event and take the first turn: a wrong first yield is found before anything is written."""
        start = e.Start(
            workflow=workflow.name,
            version=workflow.version,
            input=encode_input(self.parts.codec, workflow, args),
            tags=dict(tags),
            budget=budget,
            max_depth=self.parts.max_depth,
            timestamp=self.parts.stamp(),
        )
        machine = Machine(workflow, start, codec=self.parts.codec, run_id=run_id)
        try:
            check_transactions(self.parts, machine)
        except BaseException:
            machine.close()
            raise
        return start, machine

    def start(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        run_id: str,
        tags: Mapping[str, str],
        budget: float | None = None,
        *,
        drive: bool,
        if_open: IfOpen,
        if_closed: IfClosed,
        control: RestartAndRetry,
    ) -> Outcome[Any]:
        """Create the run and drive it, or do with the one of that id what the policies say."""
        with held_back() as logged:  # by a first turn that may have been taken before
            start, machine = self.begin(workflow, args, run_id, tags, budget)
        try:
            made = create_run(self.parts, run_id, [start], drive=drive)
        except BaseException:
            machine.close()
            raise
        if isinstance(made, Created):
            let_out(logged)
            if made.lease is not None:
                start = replace(start, session=made.lease.fence)  # as the store has sealed it
                return self.drive(Loaded(run_id, 0, start, workflow, machine, start), made.lease)
        machine.close()
        if isinstance(made, Exists):
            return self._existing(made.head, start, workflow, args, drive, if_open, if_closed, control)
        return Running(run_id)

    def _existing(
        self,
        head: RunHead,
        start: e.Start,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        drive: bool,
        if_open: IfOpen,
        if_closed: IfClosed,
        control: RestartAndRetry,
    ) -> Outcome[Any]:
        policy: str = if_closed if head.closed else if_open
        what = f"run {head.run_id!r} is there already, {'closed' if head.closed else 'open'}"
        if policy == "error":
            name = "if_closed" if head.closed else "if_open"
            raise ConflictError(f"{what}, and {name}='error' was asked for", run_id=head.run_id)
        if head.head.workflow != workflow.name:
            raise ConflictError(
                f"{what}: it is of workflow {head.head.workflow!r}, not {workflow.name!r}; use another run id",
                run_id=head.run_id,
            )
        if policy == "restart":
            return control.restart(head.run_id, start, drive=drive)
        own = known_workflow(self.parts.registry, head) or workflow  # a run stays on the version that it has
        self._check_same_input(head, own, start, args)
        outcome = outcome_of_head(self.parts.codec, self.parts.store, head, own)
        if head.closed:
            if policy == "retry_failed" and isinstance(outcome, RunFailed):
                return control.retry(head.run_id, drive=drive)
            return outcome
        return self.advance(head.run_id, join=True) if drive else outcome

    def _check_same_input(
        self, head: RunHead, workflow: Workflow[..., Any], start: e.Start, args: tuple[Any, ...]
    ) -> None:
        if workflow.version != start.version:
            with suppress(InvalidInputError):  # then they are no input of that version
                start = replace(start, input=encode_input(self.parts.codec, workflow, args))
        first = next(read_history(self.parts.store, head.run_id, incarnation=head.incarnation))
        if isinstance(first, e.Start) and not same_input(self.parts.codec, workflow, first.input, start.input):
            raise ConflictError(
                f"run {head.run_id!r} is there already, with other input: recorded {_short(first.input)}, given "
                f"{_short(start.input)}; use another run id",
                run_id=head.run_id,
            )

    # ---- driving

    def drive(self, run: Loaded, lease: Lease) -> Outcome[Any]:
        """Drive a loaded run under a lease until it is parked or closed."""
        return self._drive(lease, run)

    def take(
        self, lease: Lease, began: Began | None = None, *, contained: type[BaseException] | None = None
    ) -> Outcome[Any]:
        """Load the run of a lease and drive it; a run that can't be loaded is marked as blocked.

        Args:
            began: is given the session, before it does anything.
            contained: errors that no rule foresees, and that block the run: they would come again in its next session.
        """
        return self._drive(lease, None, began, contained)

    def _drive(
        self,
        lease: Lease,
        run: Loaded | None,
        began: Began | None = None,
        contained: type[BaseException] | None = None,
    ) -> Outcome[Any]:
        """Drive a run, its next incarnations, and then the children and the parent that wait to be driven."""
        agenda: list[str] = []
        while True:
            with self.sessions.held(lease) as holding:
                if run is None:
                    with self._fits(lease, contained):  # not what was opened meanwhile
                        run = load(self.parts, lease.run_id, incarnation=lease.incarnation)
                kin = Kin(self.parts, run, lease, self.sessions.notify, self.errands.drive)
                session = Session(self.parts, run, holding.lease, kin)
                session.contained = contained
                holding.attach(session)
                if began is not None:
                    began(session)
                outcome = session.drive()
            agenda += kin.agenda
            if not isinstance(outcome, GoesOn):
                break
            lease, run = outcome.lease, None
        if agenda and not session.leaving:
            return self.errands.run(lease.run_id, outcome, agenda, began, contained)
        return outcome

    def take_due(
        self, lease: Lease, began: Began | None = None, *, contained: type[BaseException] = Exception
    ) -> Outcome[Any] | None:
        """As `take`, for one run among many: what is wrong with it is logged and marked, and must not hurt the others.

        Args:
            contained: BaseException when a step that ends the process, as by sys.exit(), is no business of the caller.

        Returns:
            None when it could not be driven.

        Raises:
            StoreError: the store failed, or this process lacks memory or files; the run stays due.
        """
        run_id = lease.run_id
        try:
            return self.take(lease, began, contained=contained)
        except StoreError:
            raise
        except StepwellError as error:
            logger.warning("run %r could not be driven: %s", run_id, error)
        except PASSING as error:
            raise StoreUnavailableError(f"run {run_id!r} could not be driven: {error!r}; try again") from error
        except Exception:  # noqa: BLE001 - one run must not keep the others from being driven
            logger.exception("run %r could not be driven", run_id)
        return None

    def claim_due(self, limit: int) -> list[Lease]:
        """Take the leases of runs that are due, earliest first, at most so many."""
        parts = self.parts
        now, fingerprints = e.micros(parts.now()), parts.registry.fingerprints()
        return parts.store.claim_due(parts.owner, parts.ttl, now=now, limit=limit, fingerprints=fingerprints)

    @contextmanager
    def _fits(self, lease: Lease, contained: type[BaseException] | None = None) -> Iterator[None]:
        """While a leased run is folded: when its code does not fit, it is marked; the lease ends with any error."""
        try:
            yield
        except _UNFIT as error:
            block_leased(self.parts, lease, error)
            raise
        except (StepwellError, *PASSING):
            self.parts.store.release(lease)
            raise
        except BaseException as error:
            if contained and isinstance(error, contained):
                block_leased(self.parts, lease, StepwellError(f"{type(error).__name__}: {error}"))
            else:
                self.parts.store.release(lease)
            raise

    def advance(self, run_id: str, *, join: bool = False) -> Outcome[Any]:
        """Claim the run and drive it; `join`: a run that somebody else drives gives Running."""
        parts = self.parts
        head = parts.store.head(run_id)
        if head is not None and not head.closed and head.lease_until is None:
            parts.registry.find(head.head.workflow, head.head.version)  # before anything is written
            newest_event(parts.store, head)
        claimed = parts.store.claim(run_id, parts.owner, parts.ttl)
        if isinstance(claimed, Lease):
            return self.take(claimed)
        if claimed is None:
            raise NotFoundError(f"no run {run_id!r}", run_id=run_id)
        if claimed.closed or join:
            return outcome_of_head(parts.codec, parts.store, claimed, known_workflow(parts.registry, claimed))
        until = None if claimed.lease_until is None else e.from_micros(claimed.lease_until)
        raise RunBusyError(
            f"run {run_id!r} is driven by somebody else, whose lease lasts until {until}; try again later",
            run_id=run_id,
            lease_until=until,
        )

    def run_due(self, limit: int | None) -> list[Outcome[Any]]:
        """Drive everything that is due, one run after the other."""
        outcomes: list[Outcome[Any]] = []
        while (limit is None or len(outcomes) < limit) and (leases := self.claim_due(1)):
            outcome = self.take_due(leases[0])
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    # ---- resume

    def resume(self, run_id: str, message: Message) -> Outcome[Any]:
        """Record the signal that the run waits for, and drive it on in this thread."""
        committed, run = self.send_checked(run_id, message, must_wait=True, drive=True)
        if committed is None:  # it was sent before, and counts once
            return self.advance(run_id, join=True)
        self.parts.tell(lc.SignalSent(run_id, message.name))
        if committed.lease is None or run is None:
            self.sessions.notify(run_id)
            if committed.busy_until is None:
                return self.try_again(run_id)
            until = None if committed.busy_until is None else e.from_micros(committed.busy_until)
            return Running(run_id, until)
        return self.drive(run, committed.lease)

    def try_again(self, run_id: str) -> Outcome[Any]:
        """An event is written, and the lease that was asked for with it is not granted, though nobody holds it."""
        try:
            return self.advance(run_id, join=True)
        except StoreError as error:  # the event is there all the same, and must not be sent again for this
            logger.warning("run %r could not be driven on at once: %s", run_id, error)
            return Running(run_id)

    def send_checked(
        self, run_id: str, message: Message, *, must_wait: bool, drive: bool
    ) -> tuple[Committed | AlreadyCommitted | None, Loaded | None]:
        """Check a signal against the folded run, then append it at exactly that position.

        Returns:
            How the append ended, None when a signal of that id is in the history already; and the run with the signal
            taken in, when its lease was granted.
        """
        parts = self.parts
        for _ in range(CATCHES):
            run = load(parts, run_id)
            untouched = True
            try:
                if message.is_late(run.machine) and is_decided(parts, run_id, message, run.incarnation):
                    return None, None
                if run.machine.closed:
                    status = STATUS[run.machine.status]
                    raise RunClosedError(f"run {run_id!r} is {status}", run_id=run_id, status=status)
                if run.machine.mailbox.has_seen(message.id):
                    return None, None
                event = message.event(parts, message.waiting(run.machine, run_id, must_wait=must_wait))
                lease = parts.lease_request() if drive else None
                done = append_outside(parts, run_id, event, number=run.incarnation, at=run.seq, lease=lease)
                if isinstance(done, Conflict):
                    continue  # something came between: look again
                if done.lease is None:
                    return done, None
                untouched = False
                with self._fits(done.lease):
                    return done, self._taken_in(run, event, done, done.lease)
            finally:
                if untouched:
                    parts.parked.keep(run)
        raise StoreUnavailableError(f"run {run_id!r} moves on too fast to check a signal against it; try again")

    def _taken_in(self, run: Loaded, event: e.EventBase, done: Committed | AlreadyCommitted, lease: Lease) -> Loaded:
        """The run with an event that was appended; it has no user any more when that fails."""
        try:
            if isinstance(done, Committed):
                run.machine.feed(event)
                run.last = event
                return run
        except BaseException:
            run.machine.close()
            raise
        run.machine.close()
        return load(self.parts, run.run_id, incarnation=lease.incarnation)  # sent before: what followed has to be read


class RestartAndRetry(Protocol):
    """What `start` asks of the one who opens incarnations."""

    def restart(self, run_id: str, start: e.Start, *, drive: bool) -> Outcome[Any]:
        """Open an incarnation with this start."""
        ...

    def retry(self, run_id: str, *, drive: bool) -> Outcome[Any]:
        """Open an incarnation that goes on from the failed step."""
        ...


def _short(raw: Any) -> str:
    text = bytes(raw).decode("utf-8", "replace")
    return text if len(text) <= 200 else text[:197] + "..."

"""What steps that run tell of their progress, until their session writes it down. Floor 4.

A step beats in its own thread, as often as it likes; the session, which alone may write, takes the newest details of
all its steps along about once a second, and with an attempt that failed. A lone step that runs in the session's own
thread leaves nobody who could do that: there the heartbeat itself has the session write.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Raw

from . import events as e
from .errors import LeaseLostError, StepwellError
from .loading import Parts
from .logs import logger
from .machine import Machine
from .performers import Flight, StepContext

__all__ = ["EVERY", "Pulse"]

EVERY = timedelta(seconds=1)
"""Time between two writes of details, however often steps beat."""


class Writes(Protocol):
    """A session, as far as heartbeats need it."""

    machine: Machine

    def write_beats(self) -> None:
        """Write what steps have told, unless that was done a moment ago."""
        ...

    def lose(self) -> None:
        """Its lease is lost."""
        ...


class Pulse:
    """The heartbeats of one session.

    Args:
        under_way: its attempts, by `at`.
        parts: what the engine works with.

    Attributes:
        fresh: the newest details of each step that are not recorded yet.
        before: what earlier attempts told last, by `at`.
        session: who writes; None before it drives.
    """

    def __init__(self, under_way: Mapping[str, Flight], parts: Parts) -> None:
        self._under_way = under_way
        self._parts = parts
        self._thread = threading.get_ident()
        self._written: datetime | None = None
        self.fresh: dict[str, e.Heartbeat] = {}
        self.before: dict[str, bytes] = {}
        self.session: weakref.ref[Writes] | None = None

    # ---- what steps say, each in its own thread

    def beat(self, context: StepContext, details: bytes | None) -> None:
        """Take in a sign of life; what comes too late is dropped."""
        at = context.at
        flight = self._under_way.get(at)
        if flight is None or flight.context is not context:
            return
        if flight.beaten is not None:
            flight.beaten = self._parts.now()
        if details is None:
            return
        self.fresh[at] = e.Heartbeat(
            at=at,
            step_id=context.step_id,
            attempt=context.attempt,
            details=Raw(details),
            timestamp=self._parts.stamp(),
        )
        if flight.future is None and self.session is not None and threading.get_ident() == self._thread:
            session = self.session()
            if session is not None and self._parts.environment.threads:
                self._write_here(session, context)

    def details_before(self, context: StepContext) -> bytes | None:
        """What an earlier attempt told last."""
        return self.before.get(context.at)

    def _write_here(self, session: Writes, context: StepContext) -> None:
        """Write for a lone step that runs in the session's own thread: nobody else could."""
        if len(session.machine.pending) != 1:
            return
        try:
            session.write_beats()
        except LeaseLostError:
            session.lose()
        except StepwellError as error:  # what is wrong is met again when the step is over
            logger.warning("run %r: a heartbeat could not be recorded: %s", context.run_id, error)
        pending = session.machine.pending.get(context.at)
        if pending is None or pending.cancelling:  # a cancel stood at the tail
            context.cancel()

    # ---- what the session writes

    def due(self, machine: Machine) -> list[e.EventBase]:
        """What is to be written now; none when something was a moment ago."""
        now = self._parts.now()
        if machine.asking is not None or (self._written is not None and now - self._written < EVERY):
            return []
        self._written = now
        return self._of(machine, list(self.fresh))

    def last_of(self, machine: Machine, outcomes: Mapping[str, e.EventBase]) -> list[e.EventBase]:
        """What attempts that failed told last, to be written with their outcomes; of others it is of no use."""
        failed = [at for at, event in outcomes.items() if getattr(event, "error", None) is not None]
        return self._of(machine, failed)

    def _of(self, machine: Machine, places: list[str]) -> list[e.EventBase]:
        found: list[e.EventBase] = []
        for at in places:
            event, pending = self.fresh.get(at), machine.pending.get(at)
            if event is None:
                continue
            begun = (event.attempt - 1, event.attempt)  # of a stream, its chunks tell of the attempt before its end
            if pending is not None and pending.attempts in begun:
                found.append(event)
            else:
                del self.fresh[at]  # of an attempt that is over
        return found

    def written(self, events: list[e.EventBase]) -> None:
        """These are recorded."""
        if self.fresh:
            for event in events:
                if self.fresh.get(event.at) is event:
                    del self.fresh[event.at]

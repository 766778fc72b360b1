"""Bugs that are put into the product for a while, to see that the simulation finds them: each is of one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.dst.kernel import here

from stepwell import driving, kin, ledger, loading, recorder, writing
from stepwell import events as e
from stepwell.environment import new_token
from stepwell.handlers import HANDLERS
from stepwell.results import Results
from stepwell.session import Session
from stepwell.store import Committed, NotApplied, Unknown
from stepwell.worker import Worker
from stepwell_stores.memory import MemoryStore

__all__ = ["PLANTS", "planted"]

Patch = pytest.MonkeyPatch


def _handle(patch: Patch, kind: type[e.EventBase], handler: Callable[[Any, Any], None]) -> None:
    """Have the machine take in one kind of event otherwise."""
    handlers: dict[Any, Any] = HANDLERS
    patch.setitem(handlers, kind, handler)


def _no_fence(patch: Patch) -> None:
    """An owner's number is not compared: position and incarnation alone decide."""
    append = MemoryStore.append

    def unfenced(self: MemoryStore, run_id: str, *args: Any, **how: Any) -> Any:
        if how.get("fence") is not None and (head := self.head(run_id)) is not None:
            how["fence"] = head.fence
        return append(self, run_id, *args, **how)

    patch.setattr(MemoryStore, "append", unfenced)


def _rerun_on_unknown(patch: Patch) -> None:
    """Nobody asks once more what became of an append: the steps that it told of run again."""
    record, settle = Session._record_outcomes, recorder.settle
    of_steps: list[bool] = []

    class LostError(Exception):
        pass

    def hasty(attempt: Callable[[], Any], clock: Any) -> Any:
        outcome = attempt()
        if of_steps and isinstance(outcome, Unknown):
            raise LostError
        return settle(attempt, clock) if isinstance(outcome, (NotApplied, Unknown)) else outcome

    def recorded(self: Session) -> bool:
        of_steps.append(True)
        try:
            return record(self)
        except LostError:
            self._outcomes.clear()
            return True
        finally:
            of_steps.clear()

    patch.setattr(recorder, "settle", hasty)
    patch.setattr(Session, "_record_outcomes", recorded)


def _attempts_in_memory(patch: Patch) -> None:
    """How often a step has failed is known to the session in which it did; the next one counts from the beginning."""
    on_attempt = HANDLERS[e.Attempt]

    def forgetful(machine: Any, event: e.Attempt) -> None:
        on_attempt(machine, event)
        if event.session:  # read from a history, rather than written now
            machine.pending[event.at].attempts = 0

    _handle(patch, e.Attempt, forgetful)


def _timer_as_duration(patch: Patch) -> None:
    """A timer that is read from a history runs from the beginning."""
    on_sleep = HANDLERS[e.Sleep]

    def anew(machine: Any, event: e.Sleep) -> None:
        on_sleep(machine, event)
        task = here()
        if event.session and task is not None:
            left = e.micros(e.parse_instant(event.due)) - e.micros(e.parse_instant(event.timestamp))
            machine.pending[event.at].due = e.instant(e.from_micros(task.process.clock() + left))

    _handle(patch, e.Sleep, anew)


def _signal_before_write(patch: Patch) -> None:
    """A signal is acknowledged though nobody can say that it is written."""

    def hasty(attempt: Callable[[], Any], _clock: Any) -> Any:
        outcome = attempt()
        return Committed(0, 0) if isinstance(outcome, (NotApplied, Unknown)) else outcome

    patch.setattr(writing, "settle", hasty)


def _child_id_drawn(patch: Patch) -> None:
    """A child's run id is drawn when it is made, rather than derived: the next session makes another one."""
    found = kin.Kin._found

    def drawn(self: kin.Kin, pending: Any) -> Any:
        pending.child = f"{pending.child.partition('~')[0]}~{new_token()[:8]}"
        return found(self, pending)

    patch.setattr(kin.Kin, "_found", drawn)


def _no_polling(patch: Patch) -> None:
    """A worker looks for due runs when it is told of one, and at no other time."""
    wait = Worker._wait

    def patient(self: Worker, event: Any, seconds: float) -> bool:
        return wait(self, event, 1e6 if event is self._wake else seconds)

    patch.setattr(Worker, "_wait", patient)


def _lost_lease_renewed(patch: Patch) -> None:
    """A lease is renewed for whoever asks, as long as somebody holds the run."""
    renew = MemoryStore.renew

    def generous(self: MemoryStore, lease: Any, ttl: float) -> Any:
        head = self.head(lease.run_id)
        if head is not None and head.lease_until is not None and head.fence != lease.fence:
            return lease
        return renew(self, lease, ttl)

    patch.setattr(MemoryStore, "renew", generous)


def _value_as_it_came(patch: Patch) -> None:
    """What a step gives goes to the workflow as it is, rather than as it is read back."""
    on_step, form_of = HANDLERS[e.Step], Results._made
    given: dict[bytes, Any] = {}

    def remembering(self: Results, step: Any) -> Any:
        form = form_of(self, step)

        def write(value: Any) -> bytes:
            raw = form.write(value)
            given[raw] = value
            return raw

        def read(raw: Any) -> Any:
            return given.pop(bytes(raw)) if bytes(raw) in given else form.read(raw)

        return type(form)(write, read, form.is_async, form.chunk)

    def live(machine: Any, event: e.Step) -> None:
        if event.session:  # read from a history, rather than written now
            given.clear()
        on_step(machine, event)

    patch.setattr(Results, "_made", remembering)
    _handle(patch, e.Step, live)


def _batch_after_effects(patch: Patch) -> None:
    """What was drawn is written after the step that was called with it, rather than before."""
    launch = Session._launch

    def hasty(self: Session, ready: Any, *, plain: bool) -> None:
        batch, self._batch = self._batch, []
        try:
            launch(self, ready, plain=plain)
        finally:
            self._batch = [*batch, *self._batch]

    patch.setattr(Session, "_launch", hasty)


def _forgotten_step(patch: Patch) -> None:
    """A history that ends in a step is folded without it, so what is recorded runs again."""
    read = vars(loading)["read_tail"]

    def shorter(tail: Any, run_id: str) -> list[Any]:
        found: list[Any] = read(tail, run_id)
        return found[:-1] if len(found) > 1 and isinstance(found[-1], e.Step) else found

    patch.setattr(loading, "read_tail", shorter)
    for module in (driving, ledger):
        assert vars(module)["load"] is loading.load


PLANTS: dict[str, tuple[Callable[[Patch], None], int]] = {
    "attempts counted in memory": (_attempts_in_memory, 20),
    "batch written after effects": (_batch_after_effects, 20),
    "child id drawn": (_child_id_drawn, 20),
    "live value not read back": (_value_as_it_came, 20),
    "lost lease renewed": (_lost_lease_renewed, 20),
    "no fence": (_no_fence, 20),
    "no polling": (_no_polling, 20),
    "recorded step forgotten": (_forgotten_step, 20),
    "re-run on Unknown": (_rerun_on_unknown, 20),
    "signal acknowledged before it is written": (_signal_before_write, 20),
    "timer as a duration": (_timer_as_duration, 20),
}
"""By name, with the number of seeds within which each has to be found."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Have one bug in the product as long as this lasts, if one is named."""
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            PLANTS[name][0](patch)
        yield

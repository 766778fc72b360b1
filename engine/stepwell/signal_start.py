"""A signal that brings its run into being: one write has the start and the signal, so there is no gap between. Floor 4.

Whoever comes second, of two senders at once or after a crash, finds the run there and sends as usual; a signal that the
run has got counts once, by its id, also when the run is closed by now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from . import events as e
from . import lifecycle as lc
from .control import Control
from .driving import Driver
from .errors import ConflictError, InvalidInputError, NotFoundError, RunClosedError, StoreUnavailableError
from .loading import Parts, read_history
from .logs import held_back, let_out
from .recorder import TRIES
from .signals import Message
from .store import Created, RunHead
from .workflows import Workflow, check_workflow
from .writing import create_run

__all__ = ["IfSignalled", "SignalStart", "split_start"]

IfSignalled: TypeAlias = Literal["error", "restart"]
"""What a signal that may start a run does with one that is closed."""


def split_start(start: object) -> tuple[Workflow[..., Any], tuple[Any, ...]]:
    """Take `start=(workflow, *args)` apart.

    Raises:
        InvalidInputError: it is no such tuple.
    """
    if not isinstance(start, tuple) or not start:
        raise InvalidInputError(f"start must be a tuple of a workflow and its arguments, got {start!r}")
    return check_workflow(start[0]), start[1:]


class SignalStart:
    """Sends signals to runs that need not be there.

    Args:
        parts: what the engine works with.
        driver, control: create runs, and send to those that are there.
    """

    def __init__(self, parts: Parts, driver: Driver, control: Control) -> None:
        self.parts = parts
        self.driver = driver
        self.control = control

    def send(
        self,
        run_id: str,
        message: Message,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        tags: Mapping[str, str],
        if_closed: IfSignalled,
    ) -> None:
        """Record the signal in the open run, in a new one when there is none, or where it is already.

        Raises:
            ConflictError: the run is of another workflow.
            RunClosedError: it is closed, and shall not begin anew.
            InvalidInputError: arguments or payload don't fit; nothing is written.
        """
        if message.wait is not None:
            raise InvalidInputError("wait names a question of a run that is there, so it can't go with start")
        with held_back() as logged:  # by a first turn that may have been taken before
            start, machine = self.driver.begin(workflow, args, run_id, tags)
        try:
            signal = message.event(self.parts, message.waiting(machine, run_id, must_wait=False))
        finally:
            machine.close()
        for _ in range(TRIES):
            made = create_run(self.parts, run_id, [start, signal], drive=False)
            if isinstance(made, Created):
                let_out(logged)
                self._told(run_id, message)
                return
            if self._sent_to(made.head, message, start, signal, if_closed):
                return
        raise StoreUnavailableError(f"run {run_id!r} opens and closes too fast to send it a signal; try again")

    def _sent_to(
        self, head: RunHead, message: Message, start: e.Start, signal: e.Resume, if_closed: IfSignalled
    ) -> bool:
        """Send to a run that was there; False when it is another one by now."""
        run_id = head.run_id
        if head.head.workflow != start.workflow:
            raise ConflictError(
                f"run {run_id!r} is there already: it is of workflow {head.head.workflow!r}, not {start.workflow!r}; "
                "use another run id",
                run_id=run_id,
            )
        if not head.closed:
            try:
                self.control.signal(run_id, message)
            except (RunClosedError, NotFoundError):  # closed or deleted meanwhile
                return False
            return True
        try:
            if self._has(head, message):
                return True
            if if_closed == "error":
                status = head.head.status
                raise RunClosedError(
                    f"run {run_id!r} is {status}: the signal does not reach it any more; if_closed='restart' begins "
                    "it anew",
                    run_id=run_id,
                    status=status,
                )
            self.control.begin_anew(head, start, (signal,), drive=False)
        except (ConflictError, NotFoundError):  # opened by somebody else, or deleted, meanwhile
            return False
        self._told(run_id, message)
        return True

    def _has(self, head: RunHead, message: Message) -> bool:
        """Whether a closed run got this signal."""
        history = read_history(self.parts.store, head.run_id, incarnation=head.incarnation)
        return any(isinstance(event, e.Resume) and event.id == message.id for event in history)

    def _told(self, run_id: str, message: Message) -> None:
        self.parts.tell(lc.SignalSent(run_id, message.name))

"""The part of an engine's facade that changes runs from outside: signals, control, incarnations. Floor 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

from . import events as e
from .checks import (
    checked_actor,
    checked_choice,
    checked_metadata,
    checked_reason,
    checked_run_id,
    checked_signal,
    checked_tags,
)
from .commands import Flow, Signal
from .environment import new_run_id as make_run_id
from .errors import InvalidInputError
from .facade import Facade
from .outcomes import Outcome, Running
from .signals import Message

if TYPE_CHECKING:
    from .signal_start import IfSignalled

__all__ = ["Telling"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Telling(Facade):
    """Signals, pause and cancel, and what begins runs anew."""

    # ---- signals

    def resume(
        self,
        run_id: str,
        signal: Signal[T] | str,
        value: T | dict[str, Any] | list[Any] | None = None,
        *,
        wait: str | None = None,
        id: str | None = None,
        actor: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outcome[Any]:
        """Give a suspended run the signal that it waits for, and drive it on in this thread.

        Args:
            signal: a Signal, or its name.
            value: the payload, of the type that the Suspend asks for, or the plain JSON that it decodes from.
            wait: the wait id that this answers, as `waiting()` shows it, so that a late click can't answer the next
                question.
            id: the same id twice counts once.
            actor: who sends it, printable text; recorded, and told by `Suspend(...).decided()`.
            metadata: what else is to be recorded of it, JSON values by name, at most 64 KiB.

        Returns:
            As `start`; `Running` when somebody else drives the run, which has the signal all the same.

        Raises:
            EventMismatchError: the run does not wait for that signal, or not any more; when `wait` was decided before,
                it says by whom and when.
            InvalidInputError: the payload does not fit the type; nothing is written.
            RunClosedError, NotFoundError: there is nothing to resume.
        """
        self._ready()
        message = self._message(signal, value, wait, id, actor, metadata)
        return self._driver.resume(checked_run_id(run_id), message)

    def signal(
        self,
        run_id: str,
        signal: Signal[T] | str,
        value: T | dict[str, Any] | list[Any] | None = None,
        *,
        wait: str | None = None,
        id: str | None = None,
        start: tuple[Callable[[*Ts], Flow[Any]], *Ts] | None = None,
        tags: Mapping[str, str] | None = None,
        if_closed: IfSignalled = "error",
        actor: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a signal: durable when this returns, buffered when it is early; nobody is driven here.

        Other arguments as `resume`.

        Args:
            start: `(workflow, *args)`: when there is no such run, it is created with the signal in it, in one write;
                one that is there only gets the signal, whatever its input. To send again after a crash, or from two
                places, give the signal an `id`: it counts once, also when the run is closed by now.
            tags: of the run that `start` creates.
            if_closed: with `start`, the run is there and closed. "error": RunClosedError; "restart": begin it anew with
                the signal.

        Raises:
            RunClosedError, NotFoundError: nobody can get it.
            InvalidInputError: the payload does not fit the Suspend that waits for it, or the arguments the workflow.
            EventMismatchError: `wait` names a wait that is over; it says by whom it was decided, and when.
            ConflictError: the run is of another workflow than `start` names.
        """
        self._ready()
        message = self._message(signal, value, wait, id, actor, metadata)
        if start is None:
            if tags is not None or if_closed != "error":
                raise InvalidInputError("tags and if_closed are for a signal that may start its run; give start too")
            self._control.signal(checked_run_id(run_id), message)
            return
        from .signal_start import SignalStart, split_start  # late: few programs use it

        checked_choice("if_closed", if_closed, ("error", "restart"))
        workflow, args = split_start(start)
        self._parts.registry.add(workflow)
        sender = SignalStart(self._parts, self._driver, self._control)
        sender.send(checked_run_id(run_id), message, workflow, args, checked_tags(tags or {}), if_closed)

    def decide(
        self,
        run_id: str,
        wait: str,
        value: Any = None,
        *,
        actor: str,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        drive: bool = True,
    ) -> Outcome[Any]:
        """Decide one question, for good: of all who try, one is recorded, and the others are told who it was.

        Args:
            wait: the question's wait id, as `waiting()` shows it.
            value: the payload, as for `resume`.
            actor: who decides, printable text of 1 to 200 characters.
            metadata: what else is to be recorded, JSON values by name, at most 64 KiB.
            id: of the click or message that decides; the same decision under the same id counts once, so that it may
                be sent again.
            drive: go on with the run in this thread, which needs its code; False only records the decision.

        Returns:
            As `start`; `Running` when `drive` is False.

        Raises:
            EventMismatchError: somebody has decided already, or the question is over or was never asked.
            InvalidInputError: the payload does not fit the type, or an argument is wrong; nothing is written.
            RunClosedError, NotFoundError: there is nothing to decide.
        """
        self._ready()
        name, number, _ = wait.rpartition("@") if isinstance(wait, str) else ("", "", "")
        if not name or not number:
            raise InvalidInputError(f"wait must be a wait id, as waiting() shows it, got {wait!r}")
        if actor is None:
            raise InvalidInputError("actor must say who decides, got None")
        run_id, message = checked_run_id(run_id), self._message(name, value, wait, id, actor, metadata)
        if drive:
            return self._driver.resume(run_id, message)
        self._control.signal(run_id, message)
        return Running(run_id)

    def _message(
        self,
        signal: Signal[Any] | str,
        value: Any,
        wait: str | None,
        id: str | None,
        actor: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> Message:
        sent = (checked_actor(actor), checked_metadata(metadata))
        return Message.of(checked_signal(signal), value, wait, id, *sent)

    # ---- control

    def pause(self, run_id: str, reason: str | None = None) -> Outcome[Any]:
        """Stop a run at its next yield; steps in flight are recorded. RunClosedError, NotFoundError."""
        self._ready()
        return self._control.send(
            checked_run_id(run_id), e.Pause(reason=checked_reason(reason), timestamp=self._parts.stamp())
        )

    def unpause(self, run_id: str) -> Outcome[Any]:
        """Let a paused run go on, in this thread when nobody else drives it. RunClosedError, NotFoundError."""
        self._ready()
        return self._control.send(checked_run_id(run_id), e.Unpause(timestamp=self._parts.stamp()))

    def cancel(self, run_id: str, reason: str | None = None, *, force: bool = False) -> Outcome[Any]:
        """Cancel a run: waits end at once, a step in flight is recorded, then `Cancelled` is thrown, and clean-up runs.

        A run that nobody drives is cancelled in this thread; one that is driven elsewhere at its next yield.

        Args:
            force: close it at once, without asking the workflow: no clean-up.

        Raises:
            RunClosedError, NotFoundError: there is nothing to cancel.
        """
        self._ready()
        run_id, reason = checked_run_id(run_id), checked_reason(reason)
        if force:
            self._queries.head(run_id)
            self._control.force_cancel(run_id, reason)
            return self._queries.outcome(self._queries.head(run_id))
        return self._control.send(run_id, e.Cancel(reason=reason, timestamp=self._parts.stamp()))

    # ---- incarnations

    def retry(self, run_id: str) -> Outcome[Any]:
        """Go on from what failed, on the version that the run has; finished steps stay finished.

        Raises:
            ConflictError: it has not failed.
            NotFoundError, VersionMismatchError: this engine does not know its workflow in that version.
        """
        self._ready()
        return self._control.retry(checked_run_id(run_id))

    def reset(self, run_id: str) -> Outcome[Any]:
        """Begin a run anew with its own input and an empty history; an open one is closed as cancelled first.

        It begins on the version that it has. To begin it anew on another one, call
        `start(workflow, ..., run_id=run_id, if_open="restart", if_closed="restart")`.

        Raises:
            NotFoundError: no such run, or this engine does not know its workflow.
            VersionMismatchError: it knows other versions of it only.
        """
        self._ready()
        return self._control.reset(checked_run_id(run_id))

    @overload
    def fork(
        self,
        run_id: str,
        *,
        before: str | int,
        new_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Outcome[Any]: ...
    @overload
    def fork(
        self,
        run_id: str,
        *,
        replace: tuple[str, Any],
        before: str | int | None = None,
        new_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Outcome[Any]: ...
    def fork(
        self,
        run_id: str,
        *,
        before: str | int | None = None,
        replace: tuple[str, Any] | None = None,
        new_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Outcome[Any]:
        """Begin another run with this one's history up to a point, and drive it; the source stays as it is.

        With `replace`, one recorded step result among what is taken over is another one: what if it had said this? The
        new run is of the version that the source has.

        Args:
            before: a step id such as "classify#2", or a seq: what comes before it is taken over. May be left out with
                `replace`: then the replaced step is the last event that is taken over.
            replace: (step id, value): the value is of the type that the step gives, or plain JSON that it decodes from.
                A step that failed is given a result. The start event's `source` names the step as `replaced`.
            new_run_id: its run id; a new UUIDv7 when None.
            tags: its tags; the source's when None.

        Raises:
            NotFoundError: no such run or step, or this engine does not know its workflow.
            InvalidInputError: the value is no result of that step, or the step is not among what is taken over.
            ConflictError: the point comes after a cancel, the new run id is taken, or the workflow, given the other
                result, does not come to what is recorded between it and `before`. Nothing is written.
            DivergenceError, CodecError: with `replace`, the code does not fit what is recorded before the step; nothing
                is written. Else as `advance`.
        """
        self._ready()
        new = make_run_id() if new_run_id is None else new_run_id
        labels = None if tags is None else checked_tags(tags)
        return self._control.fork(checked_run_id(run_id), before, checked_run_id(new), labels, replace)

    def delete(self, run_id: str) -> None:
        """Remove a closed run with all of its incarnations. ConflictError when it is open, NotFoundError."""
        self._ready()
        self._control.delete(checked_run_id(run_id))

"""Changed inputs of steps: what a history says that a step was called with, against what the code calls it with now.

The machine knows no digests, so that a replay that doesn't ask for this pays nothing. Who asks hands the events to the
machine through an `InputCheck`, which follows the commands that are issued. A step's digest is made when the turn in
which it was issued has ended, as it is live, before anything is called. Floor 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import commands as c
from . import events as e
from .codec import Codec
from .errors import DivergenceError
from .inputs import inputs_digest
from .workflows import Workflow

__all__ = ["InputCheck", "is_strict"]


def is_strict(workflow: Workflow[..., Any], default: bool) -> bool:
    """Whether a replay of this workflow compares inputs; `default` is the engine's answer."""
    return default if workflow.strict_inputs is None else workflow.strict_inputs


class _Trace(list[tuple[str, c.Command[Any]]]):
    """The commands that were issued and not looked at yet; after the replay it stays empty."""

    over = False

    def append(self, entry: tuple[str, c.Command[Any]], /) -> None:
        """Note a command."""
        if not self.over:
            super().append(entry)


class InputCheck:
    """Compares the recorded input digests of steps with what the workflow yields now.

    Args:
        run_id, workflow: for the texts of errors.
        codec: as the engine's.
        trace: what the machine adds each command to as it is issued, as (at, command); None: a list of this check's
            own, which is emptied as it goes.
    """

    def __init__(
        self, run_id: str, workflow: str, codec: Codec, trace: list[tuple[str, c.Command[Any]]] | None = None
    ) -> None:
        self._run_id = run_id
        self._workflow = workflow
        self._codec = codec
        self._own = trace is None
        self._seen = 0
        self._asked: dict[str, tuple[str, str | None]] = {}  # name and digest of each step that is pending, by `at`
        self._late: tuple[int, e.Step] | None = None
        self.trace: list[tuple[str, c.Command[Any]]] = _Trace() if trace is None else trace

    def end(self) -> None:
        """The history is read; what the machine issues from now on is performed, and not compared."""
        if isinstance(self.trace, _Trace):
            self.trace.over = True
            self.trace.clear()

    def passing(self, events: Iterable[e.EventBase], seq: int) -> Iterator[e.EventBase]:
        """Give the events one by one to a machine that takes them in; `seq` is the offset of the first.

        Raises:
            DivergenceError: a step was recorded with other inputs. The machine has not taken its event in, but when
                that event decided a Patched: then it shows after it.
        """
        for number, event in enumerate(events, seq):
            self.before(event, number)
            yield event
            self.after()

    def before(self, event: e.EventBase, seq: int) -> None:
        """Compare an event that the machine is about to take in."""
        self._look()
        if type(event) is not e.Step or event.inputs is None:
            return
        if event.at in self._asked:
            self._compare(event, seq)
        else:  # it is issued as this event is taken in, if at all
            self._late = seq, event

    def after(self) -> None:
        """Compare the event that was taken in, if that could not be done before."""
        self._look()
        late, self._late = self._late, None
        if late is not None and late[1].at in self._asked:
            self._compare(late[1], late[0])

    def _look(self) -> None:
        """Note the steps that were issued since."""
        for at, command in self.trace[self._seen :]:
            if isinstance(command, c.Step):
                self._asked[at] = command.name, inputs_digest(self._codec, command)
        if self._own:
            self.trace.clear()
        else:
            self._seen = len(self.trace)

    def _compare(self, event: e.Step, seq: int) -> None:
        name, now = self._asked.pop(event.at)
        if now is None or now == event.inputs or name != event.name:  # another step is for the machine to find
            return
        recorded, yielded = f"inputs {event.inputs}", f"inputs {now}"
        raise DivergenceError(
            f"run {self._run_id!r} diverges at event {seq} at {event.at}: step {event.step_id!r} was recorded with "
            f"{recorded}, and the workflow {self._workflow!r} calls it with {yielded} now. The code has changed since, "
            "or it reads something that no command gave it. Guard the change with Patched, give the workflow a new "
            "version, or fork the run from before this event; if the recorded result holds for the new inputs too, "
            "switch strict_inputs off.",
            run_id=self._run_id,
            seq=seq,
            at=event.at,
            recorded=f"step {event.step_id!r} with {recorded}",
            yielded=f"step {event.step_id!r} with {yielded}",
        )

"""`assert_ends`: wherever a workflow comes to, there is a way on to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..workflows import check_workflow
from .drawing import DrawnRun, drawn_runs, need_hypothesis
from .searching import Found, search

__all__ = ["DeadEndError", "assert_ends"]


class DeadEndError(AssertionError):
    """A workflow comes to a place from which it does not end.

    Attributes:
        run: the shortest history that was found to lead there.
        examples: how many histories had been looked at when the first one led there.
    """

    run: DrawnRun[Any]
    examples: int


def assert_ends(
    workflow: Callable[..., Any], *inputs: Any, examples: int | None = None, max_answers: int = 50, **terms: Any
) -> None:
    """Look for a dead end: a place that a workflow comes to, and from which no history was found to end it.

    That is where it waits for a signal that nobody sends (say with `signals=` which ones come), and where it goes round
    for ever. A loop that can end, though most histories leave it running, is none: of all histories that passed a place
    one that ended is enough. A restart with ContinueAsNew is an end, and so is a failure of the workflow's own; that a
    step failed which was made to is none, nor is a cancel.

    Args:
        workflow: what `@workflow` made.
        inputs: its arguments, as `histories` takes them.
        examples: how many histories; None: as many as the profile of Hypothesis says, 100 without one.
        max_answers: how long a history may be.
        terms: `results`, `failures`, `signals`, `cancels`, `actors`, `budget` and `codec`, as `histories` takes them.

    Raises:
        DeadEndError: there is such a place. The text is a test that leads there.
        InvalidInputError: Hypothesis is missing, or an argument is wrong.

    Example:
        >>> from stepwell import Flow, Signal, Suspend, workflow
        >>> appeal = Signal("appeal", bool)
        >>> @workflow
        ... def case(name: str) -> Flow[bool]:
        ...     return (yield from Suspend(appeal))
        >>> assert_ends(case, "ada", signals=[appeal])
    """
    need_hypothesis("assert_ends")
    known = check_workflow(workflow)
    runs = drawn_runs(known, inputs, max_answers=max_answers, **terms)
    looked_at = _LookedAt()
    found = search(runs, looked_at.judge, examples)
    if found is None:
        lost = looked_at.lost()
        if lost is None:
            return
        run, number, first = lost
        there = "; ".join(run.places[number]) or "nothing"
        found = Found(
            run,
            f"workflow {known.name!r} comes to a place from which it does not end: there it waits for\n\n    {there}"
            f"\n\nafter this history:\n\n{run.source(number)}\n\nOf {looked_at.count} histories, none that came there "
            f"ended within {max_answers} answers.",
            first,
        )
    error = DeadEndError(found.text)
    error.run, error.examples = found.run, found.examples
    raise error


class _LookedAt:
    """What was seen of all the histories."""

    def __init__(self) -> None:
        self.count = 0
        self._ending: set[tuple[str, ...]] = set()  # places from which a run has ended
        self._open: list[tuple[DrawnRun[Any], int]] = []  # runs that were still open in the end, and their numbers

    def judge(self, run: DrawnRun[Any]) -> str | None:
        """Take a run down; what is wrong with it by itself."""
        self.count += 1
        if run.stuck is not None:
            return (
                f"workflow {run.machine.workflow.name!r} comes to a dead end: nothing that can come takes it on from "
                f"there\n\n{run!r}"
            )
        if run.status == "open":
            self._open.append((run, self.count))
        else:
            self._ending.update(run.places[_trouble(run) :])
        return None

    def lost(self) -> tuple[DrawnRun[Any], int, int] | None:
        """The shortest way to where no run has ended: the run, how many answers lead there, and the run's number."""
        ways = []
        for run, number in self._open:
            if run.places[-1] in self._ending:
                continue
            entered = len(run.places)
            while entered and run.places[entered - 1] not in self._ending:
                entered -= 1
            ways.append((entered, len(run.source(entered)), number, run))
        if not ways:
            return None
        entered, _, number, run = min(ways, key=lambda way: way[:3])
        return run, entered, number


def _trouble(run: DrawnRun[Any]) -> int:
    """How many answers a run had when it was ended by what went wrong outside; 0: it has ended by itself."""
    if run.status in ("complete", "continue"):
        return 0
    kinds = [answer.kind in ("raised", "cancel", "cancelled") for answer in run.answers]
    return len(kinds) - kinds[::-1].index(True) if True in kinds else 0

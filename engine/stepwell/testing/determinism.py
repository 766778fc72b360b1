"""`assert_deterministic`: given the same history, a workflow asks for the same, always and everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from .. import events as e
from ..codec import Codec
from ..store import seal
from ..wire import read_event, to_draft
from ..workflows import Workflow, check_workflow
from .drawing import DrawnRun, drawn_runs, need_hypothesis
from .environments import same_chance
from .looking import codes_of
from .refolding import OtherProcess, place_of
from .searching import search
from .telling import Told, fold_and_tell
from .watching import watched

__all__ = ["NotDeterministicError", "assert_deterministic"]

_REMEDY = (
    "A workflow may depend on its arguments and on what is sent into it, and on nothing else. Usual causes: a clock "
    "(yield Now()), chance (yield Random() or Uuid()), the order of a set (sort it), a global that changes, a file or "
    "the environment (read it in a Step)."
)


class NotDeterministicError(AssertionError):
    """A workflow asks for other things when it is given the same answers.

    Attributes:
        run: the shortest history that was found to show it.
        examples: how many histories had been looked at when the first one showed it.
    """

    run: DrawnRun[Any]
    examples: int


def assert_deterministic(
    workflow: Callable[..., Any],
    *inputs: Any,
    examples: int | None = None,
    hash_seeds: Sequence[int] = (1, 2),
    watch: bool = True,
    codec: Codec | None = None,
    cancels: bool = True,
    **terms: Any,
) -> None:
    """Look for a history that a workflow answers in two ways; the shortest one that was found is told.

    Each history is made up as `histories` does it, and given to the workflow again: at once, as it would be read back
    from a store, and in other processes, whose sets have another order. Besides, while it is given, calls of clocks,
    chance, files and the environment in the workflow's own code are noted, since a clock that is read for its hour
    answers the same twice.

    Args:
        workflow: what `@workflow` made, at the top of a module that another process can import.
        inputs: its arguments, as `histories` takes them.
        examples: how many histories; None: as many as the profile of Hypothesis says, 100 without one.
        hash_seeds: the PYTHONHASHSEED of each of the other processes; () does without them.
        watch: whether such calls count though nothing has come of them.
        codec: the engine's codec, when it is not the default one; a variable of the workflow's module.
        cancels: whether histories may hold a cancel.
        terms: `results`, `failures`, `signals`, `actors`, `budget` and `max_answers`, as `histories` takes them.

    Raises:
        NotDeterministicError: there is such a history. The text is a test that shows it, and where the two part.
        InvalidInputError: Hypothesis is missing, another process can't import the workflow, or an argument is wrong.

    Example:
        >>> from stepwell import Flow, Step, workflow
        >>> def price(item: str) -> int: ...
        >>> @workflow
        ... def offer(item: str) -> Flow[str]:
        ...     return f"{item}: {(yield from Step(price, item))}"
        >>> assert_deterministic(offer, "tea", hash_seeds=())
    """
    need_hypothesis("assert_deterministic")
    known = check_workflow(workflow)
    runs = drawn_runs(known, inputs, codec=codec, cancels=cancels, telling=True, **terms)
    coder, codes = codec or Codec(), codes_of(known) if watch else set()
    with ExitStack() as opened:
        place = place_of(known, codec) if hash_seeds else {}
        others = [OtherProcess(seed, place) for seed in hash_seeds]
        for other in others:
            opened.callback(other.close)
        for other in others:
            other.start()
        found = search(runs, lambda run: next(_differences(known, run, coder, codes, others), None), examples)
    if found is not None:
        text = f"workflow {known.name!r} is not deterministic. Given this history:\n\n{found.run!r}\n\n{found.text}"
        error = NotDeterministicError(f"{text}\n\n{_REMEDY}")
        error.run, error.examples = found.run, found.examples
        raise error


def _differences(
    workflow: Workflow[..., Any], run: DrawnRun[Any], codec: Codec, codes: set[Any], others: list[OtherProcess]
) -> Iterator[str]:
    """What is wrong, in words."""
    for other in others:
        other.ask(run.events)  # they work meanwhile
    with watched(codes) as calls, same_chance(1):
        again = fold_and_tell(workflow, run.events, codec)
    with same_chance(2):
        read_back = fold_and_tell(workflow, _read_back(run.events), codec)
    told = [(f"with PYTHONHASHSEED={other.seed}", other.told()) for other in others]
    for where, second in (("the second time", again), ("as it is read back", read_back), *told):
        text = _parting(run, second, where)
        if text is not None:
            yield text
    if calls:
        yield f"it calls {calls[0]}, which no history answers."


def _read_back(events: Sequence[e.EventBase]) -> Iterator[e.EventBase]:
    """Events as a store gives them back."""
    return map(read_event, seal([to_draft(event) for event in events], session=1, offset=0))


def _parting(run: DrawnRun[Any], second: Told, where: str) -> str | None:
    """Where two tellings of a run part; None when they don't."""
    if run.told == second:
        return None
    for number, one in enumerate(run.told):
        other = second[number] if number < len(second) else [["nothing more", "", "", ""]]
        if one == other:
            continue
        place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        after = "At its start" if number == 0 else f"After event {number} ({run.events[number].kind})"
        width = max(len(where), len("the first time"))
        return (
            f"{after} it comes to:\n  {'the first time:':{width + 1}}  {_line(one, place)}\n"
            f"  {where + ':':{width + 1}}  {_line(other, place)}"
        )
    return f"{where} it goes on after its end"


def _line(told: list[list[str]], place: int) -> str:
    if place >= len(told):
        return "nothing more"
    what, at, held, line = told[place]
    return f"{what}{f' at {at}' if at else ''}{f': {held}' if held else ''}{f'   ({line})' if line else ''}"

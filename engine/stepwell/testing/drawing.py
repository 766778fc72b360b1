"""`histories`: a Hypothesis strategy that drives a workflow with anything that its types allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import commands as c
from .. import events as e
from ..codec import Codec, parameter_annotations
from ..errors import InvalidInputError
from ..fibers import describe
from ..workflows import Workflow, check_workflow
from .answers import Answer
from .environments import same_chance
from .looking import Seen, look_at
from .pasting import source_of, source_of_answer
from .replaying import Replay
from .telling import Told, tell
from .wording import place_of

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from .choosing import Option, World
    from .generating import Values

__all__ = ["DrawnRun", "drawn_runs", "histories", "need_hypothesis"]

R = TypeVar("R")

_TEMPERS = ((0, 0), (2, 1), (5, 1), (3, 4))
"""How often, of ten, what happens next goes wrong, or is what nobody has asked for. Each run is of one of these kinds:
one that goes well is seen to its end, and one that does not has several troubles together."""


class DrawnRun(Replay[R]):
    """A workflow as far as a made-up history has taken it; its `repr` is a test that does the same.

    It can't be fed any more: take `replay(workflow, *run.inputs, history=[*run.answers, ...])` for that.

    Attributes:
        inputs: the arguments of the workflow.
        answers: the history, as a test writes it.
        stuck: why nothing can come any more, though the run is open; None when it has ended, or when the history has
            as many answers as it may have.
        places: where the run stood before each answer and at the end: what it waited for, and at which lines.
        told: what the workflow came to after each event, where somebody wants to compare it.
    """

    def __init__(
        self, workflow: Workflow[..., Any], inputs: tuple[Any, ...], seen: Seen, *, telling: bool = False, **how: Any
    ) -> None:
        super().__init__(workflow, inputs, **how)
        self.inputs = inputs
        self.told: Told = []
        self._telling = telling
        self._told_of = 0
        self._tell()
        self.answers: list[Answer] = []
        self.stuck: str | None = None
        self.places: list[tuple[str, ...]] = []
        self._seen = seen
        self._said: list[str] = []
        self._over = False

    def feed(self, answer: Answer | e.EventBase) -> None:
        if self._over or isinstance(answer, e.EventBase):
            raise InvalidInputError(
                "a drawn history is over: replay(workflow, *run.inputs, history=[*run.answers, ...]) goes on from it"
            )
        self._said.append(self._about(answer))
        self.answers.append(answer)
        self.places.append(self._place())
        super().feed(answer)

    def _feed(self, event: e.EventBase) -> None:
        super()._feed(event)
        self._tell()

    def _tell(self) -> None:
        """Keep what the event came to, for who compares it."""
        if self._telling:
            self.told.append(tell(self.machine, self.commands[self._told_of :]))
            self._told_of = len(self.commands)

    def end(self, stuck: str | None) -> None:
        """Take no more answers."""
        self.stuck = stuck
        self.places.append(self._place())
        self._over = True
        self.close()

    def count(self, what: Any) -> int:
        """How often a step of a function, or a child of a workflow, was asked for so far."""
        return sum(what in (getattr(one, "fn", c), getattr(one, "workflow", c)) for _, one in self.commands)

    def _about(self, answer: Answer) -> str:
        """What an answer is for, in words."""
        if answer.kind in ("received", "cancel", "patched"):
            waited = any(one.command.label == answer.signal for one in self.machine.waits)
            return "before anybody waits for it" if answer.kind == "received" and not waited else ""
        pending = self.addressee(answer)
        return f"step {pending.step_id!r}" if pending.step_id else describe(pending.command)

    def _place(self) -> tuple[str, ...]:
        if self.machine.asking is not None:
            return (f"Patched({self.machine.asking!r})",)
        return tuple(f"{describe(one.command)} at {place_of(one)}" for one in self.machine.pending.values())

    def source(self, until: int | None = None) -> str:
        """Give the source of a replay that does the same.

        Args:
            until: only so many answers; None: all.
        """
        inputs = "".join(f", {source_of(one)}" for one in self.inputs)
        budget = "" if self.machine.budget is None else f", budget={self.machine.budget!r}"
        name = getattr(self.machine.workflow.fn, "__name__", self.machine.workflow.name)
        names = {signal: variable for signal, (variable, _) in self._seen.signals.items()}
        lines = [
            f"    {source_of_answer(answer, names)}," + (f"  # {said}" if said else "")
            for answer, said in zip(self.answers[:until], self._said, strict=False)
        ]
        body = "\n".join(["", *lines, ""]) if lines else ""
        return f"replay({name}{inputs}{budget}, history=[{body}])"

    def __repr__(self) -> str:
        return f"{self.source()}\n# then {self.stuck or self._where()}"


def need_hypothesis(what: str) -> None:
    """See that Hypothesis is there.

    Raises:
        InvalidInputError: it is not; the text says how it is installed.
    """
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise InvalidInputError(
            f"stepwell.testing.{what} needs Hypothesis, which is not there: pip install 'stepwell[test]'"
        ) from error


def histories(
    workflow: Callable[..., c.Flow[R]],
    *inputs: Any,
    results: Mapping[Any, Any] | None = None,
    failures: Mapping[Any, Sequence[Any]] | bool = True,
    signals: Iterable[Any] | Mapping[Any, Any] | None = None,
    cancels: bool = False,
    actors: Sequence[str] = ("alice", "bob"),
    budget: float | None = None,
    max_answers: int = 50,
    codec: Codec | None = None,
) -> SearchStrategy[DrawnRun[R]]:
    """Give a Hypothesis strategy of runs of a workflow that are driven by made-up histories, and shrink well.

    Steps and children give anything that their types allow, or fail; signals come when they are waited for, early, or
    late; waits time out; a Patched is answered as in a new run and as in an old one. Of several timers the one that is
    due first fires first. Nothing is performed.

    Args:
        workflow: what `@workflow` made.
        inputs: its arguments; in place of each a strategy, or `...` for anything that its type allows.
        results: what steps and children give, by function, workflow, name, or step id ("classify#2"): a strategy, or a
            value. For those that are not named, their type says it.
        failures: exceptions that they fail with, by the same: a list of exceptions or classes, an empty one for what
            never fails. True: what a step declares: the classes that its retry policy names, its time-out, that it is
            at_most_once; a RuntimeError where nothing is declared. False: nothing fails.
        signals: the signals that can come: a list of Signals or names, or a mapping to strategies of their payloads.
            None: whatever is waited for, and what Signals the workflow's module names.
        cancels: whether somebody may ask for the run to be cancelled.
        actors: who may have sent a signal.
        budget: what the run may spend.
        max_answers: after so many the history ends, wherever the run stands.
        codec: the engine's codec, when it is not the default one.

    Returns:
        a strategy of `DrawnRun`: what `replay` gives, and `answers`, `stuck`, `count(fn)` besides.

    Raises:
        InvalidInputError: Hypothesis is missing, or an argument is wrong. From the test that draws: nothing can be made
            up for a type, or a strategy draws what could not be recorded; the text says what to give.

    Example:
        >>> from hypothesis import given
        >>> from stepwell import Flow, Step, workflow
        >>> def price(item: str) -> int: ...
        >>> @workflow
        ... def offer(item: str) -> Flow[str]:
        ...     return f"{item}: {(yield from Step(price, item))}"
        >>> @given(histories(offer, "tea", failures=False))
        ... def test_it_offers_what_was_asked_for(run):
        ...     assert run.result.startswith("tea: ")
        >>> test_it_offers_what_was_asked_for()
    """
    need_hypothesis("histories")
    terms: dict[str, Any] = {"results": results, "failures": failures, "signals": signals, "cancels": cancels}
    terms |= {"actors": actors, "budget": budget, "max_answers": max_answers, "codec": codec}
    return drawn_runs(workflow, inputs, **terms)


def drawn_runs(
    workflow: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    results: Mapping[Any, Any] | None = None,
    failures: Mapping[Any, Sequence[Any]] | bool = True,
    signals: Iterable[Any] | Mapping[Any, Any] | None = None,
    cancels: bool = False,
    actors: Sequence[str] = ("alice", "bob"),
    budget: float | None = None,
    max_answers: int = 50,
    codec: Codec | None = None,
    telling: bool = False,
) -> SearchStrategy[DrawnRun[Any]]:
    """What `histories` gives; `telling`: each run has what it came to after each event."""
    from hypothesis import strategies as st

    from .choosing import Terms, World
    from .generating import Values

    known, coder = check_workflow(workflow), codec or Codec()
    if isinstance(max_answers, bool) or not isinstance(max_answers, int) or max_answers < 1:
        raise InvalidInputError(f"max_answers must be a whole number of 1 or more, got {max_answers!r}")
    seen = look_at(known)
    texts, numbers = _constants(inputs)
    values = Values(coder, [*seen.texts, *texts], [*seen.numbers, *numbers])
    sent = _signals(signals)
    early = {name: (one.type, None) for name, (_, one) in seen.signals.items()} if sent is None else sent
    terms = Terms(
        values=values,
        results=results or {},
        failures=None if failures is False else {} if failures is True else failures,
        signals=sent,
        early=early,
        actors=[*actors, *texts],
        cancels=bool(cancels),
    )
    arguments = _arguments(known, inputs, values)

    @st.composite
    def runs(draw: Any) -> DrawnRun[Any]:
        given = tuple(map(draw, arguments))
        with same_chance():
            try:
                run: DrawnRun[Any] = DrawnRun(known, given, seen, telling=telling, codec=coder, budget=budget)
            except Exception as error:
                error.add_note(f"the arguments: {', '.join(map(source_of, given))}")
                raise
            _drive(run, World(run, terms), draw, max_answers)
        return run

    return runs()


def _drive(run: DrawnRun[Any], world: World, draw: Any, most: int) -> None:
    """Answer a run until it has ended, nothing can come, or it has as many answers as it may have."""
    from hypothesis import strategies as st

    temper = draw(st.sampled_from(_TEMPERS))
    try:
        run.settle()
        stuck = None
        while run.status == "open" and len(run.answers) < most:
            option = _choice(world, draw, temper)
            if option is None:
                stuck = f"{run._where()}, and nothing can come"
                break
            run.feed(world.answer(option, draw))
    except Exception as error:
        error.add_note(f"the history so far:\n{run.source()}")
        raise
    finally:
        run.end(None)
    run.stuck = stuck


def _choice(world: World, draw: Any, temper: tuple[int, int]) -> Option | None:
    """Draw what happens next; None when nothing can, but what nobody has asked for."""
    from hypothesis import strategies as st

    well, wrong, unasked = world.options()
    if not well and not wrong:
        return None
    tenth = draw(st.integers(0, 9)) if (wrong or unasked) and any(temper) else 0
    kinds = [wrong, unasked] if tenth > 9 - temper[0] else [unasked, wrong] if tenth > 9 - sum(temper) else []
    some = next(kind for kind in (*kinds, well, wrong) if kind)
    return some[draw(st.integers(0, len(some) - 1)) if len(some) > 1 else 0]


def _signals(given: Iterable[Any] | Mapping[Any, Any] | None) -> dict[str, tuple[Any, Any]] | None:
    """The signals that can come, by name: the type of the payload, and the strategy that was given."""
    if given is None:
        return None
    found: dict[str, tuple[Any, Any]] = {}
    for one in [given] if isinstance(given, (str, c.Signal)) else given:
        if not isinstance(one, (str, c.Signal)):
            raise InvalidInputError(f"signals= takes Signals or their names, got {one!r}")
        signal = one if isinstance(one, c.Signal) else c.Signal(one)
        found[signal.name] = (signal.type, given[one] if isinstance(given, Mapping) else None)
    return found


def _arguments(workflow: Workflow[..., Any], inputs: tuple[Any, ...], values: Values) -> list[SearchStrategy[Any]]:
    """A strategy for each argument."""
    from hypothesis import strategies as st

    from .generating import is_strategy

    annotations = parameter_annotations(workflow.annotated)
    names = list(workflow.signature.parameters)
    found: list[SearchStrategy[Any]] = []
    for number, given in enumerate(inputs):
        if given is ... and number < len(annotations):
            what = f"argument {names[number]!r} of workflow {workflow.name!r}"
            found.append(values.of(annotations[number], what, "give a strategy in place of ..."))
        else:
            found.append(given if is_strategy(given) else st.just(given))
    return found


def _constants(inputs: tuple[Any, ...]) -> tuple[list[str], list[int]]:
    """The texts and numbers that a workflow is given: what comes later may well be the same."""
    texts: list[str] = []
    numbers: list[int] = []

    def look(value: Any, depth: int) -> None:
        if isinstance(value, str) and len(value) <= 40:
            texts.append(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            numbers.append(value)
        elif depth and isinstance(value, (list, tuple)):
            for one in value[:10]:
                look(one, depth - 1)
        elif depth and (fields := getattr(type(value), "__attrs_attrs__", None) or ()):
            for field in fields:
                look(getattr(value, field.name), depth - 1)

    for one in inputs:
        look(one, 3)
    return list(dict.fromkeys(texts)), list(dict.fromkeys(numbers))

"""A search with Hypothesis for the shortest history that has something wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import InvalidInputError
from .drawing import DrawnRun

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Found", "search"]


class Found(msgspec.Struct):
    """A history that has something wrong with it.

    Attributes:
        run: the run.
        text: what is wrong.
        examples: how many had been looked at when the first such one was found.
    """

    run: DrawnRun[Any]
    text: str
    examples: int


class _Wrong(Exception):
    """Makes Hypothesis look for a shorter one."""


def search(
    runs: SearchStrategy[DrawnRun[Any]], judge: Callable[[DrawnRun[Any]], str | None], examples: int | None
) -> Found | None:
    """Draw runs until one is judged wrong, and give the shortest such; None when all are well.

    A workflow that answers by chance is not the same again when Hypothesis asks for it again: then what was found so
    far counts.

    Args:
        runs: what to draw.
        judge: says what is wrong with a run, or None.
        examples: how many to draw; None leaves it to the profile.

    Raises:
        InvalidInputError: `examples` is no number of 1 or more; and whatever drawing raises.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Flaky

    if examples is not None and (isinstance(examples, bool) or not isinstance(examples, int) or examples < 1):
        raise InvalidInputError(f"examples must be a whole number of 1 or more, got {examples!r}")
    looked_at = 0
    best: Found | None = None

    def look(run: DrawnRun[Any]) -> None:
        nonlocal looked_at, best
        looked_at += 1
        text = judge(run)
        if text is not None:
            if best is None or _size(run) < _size(best.run):
                best = Found(run, text, best.examples if best else looked_at)
            raise _Wrong

    options: dict[str, Any] = {"suppress_health_check": list(HealthCheck)}
    options |= {} if examples is None else {"max_examples": examples}
    quietly = settings(
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        **options,
    )
    try:
        quietly(given(runs)(look))()
    except _Wrong:
        pass
    except (Flaky, BaseExceptionGroup):
        if best is None:
            raise
    return best


def _size(run: DrawnRun[Any]) -> tuple[int, int]:
    return len(run.answers), len(run.source())

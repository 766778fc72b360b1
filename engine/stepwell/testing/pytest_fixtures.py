"""Behind the fixtures of the pytest plugin: engines on one store with virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell_stores import open_store

from ..engine import Engine
from ..environment import Environment
from ..errors import InvalidInputError, StepwellError
from ..events import from_micros
from ..outcomes import Outcome
from ..retry import as_seconds
from ..store import Store
from ..workflows import Workflow
from .environments import EPOCH, InlineExecutor, SeededEntropy, VirtualClock

__all__ = ["EngineFactory", "clock_of", "factory_for"]

_KINDS = {"memory": "memory:", "sqlite": "sqlite:///{tmp}/runs.db", "file": "file:{tmp}/runs"}
_OPTIONS = {"store", "seed", "start", "record"}


class _Kept:
    """A store in memory that outlives its engines, as a file does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        """Nothing: the next engine finds the runs."""


class EngineFactory:
    """Makes engines on one store, with virtual time: what the fixture `stepwell_engine` gives.

    Args:
        url: of the store.
        clock: the virtual time.
        seed: of what Random and Uuid draw.

    Attributes:
        clock: the virtual time of all of its engines.
        url: of the store.

    Example:
        >>> from stepwell import Flow, Sleep, workflow
        >>> @workflow
        ... def nap() -> Flow[str]:
        ...     yield Sleep(timedelta(days=30))
        ...     return "awake"
        >>> make = EngineFactory("memory:", VirtualClock())
        >>> engine = make(nap)
        >>> engine.start(nap, run_id="n").status
        'suspended'
        >>> [outcome.status for outcome in make.pass_time(timedelta(days=31))]
        ['completed']
        >>> make.close()
    """

    def __init__(self, url: str, clock: VirtualClock, seed: int = 0) -> None:
        self.url = url
        self.clock = clock
        self._entropy = SeededEntropy(seed)
        self._engines: list[Engine] = []
        self._memory: Store | None = None

    def __call__(self, *workflows: Workflow[..., Any], **options: Any) -> Engine:
        """Make an engine that knows these workflows, on the runs of the engines before.

        Args:
            workflows: what `@workflow` made.
            options: as `Engine` has them; `environment`, `clock` and `executor` are the fixture's own. `park_after` is
                0 here, so that no wait moves the clock by itself.
        """
        for name in ("environment", "clock", "executor"):
            if name in options:
                raise InvalidInputError(f"stepwell_engine has virtual time: make an Engine of your own to give {name}=")
        env = Environment(clock=self.clock, entropy=self._entropy, executor=InlineExecutor(), threads=False)
        engine = Engine(self._store(), workflows, environment=env, **{"park_after": 0, **options})
        self._engines.append(engine)
        return engine

    def pass_time(self, duration: timedelta | float = 0) -> list[Outcome[Any]]:
        """Move the clock on, and drive every run at the instant at which it becomes due, with the newest engine.

        Args:
            duration: timedelta or seconds.

        Returns:
            The outcomes in the order of time, as `Engine.run_due` gives them.

        Raises:
            InvalidInputError: there is no engine yet.
        """
        if not self._engines:
            raise InvalidInputError("make an engine first: stepwell_engine(workflow)")
        engine, found = self._engines[-1], list[Outcome[Any]]()
        end = self.clock.now() + timedelta(seconds=as_seconds(duration, "duration"))
        while True:
            found += engine.run_due()
            due = engine.store.next_due()
            if due is None or (instant := from_micros(due)) > end:
                self.clock.advance_to(end)
                return found
            self.clock.advance_to(instant)

    def close(self) -> None:
        """Close all engines and the store."""
        for engine in reversed(self._engines):
            engine.close()
        if self._memory is not None:
            self._memory.close()

    def _store(self) -> Store:
        if not self.url.startswith("memory:"):
            return open_store(self.url, clock=self.clock.micros)
        if self._memory is None:
            self._memory = open_store(self.url, clock=self.clock.micros)
        kept: Any = _Kept(self._memory)
        return kept  # type: ignore[no-any-return]


def clock_of(request: pytest.FixtureRequest) -> VirtualClock:
    """The clock that a test asks for."""
    start = _marked(request).get("start") or EPOCH
    if not isinstance(start, datetime):
        raise pytest.UsageError(f"@pytest.mark.stepwell(start=...) takes an aware datetime, got {start!r}")
    return VirtualClock(start)


@contextmanager
def factory_for(request: pytest.FixtureRequest, clock: VirtualClock) -> Iterator[EngineFactory]:
    """The factory that a test asks for, closed at its end."""
    marked, config = _marked(request), request.config
    chosen = marked.get("store") or config.getoption("--stepwell-store") or config.getini("stepwell_store")

    def folder() -> Path:
        found: Path = request.getfixturevalue("tmp_path")
        return found

    seed = marked.get("seed")
    factory = EngineFactory(_url(str(chosen), folder), clock, 0 if seed is None else seed)
    try:
        yield factory
    finally:
        factory.close()


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers of a test say; the nearest first."""
    found: dict[str, Any] = {}
    for mark in request.node.iter_markers("stepwell"):
        unknown = set(mark.kwargs) - _OPTIONS
        if mark.args or unknown:
            wrong = ", ".join(sorted(unknown)) or repr(mark.args[0])
            raise pytest.UsageError(f"@pytest.mark.stepwell takes {', '.join(sorted(_OPTIONS))}, and got {wrong}")
        found = {**mark.kwargs, **found}
    return found


def _url(chosen: str, folder: Callable[[], Path]) -> str:
    """The URL of a store, each test's own."""
    url = _KINDS.get(chosen, chosen)
    url = url.replace("{tmp}", str(folder())) if "{tmp}" in url else url
    try:
        open_store(url).close()  # opens nothing yet, and refuses what is no URL
    except StepwellError as error:
        kinds = ", ".join(_KINDS)
        raise pytest.UsageError(f"stepwell: no store for this test: {error.message}; or one of: {kinds}") from None
    return url

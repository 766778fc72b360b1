"""A store whose process dies at a chosen write, and engines that go on after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell import Engine, Workflow
from stepwell.testing import VirtualClock

from .tools import Wrapped

WRITES = ("create", "append", "open_incarnation", "claim", "claim_due", "release")


class Crash(BaseException):
    """The process dies here."""


class Dying(Wrapped):
    """Counts the writes of an engine, and dies before or after one of them.

    Args:
        inner: the store.
        nth: the write at which it dies, from 1; 0 never does.
        after: whether that write is done.
    """

    def __init__(self, inner: Any, nth: int, *, after: bool) -> None:
        super().__init__(inner)
        self.writes = 0
        self._nth, self._after = nth, after
        for name in WRITES:
            setattr(self, name, self._counted(getattr(inner, name)))

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*where: Any, **how: Any) -> Any:
            self.writes += 1
            if self.writes == self._nth and not self._after:
                raise Crash
            done = write(*where, **how)
            if self.writes == self._nth:
                raise Crash
            return done

        return call


def every_death(
    bench: Any,
    workflows: tuple[Workflow[..., Any], ...],
    act: Callable[[Engine, int], object],
    check: Callable[[Engine, int], None],
    *,
    most: int = 400,
) -> int:
    """Do something with an engine that dies before and after each of its writes in turn; what is left is driven on.

    Args:
        act: is given the engine and a number of its own; its run ids must hold it.
        check: is given a fresh engine, once nothing is due any more, and the same number.

    Returns:
        How often it died.
    """
    clock = VirtualClock()
    store = bench.store(clock.micros)
    deaths = 0
    for nth in range(1, most):
        died = False
        for after in (False, True):
            number = 2 * nth + after
            died = not _survived(bench, workflows, act, Dying(store, nth, after=after), clock, number)
            deaths += died
            drive_on(bench, workflows, store, clock)
            engine = bench.engine(*workflows, store=store, clock=clock)
            check(engine, number)
        if not died:
            return deaths
    raise AssertionError(f"it writes more than {most} times")


def _survived(
    bench: Any, workflows: Any, act: Callable[[Engine, int], object], store: Any, clock: VirtualClock, number: int
) -> bool:
    engine = bench.engine(*workflows, store=store, clock=clock)
    try:
        act(engine, number)
    except Crash:
        return False
    return True


def drive_on(bench: Any, workflows: Any, store: Any, clock: VirtualClock) -> None:
    """What a worker would do in an hour: its leases lapse, and everything that becomes due is driven."""
    engine = bench.engine(*workflows, store=store, clock=clock)
    for _ in range(8):
        clock.advance(31)
        engine.run_due()

"""From what a caller gives to an engine, a store and a listener. Floor 4."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from .errors import InvalidInputError
from .lifecycle import BudgetSpent, LifecycleEvent
from .logs import logger
from .store import Store

__all__ = ["import_early", "open_store", "shown_url", "teller"]


def open_store(store: str | Store) -> Store:
    """The store of a URL, or the object that was given.

    Raises:
        InvalidInputError: it is neither.
        StoreMisconfiguredError: the URL's scheme is not known, or the address is malformed.
    """
    if isinstance(store, str):
        from stepwell_stores import open_store as open_url  # late: the engine does not depend on the stores

        return open_url(store)
    # by its attributes, not by isinstance: a wrapper may hand them on with __getattr__
    if not all(callable(getattr(store, name, None)) for name in ("create", "append", "read", "head", "claim")):
        raise InvalidInputError(f"store must be a URL such as 'sqlite:///runs.db', or a Store object, got {store!r}")
    return store


def shown_url(url: str) -> str:
    """A store's URL without its password."""
    from stepwell_stores import masked  # late, as above

    return masked(url)


def teller(
    on_event: Callable[[LifecycleEvent], None] | None, meter: Callable[[BudgetSpent], None] | None = None
) -> Callable[[LifecycleEvent], None]:
    """What gives lifecycle events to a listener, and charges to a meter, and never raises."""
    if on_event is not None and not callable(on_event):
        raise InvalidInputError(f"on_event must be a callable that takes a lifecycle event, got {on_event!r}")
    if meter is not None and not callable(meter):
        raise InvalidInputError(f"meter must be a callable that takes a BudgetSpent, got {meter!r}")

    def tell(event: LifecycleEvent) -> None:
        if on_event is not None:
            try:
                on_event(event)
            except Exception:  # noqa: BLE001 - it is the user's code
                logger.exception("the on_event listener raised; the run goes on")
        if meter is not None and isinstance(event, BudgetSpent):
            try:
                meter(event)
            except Exception:  # noqa: BLE001 - it is the user's code
                logger.exception("the meter raised; the run goes on")

    return tell


def import_early() -> None:
    """Import what an engine may need when nothing can be imported any more.

    A process that has no descriptor left can't read a module's file, and must still be able to log and to branch.
    """
    import_module("logging")
    import_module("stepwell.pools")

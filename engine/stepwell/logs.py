"""Logging: the library's own logger, and one for workflows that is silent while a history is replayed. Floor 4.

`logging` is imported when something is logged: it takes as long as a third of all else that the library imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import logging

__all__ = ["get_logger", "held_back", "let_out", "logger", "replaying"]


class _Later:
    """Stands for the library's own logger until it is used."""

    def __getattr__(self, name: str) -> Any:
        import logging

        own = logging.getLogger("stepwell")
        if not any(isinstance(handler, logging.NullHandler) for handler in own.handlers):
            own.addHandler(logging.NullHandler())
        return getattr(own, name)


logger = cast("logging.Logger", _Later())

# True while a history is replayed; a list while it is not known yet whether what happens now is new.
_replaying: ContextVar[bool | list[logging.LogRecord]] = ContextVar("stepwell_replaying", default=False)


@contextmanager
def replaying() -> Iterator[None]:
    """While this lasts, workflow loggers are silent: what happens now was logged before."""
    token = _replaying.set(True)
    try:
        yield
    finally:
        _replaying.reset(token)


@contextmanager
def held_back() -> Iterator[list[logging.LogRecord]]:
    """While this lasts, what workflow loggers are given is kept in the list; `let_out` logs it once it is wanted."""
    held: list[logging.LogRecord] = []
    token = _replaying.set(held)
    try:
        yield held
    finally:
        _replaying.reset(token)


def let_out(held: list[logging.LogRecord]) -> None:
    """Log what `held_back` kept."""
    if not held:
        return
    import logging

    for record in held:
        logging.getLogger(record.name).handle(record)


class _ReplayFilter:
    def filter(self, record: logging.LogRecord) -> bool:
        state = _replaying.get()
        if isinstance(state, list):
            state.append(record)
            return False
        return not state


def get_logger(name: str = "stepwell.workflow") -> logging.Logger:
    """Give the standard logger of that name, silent while a workflow is replayed.

    Use it in workflow code, so that a line is logged when the code first passes there and not once more at every
    resume.
    """
    import logging

    found = logging.getLogger(name)
    if not any(isinstance(f, _ReplayFilter) for f in found.filters):
        found.addFilter(_ReplayFilter())
    return found

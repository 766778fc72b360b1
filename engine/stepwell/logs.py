"""Logging: the library's own logger, and one for workflows that is silent while a history is replayed. Floor 4."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["get_logger", "logger", "replaying"]

logger = logging.getLogger("stepwell")
logger.addHandler(logging.NullHandler())

_replaying: ContextVar[bool] = ContextVar("stepwell_replaying", default=False)


@contextmanager
def replaying() -> Iterator[None]:
    """While this lasts, workflow loggers are silent: what happens now was logged before."""
    token = _replaying.set(True)
    try:
        yield
    finally:
        _replaying.reset(token)


class _ReplayFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _replaying.get()


def get_logger(name: str = "stepwell.workflow") -> logging.Logger:
    """Give the standard logger of that name, silent while a workflow is replayed.

    Use it in workflow code, so that a line is logged when the code first passes there and not once more at every resume.
    """
    found = logging.getLogger(name)
    if not any(isinstance(f, _ReplayFilter) for f in found.filters):
        found.addFilter(_ReplayFilter())
    return found

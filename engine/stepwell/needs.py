"""Which closed runs others still need. Floor 4."""

from __future__ import annotations

from typing import Any

from . import events as e
from .errors import RunArrivingError, RunMovedError
from .store import RunHead, Store, envelope

__all__ = ["needed_by", "waiting_parent"]


def needed_by(store: Store, start: e.Start) -> str | None:
    """Why a closed run has to stay, however old it is; None when nothing needs it.

    A child's result stays until its parent is closed, since the parent may not have taken it yet. A parent that is
    gone, or in another incarnation, asks for it no more. A fork has a copy of what it took over and needs nothing.

    Args:
        start: the first event of the run's current incarnation.
    """
    try:
        head = _open_parent(store, start)
    except RunMovedError:
        return None  # with what it needed
    except RunArrivingError as error:
        return error.message
    if head is None:
        return None
    return f"it is a child of run {head.run_id!r}, which is open and may not have taken its result yet"


def waiting_parent(store: Store, start: e.Start) -> RunHead | None:
    """The open run that waits for the end of this one.

    Raises:
        RunMovedError, RunArrivingError: it is not in this store.
    """
    detached = start.parent is not None and start.parent.get("detached")
    return None if detached else _open_parent(store, start)


def _open_parent(store: Store, start: e.Start) -> RunHead | None:
    parent: dict[str, Any] | None = getattr(start, "parent", None)
    if parent is None:
        return None
    head = store.head(str(parent.get("runId")))
    if head is None or head.closed or head.incarnation != parent.get("incarnation"):
        return None
    first, began = store.read(head.run_id, 0, incarnation=head.incarnation, limit=1), parent.get("session")
    if began is not None and first is not None and first.records and envelope(first.records[0]).session != began:
        return None  # the parent was removed, and its run id is used again
    return head

"""Marking a run whose code and history don't fit, so that no worker claims it until the code changes. Floor 4."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from . import events as e
from . import lifecycle as lc
from .errors import CorruptHistoryError, StepwellError
from .loading import Loaded, Parts, blocked_by, make_head
from .logs import logger
from .recorder import Recorder
from .registry import known_workflow
from .store import Head, Lease

__all__ = ["block_driven", "block_leased"]


def block_driven(parts: Parts, recorder: Recorder, run: Loaded, error: StepwellError) -> None:
    """Mark the run that a session drives."""
    run_id = run.run_id
    logger.warning("run %r is blocked: %s", run_id, error)
    try:
        there = parts.store.head(run_id)
        before = None if there is None else there.head.blocked
        blocked = blocked_by(error, run.workflow, parts.registry, before)
        # due at once, so that it is tried again as soon as the code changes
        recorder.give_up(make_head(parts, run.start, "pending", due=parts.now(), blocked=blocked))
    except Exception as failed:  # noqa: BLE001 - the error that is being told of matters more
        logger.warning("run %r could not be marked as blocked: %s", run_id, failed)
    parts.tell(lc.RunBlocked(run_id, error.code, error.message))


def block_leased(parts: Parts, lease: Lease, error: StepwellError) -> None:
    """Mark a run that could not even be loaded."""
    run_id = lease.run_id
    now, seq, workflow = e.micros(parts.now()), lease.seq, None
    row = Head("pending", "", "", now, now, due=now)  # when its own is damaged too
    try:
        with suppress(CorruptHistoryError):
            head = parts.store.head(run_id)
            if head is None:
                return
            row, seq, workflow = head.head, head.seq, known_workflow(parts.registry, head)
        blocked = blocked_by(error, workflow, parts.registry, row.blocked)
        row = replace(row, blocked=blocked, updated=now)
        Recorder(parts.store, parts.environment.clock, lease, seq).give_up(row)
    except StepwellError as failed:
        logger.warning("run %r could not be marked as blocked: %s", run_id, failed)
        with suppress(StepwellError):
            parts.store.release(lease)
    parts.tell(lc.RunBlocked(run_id, error.code, error.message))

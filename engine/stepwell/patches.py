"""Which open runs are on the old side of a change, so that its `Patched` has to stay in the code. Floor 4."""

from __future__ import annotations

import inspect
from contextlib import suppress
from types import CodeType
from typing import Any

from . import events as e
from .errors import CodecError, DivergenceError, InvalidInputError, NotFoundError
from .loading import Parts, load, read_history
from .outcomes import RunRecord
from .reading import record_of
from .registry import known_workflow
from .store import HeadFilter, RunHead
from .workflows import Workflow

__all__ = ["find_unpatched"]

_PAGE = 500


def find_unpatched(parts: Parts, change_id: str, workflow: str | None) -> list[RunRecord]:
    """The open runs that were answered False, or may have been, newest first.

    Args:
        workflow: only runs of this one; None: of any.
    """
    found: list[RunRecord] = []
    after: str | None = None
    while page := parts.store.heads(HeadFilter(workflow=workflow, closed=False), limit=_PAGE, after=after):
        found += [record_of(head) for head in page if _is_old(parts, head, change_id)]
        after = page[-1].run_id
    return found


def _is_old(parts: Parts, head: RunHead, change_id: str) -> bool:
    """Whether a run goes the old way: by its code when that is at hand and fits, else by its history alone."""
    workflow = known_workflow(parts.registry, head)
    try:
        if workflow is None or not any(_asks(one, change_id) for one in parts.registry.versions(workflow.name)):
            return not _is_recorded(parts, head, change_id)
        try:
            run = load(parts, head.run_id, incarnation=head.incarnation)
        except (DivergenceError, CodecError, InvalidInputError):
            return not _is_recorded(parts, head, change_id)
        answer = run.machine.patches.get(change_id)
        parts.parked.keep(run)
        return answer is False  # one that is not answered yet will be True
    except NotFoundError:  # deleted or begun anew meanwhile
        return False


def _asks(workflow: Workflow[..., Any], change_id: str) -> bool:
    """Whether the id stands in the code of a workflow, or in its module, where its helpers are.

    When it does in no version, it is mistyped, or the question is out of the code already, and an unanswered run says
    nothing. When it does in one, those on the other versions will never be asked.
    """
    module = inspect.getmodule(workflow.fn)
    with suppress(OSError, TypeError):  # typed at a prompt: the byte code alone has to do
        if module is not None and change_id in inspect.getsource(module):
            return True
    return _holds(workflow.fn.__code__, change_id)


def _holds(code: CodeType, text: str) -> bool:
    return any(const == text or (isinstance(const, CodeType) and _holds(const, text)) for const in code.co_consts)


def _is_recorded(parts: Parts, head: RunHead, change_id: str) -> bool:
    """Whether a history says that the run has the change."""
    for event in read_history(parts.store, head.run_id, incarnation=head.incarnation):
        if isinstance(event, e.Patch) and event.change_id == change_id:
            return True
        if isinstance(event, e.Retry) and event.patches.get(change_id):
            return True
    return False

"""What a history says of a question: whether it was decided, by whom, and when. Floor 4.

A decision names the wait id of its question. It is written by comparing and appending, at the position up to which the
history was looked at, so of two people who decide at once one is recorded and the other is told by whom.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from . import events as e
from .errors import CorruptHistoryError, EventMismatchError
from .loading import Parts, read_history
from .logs import logger
from .signals import Message, metadata_of, payload

__all__ = ["Standing", "is_decided", "settles", "show_of", "standing"]

NEAR = 32
"""Events at the end of a history among which a question is looked for first: a parked run has just asked it."""


class Standing(msgspec.Struct, eq=False):
    """How it stands with one question.

    Attributes:
        asked: where the question is recorded; None when it is not.
        answer: the signal or the time-out that ended it.
        ended: what ended the run's waiting for anything: a cancel, or the close.
        same_id: the signal that came with the id of the decision at hand.
        earlier: that id came before a ContinueAsNew, in an earlier history of the run.
        seq: the position of the next event.
    """

    asked: e.Suspend | None = None
    answer: e.Resume | e.Wake | None = None
    ended: e.EventBase | None = None
    same_id: e.Resume | None = None
    earlier: bool = False
    seq: int = 0


def standing(history: Iterable[e.EventBase], wait: str, signal_id: str = "") -> Standing:
    """How it stands with the question of a wait id, by the history alone: no code of the workflow is needed."""
    found, seen = Standing(), set[str]()
    name, waiting = wait.rpartition("@")[0], list[e.Suspend]()  # questions of that name, oldest first
    for event in history:
        found.seq += 1
        if isinstance(event, e.Suspend) and event.waiting_for == name:
            waiting.append(event)
            if event.wait == wait:
                found.asked = event
        elif isinstance(event, e.Resume):
            if event.id and event.id == signal_id and found.same_id is None:
                found.same_id = event
            if event.event_name == name and not (event.id and event.id in seen):
                _answer(found, waiting, event, wait)
            seen.add(event.id)
        elif isinstance(event, e.Wake):
            if found.answer is None and found.asked is not None and event.at == found.asked.at:
                found.answer = event
            waiting = [one for one in waiting if one.at != event.at]
        elif isinstance(event, e.Start):
            found.earlier = bool(signal_id) and signal_id in event.seen
        elif isinstance(event, (e.Cancel, e.CLOSING)) and event.at is None:
            found.ended = event
    return found


def _answer(found: Standing, waiting: list[e.Suspend], event: e.Resume, wait: str) -> None:
    """Take in a signal: one that names no wait goes to the oldest question of its name."""
    to = event.wait or (waiting[0].wait if waiting else None)
    waiting[:] = [one for one in waiting if one.wait != to]
    if to == wait and found.answer is None:
        found.answer = event


def is_decided(parts: Parts, run_id: str, message: Message, incarnation: int | None = None) -> bool:
    """Whether this very decision is recorded already, under its id: it counts once.

    Raises:
        EventMismatchError: the question was decided otherwise, or is over; the text says by whom and when.
        InvalidInputError: the payload can't be compared, because it can't be recorded.
    """
    assert message.wait is not None
    known = standing(read_history(parts.store, run_id, incarnation=incarnation), message.wait, message.id)
    return settles(parts, run_id, message, known)


def settles(parts: Parts, run_id: str, message: Message, known: Standing) -> bool:
    """As `is_decided`, for what is read already."""
    before = known.same_id
    if before is None and known.earlier and known.asked is None:
        return True  # its question was answered in a history that has ended; ids of signals are carried over
    if before is not None and before is known.answer and _is_same(parts, before, message):
        return True
    answer = known.answer
    about = f"run {run_id!r}: question {message.wait!r}"
    if isinstance(answer, e.Resume):
        who = f"by {answer.actor!r}" if answer.actor is not None else "by somebody who gave no name"
        raise EventMismatchError(
            f"{about} was decided {who} at {answer.timestamp}; a decision can't be made twice or changed",
            run_id=run_id,
            wait=message.wait,
            decided_by=answer.actor,
            decided_at=e.parse_instant(answer.timestamp),
        )
    if answer is not None:
        raise EventMismatchError(
            f"{about} timed out at {answer.timestamp}; nobody can decide it any more", run_id=run_id, wait=message.wait
        )
    if before is not None:
        raise EventMismatchError(
            f"{about}: the id {message.id!r} was used at {before.timestamp} for another signal of this run; "
            "a decision needs an id of its own",
            run_id=run_id,
            wait=message.wait,
        )
    return False


def _is_same(parts: Parts, before: e.Resume, message: Message) -> bool:
    """Whether a recorded signal says what this one says: a delivery that was repeated, not another decision."""
    codec = parts.codec
    raw = payload(codec, None, message.name, message.value, message.into)
    extra = metadata_of(codec, message.metadata)
    return (
        before.event_name == message.name
        and before.wait == message.wait
        and before.actor == message.actor
        and codec.digest(before.value) == codec.digest(raw)
        and _digest(codec, before.metadata) == _digest(codec, extra)
    )


def _digest(codec: Any, raw: Any) -> str:
    return "" if raw is e.UNSET else str(codec.digest(raw))


def show_of(parts: Parts, run_id: str, incarnation: int, seq: int, wait: str) -> Any:
    """What a question shows to people, as plain JSON shapes; None when nothing, or when it is not recorded.

    Args:
        seq: length of the history: the question is looked for near its end first.
    """
    near = max(0, seq - NEAR)
    try:
        for start in (near, 0) if near else (0,):
            for event in read_history(parts.store, run_id, start, incarnation=incarnation):
                if isinstance(event, e.Suspend) and event.wait == wait:
                    return None if event.show is e.UNSET else parts.codec.decode(event.show)
    except CorruptHistoryError as error:  # one damaged run must not hide what all the others wait for
        logger.warning("what run %r shows can't be read: %s", run_id, error)
    return None

"""`stepwell verify`: read every byte of a store, and every event in it. No record is changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from attrs import define, field, frozen

from .. import events as e
from ..errors import CorruptHistoryError, NewerFormatError, StepwellError, StoreError, StoreMisconfiguredError
from ..store import Store, Verified, envelope
from ..wire import read_event
from .describing import many
from .mistakes import DAMAGED, OK, TRY_AGAIN
from .opening import open_engine
from .progress import Progress
from .terminal import Terminal, safe

__all__ = ["verify"]

_ENVELOPE = 200  # bytes, more than a record's envelope takes before its attempt id


def verify(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell verify`: 4 when anything is wrong, 3 when it was merely busy; what is merely unusual is noted."""
    with open_engine(options) as engine:
        found = _read(engine.store)
    if options.json:
        terminal.json(found.json())
    else:
        found.show(terminal)
    if found.problems and all(one.retryable for one in found.problems):
        return TRY_AGAIN
    return DAMAGED if found.problems else OK


@frozen
class _Problem:
    """Something that is wrong, and where; seq and byte as far as they are known."""

    place: str
    seq: int | None
    byte: int | None
    code: str
    message: str
    retryable: bool = False

    @classmethod
    def of(cls, error: StepwellError, place: str, seq: int | None = None) -> _Problem:
        """What an error tells; it names its own place better than the part that it was found in."""
        own, byte = "", -1
        if isinstance(error, CorruptHistoryError):
            own, byte = error.place, error.byte
            seq = error.seq if error.seq >= 0 else seq
        message = " ".join(error.message.split()).removeprefix(f"{own or place}: ")
        return cls(own or place, seq, byte if byte >= 0 else None, error.code, message, error.retryable)

    @property
    def where(self) -> str:
        """The place with seq and byte, unless it names them itself."""
        at = (("seq", self.seq), ("byte", self.byte))
        more = (f"{name} {value}" for name, value in at if value is not None)
        return ", ".join([self.place, *(text for text in more if text not in self.place)])


@define
class _Findings:
    """What was read, and what is wrong or unusual in it."""

    run_ids: set[str] = field(factory=set)
    incarnations: int = 0
    records: int = 0
    size: int = 0
    complete: bool = True
    problems: list[_Problem] = field(factory=list)
    notes: list[tuple[str, str]] = field(factory=list)

    def take(self, part: Verified) -> None:
        """Count a part, and look at its events.

        Raises:
            StoreMisconfiguredError: they are encrypted, compressed or elsewhere; nothing was counted.
        """
        wrong = [] if part.problem is not None else list(_wrong_events(part))
        if part.run_id is not None:
            self.run_ids.add(part.run_id)
        if part.incarnation is not None:
            self.incarnations += 1
        self.records += len(part.records)
        self.size += part.size
        self.complete = self.complete and not part.unread
        if part.note is not None:
            self.notes.append((part.place, part.note))
        if part.problem is not None:
            self.problems.append(_Problem.of(part.problem, part.place))
        else:
            self.problems += wrong

    def json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        problems = [
            {"place": one.place, "seq": one.seq, "byte": one.byte, "code": one.code, "message": one.message}
            for one in self.problems
        ]
        return {
            "runs": len(self.run_ids),
            "incarnations": self.incarnations,
            "records": self.records,
            "bytes": self.size,
            "complete": self.complete,
            "problems": problems,
            "notes": [{"place": place, "note": note} for place, note in self.notes],
        }

    def show(self, terminal: Terminal) -> None:
        """Write a line for each problem and note, and what was read."""
        for one in self.problems:
            terminal.write(terminal.styled("problem", "bad") + safe(f"  {one.where}: {one.message}"))
        for place, note in self.notes:
            terminal.write(terminal.styled("note", "wait") + safe(f"     {place}: {note}"))
        counts = (len(self.run_ids), "run"), (self.incarnations, "incarnation"), (self.records, "record")
        read = ", ".join(many(number, what) for number, what in (*counts, (self.size, "byte")))
        wrong = many(len(self.problems), "problem") if self.problems else "no problem"
        all_of_it = "" if self.complete else ", but not all of the store"
        terminal.write(f"{read} read{all_of_it}: {terminal.styled(wrong, 'bad' if self.problems else 'good')}")


def _read(store: Store) -> _Findings:
    """Read the store from its first part to its last, or as far as it can be read."""
    found = _Findings()
    with Progress(sys.stderr, "reading the store") as progress:
        try:
            for part in store.verify():
                found.take(part)
                progress.show(part.share, many(len(found.problems), "problem") if found.problems else "")
        except (CorruptHistoryError, StoreError) as error:
            mistaken = isinstance(error, NewerFormatError) and not found.size
            mistaken = mistaken or (isinstance(error, StoreMisconfiguredError) and not found.records)
            if mistaken or (error.retryable and not found.problems):  # then nothing is wrong with the store
                raise
            found.complete = False
            found.problems.append(_Problem.of(error, str(getattr(store, "path", type(store).__name__))))
    return found


def _wrong_events(part: Verified) -> Iterator[_Problem]:
    """What is wrong with records that are whole: they are no events, or stand where they can't."""
    last = len(part.records) - 1
    for seq, line in enumerate(part.records):
        try:
            event = read_event(line, part.place)
            closed = b'"then":"closed",' in line[:_ENVELOPE] and envelope(line, part.place).then == "closed"
        except CorruptHistoryError as error:
            yield _Problem.of(error, part.place, seq)
            continue
        wrong = _misplaced(event, seq, last, closed=closed, incarnation=part.incarnation)
        if wrong:
            yield _Problem(part.place, seq, None, CorruptHistoryError.code, wrong)


def _misplaced(event: e.EventBase, seq: int, last: int, *, closed: bool, incarnation: int | None) -> str:
    """Why an event can't stand where it does, or ""."""
    closing = isinstance(event, e.CLOSING) and event.at is None
    if seq == 0 and not isinstance(event, e.Start):
        return f"a history begins with a 'start' event, and this one with {event.kind!r}"
    if isinstance(event, e.Start) and seq > 0:
        return "a 'start' event in the midst of a history"
    if isinstance(event, e.Start) and incarnation not in (None, event.incarnation):
        return f"it is the start of incarnation {event.incarnation}, and stands in incarnation {incarnation}"
    if seq < last and (closing or closed):
        return f"it closes the run, and {many(last - seq, 'record')} follow it"
    if closing != closed:
        return f"a {event.kind!r} event, and its envelope says that the run is {'closed' if closed else 'open'}"
    return ""

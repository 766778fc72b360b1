"""Everything that happens in a simulation, in order: what is recorded, called, sent, and how time moves."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from ..store import AlreadyCommitted, Committed, Created, Draft, Store

__all__ = ["Chronicle", "RecordingStore", "traced"]

_MOST = 2_000
"""Lines that are kept; of a longer story the middle is left out."""

_LONGEST = 200

_NAMES = ("stepId", "waitingFor", "eventName", "workflow", "childId", "changeId", "name")
_VALUES = ("result", "value", "error", "amount", "reason", "due")

_listening: ContextVar[deque[Chronicle] | None] = ContextVar("stepwell_chronicles", default=None)


class Chronicle:
    """The story of one simulation.

    Args:
        now: tells the virtual time since its start.
    """

    def __init__(self, now: Callable[[], timedelta]) -> None:
        self._now = now
        self._lines: list[str] = []
        self._left_out = 0
        listening = _listening.get()
        if listening is not None:
            listening.append(self)

    def note(self, what: str, text: str = "") -> None:
        """Keep a line."""
        if len(self._lines) >= _MOST:
            del self._lines[_MOST // 2]
            self._left_out += 1
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        self._lines.append(f"{self._now()!s:<18} {what:11} {text}".rstrip())

    def recorded(self, run_id: str, main: str, drafts: Sequence[Draft]) -> None:
        """Keep what was recorded of a run."""
        for draft in drafts:
            found: dict[str, Any] = json.loads(b"{" + draft.body + b"}")
            name = next((str(found[key]) for key in _NAMES if key in found), "")
            parts = ["" if run_id == main else f"[{run_id}]", found.get("at", ""), name]
            parts += [f"{key}={_shown(found[key])}" for key in _VALUES if key in found]
            self.note(draft.type, " ".join(part for part in parts if part))

    def __str__(self) -> str:
        lines = list(self._lines)
        if self._left_out:
            lines.insert(_MOST // 2, f"... {self._left_out} lines are left out")
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "types" in value:
        return f"{str(next(iter(value['types']), '?')).rpartition('.')[2]}: {value.get('message', '')}"
    return json.dumps(value, ensure_ascii=False)


class RecordingStore:
    """A store around a store, which writes down what is recorded.

    Args:
        store: the store.
        chronicle: where to.
        main: id of the run that needs no name.
    """

    def __init__(self, store: Store, chronicle: Chronicle, main: str) -> None:
        self._store = store
        self._chronicle = chronicle
        self._main = main

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, run_id: str, records: Any, **how: Any) -> Any:
        return self._note(run_id, records, self._store.create(run_id, records, **how))

    def open_incarnation(self, run_id: str, incarnation: int, records: Any, **how: Any) -> Any:
        return self._note(run_id, records, self._store.open_incarnation(run_id, incarnation, records, **how))

    def append(self, run_id: str, incarnation: Any, expected_seq: Any, records: Any, **how: Any) -> Any:
        return self._note(run_id, records, self._store.append(run_id, incarnation, expected_seq, records, **how))

    def _note(self, run_id: str, records: Sequence[Draft], done: Any) -> Any:
        if isinstance(done, (Committed, Created)) and not isinstance(done, AlreadyCommitted):
            self._chronicle.recorded(run_id, self._main, records)
        return done


@contextmanager
def traced(*, most: int | None = None) -> Iterator[deque[Chronicle]]:
    """Collect the stories of the simulations that are made meanwhile, for whoever prints them when a test fails.

    Args:
        most: how many are kept, the newest; None keeps all.

    Yields:
        a deque that gets one for each call of `simulate`; `str()` of it is the text.

    Example:
        >>> from stepwell import Flow, Sleep, workflow
        >>> from stepwell.testing import simulate
        >>> @workflow
        ... def nap() -> Flow[None]:
        ...     yield Sleep(60)
        >>> with traced() as stories:
        ...     run = simulate(nap)
        >>> [line.split()[1] for line in str(stories[0]).splitlines()]
        ['start', 'sleep', 'time', 'wake', 'complete']
    """
    stories: deque[Chronicle] = deque(maxlen=most)
    token = _listening.set(stories)
    try:
        yield stories
    finally:
        _listening.reset(token)

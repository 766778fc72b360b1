"""The signals of one run: which ids it has seen, and which came before anybody waited for them. Floor 3."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from . import events as e

__all__ = ["MAX_SEEN", "Mailbox"]

MAX_SEEN = 1_000
"""How many ids of signals a ContinueAsNew carries over: a repeat of one that came long before would count again."""


class Mailbox:
    """Signals, in the order of the history.

    Args:
        seen: ids of signals that came in earlier histories of the run.

    Attributes:
        buffered: those that nobody has waited for yet, by name, oldest first; each with its offset.
    """

    def __init__(self, seen: Iterable[str] = ()) -> None:
        self.buffered: dict[str, deque[e.Resume]] = {}
        self._seen: dict[str, None] = dict.fromkeys(seen)  # in their order

    def has_seen(self, signal_id: str) -> bool:
        """Whether a signal of that id came."""
        return signal_id in self._seen

    def is_new(self, signal: e.Resume) -> bool:
        """Whether a signal came for the first time; from then on its id is known. Those without an id always do."""
        if signal.id in self._seen:
            return False
        if signal.id:
            self._seen[signal.id] = None
        return True

    def keep(self, signal: e.Resume, offset: int) -> None:
        """Keep a signal for whoever waits for its name next."""
        kept = structs.replace(signal, offset=offset)  # what isn't written yet has no offset
        self.buffered.setdefault(signal.event_name, deque()).append(kept)

    def carried(self) -> tuple[list[e.Resume], list[str]]:
        """What the next incarnation begins with: the signals that nobody has waited for, and the newest ids."""
        unread = sorted((one for signals in self.buffered.values() for one in signals), key=lambda one: one.offset)
        waiting = {one.id for one in unread}
        return unread, [one for one in list(self._seen)[-MAX_SEEN:] if one not in waiting]

    def take(self, name: str) -> e.Resume | None:
        """The oldest signal of a name, which is no longer buffered then."""
        early = self.buffered.get(name)
        return early.popleft() if early else None

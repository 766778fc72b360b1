"""What the engine takes from outside: time, chance and threads, as one explicit record. Floor 4.

A simulation gives its own and drives the same engine: virtual time, seeded chance, steps performed in the thread of the
caller.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from time import time_ns
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from .instants import instant, stamp

if TYPE_CHECKING:
    import uuid
    from concurrent.futures import Executor

__all__ = ["Clock", "Entropy", "Environment", "SystemClock", "SystemEntropy", "new_run_id", "new_token"]


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        """Block until the event is set or the seconds are over; True when it is set."""
        ...


class Entropy(Protocol):
    """Chance."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def uuid(self) -> uuid.UUID:
        """A random UUID."""
        ...


_second: tuple[int, str] = (0, "")


def _stamp_of_now() -> str:
    """This machine's time as the wire writes it, in one call: each step asks twice."""
    global _second  # noqa: PLW0603 - the last second, and how it is written
    seconds, rest = divmod(time_ns() // 1000, 1_000_000)
    known, text = _second
    if seconds != known:
        text = stamp(seconds * 1_000_000)[:19]
        _second = seconds, text
    return f"{text}.{rest:06}Z"


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        return wakeup.wait(min(seconds, threading.TIMEOUT_MAX))


class SystemEntropy:
    """The operating system's randomness."""

    def random(self) -> float:
        return (int.from_bytes(os.urandom(7), "big") >> 3) / 2**53  # as `random.SystemRandom` does

    def uuid(self) -> uuid.UUID:
        import uuid

        return uuid.uuid4()


def new_token() -> str:
    """32 random hex digits, for what has to be known again."""
    return os.urandom(16).hex()


@frozen
class Environment:
    """Time, chance and threads of one engine.

    Attributes:
        executor: runs steps of branches; None means a bounded pool of the engine's own, made at first use.
        threads: whether background threads are used, to renew leases and for steps with a time-out; a simulation in one
            thread does without.
    """

    clock: Clock = field(factory=SystemClock)
    entropy: Entropy = field(factory=SystemEntropy)
    executor: Executor | None = None
    threads: bool = True

    def stamper(self) -> Callable[[], str]:
        """What gives the clock's time as the wire writes it."""
        if type(self.clock) is SystemClock:  # the same, and no datetime, which takes longer than all the rest
            return _stamp_of_now
        return lambda: instant(self.clock.now())

    def make_executor(self) -> Executor:
        """The pool that is used when none was given."""
        from .pools import DaemonPool  # when a branch needs it: with it come modules that few programs use

        return DaemonPool(min(32, 4 * (os.cpu_count() or 1)))


_id_lock = threading.Lock()
_last_id = 0


def _unlock_in_child() -> None:
    """A forked child must not wait for a thread that only its parent has."""
    global _id_lock  # noqa: PLW0603 - one lock for the process
    _id_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def new_run_id() -> str:
    """A UUID of version 7: sortable by time, and rising within a process. Source: RFC 9562, section 5.7."""
    global _last_id  # noqa: PLW0603 - a process has one sequence of ids
    with _id_lock:
        stamp = time_ns() * 4096 // 1_000_000  # milliseconds, and 12 bits below them
        _last_id = stamp = max(stamp, _last_id + 1)
    high = ((stamp >> 12) & (2**48 - 1)) << 16 | 0x7000 | (stamp & 0xFFF)
    low = int.from_bytes(os.urandom(8), "big") & (2**62 - 1) | 2**63
    digits = f"{high << 64 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

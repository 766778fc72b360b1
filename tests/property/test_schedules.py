"""Long seeded schedules: 2,000 of them, and proof that they can fail."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from tests.property.schedules import run_seed

from stepwell.flights import Flights
from stepwell.scheduler import Scheduler
from stepwell.session import Session
from stepwell_stores.memory import MemoryStore

CHUNK = 100
SOMETIMES = (
    "closed cancelled",
    "closed complete",
    "closed error",
    "crash after an append",
    "crash before an append",
    "crash while waiting",
    "lease lost",
    "outside again",
    "outside bad",
    "outside cancel",
    "outside pause",
    "outside resume",
    "outside unpause",
    "outside wait",
    "taken over",
    "unknown",
)


@pytest.mark.parametrize("first", range(0, 2000, CHUNK))
def test_every_schedule_ends_and_live_equals_replay(first: int) -> None:
    """A hundred seeds keep every invariant, and meet every kind of fault. Shows S2, S17 (P2, P7)."""
    met: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        met += run_seed(seed)
    assert [] == [name for name in SOMETIMES if not met[name]]


def caught(seeds: range) -> bool:
    """Whether one of the seeds finds that something is wrong."""
    for seed in seeds:
        try:
            run_seed(seed)
        except Exception:
            return True
    return False


def test_losing_what_a_cancelled_step_brought_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in flight that is answered as cancelled loses an effect."""

    def careless(self: Flights, pending: Any) -> bool:
        flight = self.under_way.get(pending.at)
        if flight is not None:
            self._drop(flight)
        return True

    monkeypatch.setattr(Flights, "may_cancel", careless)
    assert caught(range(600))


def test_feeding_before_recording_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that the workflow sees before it is on disk makes live differ from replay."""
    record = Session._record_outcomes

    def hasty(self: Session) -> None:
        for event in list(self._outcomes.values()):
            if getattr(event, "at", None) in self.machine.pending:
                self.machine.feed(event)
                self._batch.append(event)
        self._outcomes.clear()
        record(self)

    monkeypatch.setattr(Session, "_record_outcomes", hasty)
    assert caught(range(300))


def test_keeping_what_was_fed_and_not_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is ahead of the history has to be built again after a conflict."""
    catch_up = Session._catch_up

    def stubborn(self: Session) -> None:
        self._batch.clear()
        catch_up(self)

    monkeypatch.setattr(Session, "_catch_up", stubborn)
    assert caught(range(300))


def test_a_store_without_fences_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale owner whose appends land breaks the order of fences."""
    append = MemoryStore.append

    def unfenced(self: MemoryStore, run_id: str, incarnation: Any, expected_seq: Any, records: Any, **how: Any) -> Any:
        if how.get("fence") is not None:
            head = self.head(run_id)
            tail = self.read(run_id)
            if head is not None and tail is not None and head.fence != how["fence"] and not head.closed:
                how["fence"] = head.fence
                expected_seq = tail.seq
        return append(self, run_id, incarnation, expected_seq, records, **how)

    monkeypatch.setattr(MemoryStore, "append", unfenced)
    assert caught(range(300))


def test_an_order_that_is_left_to_chance_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fibers that go on in an order of their own fold one history to two states."""
    answer = Scheduler.answer
    chance = random.Random(1)

    def careless(self: Scheduler, fiber: Any, verdict: Any, *, first: bool = False) -> None:
        answer(self, fiber, verdict, first=chance.random() < 0.5)

    monkeypatch.setattr(Scheduler, "answer", careless)
    assert caught(range(100))


def test_a_violation_tells_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note of a failure holds the one command that repeats it."""
    monkeypatch.setattr(Session, "_catch_up", lambda self: self._batch.clear())
    found: BaseException | None = None
    for seed in range(300):
        try:
            run_seed(seed)
        except Exception as error:
            found = error
            break
    assert found is not None
    assert any("schedules.py --seed" in note for note in found.__notes__)

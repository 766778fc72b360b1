"""Stores that share a bucket, one of them asleep before each of its writes while others go on: nothing stale lands.

Everything happens in one thread, on a bucket in memory: before an object is written, another store may do something of
its own, up to removing the run and giving its key away. So a pause costs microseconds, and thousands are made.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from obstore.store import MemoryStore

from stepwell.errors import CorruptHistoryError, NotFoundError
from stepwell.store import AlreadyCommitted, Committed, Created, Exists, HeadFilter, Lease, LeaseRequest, envelope, seal
from stepwell.testing.contract import ManualClock, a_head, a_record, a_start
from stepwell_stores.s3 import S3Store
from stepwell_stores.s3 import log as s3_log
from stepwell_stores.s3.bucket import Bucket
from stepwell_stores.s3.entries import decode

RUN = "r"


class Sleeper:
    """One store, and what it believes to own."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.store = S3Store(world.objects, clock=world.clock, keep_deleted=30)
        self.lease: Lease | None = None
        self.seq = 0
        bucket = self.store._opening.writing()
        real, apart = bucket._put, name

        def put(key: str, data: bytes, mode: Any) -> None:
            if key.startswith("runs/") and not key.endswith("lease"):
                world.sleep(apart)
            real(key, data, "overwrite" if world.planted and mode == "create" else mode)

        bucket._put = put  # type: ignore[method-assign]
        bucket.later = lambda call: call()  # type: ignore[assignment, method-assign]

    def act(self) -> None:
        """Do one thing."""
        chance = self.world.chance
        if self.lease is not None and chance.random() < 0.6:
            self.append(self.lease)
        else:
            chance.choice([self.create, self.claim, self.claim, self.tell, self.release, self.wait, self.remove])()

    def append(self, lease: Lease) -> None:
        closes = self.world.chance.random() < 0.15
        value = f"{self.name} {self.world.counts['appends']}"
        self.world.counts["appends"] += 1
        done = self._tried(
            lambda: self.store.append(
                RUN,
                lease.incarnation,
                self.seq,
                [a_record(value)],
                attempt_id="x",
                head=a_head(status="completed" if closes else "pending"),
                fence=lease.fence,
                then="closed" if closes else "open",
            )
        )
        self.world.counts[f"append: {type(done).__name__}"] += 1
        if isinstance(done, Committed | AlreadyCommitted):
            line = seal([a_record(value)], session=lease.fence, offset=self.seq, then="closed" if closes else "open")[0]
            self.world.acknowledged(lease.incarnation, self.seq, line)
            self.seq += 1
            if not closes:
                return
        elif done is not None and hasattr(done, "seq") and not done.closed:
            self.seq = done.seq
            return
        self.lease = None

    def create(self) -> None:
        request = LeaseRequest(self.name, 30)
        made = self.store.create(
            RUN, [a_start()], head=a_head(), attempt_id=f"new-{self.world.chance.random()}", lease=request
        )
        self.world.counts[f"create: {type(made).__name__}"] += 1
        assert isinstance(made, Created | Exists)
        if isinstance(made, Created) and made.lease is not None:
            self.own(made.lease)

    def claim(self) -> None:
        found = self.store.claim(RUN, self.name, 30)
        if isinstance(found, Lease):
            self.own(found)

    def own(self, lease: Lease) -> None:
        self.world.granted(lease)
        self.lease, self.seq = lease, lease.seq

    def tell(self) -> None:
        self.world.counts["told"] += 1
        attempt = f"t{self.world.counts['told']}"
        done = self._tried(lambda: self.store.append(RUN, None, None, [a_record(attempt)], attempt_id=attempt))
        if isinstance(done, Committed):
            self.world.acknowledged(done.incarnation, done.seq, None, attempt)

    def release(self) -> None:
        if self.lease is not None:
            self.store.release(self.lease)
            self.lease = None

    def wait(self) -> None:
        self.world.clock.advance(31)

    def remove(self) -> None:
        if self.store.delete(RUN, 0):
            self.world.counts["removed"] += 1
        self.world.clock.advance(31)
        self.world.counts["cleared"] += self.store.vacuum() > 0

    @staticmethod
    def _tried(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except NotFoundError:
            return None


class World:
    """A bucket, three stores, and what went on."""

    def __init__(self, seed: int, *, planted: bool = False) -> None:
        self.objects, self.clock, self.chance, self.planted = MemoryStore(), ManualClock(), random.Random(seed), planted
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.fences: list[int] = []
        self.asleep: list[str] = []
        self.sleepers = [Sleeper(self, name) for name in "abc"]

    def run(self, steps: int = 60) -> None:
        for _ in range(steps):
            self.chance.choice(self.sleepers).act()
        self.check()

    def sleep(self, name: str) -> None:
        """Before a write: others may act, who may be interrupted in their turn."""
        if name in self.asleep or len(self.asleep) > 1 or self.chance.random() > 0.4:
            return
        self.counts["pauses"] += 1
        self.asleep.append(name)
        others = [one for one in self.sleepers if one.name not in self.asleep]
        for _ in range(self.chance.randint(1, 6)):
            self.chance.choice(others).act()
        self.asleep.remove(name)

    def granted(self, lease: Lease) -> None:
        if self.fences and lease.fence <= max(self.fences):
            self.counts["fences that came late"] += 1
        if lease.fence in self.fences:
            self.wrong.append(f"fence {lease.fence} was granted twice")
        self.fences.append(lease.fence)

    def acknowledged(self, incarnation: int, seq: int, line: bytes | None, attempt: str = "") -> None:
        """What was just acknowledged is there: nobody else has acted since it was written."""
        fresh = S3Store(self.objects, clock=self.clock, keep_deleted=30)
        tail = fresh.read(RUN, seq, incarnation=incarnation, limit=1)
        there = tail.records[0] if tail is not None and tail.records else None
        if there is None or (there != line if line is not None else envelope(there).attempt_id != attempt):
            self.wrong.append(f"acknowledged at {seq}, and not there: {line or attempt!r}")
        fresh.close()

    def check(self) -> None:
        """In the log, no record of an owner stands after the grant of a newer fence."""
        fence = 0
        bucket = Bucket(self.objects, "memory", "")
        for found in bucket.listed("runs"):
            number = found.key.rpartition("/")[2]
            data = bucket.get(found.key)
            if not number.isdigit() or data is None:
                continue
            entry = decode(data.data, found.key, int(number))
            if entry is None:
                continue
            for line in entry.lines:
                opened = envelope(line)
                if opened.attempt_id is None and opened.session != fence:
                    self.wrong.append(f"{found.key} holds a record of session {opened.session}, after {fence}")
            if entry.state.fence < fence:
                self.wrong.append(f"{found.key} has fence {entry.state.fence}, after {fence}")
            fence = entry.state.fence
        store = S3Store(self.objects, clock=self.clock, keep_deleted=30)
        self.wrong += [str(part.problem) for part in store.verify() if part.problem is not None]
        assert len(store.heads(HeadFilter(), limit=9)) < 2
        store.close()


def many(seeds: range, **options: Any) -> tuple[Counter[str], list[str]]:
    counts, wrong = Counter[str](), list[str]()
    for seed in seeds:
        world = World(seed, **options)
        try:
            world.run()
        except CorruptHistoryError as error:
            world.wrong.append(str(error))
        finally:
            for one in world.sleepers:
                one.store.close()
        counts += world.counts
        wrong += [f"seed {seed}: {what}" for what in world.wrong]
    return counts, wrong


def test_no_write_of_a_stale_owner_lands_whenever_it_sleeps() -> None:
    counts, wrong = many(range(24))
    assert [] == wrong
    assert counts["pauses"] > 300
    for name in ("append: Fenced", "append: Conflict", "append: Committed", "removed", "cleared", "create: Exists"):
        assert counts[name] > 5, f"it never came to {name}"


def test_without_the_condition_stale_writes_land() -> None:
    """The control: what the tests above would see."""
    _, wrong = many(range(5), planted=True)
    assert len(wrong) > 5


def test_without_a_look_for_graves_a_late_write_lands_in_a_log_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for what happens after a removal."""
    monkeypatch.setattr(s3_log.Logs, "_stands", lambda self, log, state: True)
    assert any("not there" in what for seed in range(40) for what in many(range(seed, seed + 1))[1])


# ---- a process that dies


class Killed(BaseException):
    """The process ended here."""


def scenario(store: S3Store, clock: ManualClock) -> None:
    """A run's life: created, driven, parked, told, due, driven, closed, opened again, closed, removed, begun anew."""
    request = LeaseRequest("me", 30)
    made = store.create(RUN, [a_start()], head=a_head(due=clock()), attempt_id="new", lease=request)
    assert isinstance(made, Created)
    assert made.lease is not None
    one = [a_record()]
    store.append(RUN, 0, 1, one, attempt_id="x", fence=made.lease.fence)
    store.renew(made.lease, 60)
    parked = a_head(status="suspended", due=clock() + 5_000_000)
    store.append(RUN, 0, 2, one, attempt_id="x", head=parked, fence=made.lease.fence, release=True)
    store.append(RUN, None, None, one, attempt_id="signal", due=clock())
    (lease,) = store.claim_due("me", 30, now=clock(), limit=1)
    done = a_head(status="completed")
    store.append(RUN, 0, 4, one, attempt_id="x", head=done, fence=lease.fence, then="closed")
    store.open_incarnation(RUN, 1, [a_start()], head=a_head(due=clock()), attempt_id="again")
    (lease,) = store.claim_due("me", 30, now=clock(), limit=1)
    store.append(RUN, 1, 1, one, attempt_id="x", head=done, fence=lease.fence, then="closed")
    store.delete(RUN, 1)
    clock.advance(31)
    store.vacuum()
    store.create(RUN, [a_start("second")], head=a_head(workflow="second", due=clock()), attempt_id="new2")


def doomed(objects: MemoryStore, clock: ManualClock, at: int, *, before: bool) -> bool:
    """Go through the scenario and die at the request of this number; False when it came to its end."""
    store, left = S3Store(objects, clock=clock, keep_deleted=30), at
    bucket = store._opening.writing()
    put, remove = bucket._put, bucket.remove

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def go(*given: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and before:
                raise Killed
            done = call(*given)
            if left == 0:
                raise Killed
            return done

        return go

    bucket._put, bucket.remove = counted(put), counted(remove)  # type: ignore[method-assign]
    bucket.later = lambda call: call()  # type: ignore[assignment, method-assign]
    try:
        scenario(store, clock)
    except Killed:
        return True
    finally:
        store.close()
    return False


@pytest.mark.parametrize("before", [True, False], ids=["before it", "after it"])
def test_a_process_that_dies_at_any_request_leaves_nothing_torn_and_no_due_run_behind(before: bool) -> None:
    at = 0
    while True:
        at += 1
        objects, clock = MemoryStore(), ManualClock()
        died = doomed(objects, clock, at, before=before)
        store = S3Store(objects, clock=clock, keep_deleted=30)
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
        clock.advance(61)
        head = store.head(RUN)
        if head is not None and not head.closed:
            assert [RUN] == [lease.run_id for lease in store.claim_due("next", 30, now=clock(), limit=9)]
        store.vacuum()
        assert 0 == store.size().free
        left = sum(1 for found in store._opening.reading().listed("due"))
        assert left <= 1 + (head is not None and not head.closed), "but for one whose entry may still come"
        store.close()
        if not died:
            break
    assert at > 20


def test_who_reads_a_run_that_is_removed_meanwhile_finds_nothing_or_the_next_one() -> None:
    """However much of it was there when it began."""
    objects, clock = MemoryStore(), ManualClock()
    reader, other = (S3Store(objects, clock=clock, keep_deleted=30) for _ in "ab")
    request = LeaseRequest("me", 30)
    for again in (False, True):
        made = other.create(RUN, [a_start()], head=a_head(), attempt_id=f"a{again}", lease=request)
        assert isinstance(made, Created)
        assert made.lease is not None
        for seq in range(1, 6):
            other.append(RUN, 0, seq, [a_record(seq)], attempt_id="x", fence=made.lease.fence)
        done = a_head(status="completed")
        other.append(RUN, 0, 6, [a_record()], attempt_id="x", head=done, fence=made.lease.fence, then="closed")
        bucket, real = reader._opening.reading(), reader._opening.reading().get
        left = [1]

        def get(key: str, left: list[int] = left, real: Any = real, again: bool = again) -> Any:
            if key.endswith("3") and left:
                left.clear()
                assert other.delete(RUN, 0)
                clock.advance(31)
                assert other.vacuum() > 0
                if again:
                    other.create(RUN, [a_start("next")], head=a_head(), attempt_id="next")
            return real(key)

        bucket.get = get  # type: ignore[method-assign]
        found = reader.read(RUN)
        bucket.get = real  # type: ignore[method-assign]
        assert (None if found is None else len(found.records)) == (1 if again else None)
        reader.close()
        reader = S3Store(objects, clock=clock, keep_deleted=30)
    reader.close()
    other.close()


def test_a_hint_that_was_lost_is_made_again() -> None:
    objects, clock = MemoryStore(), ManualClock()
    store = S3Store(objects, clock=clock, keep_deleted=30)
    store.create(RUN, [a_start()], head=a_head(due=clock()), attempt_id="a")
    bucket = store._opening.writing()
    bucket.remove([found.key for found in bucket.listed("due")])
    assert store.next_due() is None
    clock.advance(601)
    assert [RUN] == [lease.run_id for lease in store.claim_due("me", 30, now=clock(), limit=1)]
    store.close()

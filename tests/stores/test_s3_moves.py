"""Runs that come into a bucket and leave it: entries, requests, movers that die, and owners that sleep meanwhile."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from tests.moving.killing import whereabouts
from tests.moving.zoo import engine_on, finish, judge, picture, same
from tests.servers.s3 import S3
from tests.servers.tiny_s3 import TinyS3, tiny_s3
from tests.servers.valkey import Valkey

from stepwell import (
    CorruptHistoryError,
    RunArrivingError,
    RunMovedError,
    StoreUnavailableError,
)
from stepwell.cli import main
from stepwell.moves import Arrival, Departure
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Store,
    envelope,
    seal,
)
from stepwell.testing.contract import ManualClock, a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.redis import RedisStore
from stepwell_stores.s3 import S3Store
from stepwell_stores.s3 import bucket as s3_bucket
from stepwell_stores.s3 import opening as s3_opening
from stepwell_stores.s3.bucket import Bucket
from stepwell_stores.s3.entries import decode
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import EncryptedStore

from .moving_tools import killed_at, open_runs
from .test_rekey import filled as driven
from .test_rekey import histories, labels
from .test_s3_interleavings import RUN, Sleeper, World
from .wrapped_tools import KEYS, ROTATED


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def objects() -> Any:
    return MemoryStore()


@pytest.fixture
def store(objects: Any, clock: ManualClock) -> Iterator[S3Store]:
    made = S3Store(objects, clock=clock, keep_deleted=30)
    yield made
    made.close()


def names(objects: Any) -> list[str]:
    return sorted(meta["path"] for page in objects.list("runs") for meta in page)


def problems(store: Store) -> list[object]:
    return [part.problem for part in store.verify() if part.problem is not None]


def told(count: int, first: int = 1) -> list[bytes]:
    """Records of as many outside writers."""
    return [
        seal([a_record(number, "resume")], session=1, offset=number, attempt_id=f"t{number}")[0]
        for number in range(first, first + count)
    ]


def arriving(store: Any, histories: list[list[bytes]], run_id: str = "r", page: int = 500) -> Arrival:
    """A run on its way, with all of its records staged."""
    run = RunHead(run_id, len(histories) - 1, len(histories[-1]), 3, False, None, a_head(status="suspended"))
    arrival: Arrival | None = store.arrive(Arrival(run, tuple(map(len, histories)), "over there", "t"))
    assert arrival is not None
    for number, lines in enumerate(histories):
        for seq in range(0, len(lines), page):
            store.stage(run_id, "t", number, seq, lines[seq : seq + page])
    return arrival


def history(count: int) -> list[bytes]:
    return [*seal([a_start()], session=1, offset=0, attempt_id="new"), *told(count)]


# ---- between servers


def test_open_runs_go_from_server_to_server_by_the_command_and_end_as_they_would_have(
    valkey_server: Valkey, s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_opening, "_clocks", {})
    urls = [
        f"sqlite:///{tmp_path}/first.db",
        valkey_server.url(prefix=uuid.uuid4().hex),
        s3_server.url(),
        f"sqlite:///{tmp_path}/last.db",
    ]
    log = tmp_path / "log"
    first = open_store(urls[0])
    open_runs(first, log)
    before = picture(first)
    first.close()
    for source, target in pairwise(urls):
        assert 0 == main(["migrate", source, target]), capsys.readouterr()
        there, here = open_store(source), open_store(target)
        same(before, picture(here))
        assert [] == list(picture(there)) == problems(here) == problems(there)
        for run_id in before:
            with pytest.raises(RunMovedError):
                there.head(run_id)
        there.close()
        here.close()
    last = open_store(urls[-1])
    finish(last)
    judge(log, last)
    last.close()


def test_killed_between_any_two_calls_no_run_is_lost_or_in_two_places(valkey_server: Valkey, tmp_path: Path) -> None:
    """From SQLite to Redis, on to a bucket, and back to SQLite: the mover dies in each, and another one goes on."""
    clock, log = ManualClock(), tmp_path / "log"
    first = SqliteStore(tmp_path / "first.db", clock=clock)
    open_runs(first, log)
    before, found, at, burnt = picture(first), Counter[str](), 1, True
    first.close()
    while burnt:
        shutil.copy(tmp_path / "first.db", tmp_path / f"{at}.db")
        stores: list[Any] = [
            SqliteStore(tmp_path / f"{at}.db", clock=clock),
            RedisStore(valkey_server.url(prefix=uuid.uuid4().hex), clock=clock),
            S3Store(MemoryStore(), clock=clock, poll=0.01),
            SqliteStore(tmp_path / f"{at}-last.db", clock=clock),
        ]
        for leg, (source, target) in enumerate(pairwise(stores)):
            burnt = killed_at(source, target, at + 2 * leg)
            clock.advance(1000)  # the leases of the dead are over
            places = Counter(whereabouts(source, target, run_id) for run_id in before)
            assert places["between"] <= 1
            found += places
            assert {} == engine_on(source).migrate(target).kept
            same(before, picture(target))
            assert [] == problems(target) == problems(source)
        if not burnt:
            finish(stores[-1])
            judge(log, stores[-1])
        for store in stores:
            store.close()
        at += 8
    assert min(found[place] for place in ("source", "target", "between")) >= 2
    assert at > 80


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyS3]:
    monkeypatch.setattr(s3_bucket, "_PAUSES", (0.001, 0.001))
    monkeypatch.setattr(s3_opening, "_proven", set())
    monkeypatch.setattr(s3_opening, "_clocks", {})
    with tiny_s3() as server:
        yield server


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_bucket_that_goes_away_at_any_write_of_a_move_has_all_of_it_or_can_be_asked_again(
    fails: str, tiny: TinyS3
) -> None:
    """The bucket does what it was asked, or not, gives no answer, and then refuses everything."""
    number, ended, places = 0, False, set()
    while not ended:
        clock = ManualClock()
        there, here = (S3Store(tiny.open(), f"{name}{fails}{number}", clock=clock) for name in ("a", "b"))
        lease = LeaseRequest("me", 30)
        made = there.create("r", [a_start()], head=a_head(due=5), attempt_id="new", lease=lease)
        assert isinstance(made, Created)
        assert made.lease is not None
        there.append("r", None, None, [a_record(1, "resume")], attempt_id="early")
        there.release(made.lease)
        here.arrivals(limit=1)
        here._opening.writing()
        left = [number]

        def behave(method: str, key: str, left: list[int] = left) -> Any:
            if method == "PUT" and "/runs/" in key:
                left[0] -= 1
                if left[0] == -1 and fails == "after":
                    return "cut"
            return (503, "SlowDown") if left[0] < 0 else None

        tiny.behave = behave
        try:
            engine_on(there).migrate(here)
            ended = True
        except StoreUnavailableError:
            pass
        tiny.behave = lambda method, key: None
        clock.advance(1000)
        places.add(whereabouts(there, here, "r"))
        assert {} == engine_on(there).migrate(here).kept
        tail = here.read("r")
        assert tail is not None
        assert [None, "early"] == [envelope(line).attempt_id for line in tail.records][-2:] or len(tail.records) == 2
        again = here.append("r", None, None, [a_record(1, "resume")], attempt_id="early")
        assert again == AlreadyCommitted(1, 0)
        assert [] == problems(here) == problems(there)
        there.close()
        here.close()
        number += 1
    assert {"source", "between", "target"} == places


# ---- owners that sleep


class Traveller(Sleeper):
    """One of a store's users, who also moves the run away and back."""

    def act(self) -> None:
        try:
            if self.world.chance.random() < 0.15:
                self.travel()
            else:
                super().act()
        except (RunMovedError, RunArrivingError) as error:
            self.lease = None
            self.world.counts[type(error).__name__] += 1

    def travel(self) -> None:
        """Let the run go as it is seen; have what went, or what another one had staged, land again."""
        seen = self.store.head(RUN)
        if seen is None:
            return
        tails = [self.store.read(RUN, incarnation=number) for number in range(seen.incarnation + 1)]
        token = f"move {self.world.chance.random()}"
        if not self.store.depart(seen, Departure("elsewhere", token)):
            self.world.counts["stayed"] += 1
            return
        self.world.counts["departed"] += 1
        histories = [tail.records for tail in tails if tail is not None]
        run = RunHead(RUN, seen.incarnation, seen.seq, seen.fence, seen.closed, None, seen.head)
        arrival = Arrival(run, tuple(map(len, histories)), "elsewhere", token)
        if self.store.arrive(arrival) != arrival:
            self.world.wrong.append("a run that had departed was there, or arrived twice")
            return
        for number, lines in enumerate(histories):
            for seq in range(0, len(lines), 3):
                self.store.stage(RUN, token, number, seq, lines[seq : seq + 3])
        if not self.store.land(RUN, token):
            self.world.wrong.append("it did not land")
        self.world.counts["landed"] += 1
        found = [self.store.read(RUN, incarnation=number) for number in range(seen.incarnation + 1)]
        if [tail.records[: len(lines)] for tail, lines in zip(found, histories, strict=True) if tail] != histories:
            self.world.wrong.append("it landed otherwise than it departed")


class TravelWorld(World):
    """Runs that go and come while others are asleep."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        for sleeper in self.sleepers:
            sleeper.store.close()
        self.sleepers = [Traveller(self, name) for name in "abc"]

    def check(self) -> None:
        """No record of an owner stands after the grant of a newer fence; what was staged is of older ones."""
        fence = 0
        bucket = Bucket(self.objects, "memory", "")
        for found in bucket.listed("runs"):
            number, data = found.key.rpartition("/")[2], bucket.get(found.key)
            entry = decode(data.data, found.key, int(number)) if data is not None and number.isdigit() else None
            if entry is None:
                continue
            for line in entry.lines if entry.state.arrival is None else ():
                opened = envelope(line)
                if opened.attempt_id is None and opened.session != fence:
                    self.wrong.append(f"{found.key} holds a record of session {opened.session}, after {fence}")
            if entry.state.fence < fence:
                self.wrong.append(f"{found.key} has fence {entry.state.fence}, after {fence}")
            fence = entry.state.fence
        store = S3Store(self.objects, clock=self.clock, keep_deleted=30)
        self.wrong += [str(problem) for problem in problems(store)]
        store.close()


def test_no_write_of_a_stale_owner_lands_in_a_run_that_went_and_came_back() -> None:
    counts, wrong = Counter[str](), list[str]()
    for seed in range(16):
        world = TravelWorld(seed)
        try:
            world.run()
        finally:
            for one in world.sleepers:
                one.store.close()
        counts += world.counts
        wrong += [f"seed {seed}: {what}" for what in world.wrong]
    assert [] == wrong
    for name in ("landed", "stayed", "append: Fenced", "append: Committed", "RunMovedError", "RunArrivingError"):
        assert counts[name] > 3, f"it never came to {name}: {counts}"


# ---- entries and requests


def test_what_a_run_has_is_read_across_the_entry_with_which_it_landed(store: S3Store, objects: Any) -> None:
    old, lines = history(3), history(24)
    arriving(store, [old, lines], page=7)
    assert store.land("r", "t")
    lease = store.claim("r", "me", 30)
    assert isinstance(lease, Lease)
    for seq in range(25, 31):
        assert isinstance(store.append("r", 1, seq, [a_record()], attempt_id="x", fence=lease.fence), Committed)
    opened = store.open_incarnation(
        "r", 2, [a_start()], head=a_head(), attempt_id="n", expected_seq=31, fence=lease.fence
    )
    assert isinstance(opened, Committed)
    fresh = S3Store(objects, keep_deleted=30)
    whole = fresh.read("r", incarnation=1)
    assert whole is not None
    assert (31, lines) == (len(whole.records), whole.records[:25])
    for start in range(0, 33, 2):
        for limit in (1, 3, 9, None):
            tail = fresh.read("r", start, incarnation=1, limit=limit)
            assert tail is not None
            assert tail.records == whole.records[start:][:limit]
            assert tail.more == (tail.seq < 31)
    first, last = (fresh.read("r", incarnation=number) for number in (0, 2))
    assert first is not None
    assert last is not None
    assert (old, True, 1) == (first.records, first.closed, len(last.records))
    assert [] == problems(fresh)
    assert fresh.size().events == 4 + 31 + 1
    assert [0, 1, 2] == [part.incarnation for part in fresh.verify()]
    fresh.close()


def test_every_attempt_of_a_run_that_landed_is_known(store: S3Store, objects: Any) -> None:
    """However many there are, for two reads; those that were replaced, or not taken along, are not."""
    lines = history(120)
    arrival = arriving(store, [lines], page=10)
    other = seal([a_record("other", "resume")], session=1, offset=7, attempt_id="other")
    store.stage("r", "t", 0, 7, other)
    store.stage("r", "t", 0, 121, told(5, 121))
    assert store.land("r", "t")
    fresh, reads = S3Store(objects, keep_deleted=30), list[str]()
    bucket = fresh._opening.writing()
    get = bucket.get
    fresh.head("r")

    def counted(key: str) -> Any:
        reads.append(key)
        return get(key)

    bucket.get = counted  # type: ignore[method-assign]
    known = [store.append("r", None, None, [a_record()], attempt_id=f"t{number}") for number in (1, 6, 8, 120)]
    assert [AlreadyCommitted(number, 0) for number in (1, 6, 8, 120)] == known
    assert fresh.append("r", None, None, [a_record()], attempt_id="other") == AlreadyCommitted(7, 0)
    new = [fresh.append("r", None, None, [a_record()], attempt_id=f"t{number}") for number in (7, 121, 125)]
    assert [Committed(number, 0) for number in (121, 122, 123)] == new
    assert len({key for key in reads if key.rpartition("/")[2].isdigit()}) <= 5  # none of those that were staged
    assert arrival.counts == (121,)
    fresh.close()


def test_large_records_are_staged_in_several_entries(store: S3Store, objects: Any) -> None:
    big = [a_record("x" * 700_000) for _ in range(7)]
    lines = seal([a_start(), *big], session=1, offset=0)
    arriving(store, [lines])
    assert len(names(objects)) == 5
    assert store.staged("r", 0, 2, limit=3) == lines[2:5]
    assert store.land("r", "t")
    tail = store.read("r")
    assert tail is not None
    assert tail.records == lines


def test_what_was_staged_in_vain_is_removed_and_what_landed_stays(
    store: S3Store, objects: Any, clock: ManualClock
) -> None:
    away = arriving(store, [history(9)], "away", page=3)
    arriving(store, [history(9)], "comes", page=3)
    arriving(store, [history(9)], "lands", page=3)
    clock.advance(100)
    assert store.vacuum() == 0
    assert store.turn_away(away)
    assert store.land("lands", "t")
    clock.advance(100)
    assert store.size().free > 0
    assert store.vacuum() > 0
    assert [f"runs/away/{number:012d}" for number in (0, 5)] == [name for name in names(objects) if "away" in name]
    assert store.staged("comes", 0, limit=99) == history(9)
    assert store.land("comes", "t")
    head = store.head("lands")
    assert head is not None
    assert store.depart(head, Departure("elsewhere", "t"))
    clock.advance(100)
    assert store.vacuum() > 0
    assert 2 == len([name for name in names(objects) if "lands" in name])
    assert ["comes"] == [run.run_id for run in store.heads(HeadFilter(), limit=9)]
    with pytest.raises(RunMovedError):
        store.head("lands")
    assert [] == problems(store)


@pytest.mark.parametrize("entry", [1, 3])
def test_damage_to_what_landed_is_found_and_named(store: S3Store, objects: Any, entry: int) -> None:
    """In the bucket it is told by its key: a page of records, and the entry that says where they are."""
    arriving(store, [history(9)], page=5)
    assert store.land("r", "t")
    key = f"runs/r/{entry:012d}"
    data = bytes(objects.get(key).bytes())
    objects.put(key, data.replace(b"suspended" if entry == 3 else b"resume", b"resumed", 1))
    fresh = S3Store(objects, keep_deleted=30)
    [problem] = problems(fresh)
    assert key in str(problem)
    with pytest.raises(CorruptHistoryError, match=key):
        fresh.read("r")
    fresh.close()


def test_nothing_is_asked_for_the_sake_of_moves(tiny: TinyS3) -> None:
    """A run that was never moved costs what it did; one that was is refused by the read that is made anyway."""
    store = S3Store(tiny.open(), "p", clock=ManualClock(), keep_deleted=30)
    store._opening.writing()
    store._opening.reading().each(lambda _: None, range(16))
    del tiny.asked[:]
    assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="a"), Created)
    assert [("PUT", "p/runs/r/000000000000")] == tiny.asked
    head = store.head("r")
    assert head is not None
    del tiny.asked[:]
    assert store.depart(head, Departure("elsewhere", "t"))
    assert [("PUT", "p/runs/r/000000000001")] == tiny.asked
    del tiny.asked[:]
    with pytest.raises(RunMovedError):
        store.append("r", None, None, [a_record()], attempt_id="x")
    assert [("GET", "p/runs/r/000000000002")] == tiny.asked
    store.close()


# ---- another key


def test_an_encrypted_bucket_is_brought_under_another_key_by_a_move(
    s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Objects are made once; so `rekey` refuses, and says what to do instead: that works, on open runs as well."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_opening, "_clocks", {})
    old, new = s3_server.url(), s3_server.url()
    with closing(driven(EncryptedStore(open_store(old), KEYS))):
        pass
    ring = tmp_path / "keys"
    ring.write_text("".join(f"{name}:{base64.b64encode(key).decode()}\n" for name, key in ROTATED.items()))
    ring.chmod(0o600)
    here = ["--key-file", str(ring)]
    with closing(open_store(old)) as store:
        before, heads = (look(EncryptedStore(store, ROTATED)) for look in (histories, _heads))
    assert 2 == main(["--store", f"encrypted+{old}", *here, "rekey"])
    assert "stepwell migrate encrypted+SOURCE encrypted+TARGET" in capsys.readouterr().err
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(ring))
    assert 0 == main(["migrate", f"encrypted+{old}", f"encrypted+{new}"]), capsys.readouterr()
    with closing(open_store(new)) as store:
        assert {b"k2"} == labels(store)
        alone = EncryptedStore(store, {"k2": ROTATED["k2"]})
        assert (before, heads) == (histories(alone), _heads(alone))
        assert [] == problems(alone)


def _heads(store: Store) -> dict[str, Any]:
    return {run.run_id: run.head for run in store.heads(HeadFilter(), limit=99)}

"""What the store in a bucket makes of what a server says, or doesn't say."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.servers.proxy import proxy
from tests.servers.tiny_s3 import TinyS3, tiny_s3

from stepwell import Engine, Flow, Step, Suspend, workflow
from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    NewerFormatError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Fenced,
    HeadFilter,
    Lease,
    LeaseRequest,
    NotApplied,
    Unknown,
)
from stepwell.testing.contract import ManualClock, a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.s3 import S3Store
from stepwell_stores.s3 import bucket as s3_bucket
from stepwell_stores.s3 import opening as s3_opening


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyS3]:
    """A server of the test's own; the store's pauses between tries are short."""
    monkeypatch.setattr(s3_bucket, "_PAUSES", (0.001, 0.001, 0.001))
    monkeypatch.setattr(s3_opening, "_proven", set())  # a port may be used again
    monkeypatch.setattr(s3_opening, "_clocks", {})
    with tiny_s3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def store(tiny: TinyS3) -> Iterator[S3Store]:
    store = S3Store("tiny", "runs-of-mine")
    yield store
    store.close()


def leased(store: S3Store, run_id: str = "r") -> Lease:
    made = store.create(run_id, [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    return made.lease


def own(store: S3Store, lease: Lease, seq: int, value: object = 1) -> Any:
    return store.append("r", 0, seq, [a_record(value)], attempt_id="own", fence=lease.fence)


def entry(number: int) -> str:
    return f"runs-of-mine/runs/r/{number:012d}"


def once(answer: Any, method: str = "PUT", word: str = "/runs/") -> Any:
    """Behave so at the first request of this kind."""
    left = [answer]
    return lambda asked, key: left.pop() if left and asked == method and word in key else None


def always(answer: Any, method: str = "PUT", word: str = "/runs/") -> Any:
    return lambda asked, key: answer if asked == method and word in key else None


def test_n_appends_are_n_small_uploads(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    store.claim("none", "me", 1)
    assert store._opening.bucket is not None
    store._opening.bucket.each(lambda _: None, range(16))  # what is done on the side is done
    del tiny.asked[:]
    for seq in range(1, 6):
        assert Committed(seq, 0) == own(store, lease, seq)
    assert [("PUT", entry(number)) for number in range(1, 6)] == tiny.asked
    sizes = [len(tiny.objects[entry(number)][0]) for number in range(1, 6)]
    assert max(sizes) < 1000


def test_each_thing_costs_what_the_page_about_it_says(tiny: TinyS3) -> None:
    """docs/how-to/s3.md; removals are free."""

    @workflow
    def order() -> Flow[int]:
        first = yield from Step(len, "one").options(name="one")
        second = yield from Step(len, "two").options(name="two")
        yield Suspend("go")
        return first + second

    def asked(call: Callable[[], object]) -> Counter[str]:
        del tiny.asked[:]
        call()
        return Counter("LIST" if not key else method for method, key in tiny.asked if method in ("GET", "PUT"))

    with closing(S3Store("tiny", "x", keep_deleted=30)) as store, Engine(store, [order]) as engine:
        engine.submit(order, run_id="warm")
        opened = asked(lambda: engine.start(order, run_id="r"))
        assert Counter(PUT=2 + 2 + 1) == opened, "start, two steps, park"
        assert asked(lambda: engine.signal("warm", "go")) <= Counter(PUT=2, GET=3)
        assert asked(lambda: engine.resume("r", "go")) <= Counter(PUT=4, GET=3)
        assert Counter(GET=1) == asked(lambda: store.head("r"))
        lease = store.claim("warm", "me", 30)
        assert isinstance(lease, Lease)
        assert Counter(GET=2, PUT=1) == asked(lambda: store.renew(lease, 30))
        assert Counter(LIST=1, GET=1) == asked(lambda: store.claim_due("me", 1, now=0, limit=1)), "one run is driven"
        engine.runs()
        assert Counter(LIST=1) == asked(engine.runs)
    with closing(S3Store("tiny", "x")) as other:
        assert Counter(GET=1 + 7 + 1, LIST=1) >= asked(lambda: other.read("r"))


def test_an_answer_that_was_cut_off_is_found_to_be_ours(tiny: TinyS3, store: S3Store) -> None:
    """The second try of the same bytes meets the object of the first, and is told that it exists."""
    lease = leased(store)
    tiny.behave = once("cut")
    assert AlreadyCommitted(1, 0) == own(store, lease, 1)
    assert Committed(2, 0) == own(store, lease, 2)
    tail = store.read("r")
    assert tail is not None
    assert 3 == len(tail.records)
    assert [("PUT", entry(1)), ("PUT", entry(1)), ("GET", entry(1)), ("PUT", entry(2))] == [
        asked for asked in tiny.asked if "/runs/r" in asked[1]
    ][1:5]


def test_a_create_and_a_signal_whose_answers_were_cut_off_are_found(tiny: TinyS3, store: S3Store) -> None:
    tiny.behave = once("cut")
    made = store.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    tiny.behave = once("cut")
    told = store.append("r", None, None, [a_record()], attempt_id="out", due=5)
    assert AlreadyCommitted(1, 0) == told


def test_a_write_that_lands_late_meets_the_one_that_was_sent_again(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    tiny.behave = once("late")
    assert Committed(1, 0) == own(store, lease, 1)
    assert [(412, "PreconditionFailed")] == tiny.let_land()
    tail = store.read("r")
    assert tail is not None
    assert 2 == len(tail.records)


def test_what_is_unknown_is_settled_by_the_same_attempt(tiny: TinyS3, store: S3Store) -> None:
    """All tries are on their way when the store gives up; they land; the caller's repeat finds its records there."""
    lease = leased(store)
    tiny.behave = always("late")
    assert Unknown() == own(store, lease, 1, "one")
    assert Unknown() == store.append("r", None, None, [a_record("two")], attempt_id="out")
    tiny.behave = lambda method, key: None
    landed = tiny.let_land()
    assert 1 == sum(isinstance(done, str) for done in landed), "one key, one object"
    assert AlreadyCommitted(1, 0) == own(store, lease, 1, "one")
    assert Committed(2, 0) == store.append("r", None, None, [a_record("two")], attempt_id="out")
    assert AlreadyCommitted(2, 0) == store.append("r", None, None, [a_record("two")], attempt_id="out")


def test_a_late_write_of_an_owner_that_was_replaced_never_lands(tiny: TinyS3, store: S3Store) -> None:
    """The lease of the next owner took the key."""
    lease = leased(store)
    tiny.behave = always("late")
    assert Unknown() == own(store, lease, 1, "stale")
    tiny.behave = lambda method, key: None
    store.release(lease)
    newer = store.claim("r", "you", 30)
    assert isinstance(newer, Lease)
    assert {(412, "PreconditionFailed")} == set(tiny.let_land())
    assert Fenced(newer.fence) == own(store, lease, 1, "stale")
    assert Committed(1, 0) == own(store, newer, 1, "fresh")


def test_a_conflict_of_two_at_once_is_tried_again(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    tiny.behave = once((409, "ConditionalRequestConflict"))
    assert Committed(1, 0) == own(store, lease, 1)
    tiny.behave = always((409, "ConditionalRequestConflict"))
    assert NotApplied() == own(store, lease, 2)
    tiny.behave = lambda method, key: None
    assert Committed(2, 0) == own(store, lease, 2)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [((503, "SlowDown"), NotApplied()), ((429, "TooManyRequests"), NotApplied()), ((500, "InternalError"), Unknown())],
)
def test_a_server_in_trouble_is_asked_again_and_then_given_up(
    tiny: TinyS3, store: S3Store, answer: Any, outcome: Any
) -> None:
    """An inner error may come after the write, so nobody can say."""
    lease = leased(store)
    tiny.behave = once(answer)
    assert Committed(1, 0) == own(store, lease, 1)
    tiny.behave = always(answer)
    assert outcome == own(store, lease, 2)
    with pytest.raises(StoreUnavailableError, match=answer[1]):
        store.release(lease)
    tiny.behave = always(answer, "GET")
    with pytest.raises(StoreUnavailableError, match="s3://tiny/runs-of-mine: can't read"):
        store.head("r")
    tiny.behave = lambda method, key: None
    assert Committed(2, 0) == own(store, lease, 2)


def test_a_server_that_is_away_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_bucket, "_PAUSES", (0.001,))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
        with (
            closing(open_store(f"s3://tiny/x?endpoint={endpoint}")) as store,
            pytest.raises(StoreUnavailableError, match="no connection"),
        ):
            store.head("r")


def test_a_server_that_goes_away_takes_nothing(tiny: TinyS3) -> None:
    with (
        proxy(tiny.server.server_port) as between,
        closing(S3Store("tiny", "x", endpoint=f"http://127.0.0.1:{between.port}")) as store,
    ):
        lease = leased(store)
        between.close()
        assert NotApplied() == own(store, lease, 1)
    with closing(S3Store("tiny", "x")) as store:
        assert Committed(1, 0) == own(store, lease, 1)


@pytest.mark.parametrize("header", ["if-none-match", "if-match"])
def test_a_bucket_that_ignores_conditions_is_refused_before_anything_is_written(tiny: TinyS3, header: str) -> None:
    tiny.ignores = {header}
    with closing(S3Store("tiny", "x")) as store:
        pattern = {"if-none-match": "If-None-Match", "if-match": "If-Match"}[header]
        with pytest.raises(StoreMisconfiguredError, match=f"s3://tiny/x: .*condition {pattern}.*take one that does"):
            store.create("r", [a_start()], head=a_head(), attempt_id="a")
        with pytest.raises(StoreMisconfiguredError, match=pattern):
            store.durability.process_crash  # noqa: B018 - it is looked up
    assert [] == [key for key in tiny.objects if "/runs/" in key or key.endswith("stepwell.json")]


def test_a_bucket_that_can_not_do_conditions_at_all_is_refused(tiny: TinyS3, store: S3Store) -> None:
    tiny.behave = always((501, "NotImplemented"), word="probe")
    with pytest.raises(StoreMisconfiguredError, match="conditional writes"):
        leased(store)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_who_is_not_let_in_is_told_so_without_a_secret(tiny: TinyS3, store: S3Store, code: str) -> None:
    tiny.behave = lambda method, key: (403, code)
    for call in (lambda: store.head("r"), lambda: leased(store), lambda: store.heads(HeadFilter(), limit=1)):
        with pytest.raises(StoreMisconfiguredError, match=f"{code}.*check the credentials") as caught:
            call()
        text = "".join(traceback.format_exception(caught.value)) + repr(store)
        assert "SKTINY" not in text


def test_writes_that_are_denied_are_told_so(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    tiny.behave = always((403, "AccessDenied"))
    with pytest.raises(StoreMisconfiguredError, match="can't write runs/r/000000000001: AccessDenied"):
        own(store, lease, 1)
    assert store.head("r") is not None


def test_a_bucket_that_is_not_there_is_told_so(tiny: TinyS3, store: S3Store) -> None:
    tiny.behave = lambda method, key: (404, "NoSuchBucket")
    for call in (lambda: store.head("r"), lambda: leased(store), lambda: store.heads(HeadFilter(), limit=1)):
        with pytest.raises(StoreMisconfiguredError, match="no such bucket; create it"):
            call()


def test_another_region_is_told_so(tiny: TinyS3, store: S3Store) -> None:
    tiny.behave = lambda method, key: (301, "PermanentRedirect")
    with pytest.raises(StoreMisconfiguredError, match="AWS_REGION"):
        store.head("r")


def test_a_store_that_must_exist_is_not_made(tiny: TinyS3) -> None:
    store = open_store("s3://tiny/none", must_exist=True)
    for call in (lambda: store.head("r"), lambda: store.create("r", [a_start()], head=a_head(), attempt_id="a")):
        with pytest.raises(StoreMisconfiguredError, match="no store at s3://tiny/none"):
            call()
    store.close()
    assert {} == tiny.objects


def test_a_store_of_the_future_is_refused(tiny: TinyS3, store: S3Store) -> None:
    tiny.objects["runs-of-mine/stepwell.json"] = b'{"stepwell":7}', 0.0
    with pytest.raises(
        NewerFormatError, match=re.escape("s3://tiny/runs-of-mine/stepwell.json: the store has format 7")
    ):
        store.head("r")
    tiny.objects["runs-of-mine/stepwell.json"] = b"hello", 0.0
    with pytest.raises(StoreMisconfiguredError, match="not the marker of a store"):
        store.head("r")


def test_an_entry_of_the_future_is_refused(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    newer = tiny.objects[entry(0)][0].replace(b'{"stepwell":1,', b'{"stepwell":2,')
    tiny.objects[entry(1)] = newer, 0.0
    with pytest.raises(NewerFormatError, match=r"000000000001: written in format 2.*upgrade"):
        own(store, lease, 1)
    with pytest.raises(NewerFormatError):
        store.head("r")


def test_damage_is_found_and_named(tiny: TinyS3, store: S3Store) -> None:
    """Wherever a byte is another one; a read says so, `verify` finds it, and other runs are not hurt."""
    lease = leased(store)
    own(store, lease, 1, "x" * 50)
    own(store, lease, 2)
    leased(store, "well")
    whole, when = tiny.objects[entry(1)]
    for place in range(0, len(whole), 7):
        tiny.objects[entry(1)] = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], when
        with closing(S3Store("tiny", "runs-of-mine")) as other:
            with pytest.raises(CorruptHistoryError, match="runs/r/000000000001"):
                other.read("r")
            problems = [part.problem for part in other.verify() if part.problem is not None]
            assert 1 == len(problems)
            assert "runs/r/000000000001" in str(problems[0])
    del tiny.objects[entry(1)]
    with closing(S3Store("tiny", "runs-of-mine")) as other:
        with pytest.raises(CorruptHistoryError, match="000000000001: is gone"):
            other.read("r")
        assert ["is gone" in str(part.problem) for part in other.verify() if part.problem is not None] == [True]
        assert other.read("well") is not None


def test_an_entry_of_another_run_is_damage(tiny: TinyS3, store: S3Store) -> None:
    leased(store)
    leased(store, "other")
    tiny.objects[entry(0)] = tiny.objects[entry(0).replace("/r/", "/other/")]
    with closing(S3Store("tiny", "runs-of-mine")) as fresh:
        with pytest.raises(CorruptHistoryError, match="run 'other'"):
            fresh.head("r")
        assert 1 == len([part for part in fresh.verify() if part.problem is not None])


def test_leases_lapse_by_the_buckets_clock(tiny: TinyS3) -> None:
    """Not by that of a machine whose clock is an hour late or early."""
    tiny.ahead = 3600.0
    with closing(S3Store("tiny", "x")) as store:
        lease = leased(store)
        here = time.time()
        assert abs(lease.until / 1e6 - here - 3600 - 30) < 3
        head = store.head("r")
        assert head is not None
        assert head.lease_until == lease.until


def test_the_owner_of_a_lease_may_extend_it_after_its_answer_was_cut_off(tiny: TinyS3, store: S3Store) -> None:
    lease = leased(store)
    for behave in (once("cut", word="/lease"), once("late", word="/lease"), once((409, "x"), word="/lease")):
        tiny.behave = behave
        longer = store.renew(lease, 60)
        assert longer is not None
        assert longer.until > lease.until
        tiny.let_land()
    held = json.loads(tiny.objects["runs-of-mine/runs/r/lease"][0])
    assert (held["fence"], held["run_id"]) == (1, "r")


def test_eight_threads_that_meet_a_slow_server_append_each_once(tiny: TinyS3, store: S3Store) -> None:
    leased(store)
    tiny.behave = lambda method, key: (503, "SlowDown") if hash((method, key, len(tiny.asked))) % 3 == 0 else None
    outcomes: list[Any] = []

    def tell(number: int) -> None:
        while isinstance(
            done := store.append("r", None, None, [a_record(number)], attempt_id=f"t{number}"), NotApplied | Unknown
        ):
            pass
        outcomes.append(done)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    tiny.behave = lambda method, key: None
    assert list(range(1, 9)) == sorted(done.seq for done in outcomes)


# ---- what is handed over


def test_wrong_urls_are_told_what_to_write() -> None:
    for url, words in {
        "s3:": "s3://BUCKET/PREFIX",
        "s3://": "s3://BUCKET/PREFIX",
        "s3:bucket": "s3://BUCKET/PREFIX",
        "s3://b/x": "not the name of a bucket",
        "s3://key:hush@bucket/x": "AWS_SECRET_ACCESS_KEY",
        "s3://bucket/a/../b": "prefix",
        "s3://bucket/x?secret=1": "no option 'secret'",
        "s3://bucket/x?poll=soon": "number of seconds",
        "s3://bucket/x?poll=0": "poll must be more than 0",
        "s3://bucket/x?region=": "no option 'region'",
        "s3://bucket/x?keep_deleted=1": "keep_deleted 30 or more",
    }.items():
        with pytest.raises(StoreMisconfiguredError, match=words) as caught:
            open_store(url)
        assert "hush" not in str(caught.value)


def test_an_endpoint_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush@host")
    with closing(S3Store("tiny")) as store, pytest.raises(StoreMisconfiguredError, match="no password in it") as caught:
        store.head("r")
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_nothing_is_asked_before_the_first_use(tiny: TinyS3) -> None:
    open_store("s3://tiny/x").close()
    assert [] == tiny.asked


def test_a_bucket_that_the_user_has_is_used_and_left_open(tiny: TinyS3) -> None:
    """With its own prefix; two stores of two prefixes see nothing of each other."""
    objects = tiny.open(prefix="ours")
    with closing(S3Store(objects, "a")) as first, closing(S3Store(objects, "b")) as second:
        leased(first)
        assert second.head("r") is None
        leased(second)
    assert {"ours/a/stepwell.json", "ours/b/stepwell.json"} <= set(tiny.objects)
    assert objects.get("a/stepwell.json").bytes()


def test_what_is_no_bucket_is_refused(tmp_path: Any) -> None:
    from obstore.store import LocalStore

    with pytest.raises(StoreMisconfiguredError, match=r"LocalStore can't hold runs; .*file:DIR"):
        S3Store(LocalStore(str(tmp_path)))
    with pytest.raises(StoreMisconfiguredError, match=r"obstore\.store\.S3Store"):
        S3Store(object())
    with pytest.raises(InvalidInputError, match="poll"):
        S3Store("bucket", poll=0)


def test_a_bucket_in_memory_says_that_nothing_survives() -> None:
    from obstore.store import MemoryStore

    with closing(S3Store(MemoryStore(), clock=ManualClock())) as store:
        assert store.durability.process_crash is False
        assert Created() == store.create("r", [a_start()], head=a_head(), attempt_id="a")
        assert Conflict(1, 0) == store.append("r", 0, 5, [a_record()], attempt_id="b")


def test_durability_says_what_is_known(tiny: TinyS3, store: S3Store) -> None:
    found = store.durability
    assert (found.process_crash, found.power_loss, found.failover) == (True, None, None)
    assert {
        "store": "s3://tiny/runs-of-mine",
        "conditional_writes": "kept",
        "endpoint": tiny.endpoint,
    } == found.settings

"""What the tests of the store contract share: a clock, records, heads, and short forms of the calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from stepwell.store import Committed, Created, Draft, Head, Lease, LeaseRequest, RunHead, Store

T = TypeVar("T")
START = 1_700_000_000_000_000
ODD_RUN_IDS = (
    "plain",
    "Plain",
    "..",
    "a/../../b",
    "/etc/passwd",
    "back\\slash",
    "orders/12",
    "ÄÖ",
    "\u00e9",  # one run in NFC, another in NFD
    "e\u0301",
    "CON",
    "con",
    "dot.",
    "dot",
    " space ",
    "-leading",
    "%41",
    "A",
    "~tilde",
    "line\nbreak",
    "quote'\"",
    "{brace}",
    "🙂",
    "x" * 200,
    "é" * 100,
    "é" * 99 + "e",
)


class ManualClock:
    """A clock that moves when it is told to: gives microseconds since 1970.

    Example:
        >>> clock = ManualClock(5)
        >>> clock.advance(1.5)
        >>> clock()
        1500005
    """

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        self.now += int(seconds * 1_000_000)


def a_start(workflow: str = "triage", version: str = "1", tags: dict[str, str] | None = None) -> Draft:
    """A first record, with what a store may rebuild a head from."""
    body: dict[str, object] = {
        "timestamp": "2023-11-14T22:13:20.000000Z",
        "workflow": workflow,
        "version": version,
        "input": [],
    }
    if tags:
        body["tags"] = tags
    return Draft("start", json.dumps(body)[1:-1].encode())


def a_record(value: object = 1, kind: str = "step") -> Draft:
    """A record that holds `value`."""
    return Draft(kind, b'"timestamp":"2023-11-14T22:13:21.000000Z","result":%b' % json.dumps(value).encode())


def a_head(**changes: Any) -> Head:
    """A head of a pending run, with changes."""
    return replace(Head("pending", "triage", "1", START, START), **changes)


class Bench:
    """What a subclass gives, and short forms of the calls that nearly every test makes.

    Nothing is skipped: a store that can't do what the contract asks fails.
    """

    def make_store(self) -> Store:
        """Make a store, empty at the first call of a test."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Move the clock of the store's leases on."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """The store under test."""
        store = self.make_store()
        yield store
        store.close()

    @staticmethod
    def create(store: Store, run_id: str = "r", **changes: Any) -> Lease:
        """Create an open run under a lease of "me" for 30 seconds."""
        made = store.create(run_id, [a_start()], head=a_head(**changes), attempt_id="new", lease=LeaseRequest("me", 30))
        assert isinstance(made, Created)
        assert made.lease is not None
        return made.lease

    @staticmethod
    def close_run(store: Store, lease: Lease, seq: int = 1) -> None:
        """Close a run as its owner."""
        done = a_head(status="completed")
        records = [a_record(kind="complete")]
        outcome = store.append(
            lease.run_id, lease.incarnation, seq, records, attempt_id="end", head=done, fence=lease.fence, then="closed"
        )
        assert outcome == Committed(seq, lease.incarnation)

    @staticmethod
    def own(store: Store, lease: Lease, seq: int, value: object = 1, **options: Any) -> Any:
        """Append one record as the owner."""
        return store.append(
            lease.run_id, lease.incarnation, seq, [a_record(value)], attempt_id="own", fence=lease.fence, **options
        )

    @staticmethod
    def tell(store: Store, attempt_id: str, run_id: str = "r", value: object = 1, **options: Any) -> Any:
        """Append one record from outside."""
        return store.append(run_id, None, None, [a_record(value, "resume")], attempt_id=attempt_id, **options)


def lines_of(store: Store, run_id: str = "r", incarnation: int | None = None) -> list[bytes]:
    """The records of a run that is there."""
    tail = store.read(run_id, incarnation=incarnation)
    assert tail is not None
    return tail.records


def head_of(store: Store, run_id: str = "r") -> RunHead:
    """The head of a run that is there."""
    head = store.head(run_id)
    assert head is not None
    return head


def ids_of(heads: list[RunHead]) -> list[str]:
    """The run ids, in order."""
    return [head.run_id for head in heads]


def race(count: int, call: Callable[[int], T]) -> list[T]:
    """Call `call(i)` in `count` threads at once and give what they gave."""
    barrier, results, failures = threading.Barrier(count), [], []

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            results.append(call(number))
        except BaseException as e:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(e)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    return results

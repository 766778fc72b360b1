"""Leases of owners that died, stopped or forked. Every URL is tried in processes of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.store import Committed, Fenced, Head, HeadFilter, Lease, RunHead
from stepwell.testing.contract import ManualClock, a_record
from stepwell_stores import open_store
from stepwell_stores.liveness import Owners

URLS = ["sqlite:///{}/runs.db", "file:{}/runs"]

PRELUDE = """
import os, sys
from stepwell.store import *
from stepwell_stores import open_store
store = open_store(sys.argv[1])
start, step = Draft("start", b'"workflow":"w"'), Draft("step", b'"result":1')
head = Head("suspended", "w", "1", 1, 1)
def create(run_id="r"):
    return store.create(run_id, [start], head=head, attempt_id="new", lease=LeaseRequest("child", 3600)).lease
"""

OWNER = (
    PRELUDE
    + """
create()
print("ready", flush=True)
sys.stdin.read()
"""
)


@pytest.fixture(params=URLS, ids=["sqlite", "jsonl"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param.format(tmp_path))


def test_a_killed_owner_frees_its_lease_at_once(url: str, python: Callable[..., Any]) -> None:
    owner = python(OWNER, url)
    assert owner.stdout.readline() == "ready\n"
    store = open_store(url)
    held = store.claim("r", "me", 30)
    assert isinstance(held, RunHead)
    assert held.lease_until is not None
    assert store.next_due() is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    head = store.head("r")
    assert head is not None
    assert head.lease_until is None
    assert store.next_due() is not None
    (lease,) = store.claim_due("me", 30, now=0, limit=5)
    assert lease.fence == 2
    store.close()


def test_a_killed_owner_is_dead_before_anybody_reaps_it(url: str, python: Callable[..., Any]) -> None:
    owner = python(OWNER, url)
    assert owner.stdout.readline() == "ready\n"
    os.kill(owner.pid, signal.SIGKILL)
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    store = open_store(url)
    assert isinstance(store.claim("r", "me", 30), Lease)
    store.close()


def test_a_stopped_owner_keeps_its_lease_until_the_ttl(url: str, python: Callable[..., Any]) -> None:
    owner = python(OWNER, url)
    assert owner.stdout.readline() == "ready\n"
    os.kill(owner.pid, signal.SIGSTOP)
    clock = ManualClock()
    store = open_store(url, clock=clock)
    now = store.head("r")
    assert now is not None
    until = now.lease_until
    assert until is not None
    clock.now = until - 1
    assert isinstance(store.claim("r", "me", 30), RunHead)
    clock.now = until
    assert isinstance(store.claim("r", "me", 30), Lease)
    assert store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1) == Fenced(2)
    store.close()


def test_closing_a_store_ends_its_leases(url: str, create: Callable[..., Lease]) -> None:
    first, second = open_store(url), open_store(url)
    create(first)
    assert isinstance(second.claim("r", "you", 30), RunHead)
    assert second.heads(HeadFilter(status="running"), limit=5) != []
    first.close()
    assert second.heads(HeadFilter(status="running"), limit=5) == []
    assert isinstance(second.claim("r", "you", 30), Lease)
    second.close()


def test_a_lease_that_another_store_renews_lives_with_that(url: str, create: Callable[..., Lease]) -> None:
    first, second = open_store(url), open_store(url)
    lease = create(first)
    assert second.renew(lease, 30) is not None
    first.close()
    head = second.head("r")
    assert head is not None
    assert head.lease_until is not None
    second.close()


def test_a_child_does_not_keep_its_parent_alive(url: str, python: Callable[..., Any]) -> None:
    """The child inherited the descriptor of the parent's lock, and outlives the parent."""
    code = (
        PRELUDE
        + """
create()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"x")
    sys.stdin.read()
    os._exit(0)
os.read(read, 1)
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""
    )
    owner = python(code, url)
    assert owner.stdout.readline() == "ready\n"
    owner.wait()
    store = open_store(url)
    assert isinstance(store.claim("r", "me", 30), Lease)
    store.close()


def test_parent_and_child_both_write_after_a_fork(url: str, said: Callable[..., str]) -> None:
    code = (
        PRELUDE
        + """
lease = create()
child = os.fork()
if child == 0:
    for i in range(20):
        outcome = store.append("r", None, None, [step], attempt_id=f"c{i}")
        assert isinstance(outcome, Committed), outcome
    assert isinstance(store.claim("r", "child", 9), RunHead)
    own = create("other")
    assert own.fence == 1
    sys.exit(0)
for i in range(20):
    outcome = store.append("r", None, None, [step], attempt_id=f"p{i}")
    assert isinstance(outcome, Committed), outcome
assert os.waitpid(child, 0)[1] == 0
tail = store.read("r")
assert [envelope(line).offset for line in tail.records] == list(range(41))
assert store.head("r").lease_until is not None, "the parent lives"
assert store.head("other").lease_until is None, "the child is gone"
print("done")
"""
    )
    assert said(code, url) == "done"


def test_a_fork_while_another_thread_writes_does_not_hang(url: str, said: Callable[..., str]) -> None:
    code = (
        PRELUDE
        + """
import threading
create()
stop = threading.Event()
def write():
    i = 0
    while not stop.is_set():
        store.append("r", None, None, [step], attempt_id=f"p{i}")
        i += 1
thread = threading.Thread(target=write)
thread.start()
for n in range(10):
    child = os.fork()
    if child == 0:
        outcome = store.append("r", None, None, [step], attempt_id=f"c{n}")
        os._exit(0 if isinstance(outcome, Committed) else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
tail = store.read("r")
assert [envelope(line).offset for line in tail.records] == list(range(tail.seq))
print("done")
"""
    )
    assert said(code, url) == "done"


def test_many_processes_share_a_store(url: str, python: Callable[..., Any]) -> None:
    """Four create it at once and append five hundred records: one gapless history."""
    code = (
        PRELUDE
        + """
store.create("r", [start], head=head, attempt_id=sys.argv[2])
for i in range(125):
    while not isinstance(store.append("r", None, None, [step], attempt_id=f"{sys.argv[2]}-{i}"), Committed):
        pass
print("done")
"""
    )
    processes = [python(code, url, f"p{i}") for i in range(4)]
    assert ["done\n"] * 4 == [process.communicate(timeout=60)[0] for process in processes]
    store = open_store(url)
    tail = store.read("r")
    assert tail is not None
    assert tail.seq == 501
    store.close()


def names(directory: str) -> list[str]:
    return [path.name for path in Path(directory).iterdir()]


def test_locks_of_the_dead_are_swept(tmp_path: Path, said: Callable[..., str]) -> None:
    place = str(tmp_path / "owners")
    left = said("import os, sys; from stepwell_stores.liveness import Owners\n"
                "owners = Owners(sys.argv[1]); print(owners.own(), flush=True); os._exit(0)", place)  # fmt: skip
    assert [f"{left}.lock"] == names(place)
    owners = Owners(place)
    assert not owners.alive(left)
    mine = owners.own()
    assert [f"{mine}.lock"] == names(place)
    other = Owners(place)
    assert other.alive(mine)
    assert other.alive(None)
    owners.close()
    assert not other.alive(mine)
    assert [] == names(place)


def test_a_place_that_can_not_be_written_leaves_the_ttl(tmp_path: Path) -> None:
    owners = Owners(str(tmp_path / "missing" / "owners"))
    assert owners.own() is None
    assert owners.alive("0123456789abcdef") is False
    owners.close()


def test_a_lease_without_a_lock_lives_for_its_ttl(tmp_path: Path, create: Callable[..., Lease]) -> None:
    """As where the owners' directory can't be made: a file is in its place."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".owners").write_text("")
    clock = ManualClock()
    store, other = (open_store(f"file:{tmp_path}/runs", clock=clock) for _ in "ab")
    create(store, ttl=30)
    store.close()
    assert isinstance(other.claim("r", "you", 30), RunHead)
    clock.advance(30)
    lease = other.claim("r", "you", 30)
    assert isinstance(lease, Lease)
    head = Head("suspended", "w", "1", 1, 1)
    assert other.append("r", 0, 1, [], attempt_id="a", head=head, fence=lease.fence) == Committed(1, 0)
    other.close()

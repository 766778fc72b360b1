"""Group commit: what waits together is written together, and each thread gets its own outcome."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.engine.tools import eventually

from stepwell.errors import NotFoundError, StoreError
from stepwell_stores.group_commit import GroupCommit


class Journal:
    """Something to write into: what was committed together, and a gate that the first transaction waits at."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.now: list[str] = []
        self.began = threading.Event()
        self.gate = threading.Event()
        self.error: BaseException | None = None
        self.commits: GroupCommit[list[str]] = GroupCommit(self.transact)

    def transact(self, work: Callable[[list[str]], Any]) -> Any:
        self.now = []
        self.began.set()
        result = work(self.now)
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.groups.append(self.now)
        return result

    def write(self, name: str) -> str:
        def work(rows: list[str]) -> str:
            if name.startswith("missing"):
                raise NotFoundError(name)
            rows.append(name)
            return name.upper()

        return self.commits.run(work)

    def together(self, pool: ThreadPoolExecutor, *names: str) -> list[Future[str]]:
        """Have the first lead, and the others come while it writes."""
        first = pool.submit(self.write, names[0])
        assert self.began.wait(30)
        others = []
        for count, name in enumerate(names[1:], 1):
            others.append(pool.submit(self.write, name))
            eventually(lambda count=count: len(self.commits._waiting) == count)  # type: ignore[misc]
        return [first, *others]


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_a_lone_write_is_a_transaction_of_its_own(journal: Journal) -> None:
    journal.gate.set()
    assert ["A", "B"] == [journal.write("a"), journal.write("b")]
    assert [["a"], ["b"]] == journal.groups


def test_those_who_come_while_one_writes_share_the_next_transaction(journal: Journal) -> None:
    with ThreadPoolExecutor(4) as pool:
        futures = journal.together(pool, "a", "b", "c", "d")
        journal.gate.set()
        assert ["A", "B", "C", "D"] == [future.result(30) for future in futures]
    assert [["a"], ["b", "c", "d"]] == journal.groups


def test_one_that_fails_does_not_spoil_the_others(journal: Journal) -> None:
    with ThreadPoolExecutor(4) as pool:
        first, second, third, fourth = journal.together(pool, "a", "b", "missing", "d")
        journal.gate.set()
        assert ["A", "B", "D"] == [first.result(30), second.result(30), fourth.result(30)]
        with pytest.raises(NotFoundError, match="missing"):
            third.result(30)
    assert [["a"], ["b"], ["d"]] == journal.groups, "each alone, when they failed together"


def test_when_the_store_fails_each_gets_an_error_of_its_own(journal: Journal) -> None:
    cause = OSError("no disk")
    with ThreadPoolExecutor(3) as pool:
        first, *others = journal.together(pool, "a", "b", "c")
        journal.error = StoreError("it failed")
        journal.error.__cause__ = cause
        journal.gate.set()
        errors = [future.exception(30) for future in (first, *others)]
    assert all(isinstance(error, StoreError) and str(error) == "it failed" for error in errors)
    assert all(error is not None and error.__cause__ is cause for error in errors)
    assert len(set(map(id, errors))) == 3
    assert [] == journal.groups


def test_a_leader_that_is_interrupted_leaves_the_others_to_themselves(journal: Journal) -> None:
    with ThreadPoolExecutor(3) as pool:
        first, second, third = journal.together(pool, "a", "b", "c")
        journal.error = KeyboardInterrupt()
        journal.gate.set()
        assert isinstance(first.exception(30), KeyboardInterrupt)
        interrupted = [future for future in (second, third) if isinstance(future.exception(30), KeyboardInterrupt)]
        assert len(interrupted) == 2, "each was interrupted while it led, and neither hangs"
    journal.error = None
    assert journal.write("d") == "D"


WAITS = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from stepwell_stores.group_commit import GroupCommit

gate, began, written = threading.Event(), threading.Event(), []

def transact(work):
    began.set()
    assert gate.wait(30)
    return work(written)

def write(name):
    return commits.run(lambda rows: rows.append(name))

def until_wait(count):
    deadline = time.monotonic() + 30
    while len(commits._waiting) < count:
        assert time.monotonic() < deadline, "they do not come"
        time.sleep(0.001)

def interrupt():
    until_wait(1)
    os.kill(os.getpid(), signal.SIGINT)

commits = GroupCommit(transact)
with ThreadPoolExecutor(4) as pool:
    futures = [pool.submit(write, "first")]
    assert began.wait(30)
    futures += [pool.submit(interrupt)]
    try:
        write("interrupted")
    except KeyboardInterrupt:
        pass
    else:
        sys.exit("it was not interrupted")
    futures += [pool.submit(write, name) for name in ("later", "last")]
    until_wait(2)
    gate.set()
    for future in futures:
        future.result(30)
write("after")
print(*written)
"""


def test_a_thread_that_is_interrupted_while_it_waits_is_waited_for_by_nobody() -> None:
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", WAITS],
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    assert ["first", "later", "last", "after"] == done.stdout.split()


def test_a_write_within_a_write_is_refused(journal: Journal) -> None:
    journal.gate.set()
    with pytest.raises(StoreError, match="in the midst of another one"):
        journal.commits.run(lambda _: journal.write("inner"))
    assert journal.write("outer") == "OUTER"


def test_many_threads_lose_and_repeat_nothing(journal: Journal) -> None:
    journal.gate.set()
    names = [f"{thread}-{number}" for thread in range(16) for number in range(50)]
    with ThreadPoolExecutor(16) as pool:
        assert [name.upper() for name in names] == list(pool.map(journal.write, names))
    assert sorted(names) == sorted(name for group in journal.groups for name in group)


INTERRUPTED = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from stepwell_stores import group_commit

HOME = group_commit.__file__
calls = 0

def interrupt_at(number):
    def trace(frame, event, _):
        global calls
        if event == "call" and frame.f_code.co_filename == HOME:
            calls += 1
            if calls == number:
                raise KeyboardInterrupt
    return trace

def transact(work):
    if threading.current_thread() is threading.main_thread():
        began.set()
        assert joined.wait(30)
    return work([])

def follow(name):
    assert began.wait(30)
    return commits.run(lambda rows: name)

def watch():
    while len(commits._waiting) < 2 and not over.is_set():
        over.wait(0.001)
    joined.set()

number, ended = 0, False
while not ended:
    number, calls = number + 1, 0
    began, joined, over = threading.Event(), threading.Event(), threading.Event()
    commits = group_commit.GroupCommit(transact)
    with ThreadPoolExecutor(4) as pool:
        followers = [pool.submit(follow, "a"), pool.submit(follow, "b")]
        watching = pool.submit(watch)
        sys.settrace(interrupt_at(number))
        try:
            commits.run(lambda rows: "lead")
            ended = True
        except KeyboardInterrupt:
            pass
        sys.settrace(None)
        began.set()
        assert ["a", "b"] == [future.result(20) for future in followers]
        over.set()
        watching.result(20)
    commits.run(lambda rows: None)
print(number)
"""


def test_a_leader_that_is_interrupted_at_any_call_passes_the_lead_on() -> None:
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    assert int(done.stdout) > 4

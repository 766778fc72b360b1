"""Following a run while somebody else writes it, over retries, resets and deaths, on every store."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stepwell import Flow, NotFoundError, Step, Suspend, workflow
from stepwell.following import follow
from stepwell.wire import read_tail

from .tools import PATIENCE, Task, Wrapped, eventually


@workflow
def story() -> Flow[list[str]]:
    first = yield from Step(str.upper, "a").options(into=str)
    word = yield from Suspend("go", into=str)
    return [first, word]


class Follower:
    """Follows in a thread of its own; `seen` is what came, as (incarnation, seq, kind)."""

    def __init__(self, store: Any, run_id: str = "r", **where: Any) -> None:
        self.seen: list[tuple[int, int, str]] = []
        self._task = Task(lambda: self._follow(store, run_id, where))

    def _follow(self, store: Any, run_id: str, where: dict[str, Any]) -> None:
        for page in follow(store, run_id, **where):
            self.seen += [(page.incarnation, event.offset, event.kind) for event in read_tail(page.tail, run_id)]

    def until(self, count: int) -> list[str]:
        """The kinds of events, once there are so many."""
        eventually(lambda: len(self.seen) >= count)
        return [kind for _, _, kind in self.seen]

    def all(self) -> list[tuple[int, int, str]]:
        """Everything, once it has ended."""
        self._task.result()
        return self.seen


def test_what_is_there_comes_at_once_and_the_rest_as_it_is_written(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    follower = Follower(bench.store())
    assert ["start", "step", "suspend"] == follower.until(3)
    engine.resume("r", "go", "on")
    assert [
        (0, seq, kind) for seq, kind in enumerate(["start", "step", "suspend", "resume", "complete"])
    ] == follower.all()


def test_a_closed_run_is_read_to_its_end(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    engine.cancel("r")
    assert [event.kind for event in engine.history("r")] == [kind for _, _, kind in Follower(bench.store()).all()]


def test_a_retry_and_a_reset_are_followed(bench: Any) -> None:
    """Opened between two looks of the follower: it misses none of them."""
    broken = [True]

    def work() -> str:
        if broken:
            raise OSError("down")
        return "done"

    @workflow
    def w() -> Flow[str]:
        done = yield from Step(work)
        yield Suspend("go")
        return done

    engine = bench.engine()
    engine.start(w, run_id="r")
    broken.clear()
    engine.retry("r")
    engine.reset("r")
    follower = Follower(bench.store(), incarnation=0)
    eventually(lambda: (2, 2, "suspend") in follower.seen)
    engine.resume("r", "go")
    seen = follower.all()
    assert [0, 1, 2] == sorted({number for number, _, _ in seen})
    for number in range(3):
        kinds = [event.kind for event in engine.history("r", incarnation=number)]
        assert list(enumerate(kinds)) == [(seq, kind) for which, seq, kind in seen if which == number]


def test_a_reset_while_somebody_follows(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    follower = Follower(bench.store())
    follower.until(3)
    engine.reset("r")
    eventually(lambda: (1, 2, "suspend") in follower.seen)
    assert (0, 3, "cancelled") in follower.seen
    engine.resume("r", "go", "on")
    assert (1, 4, "complete") == follower.all()[-1]


def test_a_reset_that_died_half_way_ends_it(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.following.POLL", 0.01)
    engine = bench.engine()
    engine.start(story, run_id="r")
    engine.cancel("r", "restarted", force=True)
    assert "cancelled" == Follower(bench.store()).all()[-1][2]


def test_what_is_not_there_is_told(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    with pytest.raises(NotFoundError, match="no run 'gone'"):
        next(follow(bench.store(), "gone"))
    with pytest.raises(NotFoundError, match="has no incarnation 4"):
        next(follow(bench.store(), "r", incarnation=4))


def test_a_run_that_is_deleted_meanwhile_is_told(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    pages = follow(bench.store(), "r")
    next(pages)
    engine.cancel("r")
    engine.delete("r")
    with pytest.raises(NotFoundError, match="deleted meanwhile"):
        next(pages)


class Counted(Wrapped):
    """Counts how often it is asked, and lets nobody wait in vain: a wait blocks until the test lets it go."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked = 0
        self.waits: list[float] = []
        self.go = threading.Event()

    def head(self, run_id: str) -> Any:
        self.asked += 1
        return self.inner.head(run_id)

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        self.waits.append(timeout)
        return self.go.wait(PATIENCE)


def test_it_waits_in_the_store_and_does_not_ask_meanwhile(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, run_id="r")
    store = Counted(bench.store())
    follower = Follower(store)
    eventually(lambda: store.waits)
    assert (2, [1.0]) == (store.asked, store.waits)
    engine.resume("r", "go", "on")
    store.go.set()
    assert "complete" == follower.all()[-1][2]
    assert 4 == store.asked


def test_a_hint_that_says_nothing_does_no_harm(bench: Any) -> None:
    class Deaf(Counted):
        def wait(self, run_id: str, seq: int, timeout: float) -> bool:
            if len(self.waits) == 3:
                engine.resume("r", "go", "on")
            self.waits.append(timeout)
            return len(self.waits) % 2 == 0

    engine = bench.engine()
    engine.start(story, run_id="r")
    store = Deaf(bench.store())
    assert 5 == len(Follower(store).all())
    assert 4 == len(store.waits)


# ---- processes

WRITER = """
import sys
from stepwell import Engine, Flow, Step, workflow

def work(number: int) -> int:
    if number == STOP:
        print("here", flush=True)
        sys.stdin.read()
    return number

@workflow
def count() -> Flow[int]:
    total = 0
    for number in range(30):
        total += yield from Step(work, number)
    return total

STOP = int(sys.argv[2])
engine = Engine(sys.argv[1], [count], lease=0.3)
"""
START = WRITER + "print(engine.start(count, run_id='r').unwrap())"


@pytest.mark.parametrize("stop", [0, 7, 29])
def test_a_writer_is_killed_and_another_goes_on_while_somebody_follows(
    disk: Any, python: Callable[..., subprocess.Popen[str]], stop: int
) -> None:
    writer = python(START, disk.url, str(stop))
    assert writer.stdout is not None
    eventually(lambda: disk.engine().runs())
    follower = Follower(disk.store())
    assert "here\n" == writer.stdout.readline()
    assert ["start", *["step"] * stop] == follower.until(stop + 1)
    writer.kill()
    writer.wait()
    second = python(START, disk.url, "-1")
    said, _ = second.communicate(timeout=60)
    assert f"{sum(range(30))}\n" == said
    seen = follower.all()
    assert [(0, seq) for seq in range(32)] == [(number, seq) for number, seq, _ in seen], "each once, in order"
    assert "complete" == seen[-1][2]

"""Runs of every kind, to be moved: what they do is written to a file, a line for each step that is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    Child,
    ContinueAsNew,
    Engine,
    Flow,
    RunMovedError,
    Sleep,
    Spend,
    Step,
    Suspend,
    Workflow,
    workflow,
)
from stepwell.store import HeadFilter, RunHead, Store
from stepwell.testing import VirtualClock

LONG = 3600.0


def note(log: str, label: str, what: str) -> str:
    """A step: a line of the log."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{label} {what}\n")
    return what


def breaks(log: str, label: str) -> str:
    """A step that fails."""
    note(log, label, "breaks")
    raise ValueError("it broke")


@workflow
def plain(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    return (yield from Step(note, log, label, "two"))


@workflow
def failing(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    return (yield from Step(breaks, log, label))


@workflow
def asking(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    yield Suspend("go", reason="please")
    return (yield from Step(note, log, label, "two"))


@workflow
def buffering(log: str, label: str) -> Flow[list[Any]]:
    yield Step(note, log, label, "one")
    first = yield Suspend("first")
    early = [(yield Suspend("early")), (yield Suspend("early"))]
    yield Step(note, log, label, "two")
    return [first, *early]


@workflow
def sleeping(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    yield Sleep(timedelta(seconds=LONG))
    return (yield from Step(note, log, label, "two"))


@workflow
def counting(log: str, label: str, number: int) -> Flow[int]:
    yield Step(note, log, label, f"round {number}")
    if number < 2:
        yield ContinueAsNew(log, label, number + 1)
    yield Suspend("go")
    yield Step(note, log, label, "last")
    return number


@workflow
def kid(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    yield Suspend("go")
    return (yield from Step(note, log, label, "two"))


@workflow
def parent(log: str, label: str) -> Flow[str]:
    yield Step(note, log, label, "one")
    found = yield from Child(kid, log, f"{label}-kid").options(run_id=f"{label}-kid")
    yield Step(note, log, label, "two")
    return found


@workflow
def grandparent(log: str, label: str) -> Flow[str]:
    found = yield from Child(parent, log, f"{label}-child").options(run_id=f"{label}-child")
    yield Step(note, log, label, "two")
    return found


@workflow
def spending(log: str, label: str) -> Flow[float | None]:
    yield Spend(3)
    yield Step(note, log, label, "one")
    yield Suspend("go")
    left = yield from Spend(4)
    yield Step(note, log, label, "two")
    return left


@workflow
def strange(log: str, label: str) -> Flow[str]:
    return (yield from Step(note, log, label, "one"))


KNOWN: list[Workflow[..., Any]] = [
    plain,
    failing,
    asking,
    buffering,
    sleeping,
    counting,
    kid,
    parent,
    grandparent,
    spending,
]
EVERY = [*KNOWN, spending, strange]
KINDS = 12
"""How many kinds of runs `fill` knows; some are several runs."""


def engine_on(store: Store, *, late: bool = False, workflows: Sequence[Any] = EVERY) -> Engine:
    """An engine that never waits in a thread; `late`: when all timers are due."""
    clock = VirtualClock()
    if late:
        clock.advance(2 * LONG)
    return Engine(store, workflows, clock=clock, park_after=0)


def fill(store: Store, log: Path, count: int) -> None:
    """Make so many runs, of every kind in turn."""
    engine, text = engine_on(store), str(log)
    for number in range(count):
        label, kind = f"r{number:04}", number % KINDS
        tags = {"number": str(number), "kind": str(kind)}
        match kind:
            case 0:
                engine.start(plain, text, label, run_id=label, tags=tags)
            case 1:
                engine.start(failing, text, label, run_id=label, tags=tags)
            case 2:
                engine.start(asking, text, label, run_id=label, tags=tags)
                engine.cancel(label, "no more")
            case 3:
                engine.start(asking, text, label, run_id=label, tags=tags)
            case 4:
                engine.start(buffering, text, label, run_id=label, tags=tags)
                engine.signal(label, "early", 1, id="a")
                engine.signal(label, "early", {"n": 2}, id="b")
            case 5:
                engine.start(sleeping, text, label, run_id=label, tags=tags)
            case 6:
                engine.start(counting, text, label, 0, run_id=label, tags=tags)
            case 7:
                engine.start(parent, text, label, run_id=label, tags=tags)
            case 8:
                engine.start(grandparent, text, label, run_id=label, tags=tags)
            case 9:
                engine.start(spending, text, label, run_id=label, tags=tags, budget=10)
            case 10:
                engine.submit(plain, text, label, run_id=label, tags=tags)
            case 11:
                engine.submit(strange, text, label, run_id=label, tags=tags)
                engine_on(store, workflows=[kid]).run_due()
                engine.start(asking, text, f"{label}-paused", run_id=f"{label}-paused")
                engine.pause(f"{label}-paused")


def heads(store: Store) -> Iterator[RunHead]:
    """All runs, newest first."""
    after = None
    while page := store.heads(HeadFilter(), limit=200, after=after):
        yield from page
        after = page[-1].run_id


def histories(store: Store, run: RunHead) -> list[list[bytes]]:
    """Every record of a run."""
    tails = [store.read(run.run_id, incarnation=number) for number in range(run.incarnation + 1)]
    return [tail.records for tail in tails if tail is not None]


Picture = dict[str, tuple[RunHead, list[list[bytes]]]]


def picture(store: Store) -> Picture:
    """What a store has, in its order."""
    return {run.run_id: (run, histories(store, run)) for run in heads(store)}


def same(before: Picture, after: Picture) -> None:
    """See that a store has exactly what another one had."""
    assert list(before) == list(after)
    for run_id, (was, records) in before.items():
        run, found = after[run_id]
        assert records == found
        assert (was.incarnation, was.seq, was.closed) == (run.incarnation, run.seq, run.closed)
        assert run.fence >= was.fence
        assert run.lease_until is None
        waits = [(one.head.status, one.head.waiting, one.head.tags, one.head.blocked) for one in (was, run)]
        assert waits[0] == waits[1]
        assert was.head.created == run.head.created
        assert was.head.updated == run.head.updated
        assert was.head.due == run.head.due or b'"type":"child"' in b"".join(records[-1])


def finish(store: Store) -> Engine:
    """Drive everything to its end."""
    engine = engine_on(store, late=True)
    for _ in range(20):
        engine.run_due()
        open_runs = [run for run in heads(store) if not run.closed]
        if not open_runs:
            return engine
        for run in open_runs:
            if run.head.status == "paused":
                engine.unpause(run.run_id)
            for wait in run.head.waiting:
                engine.signal(run.run_id, wait.signal, "late", wait=wait.wait)
    raise AssertionError(f"still open: {[run.run_id for run in heads(store) if not run.closed]}")


def judge(log: Path, store: Store) -> None:
    """See that every run of a store came to its end, and that no step was called twice."""
    engine = engine_on(store)
    calls = Counter(log.read_text("utf-8").splitlines())
    assert [line for line, count in calls.items() if count > 1] == []
    for run in heads(store):
        kind = run.head.tags.get("kind")
        expected = {"1": "failed", "2": "cancelled"}.get(kind or "", "completed")
        assert (run.run_id, expected) == (run.run_id, run.head.status)
        record = engine.get(run.run_id)
        if kind == "4":
            assert ["late", 1, {"n": 2}] == record.result
        elif kind == "6":
            assert (2, 3) == (record.result, record.attempts)
        elif kind == "9":
            assert 3 == record.result
        elif kind == "8":
            assert record.result == "two"
            assert calls[f"{run.run_id}-child-kid two"] == 1


def refuses(store: Store, run_id: str) -> None:
    """See that a store says of a run that it was moved, whatever is asked."""
    engine = engine_on(store)
    for call in (
        lambda: engine.get(run_id),
        lambda: engine.advance(run_id),
        lambda: engine.signal(run_id, "go"),
        lambda: engine.resume(run_id, "go"),
        lambda: engine.cancel(run_id),
        lambda: engine.cancel(run_id, force=True),
        lambda: engine.retry(run_id),
        lambda: engine.reset(run_id),
        lambda: engine.fork(run_id, before=1),
        lambda: engine.delete(run_id),
        lambda: engine.history(run_id),
        lambda: engine.start(strange, "nowhere", run_id, run_id=run_id),
        lambda: engine.submit(strange, "nowhere", run_id, run_id=run_id),
    ):
        with pytest.raises(RunMovedError) as caught:
            call()
        assert caught.value.to

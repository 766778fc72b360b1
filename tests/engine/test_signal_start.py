"""signal(start=): a signal that brings its run into being, or reaches the one that is there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    ConflictError,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    NotFoundError,
    RunClosedError,
    RunCompleted,
    RunSuspended,
    Signal,
    Step,
    StoreUnavailableError,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.store import Unknown
from stepwell.testing import received, replay

from .tools import Task, Wrapped, kinds


@frozen
class Added:
    item: str
    count: int = 1


added = Signal("added", Added)


def total(items: list[str]) -> str:
    return " ".join(items)


@workflow
def cart(owner: str) -> Flow[str]:
    items: list[str] = []
    while (one := (yield from Suspend(added))).count:
        items += [one.item] * one.count
    return owner + ": " + (yield from Step(total, items))


@workflow
def other() -> Flow[None]:
    yield Suspend("go")


def add(engine: Any, item: str, count: int = 1, run_id: str = "r", owner: str = "ada", **options: Any) -> None:
    engine.signal(run_id, added, Added(item, count), start=(cart, owner), **options)


def test_the_first_signal_creates_the_run_and_the_next_ones_reach_it(bench: Any) -> None:
    engine = bench.engine()
    add(engine, "tea", tags={"shop": "north"})
    assert ["start", "resume"] == kinds(engine, "r")
    assert ("pending", {"shop": "north"}, ["ada"]) == (
        engine.get("r").status,
        engine.get("r").tags,
        engine.get("r").input,
    )
    add(engine, "milk", 2)
    assert [RunSuspended("r", ("added",))] == bench.engine(cart).run_due()
    add(bench.engine(), "end", 0, owner="somebody else")
    assert [RunCompleted("r", "ada: tea milk milk")] == bench.engine(cart).run_due()


def test_it_is_one_write(bench: Any) -> None:
    """So there is no run without its signal, wherever the process dies."""

    class Counting(Wrapped):
        writes: list[str] = []  # noqa: RUF012

        def create(self, *where: Any, **how: Any) -> Any:
            self.writes.append("create")
            return self.inner.create(*where, **how)

        def append(self, *where: Any, **how: Any) -> Any:
            self.writes.append("append")
            return self.inner.append(*where, **how)

    store = Counting(bench.store())
    add(bench.engine(store=store), "tea")
    assert ["create"] == store.writes
    add(bench.engine(store=store), "tea")
    assert ["create", "create", "append"] == store.writes


def test_the_same_id_counts_once(bench: Any) -> None:
    for _ in range(2):
        for count, signal_id in ((1, "first"), (2, "second")):
            add(bench.engine(), "tea", count, id=signal_id)
    bench.engine(cart).signal("r", added, Added("tea", 5), id="first")
    add(bench.engine(), "end", 0)
    assert ["ada: tea tea tea"] == [outcome.unwrap() for outcome in bench.engine(cart).run_due()]


def test_a_write_whose_outcome_is_not_known_is_repeated_and_counts_once(bench: Any) -> None:
    class Shaky(Wrapped):
        failures = 2

        def create(self, *where: Any, **how: Any) -> Any:
            done = self.inner.create(*where, **how)
            self.failures -= 1
            return done if self.failures < 0 else Unknown()

    engine = bench.engine(store=Shaky(bench.store()))
    add(engine, "tea")
    assert ["start", "resume"] == kinds(engine, "r")


def test_a_closed_run_is_not_reached(bench: Any) -> None:
    engine = bench.engine()
    add(engine, "end", 0, id="end")
    engine.run_due()
    with pytest.raises(RunClosedError, match=r"is completed: .*if_closed='restart' begins it anew") as caught:
        add(engine, "tea")
    assert "completed" == caught.value.status
    add(engine, "end", 0, id="end")  # it has got that one
    assert 1 == engine.get("r").attempts


def test_a_closed_run_begins_anew_when_that_is_asked_for(bench: Any) -> None:
    engine = bench.engine()
    for owner in ("ada", "bob"):
        add(engine, "end", 0, owner=owner, id=f"end of {owner}", if_closed="restart")
        engine.run_due()
        add(engine, "end", 0, owner="nobody", id=f"end of {owner}", if_closed="restart")
    record = engine.get("r")
    assert (2, "bob: ", "completed") == (record.attempts, record.result, record.status)
    assert ["start", "resume"] == kinds(engine, "r")[:2]


def test_a_run_that_is_opened_by_somebody_else_meanwhile_gets_the_signal(bench: Any) -> None:
    engine = bench.engine()
    add(engine, "end", 0)
    engine.run_due()

    class Beaten(Wrapped):
        beaten = False

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            if not self.beaten:
                self.beaten = True
                add(bench.engine(), "milk", if_closed="restart")
            return self.inner.open_incarnation(*where, **how)

    add(bench.engine(store=Beaten(bench.store())), "tea", if_closed="restart")
    add(engine, "end", 0)
    engine.run_due()
    assert (2, "ada: milk tea") == (engine.get("r").attempts, engine.get("r").result)


@pytest.mark.parametrize("fate", ["closed", "deleted"])
def test_a_run_that_goes_meanwhile_is_looked_at_again(bench: Any, fate: str) -> None:
    engine = bench.engine()
    add(engine, "tea")

    class Late(Wrapped):
        gone = False

        def create(self, *where: Any, **how: Any) -> Any:
            done = self.inner.create(*where, **how)
            if not self.gone:
                self.gone = True
                engine.cancel("r", force=True)
                if fate == "deleted":
                    engine.delete("r")
            return done

    late = bench.engine(store=Late(bench.store()))
    if fate == "closed":
        with pytest.raises(RunClosedError, match="is cancelled"):
            add(late, "milk")
        return
    add(late, "milk")
    assert ["start", "resume"] == kinds(engine, "r")


def test_another_workflow_is_a_conflict(bench: Any) -> None:
    engine = bench.engine()
    engine.start(other, run_id="r")
    with pytest.raises(ConflictError, match="it is of workflow 'other', not 'cart'"):
        add(engine, "tea")


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (cart, "start must be a tuple of a workflow and its arguments"),
        ((), "start must be a tuple of a workflow and its arguments"),
        ((total, []), "made with @workflow"),
        ((cart,), "was given 0 arguments"),
        ((cart, 3), "workflow 'cart', argument 'owner'"),
    ],
    ids=["no tuple", "nothing", "no workflow", "no arguments", "wrong argument"],
)
def test_a_wrong_start_is_refused_before_anything_is_written(memory: Any, start: Any, why: str) -> None:
    engine = memory.engine()
    with pytest.raises(InvalidInputError, match=why):
        engine.signal("r", added, Added("tea"), start=start)
    with pytest.raises(NotFoundError):
        engine.get("r")


def test_a_wrong_payload_is_refused_before_anything_is_written(bench: Any) -> None:
    """By the Suspend with which the run would begin, or by the type of the Signal."""
    engine = bench.engine()
    for signal in (added, "added"):
        with pytest.raises(InvalidInputError, match="signal 'added' does not fit Added"):
            engine.signal("r", signal, {"item": 3}, start=(cart, "ada"))
    assert [] == engine.runs()
    engine.signal("r", "added", {"item": "tea"}, start=(cart, "ada"))
    assert ["start", "resume"] == kinds(engine, "r")


def test_a_workflow_that_begins_with_a_wrong_yield_is_refused(memory: Any) -> None:
    @workflow
    def wrong() -> Flow[None]:
        yield 3  # type: ignore[misc]

    engine = memory.engine()
    with pytest.raises(InvalidYieldError):
        engine.signal("r", "go", start=(wrong,))
    assert [] == engine.runs()


def test_options_that_do_not_go_together_are_refused(memory: Any) -> None:
    engine = memory.engine()
    for options in ({"tags": {"a": "b"}}, {"if_closed": "restart"}):
        with pytest.raises(InvalidInputError, match="give start too"):
            engine.signal("r", added, Added("tea"), **options)
    with pytest.raises(InvalidInputError, match="wait names a question of a run that is there"):
        add(engine, "tea", wait="added@0:0")
    with pytest.raises(InvalidInputError, match="if_closed must be one of error, restart"):
        add(engine, "tea", if_closed="return")
    assert [] == engine.runs()


def test_a_store_that_fails_is_told(memory: Any) -> None:
    class Down(Wrapped):
        def create(self, *where: Any, **how: Any) -> Any:
            return Unknown()

    with pytest.raises(StoreUnavailableError):
        add(memory.engine(store=Down(memory.store())), "tea")


def test_many_at_once_make_one_run_that_has_every_signal(bench: Any) -> None:
    engine = bench.engine()
    tasks = [Task(lambda n=n: add(engine, f"i{n % 4}", id=f"i{n % 4}")) for n in range(8)]  # type: ignore[misc]
    for task in tasks:
        task.result()
    history = [event for event in engine.history("r") if isinstance(event, e.Resume)]
    assert {"i0", "i1", "i2", "i3"} == {event.id for event in history}
    add(engine, "end", 0)
    (outcome,) = bench.engine(cart).run_due()
    assert ["i0", "i1", "i2", "i3"] == sorted(outcome.unwrap().removeprefix("ada: ").split())


def test_a_fake_history_of_such_a_run_begins_with_the_signal() -> None:
    run = replay(cart, "ada", history=[received(added, Added("tea")), received(added, Added("", 0))])
    assert Step(total, ["tea"]) == run.next


# ---- in processes of their own

SENDER = """
import sys
from stepwell import Engine, Flow, Suspend, workflow

@workflow
def collect() -> Flow[list[str]]:
    found = []
    while (one := (yield from Suspend("item", into=str))) != "end":
        found.append(one)
    return found

engine = Engine(sys.argv[1], [collect])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    name = sys.argv[2]
    engine.signal(f"r{number}", "item", name, id=name, start=(collect,))
    print(number, flush=True)
"""


def test_senders_in_several_processes_meet_in_one_run(disk: Any, python: Callable[..., subprocess.Popen[str]]) -> None:
    senders = [python(SENDER, disk.url, name, "5") for name in ("a", "b", "b")]
    for sender in senders:
        assert sender.stdout is not None
        assert "ready\n" == sender.stdout.readline()
    for sender in senders:
        assert sender.stdin is not None
        sender.stdin.write("\n")
        sender.stdin.flush()
    for sender in senders:
        sender.communicate(timeout=60)
        assert 0 == sender.returncode
    found = results(disk, python, 5)
    assert [["a", "b"]] * 5 == [sorted(items) for items in found]


@pytest.mark.parametrize("after", range(4))
def test_a_sender_that_is_killed_sends_again_and_each_signal_counts_once(
    disk: Any, python: Callable[..., subprocess.Popen[str]], after: int
) -> None:
    process = python(SENDER, disk.url, "a", "100000")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    for _ in range(after):
        process.stdout.readline()
    process.kill()
    process.wait()
    engine = disk.engine()
    for record in engine.runs(limit=10_000):
        assert ["start", "resume"] == kinds(engine, record.id), "both or neither"
    sent = len(engine.runs(limit=10_000)) + 1
    again = python(SENDER, disk.url, "a", str(sent))
    again.communicate("\n", timeout=60)
    assert 0 == again.returncode
    assert [["a"]] * sent == results(disk, python, sent)


DRIVER = """
import json
for number in range(int(sys.argv[2])):
    engine.signal(f"r{number}", "item", "end")
engine.run_due()
print(json.dumps([engine.get(f"r{number}").result for number in range(int(sys.argv[2]))]))
"""


def results(disk: Any, python: Callable[..., subprocess.Popen[str]], count: int) -> Any:
    """End all runs, in another process; what they give."""
    process = python(SENDER.partition("print(")[0] + DRIVER, disk.url, str(count))
    said, _ = process.communicate(timeout=60)
    assert 0 == process.returncode
    return json.loads(said)

"""Children: runs of their own, started once, whose ends reach their parents once, whatever dies in between."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Child,
    ChildFailed,
    ConflictError,
    CycleDetectedError,
    DepthExceededError,
    Engine,
    Flow,
    InvalidInputError,
    LeaseLostError,
    Race,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSuspended,
    Sleep,
    Step,
    Suspend,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.lifecycle import ChildEnded, ChildStarted
from stepwell.worker import Worker

from .dying import every_death
from .tools import PATIENCE, Tally, Task, Wrapped, eventually, kinds


def double(x: int) -> int:
    return 2 * x


def break_down(x: int) -> int:
    raise ConnectionError(f"no line to {x}")


@workflow
def doubling(x: int) -> Flow[int]:
    return (yield from Step(double, x))


@workflow
def broken(x: int) -> Flow[int]:
    return (yield from Step(break_down, x))


@workflow
def asking(question: str) -> Flow[str]:
    try:
        return (yield from Suspend("answer", into=str, reason=question))
    finally:
        yield from Step(double, 1)


@workflow
def family(count: int) -> Flow[list[int]]:
    found = [(yield from Child(doubling, 100))]
    return found + list((yield All(*(Child(doubling, x) for x in range(count)))))


def test_a_child_is_a_run_of_its_own_and_gives_its_result(bench: Any) -> None:
    engine = bench.engine(family)
    assert RunCompleted("r", [200, 0, 2, 4]) == engine.start(family, 3, run_id="r")
    children = {run.id: run.status for run in engine.runs(workflow="doubling")}
    assert dict.fromkeys(["r/1:0", "r/1:1.0.0", "r/1:1.1.0", "r/1:1.2.0"], "completed") == children
    assert "r" == engine.get("r/1:0").parent
    assert engine.get("r").parent is None
    assert ["start", "child", "childResult", "child", "child", "child"] == kinds(engine, "r")[:6]
    assert ["family"] == engine.history("r/1:0")[0].ancestors
    assert engine.start(family, 3, run_id="r").unwrap() == [200, 0, 2, 4]


def test_a_child_that_fails_throws_and_is_caught_by_the_type_of_its_failure(bench: Any) -> None:
    caught: list[Any] = []

    @workflow
    def careful() -> Flow[str]:
        try:
            yield from Child(broken, 7)
        except failed(ConnectionError) as error:
            caught.append(error)
            return str(error.failure.message)
        return "no"

    engine = bench.engine(careful)
    assert "step 'break_down' failed: ConnectionError: no line to 7" == engine.start(careful, run_id="r").unwrap()
    assert isinstance(caught[0], ChildFailed)
    assert ("r/1:0", "0") == (caught[0].step_id, caught[0].at)
    assert "child 'r/1:0' failed" in str(caught[0])


def test_one_that_nobody_catches_fails_its_parent_which_can_be_retried(bench: Any) -> None:
    lines = {"up": False}

    def call(x: int) -> int:
        if not lines["up"]:
            raise ConnectionError("down")
        return x

    @workflow
    def calling(x: int) -> Flow[int]:
        return (yield from Step(call, x))

    @workflow
    def parent() -> Flow[list[int]]:
        return list((yield All(Child(doubling, 1), Child(calling, 2))))

    engine = bench.engine(parent)
    outcome = engine.start(parent, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(ConnectionError, ChildFailed)
    lines["up"] = True
    assert RunCompleted("r", [2, 2]) == engine.retry("r")
    children = [(run.id.rpartition(":")[2], run.status) for run in engine.runs() if run.id != "r"]
    assert [("0.0.0", "completed"), ("0.1.0", "completed"), ("0.1.0", "failed")] == sorted(children)


def test_a_child_that_waits_is_resumed_and_its_parent_goes_on_in_the_same_call(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return "it is " + (yield from Child(asking, "what?"))

    engine = bench.engine(parent)
    outcome = engine.start(parent, run_id="r")
    assert isinstance(outcome, RunSuspended)
    assert ((), ("r/1:0",)) == (outcome.waiting_for, outcome.children)
    with pytest.raises(Exception, match="waits for child 'r/1:0'"):
        outcome.unwrap()
    (wait,) = engine.waiting()
    assert ("r/1:0", "what?") == (wait.run_id, wait.reason)
    again = bench.engine(parent, asking)
    assert RunCompleted("r/1:0", "good") == again.resume("r/1:0", "answer", "good")
    assert RunCompleted("r", "it is good") == again.wait("r", 1)


def test_a_cancel_reaches_children_and_waits_for_their_clean_up(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(asking, "what?"))

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    assert RunCancelled("r", "no more") == engine.cancel("r", "no more")
    assert RunCancelled("r/1:0", "no more") == engine.wait("r/1:0", 1)
    assert "step" in kinds(engine, "r/1:0")
    assert ["start", "child", "cancel", "childResult", "cancelled"] == kinds(engine, "r")


def test_a_forced_cancel_reaches_children_too(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(asking, "what?"))

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    engine.cancel("r", force=True)
    assert ("cancelled", "cancelled") == (engine.get("r").status, engine.get("r/1:0").status)


def test_a_child_that_somebody_else_cancels_has_failed(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        try:
            return (yield from Child(asking, "what?"))
        except ChildFailed as error:
            return error.failure.message

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    engine.cancel("r/1:0", "not today")
    assert RunCompleted("r", "run 'r/1:0' was cancelled: not today") == engine.wait("r", 1)


def test_the_loser_of_a_race_is_cancelled_and_its_parent_does_not_wait_for_it(bench: Any) -> None:
    @workflow
    def parent() -> Flow[list[Any]]:
        return list((yield Race(answer=Child(asking, "what?"), quick=Child(doubling, 4))))

    engine = bench.engine(parent)
    assert ["quick", 8] == engine.start(parent, run_id="r").unwrap()
    assert "cancelled" == engine.wait("r/1:0.0.0", 1).status


def test_a_detached_child_gives_its_run_id_and_lives_on(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(asking, "what?").options(detached=True, run_id="mine"))

    engine = bench.engine(parent)
    assert RunCompleted("r", "mine") == engine.start(parent, run_id="r")
    assert "suspended" == engine.get("mine").status
    engine.resume("mine", "answer", "well")
    assert ["start", "child", "childResult", "complete"] == kinds(engine, "r")


def test_a_run_id_that_is_taken_by_another_run_fails_the_child(bench: Any) -> None:
    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(doubling, 1).options(run_id="taken"))

    engine = bench.engine(parent, doubling)
    engine.start(doubling, 5, run_id="taken")
    outcome = engine.start(parent, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "run 'taken' is there already, and it is no child of run 'r'" in outcome.failure.message
    assert 10 == engine.get("taken").result


def test_a_run_id_that_is_taken_can_be_joined_open_or_closed_and_nothing_is_started(bench: Any) -> None:
    @workflow
    def parent(detached: bool) -> Flow[Any]:
        child = Child(doubling, 1)
        if detached:
            return (yield from child.options(run_id="taken", join=True, detached=True))
        return (yield from child.options(run_id="taken", join=True))

    @workflow
    def waits() -> Flow[str]:
        return (yield from Child(asking, "what?").options(run_id="open", join=True))

    @workflow
    def other() -> Flow[int]:
        return (yield from Child(doubling, 1).options(run_id="open", join=True))

    engine = bench.engine(parent, waits, other, doubling, asking)
    engine.start(doubling, 5, run_id="taken")
    assert [10, "taken"] == [
        engine.start(parent, detached, run_id=f"r{detached}").unwrap() for detached in (False, True)
    ]
    assert (1, [5], None) == (engine.get("taken").attempts, engine.get("taken").input, engine.get("taken").parent)
    engine.reset("rTrue")
    assert 1 == engine.get("taken").attempts  # a parent that begins anew finds it as well
    engine.start(asking, "who?", run_id="open")
    assert "suspended" == engine.start(waits, run_id="w").status
    assert "it is no child of run 'o'" in str(engine.start(other, run_id="o"))
    engine.resume("open", "answer", "me")
    assert "me" == engine.advance("w").unwrap()  # nobody told it: it has looked


def test_children_can_be_found_by_tags(bench: Any) -> None:
    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(doubling, 1).options(tags={"kind": "small"}))

    engine = bench.engine(parent)
    engine.start(parent, run_id="r", tags={"kind": "big"})
    assert ["doubling"] == [run.workflow for run in engine.runs(tag=("kind", "small"))]


def test_a_cycle_is_refused_before_the_child_starts_unless_it_is_meant(bench: Any) -> None:
    @workflow
    def snake(n: int) -> Flow[int]:
        try:
            return (yield from Child(snake, n - 1))
        except CycleDetectedError as error:
            return -1 if "snake -> snake" in str(error) else -2

    @workflow(recursive=True)
    def factorial(n: int) -> Flow[int]:
        return 1 if n == 0 else n * (yield from Child(factorial, n - 1))

    engine = bench.engine(snake, factorial)
    assert -1 == engine.start(snake, 3, run_id="s").unwrap()
    assert ["s"] == [run.id for run in engine.runs(workflow="snake")]
    assert 120 == engine.start(factorial, 5).unwrap()


def test_children_can_be_nested_so_deep_and_no_deeper(memory: Any) -> None:
    """Shows S20 (P7)."""

    @workflow(recursive=True)
    def deep(n: int) -> Flow[int]:
        if n == 0:
            return 0
        try:
            return 1 + (yield from Child(deep, n - 1))
        except DepthExceededError:
            return 1000

    assert 32 == memory.engine(deep).start(deep, 32).unwrap()
    assert 1032 == memory.engine(deep).start(deep, 33).unwrap()
    assert 1002 == memory.engine(deep, max_depth=2).start(deep, 30).unwrap()
    with pytest.raises(InvalidInputError, match="max_depth"):
        memory.engine(deep, max_depth=-1)


def test_a_long_line_of_run_ids_stays_short(memory: Any) -> None:
    @workflow(recursive=True)
    def deep(n: int) -> Flow[int]:
        return 0 if n == 0 else 1 + (yield from Child(deep, n - 1))

    engine = memory.engine(deep)
    assert 30 == engine.start(deep, 30, run_id="é" * 90).unwrap()
    ids = [run.id for run in engine.runs()]
    assert 31 == len(set(ids))
    assert max(len(one.encode()) for one in ids) <= 200


def test_wrong_children_are_refused_where_they_are_made() -> None:
    with pytest.raises(InvalidInputError, match="decorate it with @workflow"):
        Child(double, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="missing a required argument: 'x'"):
        Child(doubling)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match="run_id"):
        Child(doubling, 1).options(run_id="")
    with pytest.raises(InvalidInputError, match="budget"):
        Child(doubling, 1).options(budget=-1)
    with pytest.raises(InvalidInputError, match="give run_id too"):
        Child(doubling, 1).options(join=True)
    for tags in ("text", {"": "x"}, {"a\nb": "x"}, {1: "x"}, {"a": 1}, {"a": "\ud800"}):
        with pytest.raises(InvalidInputError, match="a child's tag"):
            Child(doubling, 1).options(tags=tags)  # type: ignore[arg-type]


def test_an_argument_that_does_not_fit_is_told_before_anything_is_written(memory: Any) -> None:
    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(doubling, "three"))  # type: ignore[arg-type]

    engine = memory.engine(parent)
    with pytest.raises(InvalidInputError, match="workflow 'doubling', argument 'x'"):
        engine.start(parent, run_id="r")
    assert [] == engine.runs(workflow="doubling")


def test_children_go_on_beside_the_steps_of_their_parent(bench: Any) -> None:
    """The parent's thread waits for its steps; a child does not wait for that."""
    done = threading.Event()

    def wait_for_the_child() -> int:
        assert done.wait(PATIENCE)
        return 1

    def tell() -> int:
        done.set()
        return 2

    @workflow
    def telling() -> Flow[int]:
        return (yield from Step(tell))

    @workflow
    def parent() -> Flow[list[int]]:
        return list((yield All(Step(wait_for_the_child), Child(telling))))

    assert [1, 2] == bench.engine(parent).start(parent).unwrap()


def test_a_short_sleep_beside_a_child_is_waited_for_in_the_same_call(memory: Any) -> None:
    @workflow
    def parent() -> Flow[list[Any]]:
        return list((yield All(Sleep(0.01), Child(doubling, 2))))

    assert [None, 4] == memory.engine(parent).start(parent).unwrap()


def test_a_listener_hears_of_children(memory: Any) -> None:
    heard: list[Any] = []
    engine = memory.engine(family, on_event=heard.append)
    engine.start(family, 0, run_id="r")
    assert [ChildStarted("r", "r/1:0", "doubling", "0")] == [x for x in heard if isinstance(x, ChildStarted)]
    assert [ChildEnded("r", "r/1:0", "completed", "0")] == [x for x in heard if isinstance(x, ChildEnded)]


def test_a_worker_drives_parents_and_children(disk: Any) -> None:
    engine = disk.engine(family, doubling)
    engine.submit(family, 5, run_id="r")
    worker = Worker(engine, threads=2, poll=0.05)
    task = Task(worker.run)
    try:
        eventually(lambda: engine.get("r").status == "completed")
    finally:
        worker.stop()
        task.result()
    assert [200, 0, 2, 4, 6, 8] == engine.get("r").result
    assert 6 == len(engine.runs(workflow="doubling"))


def test_whatever_dies_between_parent_and_child_there_is_one_child_one_result_and_one_delivery(bench: Any) -> None:
    """Shows S14 (P5)."""
    tally = Tally()

    @workflow
    def child(number: int, x: int) -> Flow[int]:
        return (yield from tally.step(f"{number}-{x}")) * 0 + x

    @workflow
    def parent(number: int) -> Flow[list[int]]:
        first = yield from Child(child, number, 1)
        later = yield from Child(child, number, 9).options(detached=True)
        assert later == f"p{number}/1:1"
        return [first, *(yield All(Child(child, number, 2), Child(child, number, 3)))]

    def check(engine: Engine, number: int) -> None:
        name = f"p{number}"
        if engine.store.head(name) is None:  # it died before it was there
            return
        assert RunCompleted(name, [1, 2, 3]) == engine.advance(name)
        ids = [f"{name}/1:{at}" for at in ("0", "1", "2.0.0", "2.1.0")]
        mine = sorted(run.id for run in engine.runs(workflow="child", limit=10_000) if run.id.startswith(f"{name}/"))
        assert ids == mine
        assert all("completed" == engine.get(one).status for one in ids)
        performed = Counter({x: tally[f"{number}-{x}"] for x in (1, 9, 2, 3)})
        assert performed.total() <= 5  # a step whose process died before it was recorded is performed again
        assert all(performed.values())
        history = engine.history(name)
        assert 4 == sum(isinstance(event, e.Child) for event in history)
        ends = Counter(event.child_id for event in history if isinstance(event, e.ChildResult))
        assert sorted(ids) == sorted(ends)

    deaths = every_death(bench, (parent, child), lambda engine, n: engine.start(parent, n, run_id=f"p{n}"), check)
    assert deaths > 40


def test_whatever_dies_while_a_cancel_is_passed_on_it_reaches_the_child(bench: Any) -> None:
    """Shows S14 (P5)."""

    @workflow
    def parent(number: int) -> Flow[str]:
        try:
            return (yield from Child(asking, str(number)))
        except Cancelled:
            yield from Step(double, 2)
            raise

    def act(engine: Engine, number: int) -> None:
        engine.start(parent, number, run_id=f"p{number}")
        engine.cancel(f"p{number}")

    def check(engine: Engine, number: int) -> None:
        name = f"p{number}"
        head = engine.store.head(name)
        if head is None or "cancel" not in kinds(engine, name):
            return
        assert ("cancelled", "cancelled") == (engine.get(name).status, engine.get(f"{name}/1:0").status)

    assert every_death(bench, (parent, asking), act, check) > 20


def test_a_worker_that_is_told_to_stop_before_a_child_leaves_the_run_due(memory: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        entered.set()
        assert go_on.wait(PATIENCE)
        return 1

    @workflow
    def parent() -> Flow[int]:
        yield Step(slow)
        return (yield from Child(doubling, 4))

    engine = memory.engine(parent)
    engine.submit(parent, run_id="r")
    worker = Worker(engine)
    task = Task(worker.run)
    assert entered.wait(PATIENCE)
    worker.stop()
    go_on.set()
    task.result()
    assert [RunCompleted("r", 8)] == [one for one in engine.run_due() if one.run_id == "r"]


def test_a_handled_failure_of_a_child_stays_handled_on_retry_and_fork(bench: Any) -> None:
    works = {"now": False}

    def flaky() -> int:
        if not works["now"]:
            raise ConnectionError
        return 1

    @workflow
    def parent() -> Flow[int]:
        try:
            yield Child(broken, 1)
        except ChildFailed:
            yield from Step(double, 3)
        return (yield from Step(flaky))

    engine = bench.engine(parent)
    assert "failed" == engine.start(parent, run_id="r").status
    works["now"] = True
    assert RunCompleted("r", 1) == engine.retry("r")
    assert 1 == engine.fork("r", before="flaky").unwrap()
    assert 1 == len(engine.runs(workflow="broken"))


def test_a_child_that_is_closed_by_force_tells_its_parent(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        try:
            return (yield from Child(asking, "what?"))
        except ChildFailed as error:
            return error.failure.message

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    engine.cancel("r/1:0", force=True)
    assert [RunCompleted("r", "run 'r/1:0' was cancelled")] == engine.run_due()


def test_a_run_id_that_is_too_long_is_refused_where_it_is_given() -> None:
    with pytest.raises(InvalidInputError, match="1 to 200 bytes"):
        Child(doubling, 1).options(run_id="é" * 150)


def test_a_child_that_is_made_while_its_parent_is_ended_ends_as_well(memory: Any) -> None:
    """Between the record of the child and its run somebody closes the parent by force, and finds no child yet."""
    tally = Tally()

    @workflow
    def child() -> Flow[int]:
        return (yield from tally.step("child"))

    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(child))

    class Ending(Wrapped):
        def create(self, run_id: str, *where: Any, **how: Any) -> Any:
            if run_id != "r":
                other.cancel("r", force=True)
            return self.inner.create(run_id, *where, **how)

    store = memory.store()
    other = memory.engine(parent, child, store=store)
    with pytest.raises(LeaseLostError, match="ended by somebody else"):
        memory.engine(parent, child, store=Ending(store)).start(parent, run_id="r")
    other.run_due()
    assert ("cancelled", "cancelled", 0) == (other.get("r").status, other.get("r/1:0").status, tally["child"])


def test_a_child_that_its_open_parent_still_needs_is_not_deleted(bench: Any) -> None:
    @workflow
    def parent() -> Flow[Any]:
        return list((yield All(Child(asking, "what?"), Child(doubling, 2))))

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    with pytest.raises(ConflictError, match="can't be deleted yet: it is a child of run 'r', which is open"):
        engine.delete("r/1:0.1.0")
    engine.cancel("r")
    engine.delete("r/1:0.1.0")

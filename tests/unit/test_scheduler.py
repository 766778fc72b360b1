"""The scheduler: one FIFO queue, fibers that run until they block, and where an exception came from."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator
from typing import Any

from stepwell import All, Flow, Race, SetState, Sleep, Step, StepFailed, Suspend, workflow
from stepwell import commands as c
from stepwell import events as e
from stepwell.fibers import Fiber, Pending, Verdict, describe, line_of
from stepwell.scheduler import Scheduler
from stepwell.testing import raised, received, replay, returned

from .tools import STAMP, ask, asked, did, fold, frontier, task, tried, waits


class Bench:
    """A host without a history: commands are answered by hand."""

    def __init__(self, gen: Generator[Any, Any, Any]) -> None:
        self.fibers = Scheduler("bench", gen, self, None)
        self.fibers.run()

    def unnumbered(self, fiber: Fiber, command: c.Command[Any]) -> Verdict | None:
        if isinstance(command, c.Patched):
            self.fibers.halted = True
            return None
        return Verdict()

    def admit(self, pending: Pending) -> Verdict | None:
        return Verdict("at once") if isinstance(pending.command, c.Now) else None

    def answer(self, at: str, value: Any = None, error: BaseException | None = None) -> None:
        self.fibers.settle(self.fibers.pending[at], value, error)
        self.fibers.run()


def test_a_fiber_runs_until_it_blocks() -> None:
    """What is answered at once does not let another fiber go first."""
    log: list[str] = []

    def one(name: str) -> Flow[None]:
        log.append(f"{name}1")
        yield c.Now()
        yield SetState(a=1)
        log.append(f"{name}2")
        yield Sleep(1)
        log.append(f"{name}3")

    def root() -> Flow[None]:
        yield All(one("a"), one("b"))

    bench = Bench(root())
    assert ["a1", "a2", "b1", "b2"] == log
    assert ["0.0.1", "0.1.1"] == list(bench.fibers.pending)
    bench.answer("0.1.1")
    assert ["a1", "a2", "b1", "b2", "b3"] == log


def test_while_it_is_halted_no_fiber_goes_on() -> None:
    log: list[str] = []

    def one(name: str) -> Flow[None]:
        yield c.Patched(name)
        log.append(name)

    def root() -> Flow[None]:
        yield All(one("a"), one("b"))

    bench = Bench(root())
    assert bench.fibers.halted
    [_, first, _] = bench.fibers._fibers.values()
    bench.fibers.halted = False
    bench.fibers.answer(first, Verdict(), first=True)
    bench.fibers.run()
    assert ["a"] == log
    assert bench.fibers.halted


def test_the_root_tells_how_it_ended() -> None:
    def ends() -> Flow[int]:
        yield c.Now()
        return 3

    def breaks() -> Flow[int]:
        yield c.Now()
        raise KeyError("x")

    assert Bench(ends()).fibers.verdict is not None
    assert 3 == Bench(ends()).fibers.verdict.value  # type: ignore[union-attr]
    assert isinstance(Bench(breaks()).fibers.verdict.error, KeyError)  # type: ignore[union-attr]


def test_ending_from_outside_leaves_nothing_behind() -> None:
    closed: list[str] = []

    def one() -> Flow[None]:
        try:
            yield Sleep(1)
        finally:
            closed.append("one")

    def root() -> Flow[None]:
        yield All(one(), Suspend("x"))

    bench = Bench(root())
    bench.fibers.end(Verdict("over"))
    assert (["one"], {}, "over") == (closed, bench.fibers.pending, bench.fibers.verdict.value)  # type: ignore[union-attr]


def test_a_generator_is_in_use_from_the_group_that_opens_it() -> None:
    def one() -> Flow[None]:
        yield Sleep(1)

    gen, other = one(), one()

    def root() -> Flow[None]:
        yield All(Sleep(1), gen, limit=1)

    bench = Bench(root())
    assert [True, False] == [bench.fibers.in_use(gen), bench.fibers.in_use(other)]
    next(other)
    assert bench.fibers.in_use(other)
    other.close()
    assert bench.fibers.in_use(other)


def test_commands_are_described_by_kind_and_name() -> None:
    described = [
        describe(command) for command in (task("a"), Suspend("go"), Sleep(1), c.Emit(1, "t"), c.Patched("p"), All())
    ]
    assert ["step 'a'", "suspend 'go'", "sleep", "emit 't'", "patch 'p'", "all"] == described


def test_the_line_of_a_generator_is_the_one_it_stands_at() -> None:
    def inner() -> Flow[None]:
        yield from Sleep(1)

    def outer() -> Flow[None]:
        yield from inner()

    gen = outer()
    next(gen)
    line = inner.__code__.co_firstlineno + 1
    assert f"test_scheduler.py:{line}, in {inner.__code__.co_qualname}" == line_of(
        gen
    )  # no host path: it may be recorded
    gen.close()
    assert "" == line_of(gen)


def test_what_a_workflow_forgot_does_not_stay_in_memory() -> None:
    """Of a failure that was handled nothing is kept but what a retry might need."""
    refs: list[weakref.ref[Any]] = []

    class Big:
        pass

    @workflow
    def dropping() -> Flow[None]:
        big = Big()
        refs.append(weakref.ref(big))
        del big
        yield task("a")

    run = replay(dropping)
    gc.collect()
    assert [None] == [ref() for ref in refs]
    run.close()


def test_notes_of_a_failure_that_was_handled_are_not_taken_for_anothers() -> None:
    """They are found by the failure itself, which is kept, so that no other one can come to stand in its place."""

    @workflow
    def handling() -> Flow[None]:
        for _ in range(50):
            try:
                yield All(task("a"), task("b"))
            except StepFailed:
                continue
        yield task("last")

    run = replay(handling)
    for n in range(50):
        run.feed(raised(OSError("a"), at=f"{n}.0.0"))
        run.feed(raised(OSError("b"), at=f"{n}.1.0"))
    run.feed(raised(OSError("last")))
    assert len(run.events) - 1 == run.machine.cut()


def test_the_first_turn_may_end_the_run() -> None:
    @workflow
    def at_once() -> Flow[int]:
        yield SetState(a=1)
        return 1

    run = replay(at_once)
    assert (1, [], "complete") == (run.result, run.pending, run.status)


def test_hundreds_of_branches_are_no_burden() -> None:
    @workflow
    def wide() -> Flow[int]:
        return sum((yield All(*(Step(ask, n).options(name=f"t{n}") for n in range(500)))))

    run = replay(wide)
    assert 500 == len(run.pending)
    for n in reversed(range(500)):
        run.feed(returned(n, at=f"0.{n}.0"))
    assert sum(range(500)) == run.result


def test_answers_that_lead_to_nothing_new_leave_the_queue_empty() -> None:
    """Events that describe a command, and those that are buffered or dropped, let no fiber go on."""

    @workflow
    def waiting() -> Flow[None]:
        yield All(task("a"), Suspend("go", timeout=60))

    run = fold(waiting)
    for event in (
        tried("0.0.0", "a"),
        waits("0.1.0", "go", due=STAMP),
        e.Resume(event_name="other", value=did("0", "x").result, timestamp=STAMP),  # type: ignore[arg-type]
        e.Resume(event_name="go", value=did("0", "x").result, wait="stale", timestamp=STAMP),  # type: ignore[arg-type]
        e.Pause(),
        e.Unpause(),
        e.Patch(change_id="x"),
    ):
        run.machine.feed(event)
    assert ["0 all", "0.0.0 a", "0.1.0 go"] == run.asked
    assert ["0.0.0 a", "0.1.0 go"] == frontier(run)


def test_a_race_in_the_first_turn_is_decided_in_the_first_turn() -> None:
    @workflow
    def quick() -> Flow[Any]:
        def at_once() -> Flow[str]:
            yield SetState(a=1)
            return "won"

        _, value = yield Race(task("slow"), at_once())
        return value

    run = replay(quick)
    assert ["0 race", "0.0.0 slow"] == asked(run)
    assert [True] == [p.lost for p in run.machine.pending.values()]


def test_signals_that_wait_in_the_buffer_drive_a_whole_chain_in_one_turn() -> None:
    @workflow
    def chain() -> Flow[list[Any]]:
        yield task("a")
        got: list[Any] = []
        while len(got) < 20:
            got.append((yield Suspend("go")))
        return got

    run = replay(chain, history=[*(received("go", n) for n in range(20)), returned()])
    assert list(range(20)) == run.result

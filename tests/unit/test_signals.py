"""Signals and cancels may land between any two events of the owner: at every position, live and replay are the same."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from stepwell import (
    All,
    Cancelled,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    SetState,
    SignalRejected,
    Sleep,
    StepFailed,
    Suspend,
    TimedOut,
    workflow,
)
from stepwell import events as e
from stepwell.testing import (
    Answer,
    Replay,
    WrongAnswerError,
    cancel,
    cancelled,
    fired,
    patched,
    raised,
    received,
    replay,
    returned,
)

from .tools import STAMP, Fold, check_replay, picture, sent, task, through_the_wire

OUTSIDE: dict[str, e.EventBase] = {
    "signal": sent("go", 1),
    "signal to a wait": sent("go", 2, wait="go@0:2"),
    "signal to a branch": sent("go", 3, wait="go@0:4.1.0"),
    "stale signal": sent("go", 4, wait="go@0:77"),
    "wrong payload": sent("go", "no number"),
    "unknown signal": sent("nobody", None),
    "twice the same": sent("go", 5, id="once"),
    "cancel": e.Cancel(reason="why", timestamp=STAMP),
    "pause": e.Pause(timestamp=STAMP),
    "unpause": e.Unpause(timestamp=STAMP),
}


@workflow
def long() -> Flow[list[Any]]:
    """A bit of everything, each wait in another surrounding."""
    log: list[Any] = []

    def waiting(name: str, **how: Any) -> Flow[Any]:
        try:
            got = yield Suspend("go", into=int, **how)
        except (TimedOut, SignalRejected) as error:
            got = type(error).__name__
        log.append([name, got])
        return got

    try:
        yield task("first")
        log.append(["patched", (yield Patched("fix"))])
        yield Emit("begun")
        yield from waiting("alone")
        yield Now()
        yield All(task("beside"), waiting("in a branch"), Sleep(60))
        yield SetState(phase="race")
        winner, _ = yield Race(waiting("in a race", timeout=60), task("raced"), Sleep(60))
        log.append(["winner", winner])
        yield from waiting("fresh", fresh=True, timeout=60, default=-1)
        yield from waiting("last", timeout=60)
    except Cancelled:
        log.append(["cancelled"])
        raise
    finally:
        log.append(["clean", (yield task("clean"))])
    return log


def nexts(run: Replay[Any]) -> Answer | e.EventBase:
    """What the owner answers next, always the same: the oldest that can be answered without anybody else."""
    if run.machine.asking is not None:
        return patched()
    for pending in run.machine.pending.values():
        command, at = pending.command, pending.at
        if command.kind == "step":
            return cancelled(at=at) if pending.cancelling else returned(command.label, at=at)
        if command.kind == "now":
            return e.Now(at=at, value="2026-01-01T00:00:00.000000Z")
        if command.kind == "sleep" or (isinstance(command, Suspend) and command.timeout is not None):
            return fired(at=at)
    return received("go", 9)


def drive(outside: e.EventBase | None = None, position: int = -1, *, more: e.EventBase | None = None) -> Replay[Any]:
    """Run to the end; the outside event lands at this position of the history, `more` right after it."""
    run: Replay[Any] = replay(long)
    while run.status == "open":
        if len(run.events) == position:
            for event in (outside, more):
                if event is not None:
                    run.feed(event)
            position = -1
            run._recorded = False
            run.settle()
            continue
        before = len(run.events)
        try:
            run.feed(nexts(run))
        except WrongAnswerError as error:
            raise AssertionError(f"after {[event.kind for event in run.events]}") from error
        assert len(run.events) > before
        if before < position < len(run.events):
            position = len(run.events)
    return run


POSITIONS = range(1, len(drive().events))


@pytest.mark.parametrize("kind", OUTSIDE)
@pytest.mark.parametrize("position", POSITIONS)
def test_an_outside_event_at_any_position_leads_to_the_same_live_and_on_replay(kind: str, position: int) -> None:
    """The trace, the result and everything that can be seen."""
    run = drive(OUTSIDE[kind], position)
    assert run.machine.status in ("complete", "cancelled")
    check_replay(run)


@pytest.mark.parametrize("position", POSITIONS)
def test_two_outside_events_at_any_position_do_so_too(position: int) -> None:
    for first in ("signal", "cancel", "pause"):
        for second in ("signal", "wrong payload", "cancel", "twice the same"):
            check_replay(drive(OUTSIDE[first], position, more=OUTSIDE[second]))


@pytest.mark.parametrize("kind", ["signal", "cancel", "wrong payload"])
@pytest.mark.parametrize("position", POSITIONS[::3])
def test_every_prefix_of_such_a_history_folds_to_one_state(kind: str, position: int) -> None:
    """A machine that grew event by event is the one that a fresh fold of the prefix gives."""
    events = through_the_wire(drive(OUTSIDE[kind], position).events)
    grown = Fold(long, events[:1])
    for n, event in enumerate(events[1:], 2):
        grown.machine.feed(event)
        fresh = Fold(long, events[:n])
        assert grown.asked == fresh.asked
        assert picture(grown.machine) == picture(fresh.machine)
        fresh.machine.close()


def test_a_signal_is_never_lost() -> None:
    """Wherever it lands it is taken by one wait, or stays in the buffer."""
    for position in POSITIONS:
        run = drive(sent("go", 1234), position)
        taken = [entry for entry in run.result if entry[-1] == 1234]
        left = [event for event in run.machine.mailbox.buffered.get("go", ()) if bytes(event.value) == b"1234"]
        assert 1 == len(taken) + len(left), position


def test_the_positions_are_worth_their_name() -> None:
    """Between them, every wait of the workflow takes the signal once."""
    takers = set()
    for position in POSITIONS:
        takers |= {entry[0] for entry in drive(sent("go", 1234), position).result if entry[-1] == 1234}
    assert {"alone", "in a branch", "in a race", "fresh", "last"} == takers


@pytest.mark.parametrize("position", POSITIONS)
def test_after_a_cancel_nothing_is_waited_for(position: int) -> None:
    """What is still issued are the commands without an effect that come first, and the clean-up."""
    run = drive(OUTSIDE["cancel"], position)
    where = next(n for n, event in enumerate(run.events) if isinstance(event, e.Cancel))
    before = Fold(long, run.events[: where + 1])
    after = run.commands[len(before.commands) :]
    assert {command.kind for _, command in after} <= {"step", "now", "emit"}
    assert {command.label for _, command in after if command.kind == "step"} <= {"clean"}
    assert "clean" == run.commands[-1][1].label
    before.machine.close()


@pytest.mark.parametrize("kind", ["signal", "unknown signal", "pause"])
def test_outside_events_between_the_end_and_the_close_are_folded(kind: str) -> None:
    """Signals are kept, pause delays the close; the end stays as it is."""
    run = drive()
    result = run.result
    run.feed(OUTSIDE[kind])
    run.feed(cancel())
    assert ("complete", False, result) == (run.status, run.machine.closed, run.result)
    run.feed(e.Complete(result=Raw(run.machine.result_raw), timestamp=STAMP))
    assert run.machine.closed
    check_replay(run)


def test_a_step_that_fails_and_a_signal_keep_their_order() -> None:
    """What comes first in the history is delivered first, whichever branch it is for."""

    @workflow
    def ordered() -> Flow[list[str]]:
        log: list[str] = []

        def working() -> Flow[None]:
            try:
                yield task("work")
            except StepFailed:
                log.append("failed")

        def waiting() -> Flow[None]:
            yield Suspend("go")
            log.append("received")

        yield All(working(), waiting())
        return log

    failure, signal = raised(OSError("x")), received("go")
    assert ["failed", "received"] == replay(ordered, history=[failure, signal]).result
    assert ["received", "failed"] == replay(ordered, history=[signal, failure]).result

"""What must hold when everything has come to rest: the store against what the world saw, and each history by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.dst.flows import POSTED, journey, seen_signals
from tests.dst.world import History, Run, World

from stepwell import events as e
from stepwell.codec import Codec
from stepwell.fibers import describe
from stepwell.machine import Machine
from stepwell.store import HeadFilter, Store, envelope
from stepwell.wire import read_event, to_draft

__all__ = ["judge", "judge_rows"]


def judge(world: World, store: Store) -> None:
    """Add what must not be to the world's list."""
    world.wrong.extend(_violations(world, store))


def judge_rows(world: World, rows: list[int]) -> None:
    """Add where the rows of transactions, each with a number of its own, are not those that are recorded."""
    recorded = {
        json.loads(bytes(event.result))
        for lives in world.runs.values()
        for run in lives
        for history in run.histories
        for event, _ in history.events
        if isinstance(event, e.Step) and event.name.startswith(POSTED) and event.result is not e.UNSET
    }
    for number in sorted(set(rows) - recorded):
        world.wrong.append(f"S2: row {number} of a transaction was committed, and no history has it")
    for number in sorted(recorded - set(rows)):
        world.wrong.append(f"S1: transaction {number} is recorded, and its row is not there")


def _violations(world: World, store: Store) -> Iterator[str]:
    for part in store.verify():
        if part.problem is not None:
            yield f"S9: {part.place}: {part.problem}"
    heads = {head.run_id: head for head in store.heads(HeadFilter(), limit=10_000)}
    there = {run_id for run_id in world.runs if world.run(run_id) is not None}
    if heads.keys() != there:
        yield f"S1: the store has {sorted(heads.keys() - there)} too many, and lost {sorted(there - heads.keys())}"
    for run_id, lives in world.runs.items():
        for run in lives:
            yield from _signals(world, run)
            yield from _children(world, run)
            for history in run.histories:
                yield from _replayed(run, history)
        if run_id in heads:
            yield from _stored(store, lives[-1])
    yield from _acked(world)


def _stored(store: Store, run: Run) -> Iterator[str]:
    """The store has every record, as it was given, in its place; sessions never fall."""
    for history in run.histories:
        tail = store.read(run.run_id, incarnation=history.number)
        lines = [] if tail is None else tail.records
        if len(lines) != len(history.drafts):
            yield f"S1: {run.run_id}.{history.number} has {len(lines)} records, and {len(history.drafts)} were taken"
        session = 0
        for seq, (line, draft) in enumerate(zip(lines, history.drafts, strict=False)):
            found = envelope(line)
            if (found.type, found.body.rstrip(b",")) != (draft.type, draft.body.rstrip(b",")):
                yield f"S1: record {seq} of {run.run_id}.{history.number} is not what was taken"
            if found.offset != seq:
                yield f"S5: record {seq} of {run.run_id}.{history.number} says that it is number {found.offset}"
            if found.session < session:
                yield f"S4: record {seq} of {run.run_id}.{history.number} has session {found.session} after {session}"
            session = found.session
            if to_draft(read_event(line)) != draft:
                yield f"S6: record {seq} of {run.run_id}.{history.number} is another one when it is encoded again"


def _replayed(run: Run, history: History) -> Iterator[str]:
    """A history replays event by event, each answering what is pending, to the result that was recorded live."""
    events = [event for event, _ in history.events]
    start = events[0]
    assert isinstance(start, e.Start)
    what = f"{run.run_id}.{history.number}"
    codec = Codec()
    try:
        machine = Machine(journey, start, codec=codec, run_id=run.run_id)
        prefix = len(events) // 2
        for seq, event in enumerate(events[1:], 1):
            if seq == prefix and _frontier(events[:seq]) != _pending(machine):
                yield f"S6: the first {seq} events of {what} give two frontiers"
            closing = isinstance(event, e.CLOSING) and event.at is None
            if closing and isinstance(event, e.Complete) and machine.result_raw != bytes(event.result):
                yield f"S7: {what} came to {bytes(event.result)!r}, and its replay to {machine.result_raw!r}"
            machine.feed(event)
    except Exception as error:
        yield f"S6: {what} does not replay: {type(error).__name__}: {error}"
        return
    if not machine.closed and machine.status != "continue":
        yield f"S17: {what} is not at its end: {machine.status}, {list(machine.pending)}"
    machine.close()


def _frontier(events: list[e.EventBase]) -> list[tuple[str, str]]:
    """What a prefix of a history asks for, folded by a machine of its own."""
    start = events[0]
    assert isinstance(start, e.Start)
    machine = Machine(journey, start, codec=Codec())
    machine.fold(events[1:])
    found = _pending(machine)
    machine.close()
    return found


def _pending(machine: Machine) -> list[tuple[str, str]]:
    return [(at, describe(pending.command)) for at, pending in machine.pending.items()]


def _signals(world: World, run: Run) -> Iterator[str]:
    """A run has seen the signals of a name in the order in which they were accepted, each once, none left out."""
    last = run.last.events[-1][0]
    if not isinstance(last, e.Complete):
        return
    log = json.loads(bytes(last.result))
    for name in {signal for signal, _, _ in run.accepted}:
        accepted = [payload for signal, _, payload in run.accepted if signal == name]
        seen = seen_signals(log, name)
        if seen != accepted[: len(seen)]:
            yield f"S11: {run.run_id} has seen {seen} of {name!r}, and {accepted} were accepted"


def _children(world: World, run: Run) -> Iterator[str]:
    """Every child that was recorded began, and its parent was told of it what became of it."""
    for history in run.histories:
        for event, _ in history.events:
            if isinstance(event, e.ChildResult) and event.status != "started" and not _came_to(world, event):
                yield f"S14: {run.run_id} was told that {event.child_id} was {event.status}, and it was not"
        ended = {event.child_id for event, _ in history.events if isinstance(event, e.ChildResult)}
        for event, _ in history.events[history.prefix :]:
            if not isinstance(event, e.Child) or event.detached:
                continue
            child = world.runs.get(event.child_id)
            if not child and (event.child_id in ended or not _cancelled(history, event.at)):
                yield f"S14: child {event.child_id} of {run.run_id} was recorded, and never begun"


def _came_to(world: World, told: e.ChildResult) -> bool:
    """Whether a child has ended as its parent was told."""
    for run in world.runs.get(told.child_id, ()):
        for history in run.histories:
            last = history.events[-1][0]
            if told.status == "completed":
                if isinstance(last, e.Complete) and told.result is not e.UNSET and last.result == told.result:
                    return True
            elif isinstance(last, e.Error if told.status == "failed" else e.Cancelled):
                return True
    return False


def _cancelled(history: History, at: str) -> bool:
    """Whether a command was cancelled, or its run was closed without asking the workflow: nobody needs its child."""
    ends = [event for event, _ in history.events if isinstance(event, e.Cancelled)]
    return any(event.at == at or event.forced for event in ends)


def _acked(world: World) -> Iterator[str]:
    """What a client was told is so."""
    for kind, run_id, args in world.answers:
        lives = world.runs.get(run_id, [])
        if kind in ("start", "submit", "restart", "signal", "resume") and not lives:
            yield f"S1: {kind} of {run_id} was answered, and the run was never there"
        if kind in ("signal", "resume") and not any(args[2] in run.all_signals for run in lives):
            yield f"S1: signal {args[2]} to {run_id} was answered, and is in no history"
        if kind in ("cancel", "force") and not any(run.asked_to_cancel for run in lives):
            yield f"S1: {kind} of {run_id} was answered, and is in no history"

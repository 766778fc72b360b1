"""What the steps of a move do to a run's log, as functions of where it stands; as `decisions` for all other writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from stepwell.errors import NotFoundError, StoreError
from stepwell.store import Arrival, Departure, RunHead

from ..move_rules import attempts_of, check_landing, is_turned_away, same_run, standing
from .decisions import Change
from .entries import State, new_nonce
from .parts import Staged, clipped, lengths

__all__ = ["arrive", "depart", "land", "stage", "turn_away"]

Look = Callable[[State], Staged]
"""Finds what was staged."""

_FEW = 16  # attempts that every entry of the run carries along


def arrive(state: State | None, now: int, arrival: Arrival) -> Change:
    """Take an id, or say anew what arrives under it; None when a run has it."""
    run, head = arrival.run, arrival.run.head
    if state is None:
        first = State(
            run.run_id, 0, now, new_nonce(), 0, 0, 0, False, head, 0, 0, 0, 0, deleted=True, arrival=arrival
        )  # fmt: skip
        return Change(arrival, first)
    if not state.deleted:
        return Change(None)
    stands = standing(state.arrival, arrival)
    if state.arrival == stands:
        return Change(stands)
    if state.arrival is None:
        begins = state.entry + 1
        begun = state.grave(now, born=begins, first=begins, head=head, closed=False)
        return Change(stands, replace(begun, arrival=stands))
    return Change(stands, _next(state, now, head=stands.run.head, arrival=stands))


def stage(
    state: State | None,
    now: int,
    run_id: str,
    token: str,
    incarnation: int,
    seq: int,
    lines: Sequence[bytes],
    look: Look,
) -> Change:
    """Keep records; False when they would leave a gap."""
    if state is None or state.arrival is None or state.arrival.token != token:
        raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
    counts = lengths(look(state).parts)
    if incarnation > len(counts) or seq > [*counts, 0][incarnation]:
        return Change(False)
    if not lines:
        return Change(True)
    attempts = {attempt: (incarnation, at) for attempt, at in attempts_of(lines)}
    count = len(lines)
    return Change(True, _next(state, now, count, incarnation=incarnation, seq=seq + count, attempts=attempts), lines)


def land(state: State | None, now: int, token: str, look: Look) -> Change:
    """Make what was staged a run; a StoreError when not all of it was staged.

    None when it is to be asked again: a run that had many attempts has an entry before that tells where they are.
    """
    if state is None or state.arrival is None or state.arrival.token != token:
        return Change(False)
    arrival, there = state.arrival, look(state)
    try:
        check_landing(arrival, lengths(there.parts))
    except StoreError as error:
        return Change(error)
    parts = list(clipped(there.parts, arrival.counts))
    attempts, older = there.attempts(parts), None
    if len(attempts) > _FEW:
        if state.count or state.attempts != attempts:
            return Change(None, _next(state, now, attempts=attempts))
        attempts, older = {}, state.entry
    run, entry = arrival.run, state.entry + 1
    landed = _next(
        state,
        now,
        fence=max(run.fence, state.fence + 1),
        incarnation=run.incarnation,
        seq=run.seq,
        closed=run.closed,
        head=run.head,
        first=entry,
        events=sum(arrival.counts),
        deleted=False,
        arrival=None,
        departure=None,
        landed=entry,
        parts=tuple(parts),
        attempts=attempts,
        older=older,
    )
    return Change(True, landed)


def turn_away(state: State | None, now: int, arrival: Arrival) -> Change:
    """Forget a run that is to come: a grave."""
    if state is None or not is_turned_away(state.arrival, arrival):
        return Change(False)
    return Change(True, state.grave(now))


def depart(state: State | None, now: int, seen: RunHead, departure: Departure) -> Change:
    """Let a run go: a grave that says where to."""
    if state is None or state.deleted:
        return Change(state is not None and state.departure == departure)
    if not same_run(state.shown(now), seen):
        return Change(False)
    return Change(True, state.grave(now, departure=departure))


def _next(state: State, now: int, count: int = 0, **changes: object) -> State:
    """The state after one more entry of a run that is to come; it has no attempts but those of its own records."""
    return state.after(now, count, **{"events": 0, "attempts": {}, **changes})

"""What follows a crash: a new process reads, repeats what nobody knows about, and goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import evolve
from msgspec.structs import replace
from tests.crash.crash_ledger import TTL, Attempt, Violation
from tests.crash.crash_world import Process, World

from stepwell.store import Committed, Created, Lease, NotApplied, Tail, Unknown
from stepwell_stores.jsonl import JsonlStore

__all__ = ["recover"]


def recover(world: World, rng: random.Random) -> None:
    """What follows a crash: read, repeat what nobody knows about, and now and then go on, close, read again."""
    process = world.process()
    if rng.random() < 0.1:
        world.list(process)
    tails = {run_id: world.look(process, run_id, head=rng.random() < 0.3) for run_id in list(world.ledger.runs)}
    goes_on = rng.random() < 0.35
    for run_id, tail in tails.items():
        repeated = _repeat(world, process, run_id, rng)
        if repeated:
            tail = world.look(process, run_id, head=not goes_on)
        if goes_on:
            leases = [lease for outcome in repeated if (lease := getattr(outcome, "lease", None)) is not None]
            _go_on(world, process, run_id, tail, leases, rng)
    if goes_on:
        world.met["went on"] += 1
        if rng.random() < 0.3:
            process = world.process()
        for run_id in tails:
            world.look(process, run_id)


def _repeat(world: World, process: Process, run_id: str, rng: random.Random) -> list[Any]:
    """Repeat the attempts whose outcome nobody knows, and now and then one that is known; gives the outcomes."""
    outcomes = []
    for entry in world.ledger.facts(run_id).living():
        if entry.state == "maybe" or (entry.state == "there" and rng.random() < 0.02):
            outcome = world.attempt(process, entry.attempt)
            outcomes.append(outcome)
            world.met[f"repeated: {type(outcome).__name__}"] += 1
            if world.strict and isinstance(outcome, (Unknown, NotApplied)):
                raise Violation(f"nothing was made to fail, and {entry} repeated gives {outcome!r}")
    return outcomes


def _go_on(
    world: World,
    process: Process,
    run_id: str,
    tail: Tail | Unknown | None,
    leases: list[Lease],
    rng: random.Random,
) -> None:
    """Take the run over, append to it and close it."""
    if isinstance(tail, Unknown):
        return
    new = Attempt(number=world.next(), kind="create", run_id=run_id, sizes=(9,), leased=True)
    if tail is None or tail.closed:
        if tail is not None:
            new = evolve(new, kind="open", incarnation=tail.incarnation + 1)
        lease = getattr(_must(world, process, new), "lease", None)
    elif leases:
        lease = replace(leases[-1], seq=tail.seq)
    else:
        lease = _take(world, process, run_id, rng)
    if not isinstance(lease, Lease):
        if world.strict:
            raise Violation(f"nobody can take run {run_id[:9]!r} over: {lease!r}")
        return
    own = Attempt(
        number=world.next(),
        kind="own",
        run_id=run_id,
        sizes=(9,) * rng.randint(1, 2),
        incarnation=lease.incarnation,
        seq=lease.seq,
        fence=lease.fence,
    )
    if isinstance(_must(world, process, own), Committed):
        _must(world, process, evolve(own, number=world.next(), seq=lease.seq + len(own.sizes), then="closed"))


def _take(world: World, process: Process, run_id: str, rng: random.Random) -> Any:
    """Claim an open run: everybody who held it is dead."""
    due = world.ledger.facts(run_id).due
    if due is not None and rng.random() < 0.5:
        world.now = max(world.now, due)
        return _wait(world, lambda: _claim_due(world, process, run_id))
    return _wait(world, lambda: world.claim(process, run_id))


def _claim_due(world: World, process: Process, run_id: str) -> Lease | None:
    """Claim what is due, which that run must be."""
    found = None
    leases = world.call(process, "claim due", lambda store: store.claim_due("me", TTL, now=world.now, limit=9))
    for lease in leases if isinstance(leases, list) else []:
        world.book().granted(lease)
        if lease.run_id == run_id:
            found = lease
            world.met["claimed when due"] += 1
        else:
            world.call(process, "release", partial(JsonlStore.release, lease=lease))
    return found


def _wait(world: World, claim: Callable[[], Any]) -> Any:
    """Claim, and once more when the time of a lease is over whose owner could not make a lock file."""
    lease = claim()
    if isinstance(lease, Lease):
        return lease
    world.met["waited for a lease"] += 1
    world.now += int(TTL * 1_000_000)
    return claim()


def _must(world: World, process: Process, attempt: Attempt) -> Any:
    """A write that has to go well when nothing is made to fail."""
    outcome = world.attempt(process, attempt)
    if world.strict and not isinstance(outcome, (Created, Committed)):
        raise Violation(f"nothing was made to fail, and {attempt} gives {outcome!r}")
    return outcome

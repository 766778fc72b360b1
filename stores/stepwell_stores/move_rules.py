"""What all stores share whose runs can be moved, written once; the contract is in `stepwell.moves`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from stepwell.errors import InvalidInputError, RunArrivingError, RunMovedError, StoreError
from stepwell.store import Arrival, Departure, RunHead, envelope, first_broken

__all__ = [
    "attempts_of",
    "check_landing",
    "check_staged",
    "is_turned_away",
    "read_arrival",
    "read_departure",
    "refuse_absent",
    "same_run",
    "standing",
]

read_arrival = msgspec.json.Decoder(Arrival).decode
read_departure = msgspec.json.Decoder(Departure).decode


def standing(there: Arrival | None, given: Arrival) -> Arrival:
    """Which arrival stands after `arrive`."""
    if there is None:
        return given
    old, new = ((one.run.fence, one.run.seq) for one in (there, given))
    if old > new:
        return there
    return replace(given, token=there.token, counts=given.counts or (there.counts if old == new else ()))


def is_turned_away(there: Arrival | None, given: Arrival) -> bool:
    """Whether `turn_away` means what is arriving."""
    return there is not None and (there.token, there.run.fence) == (given.token, given.run.fence)


def refuse_absent(run_id: str, departure: Departure | None, arrival: Arrival | None) -> None:
    """Say of a run that is not here where it is, when that is known.

    Raises:
        RunArrivingError: it is on its way here.
        RunMovedError: it went elsewhere.
    """
    if arrival is not None:
        raise RunArrivingError(
            f"run {run_id!r} is being moved here from {arrival.origin}, and is not here yet; if nobody is at it any "
            "more, move it again: what is missing is done then",
            run_id=run_id,
            origin=arrival.origin,
        )
    if departure is not None:
        raise RunMovedError(
            f"run {run_id!r} was moved to {departure.to}, and goes on there",
            run_id=run_id,
            to=departure.to,
            token=departure.token,
        )


def check_landing(arrival: Arrival, counts: Sequence[int]) -> None:
    """See that enough was staged; `counts` is how much of each incarnation.

    Raises:
        StoreError: it was not.
    """
    wanted, run = arrival.counts, arrival.run
    whole = len(wanted) == run.incarnation + 1 and wanted[-1] == run.seq and min(wanted) > 0
    if not whole or any(n > m for n, m in zip(wanted, (*counts, *[0] * len(wanted)), strict=False)):
        raise StoreError(f"run {run.run_id!r} can't land: {list(counts)} of {list(wanted)} records were staged")


def attempts_of(lines: Iterable[bytes]) -> Iterable[tuple[str, int]]:
    """The attempts that sealed records name, each with its seq."""
    for line in lines:
        if b'"attemptId":"' in line[:400]:
            record = envelope(line)
            if record.attempt_id is not None:
                yield record.attempt_id, record.offset


def check_staged(run_id: str, seq: int, lines: Sequence[bytes]) -> None:
    """Refuse to stage what are no records of this position: they would be damage when the run has landed."""
    broken = first_broken(lines, seq)
    if broken is not None:
        raise InvalidInputError(f"run {run_id!r}: not its record {seq + broken}: {lines[broken][:120]!r}")


def same_run(now: RunHead, seen: RunHead) -> bool:
    """Whether a run that is about to depart still is as it was seen."""
    one, other = ((r.incarnation, r.seq, r.fence, r.closed, r.head.due) for r in (now, seen))
    return one == other

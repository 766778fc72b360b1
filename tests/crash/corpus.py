"""The histories that the journal fuzz damages: real runs, made by the engine in a directory of files.

They are made on virtual time and seeded chance, so that every process has the same bytes, and a seed the same damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import frozen

from stepwell import (
    All,
    Emit,
    Engine,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    RetryPolicy,
    SetState,
    Signal,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    Uuid,
    workflow,
)
from stepwell.environment import Environment
from stepwell.store import Lease, RunHead
from stepwell.testing import InlineExecutor, SeededEntropy, VirtualClock
from stepwell_stores.file_names import encode
from stepwell_stores.jsonl import JsonlStore

__all__ = ["WORKFLOWS", "Recorded", "corpus", "digest", "genuine_lines", "make_engine", "perform"]

ODD = 'Zoë \u2028\u2029\x85\x0b\x0c\x1b[31m \U0001f600 "so" \\ \t \'; DROP TABLE runs; -- e\u0301 \u202e'
"""Text that has gone wrong in one journal or another."""

LONG_ID = "lange Kennung Nº " + "ä" * 60
"""A run id whose files are named by a hash."""


@frozen
class Order:
    """What a purchase is about."""

    id: str
    lines: list[str]
    total: Decimal
    placed: datetime
    note: str | None = None


@frozen
class Verdict:
    """What a person says to it."""

    approved: bool
    reviewer: str
    score: float = 1.5


approve = Signal("approve", Verdict)


def reserve(order: Order) -> list[str]:
    return [*order.lines, ODD]


def price(order: Order, factor: float) -> Decimal:
    return order.total * Decimal(str(factor))


def flaky(name: str) -> dict[str, int]:
    return {name: 2**53, "": -1}


def refused(name: str) -> str:
    return name


def undo(name: str) -> str:
    return name


_TWICE = RetryPolicy(attempts=2, initial=1)


def branch(name: str) -> Flow[list[Any]]:
    first = yield Step(flaky, name).options(retry=_TWICE)
    return [first, (yield from Random())]


@workflow
def purchase(order: Order) -> Flow[dict[str, Any]]:
    """Every kind of command, a wait in the middle."""
    yield SetState(phase="begun", who=ODD)
    now, key = (yield from Now()), (yield from Uuid())
    yield Emit({"seen": [None, True, 1.5, ODD]}, topic="log")
    bonus = yield from Patched("bonus")
    taken = yield from Step(reserve, order).options(at_most_once=True)
    both = yield All(branch("left"), branch("right"), Step(price, order, 1.25))
    try:
        yield Step(refused, "the card")
    except StepFailed as error:
        yield Emit(str(error))
    verdict = yield from Suspend(approve, reason=f"may it? {ODD}", timeout=86_400, show={"total": str(order.total)})
    winner = yield Race(quick=Step(undo, "q"), slow=Suspend("never"))
    yield Sleep(90)
    yield SetState(phase="done")
    return {
        "when": now.isoformat(),
        "key": str(key),
        "bonus": bonus,
        "taken": taken,
        "both": len(both),
        "by": verdict.reviewer,
        "won": list(winner),
    }


@workflow
def settle(account: str, amount: int) -> Flow[str]:
    """A run that fails until what it calls is mended, and then waits."""
    yield Step(flaky, account).options(retry=_TWICE)
    yield from Now()
    paid = yield from Step(refused, f"{account}: {amount}")
    answer = yield from Suspend("receipt", into=str, timeout=7200, default="none came")
    return f"{paid}, {answer}"


@workflow
def guard(name: str) -> Flow[str]:
    """A run that is cancelled, and cleans up."""
    try:
        yield Step(undo, name)
        yield Suspend("go")
    finally:
        yield Step(undo, f"{name}{ODD}").options(name="clean up")
    return name


WORKFLOWS = (purchase, settle, guard)


def perform(step: Step[Any], context: Any) -> Any:
    """Call a step: flaky ones fail at first, and `refused` does as long as the services are down."""
    if step.name == "flaky" and context.attempt == 1:
        raise ConnectionError(ODD)
    if step.name == "refused" and _down:
        raise ValueError(f"no: {ODD}")
    return step.fn(*step.args, **step.kwargs)


_down: list[str] = []


@frozen
class Recorded:
    """One run, as it lies on the disk and as the store gave it back when it was well.

    Attributes:
        files: bytes by file name; each begins with `stem` and a dot.
        histories: the records of each incarnation.
        head: what the store said of it.
        heads: head files of earlier moments, oldest first.
    """

    run_id: str
    stem: str
    files: dict[str, bytes]
    histories: tuple[tuple[bytes, ...], ...]
    head: RunHead
    heads: tuple[bytes, ...]

    def journal(self, incarnation: int) -> str:
        """The name of an incarnation's journal."""
        return f"{self.stem}.{incarnation}.jsonl"


class Keeping:
    """A store that keeps a copy of every head that it writes."""

    def __init__(self, inner: JsonlStore, directory: Path) -> None:
        self.inner = inner
        self.written: dict[str, dict[bytes, None]] = {}
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in ("create", "open_incarnation", "append", "release"):
            return found

        def call(run: Any, *args: Any, **how: Any) -> Any:
            answer = found(run, *args, **how)
            run_id = run.run_id if isinstance(run, Lease) else run
            head = self._directory / f"{encode(run_id)}.head.json"
            self.written.setdefault(run_id, {})[head.read_bytes()] = None
            return answer

        return call


def make_engine(store: Any, clock: VirtualClock) -> Engine:
    """An engine with the workflows, in which all goes by itself and in this thread."""
    environment = Environment(clock=clock, entropy=SeededEntropy(7), executor=InlineExecutor(), threads=False)
    return Engine(store, WORKFLOWS, environment=environment, perform=perform, park_after=5)


@cache
def corpus() -> tuple[Recorded, ...]:
    """The runs; made once in a process."""
    with tempfile.TemporaryDirectory() as place, _foreseeable():
        directory, clock = Path(place) / "runs", VirtualClock()
        store = JsonlStore(directory, clock=clock.micros)
        keeping = Keeping(store, directory)
        engine = make_engine(keeping, clock)
        _make_runs(engine, clock)
        _tear(store, directory, "order-1")
        found = tuple(_recorded(keeping, directory, run_id) for run_id in _ids(engine))
        engine.close()
    return found


@cache
def genuine_lines() -> frozenset[bytes]:
    """All records of all histories."""
    return frozenset(line for run in corpus() for lines in run.histories for line in lines)


def digest() -> str:
    """What all bytes of the corpus come to."""
    found = [data for run in corpus() for data in (*run.files.values(), *run.heads)]
    return hashlib.sha256(b"\0".join(found)).hexdigest()


def _ids(engine: Engine) -> list[str]:
    return sorted(record.id for record in engine.runs(limit=100))


def _make_runs(engine: Engine, clock: VirtualClock) -> None:
    order = Order("o1", ["tea", ODD, ""], Decimal("12.50"), datetime(2026, 1, 1, 12, tzinfo=UTC), ODD)
    verdict = Verdict(True, ODD)
    _down.append("cards")
    for run_id in ("order-1", "order-2"):
        engine.start(purchase, order, run_id=run_id, tags={"shop": "Köln", "n": "1"})
    engine.signal("order-1", "never", {"deep": [[[1]]]}, id="early")
    engine.resume("order-1", approve, verdict, id="yes")
    clock.advance(100)
    engine.run_due()
    for run_id in ("settle/ä", "settle-2", "settle-3"):
        engine.start(settle, run_id, 2**40, run_id=run_id)
    _down.clear()
    engine.retry("settle/ä")
    engine.resume("settle/ä", "receipt", "paid \u2028")
    engine.retry("settle-2")
    engine.pause("settle-2", reason=ODD)
    clock.advance(8_000)
    engine.reset("settle-3")
    engine.run_due()
    clock.advance(8_000)
    engine.run_due()
    engine.start(guard, "g", run_id="guard-1")
    engine.cancel("guard-1", reason=ODD)
    engine.start(guard, "long", run_id=LONG_ID, tags={"long": "yes"})
    engine.pause(LONG_ID)
    engine.unpause(LONG_ID)
    engine.fork("order-1", before="reserve", new_run_id="order-1-again")
    engine.advance("order-2")


def _tear(store: JsonlStore, directory: Path, run_id: str) -> None:
    """Have the store cut off a torn tail."""
    journal = directory / f"{run_id}.0.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"v":1,"type":"st')
    lease = store.claim(run_id, "me", 30)
    if isinstance(lease, Lease):
        store.release(lease)


def _recorded(keeping: Keeping, directory: Path, run_id: str) -> Recorded:
    store = keeping.inner
    stem, head = encode(run_id), store.head(run_id)
    assert head is not None
    tails = [store.read(run_id, incarnation=number) for number in range(head.incarnation + 1)]
    files = {path.name: path.read_bytes() for path in sorted(directory.glob("*")) if path.name.startswith(f"{stem}.")}
    histories = tuple(tuple(tail.records) for tail in tails if tail is not None)
    earlier = tuple(text for text in keeping.written[run_id] if text != files[f"{stem}.head.json"])
    return Recorded(run_id, stem, files, histories, head, earlier)


@contextlib.contextmanager
def _foreseeable() -> Iterator[None]:
    """Ids that are made by chance follow from nothing but their order."""
    chance = random.Random("corpus")

    def token(nbytes: int | None = None) -> str:
        return chance.randbytes(nbytes or 32).hex()

    def unique() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    with (
        patch("secrets.token_hex", token),
        patch("os.urandom", chance.randbytes),
        patch("stepwell.engine.make_run_id", lambda: str(unique())),
    ):
        yield

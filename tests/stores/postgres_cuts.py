"""Connections that are cut after any number of bytes, each way, while a store writes: nothing acknowledged is lost.

    PYTHONPATH=.:engine:stores python -m tests.stores.postgres_cuts --count 1000 --seed 1
    PYTHONPATH=.:engine:stores python -m tests.stores.postgres_cuts --count 200 --plant "another attempt"

Each outcome that is not known is resolved by repeating the same attempt. The plant repeats with another attempt id, as
a store without any would: then records are there twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field
from tests.servers.postgres import Postgres, postgres
from tests.servers.proxy import Proxy, Way, proxy

from stepwell.errors import StoreError
from stepwell.store import AlreadyCommitted, Committed, Created, Draft, Head, Lease, LeaseRequest, NotApplied, Unknown
from stepwell_stores.postgres import PostgresStore

PLANT = "another attempt"
TRIES = 30
HEAD = Head("pending", "cuts", "1", 1, 1)


def record(mark: str, kind: str = "step") -> Draft:
    return Draft(kind, b'"timestamp":"2023-11-14T22:13:21.000000Z","mark":"%b"' % mark.encode())


@define
class Cuts:
    """A store behind a proxy, what was acknowledged, and what happened.

    Attributes:
        acked: the marks that must be there, by run.
        counts: what became of the writes.
    """

    chance: random.Random
    between: Proxy
    store: PostgresStore
    direct: PostgresStore
    plant: str | None = None
    acked: dict[str, list[str]] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    lease: Lease | None = None
    seq: int = 0
    sizes: dict[str, dict[Way, int]] = field(factory=dict)

    def settle(self, attempt: Callable[[str], Any]) -> Any:
        """Repeat one attempt until the store can say how it ended."""
        name = uuid.uuid4().hex
        outcome: Any = None
        for _ in range(TRIES):
            outcome = attempt(name)
            if not isinstance(outcome, (NotApplied, Unknown)):
                self.counts[type(outcome).__name__] += 1
                return outcome
            self.counts[type(outcome).__name__] += 1
            if self.plant == PLANT:
                name = uuid.uuid4().hex
        raise AssertionError(f"not settled after {TRIES} tries: {outcome}")

    def begin(self) -> None:
        """A new run, under a lease."""
        run_id, mark = uuid.uuid4().hex, uuid.uuid4().hex
        ask = LeaseRequest("me", 3600, token=mark)
        made = self.settle(
            lambda name: self.store.create(run_id, [record(mark, "start")], head=HEAD, attempt_id=name, lease=ask)
        )
        if self.plant != PLANT:
            assert isinstance(made, Created)
            assert made.lease is not None, "the same request gets its own lease"
            self.lease = made.lease
        else:
            found = self.direct.head(run_id)
            assert found is not None
            self.lease = Lease(run_id, 0, found.fence, found.seq, "me", found.lease_until or 0)
        self.seq, self.acked[run_id] = 1, [mark]

    def own(self, *, head: bool, count: int = 1) -> None:
        """The owner's append."""
        lease = self.lease
        assert lease is not None
        marks = [uuid.uuid4().hex for _ in range(count)]
        outcome = self.settle(
            lambda name: self.store.append(
                lease.run_id,
                0,
                self.seq,
                [record(mark) for mark in marks],
                attempt_id=name,
                head=HEAD if head else None,
                fence=lease.fence,
            )
        )
        assert isinstance(outcome, (Committed, AlreadyCommitted)), outcome
        self.seq += count
        self.acked[lease.run_id] += marks

    def tell(self) -> None:
        """An outside writer's append."""
        lease, mark = self.lease, uuid.uuid4().hex
        assert lease is not None
        outcome = self.settle(
            lambda name: self.store.append(lease.run_id, None, None, [record(mark, "resume")], attempt_id=name, due=1)
        )
        assert isinstance(outcome, (Committed, AlreadyCommitted)), outcome
        self.seq = outcome.seq + 1
        self.acked[lease.run_id].append(mark)

    def transact(self) -> None:
        """Rows and record together."""
        lease, mark = self.lease, uuid.uuid4().hex
        assert lease is not None

        def work(db: Any) -> list[Draft]:
            db.execute("INSERT INTO rows VALUES (%s)", (mark,))
            return [record(mark)]

        outcome = self.settle(
            lambda name: self.store.transact(
                lease.run_id, 0, self.seq, work, attempt_id=name, fence=lease.fence, seconds=5
            )
        )
        assert isinstance(outcome, (Committed, AlreadyCommitted)), outcome
        self.seq += 1
        self.acked[lease.run_id].append(mark)

    def one(self) -> None:
        """One write with its connection cut somewhere."""
        writes: dict[str, Callable[[], None]] = {
            "one": lambda: self.own(head=False),
            "three": lambda: self.own(head=False, count=3),
            "head": lambda: self.own(head=True),
            "tell": self.tell,
            "transact": self.transact,
            "begin": self.begin,
        }
        name = self.chance.choice(list(writes)) if self.plant is None else "tell"
        write = writes[name]
        if name not in self.sizes:
            write()  # statements are made known
            before = dict(self.between.links[-1].bytes)
            write()
            after = self.between.links[-1].bytes
            self.sizes[name] = {"up": after["up"] - before["up"], "down": after["down"] - before["down"]}
        way: Way = self.chance.choice(("up", "down")) if self.plant is None else "down"
        whole = self.sizes[name][way]
        late = self.plant is not None or self.chance.random() < 0.5
        number = self.chance.randint(max(1, whole - 40) if late else 1, whole)
        if self.plant is None and self.chance.random() < 0.15:  # a new connection is cut too, while it is made
            self.between.cut_all()
        cut = self.between.cut_after(way, number)
        try:
            write()
        finally:
            self.counts["cuts"] += cut.is_set()
            self.between.heal()

    def judge(self) -> list[str]:
        """What is wrong with what is there."""
        wrong = []
        for run_id, acked in self.acked.items():
            tail = self.direct.read(run_id)
            there = [] if tail is None else [line.split(b'"mark":"')[1][:32].decode() for line in tail.records]
            if there != acked:
                wrong.append(
                    f"run {run_id}: {len(acked)} acknowledged, {len(there)} there, {len(set(there))} different"
                )
        return wrong


def cuts(server: Postgres, database: str, count: int, seed: int, plant: str | None = None) -> Cuts:
    """Cut so many connections; what came of it."""
    with server.connect(database) as db:
        db.execute("CREATE TABLE IF NOT EXISTS rows (mark text PRIMARY KEY)")
    schema = f"s{uuid.uuid4().hex}"
    with proxy(server.port) as between:
        url = f"postgresql://postgres@127.0.0.1:{between.port}/{database}?schema={schema}&listen=off"
        store = PostgresStore(url)
        direct = PostgresStore(server.url(database, schema=schema, listen="off"))
        made = Cuts(random.Random(seed), between, store, direct, plant)
        made.begin()
        while made.counts["cuts"] < count:
            made.one()
            if len(made.acked[made.lease.run_id]) > 60:  # type: ignore[union-attr]
                made.begin()
        between.heal()
        try:
            made.counts["wrong"] = len(wrong := made.judge())
        except StoreError as error:
            wrong = [str(error)]
        if plant is None:
            assert [] == wrong, f"seed {seed}: {wrong[:5]}"
            with server.connect(database) as db:
                rows = {mark for (mark,) in db.execute("SELECT mark FROM rows")}
            made.counts["rows"] = len(rows)
            assert rows <= {mark for marks in made.acked.values() for mark in marks}, "a row without its record"
        store.close()
        direct.close()
    return made


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", choices=[PLANT])
    args = parser.parse_args()
    with postgres() as server:
        made = cuts(server, server.database(), args.count, args.seed, args.plant)
    print(dict(made.counts), f"seed {args.seed}")
    return 1 if made.counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

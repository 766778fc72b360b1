"""Connections that are cut, and servers that are killed, under a Redis store: no acknowledged record is lost.

*Cuts*: a proxy cuts the connection after some bytes of a question or of its answer. What the store says then must be
true: after `NotApplied` nothing is there, and after `Unknown` the same attempt is repeated until it is told. At the
end the histories hold each record once, in order.

*Kills*: threads append while the server is killed by SIGKILL, and started again: every record that was acknowledged is
there, with an append-only file that is synced at each write. Without one (`--plant "no file"`) it must not be.

    python -m tests.crash.redis_faults cuts --count 1000
    python -m tests.crash.redis_faults cuts --plant "another attempt"
    python -m tests.crash.redis_faults kills --count 100
    python -m tests.crash.redis_faults kills --plant "no file"
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field
from tests.crash.reports import Report
from tests.servers.proxy import Proxy, proxy
from tests.servers.valkey import Valkey, valkey

from stepwell.errors import NotFoundError, StoreUnavailableError
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Lease,
    LeaseRequest,
    NotApplied,
    Unknown,
    envelope,
)
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.redis import RedisStore

PLANTS = ("another attempt", "no file")
TRIES = 50


@define(eq=False)
class Cuts:
    """One store behind a proxy, and what should be in it."""

    between: Proxy
    through: RedisStore
    direct: RedisStore
    chance: random.Random
    plant: str | None
    counts: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    expected: dict[str, list[Any]] = field(factory=dict)
    number: int = 0

    def settled(self, what: str, attempt: Callable[[str], Any]) -> Any:
        """The outcome of one attempt that meets a cut, repeated until the store can tell."""
        self.number += 1
        name = f"a{self.number}"
        most = self.chance.choice([40, 400, 2_000])
        way: Any = self.chance.choice(["up", "down"])
        cut = self.between.cut_after(way, self.chance.randint(1, most if way == "up" else 60))
        for n in range(TRIES):
            done = attempt(name)
            self.counts[f"{what}: {type(done).__name__}"] += 1
            if n == 0 and cut.is_set():
                self.counts["cuts"] += 1
                self.counts[f"cuts of {'questions' if way == 'up' else 'answers'}"] += 1
            self.between.heal()
            if not isinstance(done, (NotApplied, Unknown)):
                if n and isinstance(done, AlreadyCommitted):
                    self.counts["written, though the answer was lost"] += 1
                return done
            if self.plant == "another attempt":
                name = f"{name}x"
        self.violations.append(f"{what} {name} was never settled")
        return None

    def begin(self) -> tuple[str, Lease]:
        """A run of its own."""
        run_id = f"run {len(self.expected)}"
        request = LeaseRequest("me", 3600, run_id)
        made = self.settled("create", lambda name: self._create(run_id, name, request))
        if not isinstance(made, Created) or made.lease is None:
            self.violations.append(f"{run_id} was not made: {made}")
            made = Created(Lease(run_id, 0, 1, 1, "me", 0))
        self.expected[run_id] = [None]
        assert made.lease is not None
        return run_id, made.lease

    def _create(self, run_id: str, name: str, request: LeaseRequest) -> Any:
        return self.through.create(run_id, [a_start()], head=a_head(), attempt_id=name, lease=request)

    def work(self, run_id: str, lease: Lease, count: int) -> None:
        """Appends of the owner and of others, in any order."""
        lines = self.expected[run_id]
        for n in range(count):
            values = [f"{run_id} {n} {i}" for i in range(self.chance.choice([1, 1, 3]))]
            records = [a_record(value) for value in values]
            seq = len(lines)
            if self.chance.random() < 0.5:
                head = self.chance.choice([None, a_head(updated=n)])
                done = self.settled("append", lambda name: self._own(lease, seq, records, name, head))  # noqa: B023
            else:
                done = self.settled("signal", lambda name: self._tell(run_id, records, name))  # noqa: B023
            if isinstance(done, (Committed, AlreadyCommitted)):
                if done.seq != seq:
                    self.violations.append(f"{run_id}: record {seq} was written as {done.seq}")
                lines += values
            else:
                self.violations.append(f"{run_id}: came to {done}")
                return

    def _own(self, lease: Lease, seq: int, records: Any, name: str, head: Any) -> Any:
        return self.through.append(
            lease.run_id, 0, seq, records, attempt_id=name, head=head, fence=lease.fence, then="open"
        )

    def _tell(self, run_id: str, records: Any, name: str) -> Any:
        return self.through.append(run_id, None, None, records, attempt_id=name, due=5)

    def check(self) -> None:
        """Compare what was acknowledged with what is there."""
        for run_id, values in self.expected.items():
            tail = self.direct.read(run_id)
            if tail is None:
                self.violations.append(f"{run_id} is not there")
                continue
            there = [None if b'"result":' not in line else _value(line) for line in tail.records]
            self.counts["records"] += len(there)
            if there != values:
                self.violations.append(f"{run_id} holds {len(there)} records, {len(values)} were acknowledged")
        self.violations += [str(part.problem) for part in self.direct.verify() if part.problem is not None]


def _value(line: bytes) -> str:
    return envelope(line).body.partition(b'"result":"')[2].partition(b'"')[0].decode()


def cuts(args: argparse.Namespace, server: Valkey) -> Report:
    """Cut until there were enough; a planted bug ends with its first violation."""
    report = Report("redis cuts", "redis", "a proxy", args.seed, args.plant)
    with proxy(server.port) as between:
        prefix = f"cuts-{args.seed}-{args.plant is not None}"
        through = RedisStore(f"redis://127.0.0.1:{between.port}/0?timeout=20&prefix={prefix}")
        direct = RedisStore(server.url(prefix=prefix))
        here = Cuts(between, through, direct, random.Random(args.seed), args.plant)
        while here.counts["cuts"] < args.count and not here.violations:
            here.work(*here.begin(), 25)
        between.heal()
        here.check()
        through.close()
        direct.close()
    if not args.plant and args.count >= 100:
        needed = ("written, though the answer was lost", "signal: Unknown", "append: Unknown", "create: Unknown")
        here.violations += [f"it never came to {name!r}" for name in needed if not here.counts[name]]
    report.add(here.counts, here.violations)
    return report


# ---- kills


def _write(store: RedisStore, run_id: str, acked: list[int], ended: threading.Event) -> None:
    """Append until told to end; `acked` has the seq of each record that was acknowledged."""
    made = store.create(run_id, [a_start()], head=a_head(), attempt_id="a", lease=LeaseRequest("me", 3600))
    if not isinstance(made, Created):
        return
    acked.append(0)
    seq = 1
    while not ended.is_set():
        try:
            done = store.append(run_id, 0, seq, [a_record(seq)], attempt_id="x", fence=1)
        except NotFoundError:
            return  # as below
        if isinstance(done, (Committed, AlreadyCommitted)):
            acked.append(seq)
            seq += 1
        elif isinstance(done, Conflict):
            return  # the server forgot something; the check finds out
        else:
            ended.wait(0.02)


def kills(args: argparse.Namespace, server: Valkey) -> Report:
    """Kill the server under writers, start it again, and look for what they were told is there."""
    report = Report("redis kills", "redis", str(args.plant or "appendfsync always"), args.seed, args.plant)
    chance, counts, violations = random.Random(args.seed), Counter[str](), list[str]()
    store = RedisStore(server.url(prefix="kills"))
    for number in range(args.count):
        ended, acked = threading.Event(), {f"{number} {n}": list[int]() for n in range(4)}
        writers = [threading.Thread(target=_write, args=(store, *item, ended)) for item in acked.items()]
        for writer in writers:
            writer.start()
        ended.wait(chance.uniform(0.05, 0.3))
        server.program.kill()
        server.program.start()
        if number % 2:  # they go on with the server that came back, for a while
            ended.wait(0.1)
        ended.set()
        for writer in writers:
            writer.join(60)
        counts["kills"] += 1
        for run_id, told in acked.items():
            counts["acks"] += len(told)
            try:
                tail = store.read(run_id)
            except StoreUnavailableError:
                tail = store.read(run_id)
            there = 0 if tail is None else tail.seq
            if told and there <= told[-1]:
                counts["lost"] += told[-1] + 1 - there
                violations.append(f"{run_id}: {told[-1] + 1} records were acknowledged, {there} are there")
    violations += [str(part.problem) for part in store.verify() if part.problem is not None]
    store.close()
    report.add(counts, violations)
    return report


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cuts", "kills"])
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", choices=PLANTS, help="a bug, or a setting, with which something must be lost")
    args = parser.parse_args()
    args.count = args.count or {"cuts": 150, "kills": 10}[args.what]
    settings: dict[str, object] = {"appendonly": "no"} if args.plant == "no file" else {}
    with valkey(durable=args.what == "kills", **settings) as server:
        return {"cuts": cuts, "kills": kills}[args.what](args, server).finish()


if __name__ == "__main__":
    sys.exit(main())

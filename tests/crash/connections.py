"""Connections to a server that break while a store writes: nothing acknowledged is lost, and nothing is there twice.

- `cut`: a proxy cuts the connection after some bytes of a question or of its answer, now and then a new one.
- `blackhole`: it swallows everything from some byte on, until the store gives up, or the network between does.
- `delay`: every piece takes its time, and now and then longer than the store waits.
- `zombie`: the client is cut off when its write is on the way, and the server gets it a while later: it commits for
  nobody, before, while or after the same attempt is made again.
- `deaf`: the write was done, and its answer is lost.

What the store says must be true then: after `NotApplied` nothing is there, and after `Unknown` the same attempt is
repeated until it is settled. At the end the histories hold each record once, in order. The plant repeats with another
attempt id, as a store without any would: then records are there twice.

    python -m tests.crash.connections --store postgres --fault cut --count 1000
    python -m tests.crash.connections --store redis --fault cut --plant "another attempt"
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field
from tests.crash.places import ON_SERVERS
from tests.crash.reports import Report
from tests.servers.proxy import Link, Proxy, Way, proxy

from stepwell.errors import StoreUnavailableError
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    Draft,
    Lease,
    LeaseRequest,
    NotApplied,
    Store,
    Unknown,
    envelope,
)
from stepwell.testing.contract import a_head
from stepwell_stores import open_store

PLANT = "another attempt"
FAULTS = ("cut", "blackhole", "delay", "zombie", "deaf")
TRIES = 60
SHORT = 0.25  # seconds that a store waits for an answer, where it can be told to
RUN = 40  # records, about


def a_mark_record(mark: str, kind: str = "step") -> Draft:
    return Draft(kind, b'"timestamp":"2023-11-14T22:13:21.000000Z","mark":"%b"' % mark.encode())


# ---- what is done to connections


class Faults:
    """Arms a proxy for one write, and says whether it did anything."""

    def __init__(self, between: Proxy, chance: random.Random) -> None:
        self.between, self.chance = between, chance
        self.fired = threading.Event()
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()

    def arm(self, fault: str, way: Way, count: int, mark: bytes) -> None:
        """Have the next write meet it: `count` bytes this way come through, or the piece with the mark is met."""
        if fault == "cut":
            if self.chance.random() < 0.15:  # a new connection is cut too, while it is made
                self.between.cut_all()
            self.fired = self.between.cut_after(way, count)
            return
        self.fired = threading.Event()
        self.between.on_bytes = {
            "blackhole": lambda: self._swallow(way, count),
            "delay": self._late,
            "zombie": lambda: self._zombie(mark),
            "deaf": lambda: self._deaf(mark),
        }[fault]()

    def _swallow(self, way: Way, count: int) -> Callable[[Link, Way, bytes], None]:
        left, fired = count, self.fired

        def decide(link: Link, going: Way, data: bytes) -> None:
            nonlocal left
            if not fired.is_set() and going == way:
                left -= len(data)
                if left <= 0:
                    fired.set()
                    self._later(SHORT * 1.2, self.between.cut_all)  # as the network does when it is asked for a sign
            if not fired.is_set():
                link.send(going, data)

        return decide

    def _late(self) -> Callable[[Link, Way, bytes], None]:
        longest = self.chance.choice((0.002, 0.02, SHORT * 1.5))

        def decide(link: Link, going: Way, data: bytes) -> None:
            threading.Event().wait(self.chance.random() * longest)
            self.fired.set()
            link.send(going, data)

        return decide

    def _zombie(self, mark: bytes) -> Callable[[Link, Way, bytes], None]:
        fired, wait, heard = self.fired, self.chance.choice((0.0, 0.005, 0.05)), threading.Event()
        its: list[Link] = []

        def decide(link: Link, going: Way, data: bytes) -> None:
            if going == "down" and link in its:
                heard.set()
            if going == "up" and mark in data and not fired.is_set():
                its.append(link)
                link.cut(server=False)
                self._later(wait, lambda: _land(link, data, heard))
                fired.set()
            elif link.open:
                link.send(going, data)

        return decide

    def _deaf(self, mark: bytes) -> Callable[[Link, Way, bytes], None]:
        fired, asked = self.fired, list[Link]()

        def decide(link: Link, going: Way, data: bytes) -> None:
            if going == "up" and mark in data:
                asked.append(link)
            if going == "down" and link in asked and not fired.is_set():
                fired.set()
                link.cut()
            else:
                link.send(going, data)

        return decide

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, what)
        timer.daemon = True
        with self._lock:
            timer.start()
            self._timers.append(timer)

    def over(self) -> None:
        """What was kept back has landed, and nothing more is done."""
        with self._lock:
            timers, self._timers = self._timers, []
        for timer in timers:
            timer.join()
        self.between.heal()


def _land(link: Link, data: bytes, heard: threading.Event) -> None:
    """Hand on what a client has sent that is gone, and wait until the server has answered nobody."""
    with contextlib.suppress(OSError):
        link.send("up", data)
        heard.wait(1)
    link.cut()


# ---- what is written meanwhile


@define(eq=False)
class Pen:
    """A store behind a proxy, what was acknowledged, and what happened.

    Attributes:
        acked: the marks that must be there, by run.
        rows: those of a program's own rows.
    """

    kind: str
    fault: str
    faults: Faults
    store: Store
    direct: Store
    chance: random.Random
    plant: str | None
    acked: dict[str, list[str]] = field(factory=dict)
    rows: set[str] = field(factory=set)
    counts: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    lease: Lease = field(factory=lambda: Lease("", 0, 1, 0, "me", 0))
    seq: int = 0
    sizes: dict[str, dict[Way, int]] = field(factory=dict)

    def settle(self, what: str, mark: str, attempt: Callable[[str], Any]) -> Any:
        """Make one attempt that meets a fault, and repeat it until the store can say how it ended."""
        name, before = uuid.uuid4().hex, self._bytes()
        armed = self.counts[f"{what}: made"] > 1  # the first one made statements known, the second tells how long it is
        self.counts[f"{what}: made"] += 1
        if armed:
            late: Way = self.chance.choice(("up", "down")) if not self.plant else "down"
            whole = self.sizes[what][late]
            near = self.chance.random() < 0.5
            number = self.chance.randint(max(1, whole - 60) if near else 1, whole)
            after = self.kind == "postgres" and what in ("tell", "transact")  # their commit comes for itself
            self.faults.arm(self.fault, late, number, b"COMMIT\0" if after else mark.encode())
        done: Any = None
        for n in range(TRIES):
            done = attempt(name)
            self.counts[f"{what}: {type(done).__name__}"] += 1
            if n == 0 and self.fault in ("blackhole", "cut", "delay"):
                self.faults.over()
            if not isinstance(done, (NotApplied, Unknown)):
                self.counts["written, though the answer was lost"] += n > 0 and _was_there(done)
                break
            if self.plant == PLANT:
                name = uuid.uuid4().hex
            threading.Event().wait(0.001 * n)
        else:
            self.violations.append(f"{what}: never settled after {TRIES} tries: {done}")
        self.faults.over()
        self.counts["faults"] += armed and self.faults.fired.is_set()
        if not armed:
            now = self._bytes()
            self.sizes[what] = {way: max(60, now[way] - before[way]) for way in now}
        return done

    def _bytes(self) -> dict[Way, int]:
        ways: tuple[Way, Way] = ("up", "down")
        return {way: sum(link.bytes[way] for link in self.faults.between.links) for way in ways}

    def begin(self) -> None:
        """A new run, under a lease."""
        run_id, mark = uuid.uuid4().hex, uuid.uuid4().hex
        ask = LeaseRequest("me", 3600, token=mark)
        first = [a_mark_record(mark, "start")]
        made = self.settle(
            "create", mark, lambda name: self.store.create(run_id, first, head=a_head(), attempt_id=name, lease=ask)
        )
        self.acked[run_id], self.seq = [mark], 1
        if isinstance(made, Created) and made.lease is not None:
            self.lease = made.lease
        elif (found := self.direct.head(run_id)) is not None and self.plant:
            self.lease = Lease(run_id, 0, found.fence, found.seq, "me", 0)
        else:
            self.violations.append(f"create: came to {made}")

    def own(self, *, head: bool, count: int = 1) -> None:
        """The owner's append."""
        marks = [uuid.uuid4().hex for _ in range(count)]
        drafts = [a_mark_record(mark) for mark in marks]
        top = a_head(updated=self.seq) if head else None

        def attempt(name: str) -> Any:
            at = (self.lease.run_id, 0, self.seq, drafts)
            return self.store.append(*at, attempt_id=name, head=top, fence=self.lease.fence)

        self._took(f"append {count}{' with a head' if head else ''}", marks, attempt)

    def tell(self) -> None:
        """An outside writer's append."""
        mark = uuid.uuid4().hex
        draft = [a_mark_record(mark, "resume")]

        def attempt(name: str) -> Any:
            return self.store.append(self.lease.run_id, None, None, draft, attempt_id=name, due=5)

        self._took("tell", [mark], attempt)

    def transact(self) -> None:
        """Rows and record together."""
        mark = uuid.uuid4().hex
        store: Any = self.store

        def work(db: Any) -> list[Draft]:
            db.execute("INSERT INTO rows VALUES (%s)", (mark,))
            return [a_mark_record(mark)]

        def attempt(name: str) -> Any:
            at = (self.lease.run_id, 0, self.seq, work)
            return store.transact(*at, attempt_id=name, fence=self.lease.fence, seconds=5)

        self.rows.add(mark)
        self._took("transact", [mark], attempt)

    def _took(self, what: str, marks: list[str], attempt: Callable[[str], Any]) -> None:
        done = self.settle(what, marks[-1], attempt)
        if not isinstance(done, (Committed, AlreadyCommitted)):
            self.violations.append(f"{what}: came to {done}")
            return
        if done.seq != self.seq:
            self.violations.append(f"{what}: record {self.seq} was written as {done.seq}")
        self.seq = done.seq + len(marks)
        self.acked[self.lease.run_id] += marks

    def one(self) -> None:
        """One write."""
        writes: dict[str, Callable[[], None]] = {
            "own": lambda: self.own(head=False),
            "three": lambda: self.own(head=False, count=3),
            "head": lambda: self.own(head=True),
            "tell": self.tell,
            "begin": self.begin,
        }
        if self.kind == "postgres":
            writes["transact"] = self.transact
        if self.plant == PLANT:
            writes = {"tell": self.tell}
        writes[self.chance.choice(list(writes))]()
        if len(self.acked[self.lease.run_id]) > RUN:
            self.begin()

    def check(self) -> None:
        """Compare what was acknowledged with what is there."""
        for run_id, acked in self.acked.items():
            tail = self.direct.read(run_id)
            lines = [] if tail is None else tail.records
            there = [envelope(line).body.partition(b'"mark":"')[2][:32].decode() for line in lines]
            self.counts["ack"] += len(acked)
            if there != acked:
                said = f"{len(acked)} acknowledged, {len(there)} there, {len(set(there))} different"
                self.violations.append(f"run {run_id}: {said}")
        self.violations += [str(part.problem) for part in self.direct.verify() if part.problem is not None]


def _was_there(done: Any) -> bool:
    return isinstance(done, AlreadyCommitted)


# ---- stores


@contextlib.contextmanager
def _stores(kind: str) -> Iterator[tuple[Proxy, Store, Store, Callable[[], set[str]]]]:
    """A proxy, a store through it, one beside it, and what gives the rows of a program."""
    name, none = f"s{uuid.uuid4().hex}", set[str]
    if kind == "postgres":
        from tests.servers.postgres import postgres

        with postgres() as server, proxy(server.port) as between:
            base = server.database()
            with server.connect(base) as db:
                db.execute("CREATE TABLE rows (mark text PRIMARY KEY)")
            direct = server.url(base, schema=name, listen="off")
            through = direct.replace(f":{server.port}/", f":{between.port}/")

            def rows() -> set[str]:
                with server.connect(base) as db:
                    return {mark for (mark,) in db.execute("SELECT mark FROM rows")}

            yield between, open_store(through), open_store(direct), rows
    elif kind == "redis":
        from tests.servers.valkey import valkey

        with valkey() as keys, proxy(keys.port) as between:
            through = f"redis://127.0.0.1:{between.port}/0?timeout={SHORT}&prefix={name}"
            yield between, open_store(through), open_store(keys.url(prefix=name)), none
    else:
        from obstore.store import S3Store as Objects
        from tests.servers.s3 import BUCKET, KEY, SECRET, s3

        from stepwell_stores.s3 import S3Store
        from stepwell_stores.s3 import bucket as s3_bucket

        vars(s3_bucket)["_PAUSES"] = ()  # it tries once, so that the outcomes are seen here
        with s3() as bucket, proxy(bucket.port) as between:
            os.environ.update(bucket.environment)
            options: Any = {"allow_http": True, "timeout": f"{int(SHORT * 1000)}ms"}
            objects = Objects(
                BUCKET,
                endpoint=f"http://127.0.0.1:{between.port}",
                access_key_id=KEY,
                secret_access_key=SECRET,
                region="us-east-1",
                virtual_hosted_style_request=False,
                client_options=options,
                retry_config={"max_retries": 0},
            )
            yield between, S3Store(objects, name), open_store(bucket.url(name)), none


def harness(args: argparse.Namespace) -> int:
    """Break until it was enough; a planted bug ends with its first violation."""
    report = Report("connections", args.store, args.fault, args.seed, args.plant)
    chance = random.Random(args.seed)
    with _stores(args.store) as (between, store, direct, rows):
        pen = Pen(args.store, args.fault, Faults(between, chance), store, direct, chance, args.plant)
        pen.begin()
        while pen.counts["faults"] < args.count and not pen.violations:
            try:
                pen.one()
            except StoreUnavailableError as error:  # a write says NotApplied
                pen.violations.append(f"a write raised {error}")
        between.heal()
        pen.check()
        if not args.plant and (odd := rows() ^ pen.rows):
            pen.violations.append(f"{len(odd)} rows without their records, or the other way round")
        store.close()
        direct.close()
    if not args.plant and args.count >= 100 and args.fault in ("cut", "zombie", "deaf"):
        for name in ("tell", "create", "append 1"):
            if not pen.counts[f"{name}: Unknown"]:
                pen.violations.append(f"it never came to an unknown {name}")
    report.add(pen.counts, pen.violations)
    return report.finish()


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=ON_SERVERS, default="postgres")
    parser.add_argument("--fault", choices=FAULTS, default="cut")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", choices=[PLANT], help="a bug with which something must be there twice")
    return harness(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

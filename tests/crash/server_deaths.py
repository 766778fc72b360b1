"""Servers that die under the processes that use them, and come back: what they acknowledged is there.

- `kill`: all of the server's processes are killed at once.
- `restart`: it is asked to end, and started again.
- `backend`: one process of it is killed that serves a connection, and it puts itself together again (Postgres).
- `power`: its data is on a file system of its own, whose power is cut; see `power_cuts`.

Two processes write meanwhile, an owner of runs and a partner who sends signals. Half of the time they are killed with
the server, else they have to find by themselves that it is there again, and go on. Every generation goes on with what
the one before has left. In the end all runs come to their ends.

A setting with which the server keeps nothing, or a planted bug, must lose something.

    python -m tests.crash.server_deaths --store postgres --how backend --count 20
    python -m tests.crash.server_deaths --store redis --how power --count 20
    python -m tests.crash.server_deaths --store redis --how power --setting appendfsync=everysec --count 20
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from tests.crash.mounts import Image, LackError, place, umount
from tests.crash.places import apart
from tests.crash.planted import PLANTS
from tests.crash.reports import Report
from tests.crash.witness import Evidence, Witness
from tests.crash.writers import Child, Shop, be_owner, be_partner, check, finish, run_as

from stepwell.errors import StoreError
from stepwell_stores import open_store

HOWS = ("kill", "restart", "backend", "power")
_MOST_LINES = 120  # that a crew tells: the server dies after a random number of them
_MORE = 6  # lines that each tells when the server is there again
_PATIENCE = 60.0
_SIZE = 400 << 20  # of the file system: a Postgres server has much to say
_ALWAYS: dict[str, dict[str, object]] = {
    "postgres": {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"},  # nobody syncs but who has to
    "redis": {},
}


def be_stubborn(shop: Shop, witness: Witness, role: Any, generation: int) -> None:
    """Be something again and again, whatever becomes of the server."""
    while True:
        try:
            role(shop, witness, generation)
        except StoreError as error:
            witness.note(f"met {type(error).__name__}")
            select.select([], [], [], 0.02)


@define
class Story:
    """A server from its first start to the end of all runs.

    Attributes:
        server: as the tests have it.
        image: where its data is, when its power is cut.
    """

    args: argparse.Namespace
    server: Any
    image: Image | None
    shop: Shop
    chance: random.Random
    report: Report
    evidence: Evidence = field(factory=Evidence)
    _generations: int = 0

    def live(self, count: int) -> None:
        """Let it die so often, unless something is lost before."""
        while self._generations < count and not self.evidence.violations:
            self._generation()
        if not self.evidence.violations:
            self._later()
            child = Child(run_as(self.shop, finish, self._generations))
            child.wait()
            self.evidence.take(bytes(child.told))
            self._check()
        self.evidence.counts.pop("records checked", 0)
        self.report.add(self.evidence.counts, self.evidence.violations)

    def _later(self) -> None:
        """The leases of those who are dead have lapsed."""
        self.shop = evolve(self.shop, late=self.shop.late + 1)

    def _generation(self) -> None:
        self._generations += 1
        self._later()
        crew = [Child(run_as(self.shop, be_stubborn, role, self._generations)) for role in (be_owner, be_partner)]
        power = self.args.how == "power"
        try:
            self._hear(crew, self.chance.randint(4, self.chance.choice((10, 40, _MOST_LINES))))
            select.select([], [], [], self.chance.random() * 0.003)
            heard = [len(child.told) for child in crew]
            self._strike()
            self.report.counts["deaths"] += 1
            stays = not power and self.chance.random() < 0.5
            if not stays:
                for child in crew:
                    child.kill()
            self._come_back()
            if stays:
                for child in crew:
                    self._goes_on(child)
        finally:
            for child in crew:
                child.kill()
        for child, length in zip(crew, heard, strict=True):
            self.evidence.take(bytes(child.told[: length if power else None]))
        known = len(self.evidence.acks)
        self._check()
        found = self.evidence.counts.pop("records checked", 0)
        self.evidence.counts["deaths with records that nobody heard of"] += found > known
        self.report.counts["deaths that lost"] += bool(self.evidence.violations)

    def _hear(self, crew: list[Child], lines: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while sum(child.told.count(b"\nack ") for child in crew) < lines and time.monotonic() < deadline:
            for child in crew:
                child.hear(0.005)
            if all(child.ended for child in crew):
                break
        for child in crew:
            child.hear()

    def _goes_on(self, child: Child) -> None:
        wanted, deadline = child.told.count(b"\nack ") + _MORE, time.monotonic() + _PATIENCE
        while child.told.count(b"\nack ") < wanted:
            child.hear(0.1)
            if child.ended or time.monotonic() > deadline:
                self.evidence.violations.append("a process does not go on with the server that is there again")
                return
        self.evidence.counts["went on"] += 1

    def _strike(self) -> None:
        how, server = self.args.how, self.server
        if how == "backend":
            with closing(server.connect(self._database)) as db:
                named = (
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                pids = [pid for (pid,) in db.execute(named).fetchall()]
                os.kill(self.chance.choice(pids) if pids else db.execute("SELECT pg_backend_pid()").fetchone()[0],
                        signal.SIGKILL)  # fmt: skip
        elif how == "restart":
            server.program.stop(signal.SIGINT if self.args.store == "postgres" else signal.SIGTERM)
        else:
            if self.image is not None:
                self.image.cut()
            kill(server)

    @property
    def _database(self) -> str:
        return self.shop.address.partition("?")[0].rpartition("/")[2]

    def _come_back(self) -> None:
        if self.args.how == "backend":
            deadline = time.monotonic() + _PATIENCE
            while True:
                with contextlib.suppress(Exception), closing(self.server.connect(self._database)):
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError("the server does not come back")
                select.select([], [], [], 0.02)
        if self.image is not None:
            for left in range(200, 0, -1):
                try:
                    self.image.detach()
                    break
                except LackError:
                    if left == 1:
                        raise
                    select.select([], [], [], 0.02)
            self.image.attach()
            if hasattr(self.server, "unlock"):
                self.server.unlock()
        try:
            self.server.program.start()
        except RuntimeError as error:
            self.evidence.violations.append(f"the server does not start again: {str(error)[-500:]}")

    def _check(self) -> None:
        if any("does not start" in text for text in self.evidence.violations):
            return
        self._later()

        def compared() -> Evidence:
            check(self.shop, self.evidence)
            return self.evidence

        self.evidence = apart(compared)


def kill(server: Any) -> None:
    """Kill all of a server."""
    if hasattr(server, "kill"):
        server.kill()
    else:
        server.program.kill()


@contextlib.contextmanager
def _running(args: argparse.Namespace, within: Path | None) -> Iterator[tuple[Any, str]]:
    """A server that keeps what it is given, but for the setting, and the URL of a store there."""
    given = dict(one.split("=", 1) for one in args.setting.split(",") if one)
    settings: dict[str, Any] = {**_ALWAYS[args.store], **given}
    if args.store == "postgres":
        from tests.servers.postgres import postgres

        with postgres(durable=True, within=within, **settings) as server:
            yield server, server.url(server.database(), schema="deaths")
    else:
        from tests.servers.valkey import valkey

        with valkey(durable=True, within=within, **settings) as keys:
            willing: dict[str, Any] = {"volatile": "allow"} if given.get("appendonly") == "no" else {}
            yield keys, keys.url(prefix="deaths", **willing)


def deaths(args: argparse.Namespace, report: Report, image: Image | None) -> None:
    """One server, and its deaths."""
    with _running(args, None if image is None else image.mount) as (server, url):

        def declared() -> Any:
            with closing(open_store(url)) as store:
                return store.durability.power_loss

        report.facts["power loss declared"] = apart(declared)
        if image is not None:
            image.sync()
        shop = Shop(args.store, Path("/"), planted=args.plant, address=url)
        chance = random.Random(f"{args.seed}/{args.store}/{args.how}")
        try:
            Story(args, server, image, shop, chance, report).live(args.count)
        finally:
            if image is not None:
                kill(server)


def harness(args: argparse.Namespace) -> int:
    """As often as asked for."""
    setting = f"{args.how}, {args.setting}" if args.setting else args.how
    report = Report("server deaths", args.store, setting, args.seed, args.plant)
    if args.how != "power":
        deaths(args, report, None)
        return report.finish()
    report.facts["file system"] = "ext4"
    try:
        with place() as base, Image(base, "ext4", size=_SIZE) as image:
            try:
                deaths(args, report, image)
            finally:
                umount(image.mount, lazily=True)
    except LackError as e:
        if report.counts["deaths"]:
            raise
        report.skipped = e.lack.reason
        report.facts["package"] = e.lack.package
    return report.finish()


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("postgres", "redis"), default="postgres")
    parser.add_argument("--how", choices=HOWS, default="kill")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--setting", default="", help="of the server, such as appendfsync=everysec; more with commas")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug with which something must be lost")
    args = parser.parse_args()
    if args.how == "backend" and args.store != "postgres":
        parser.error("only Postgres has a process for each connection")
    return harness(args)


if __name__ == "__main__":
    sys.exit(main())

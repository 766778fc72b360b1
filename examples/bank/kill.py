"""Kill `drive.py` at random points, and audit the books after each kill: `python kill.py [--kills 500] [--seed N]`.

Each round starts a process that transfers money in two threads, kills it with SIGKILL after a random time, and then, in
this process, opens the bank again, drives what is left, and looks at everything:

* the accounts hold as many cents as in the beginning, before and after the rest is driven;
* a transfer that is recorded as moved has one booking, every other one has none: also right after the kill;
* the accounts are what the bookings make them;
* every transfer that the killed process may have begun is asked for again, and is there once;
* `verify` finds no damage in the store.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bank import ACCOUNTS, CENTS, make_engine, make_tables, transfer
from drive import THREADS, order_of
from msgspec import Raw

from stepwell import Engine, NotFoundError, RunCompleted
from stepwell.events import Event, Step
from stepwell_stores import open_store

HERE = Path(__file__).parent
SPREAD = 0.2  # seconds after which a process is killed, at most: many transfers
KILLS_A_BANK = 50


class WrongBooksError(Exception):
    """The audit found what must not be."""


def is_move(event: Event) -> bool:
    """Whether an event says that money was moved."""
    return isinstance(event, Step) and event.name == "move" and event.result == Raw(b"true")


def audit(engine: Engine, path: str) -> Counter[str]:
    """Look at everything that is on disk.

    Returns:
        How many runs stand where: their status, and the last thing that is recorded of those that are open.

    Raises:
        WrongBooksError: money or a record is missing, or there twice.
    """
    with closing(sqlite3.connect(path)) as db:
        db.execute("BEGIN")  # all of it at one moment
        accounts = dict(db.execute("SELECT name, cents FROM accounts"))
        bookings = db.execute("SELECT transfer, source, target, cents FROM bookings").fetchall()
    made = dict.fromkeys(accounts, CENTS)
    for _, source, target, cents in bookings:
        made[source] -= cents
        made[target] += cents
    if sum(accounts.values()) != ACCOUNTS * CENTS or accounts != made:
        raise WrongBooksError(f"the accounts are {accounts}, the bookings make them {made}")
    times = Counter(name for name, *_ in bookings)
    found: Counter[str] = Counter()
    after = None
    while page := engine.runs(limit=500, after=after):
        for record in page:
            events = engine.history(record.id)
            moved = any(is_move(event) for event in events)
            if times.pop(record.id, 0) != moved:
                raise WrongBooksError(f"{record.id} is recorded as moved={moved}, and that is not what is booked")
            last = events[-1]
            found[
                "closed" if last.kind == "complete" else f"a run was open after {getattr(last, 'name', last.kind)}"
            ] += 1
        after = page[-1].id
    if times:
        raise WrongBooksError(f"booked, and not recorded: {sorted(times)}")
    return found


class Bank:
    """One file, and the processes that work on it until they are killed.

    Args:
        path: of the file, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.first = 0  # number of the first transfer that nobody has asked for yet
        self.points: Counter[str] = Counter()
        make_tables(self.path)

    def kill(self, seconds: float) -> bool:
        """Start a process and kill it after it was ready for so long; whether it was still at work."""
        words = [sys.executable, str(HERE / "drive.py"), "--first", str(self.first), "--count", "1000"]
        here = {**os.environ, "BANK": self.path}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=here) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise WrongBooksError(f"drive.py ended with {process.wait()}")
            time.sleep(seconds)
            process.kill()
            return process.wait() < 0

    def recover(self) -> None:
        """Audit what the killed process has left, go on with it, and audit again.

        Raises:
            WrongBooksError: the kill cost or made money.
        """
        with make_engine(self.path) as engine:
            left = audit(engine, self.path)
            del left["closed"]
            self.points += left or Counter({"no run was open": 1})
            engine.run_due()
            self._ask_again(engine)
            if set(audit(engine, self.path)) - {"closed"}:
                raise WrongBooksError("a run was left open")
        with closing(open_store(f"sqlite:///{self.path}")) as store:
            problems = [str(part.problem) for part in store.verify() if part.problem is not None]
        if problems:
            raise WrongBooksError("; ".join(problems))

    def _ask_again(self, engine: Engine) -> None:
        """Do as clients that don't know how their transfers ended: each is there once."""
        while any(self._is_there(engine, number) for number in range(self.first, self.first + THREADS)):
            order = order_of(self.first)
            if not isinstance(engine.start(transfer, order, run_id=order.id), RunCompleted):
                raise WrongBooksError(f"{order.id} has not come to its end")
            self.first += 1

    def _is_there(self, engine: Engine, number: int) -> bool:
        try:
            engine.get(order_of(number).id)
        except NotFoundError:
            return False
        return True

    def bookings(self) -> int:
        """How many transfers moved money."""
        with closing(sqlite3.connect(self.path)) as db:
            found: int = db.execute("SELECT count(*) FROM bookings").fetchone()[0]
            return found


def play(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill so often; the figures. Every so often a new bank is opened, so that an audit takes no longer and longer.

    Raises:
        WrongBooksError: a kill cost or made money.
    """
    chance, began, done = random.Random(seed), time.monotonic(), 0
    banks: list[Bank] = []
    while done < kills:
        if done >= len(banks) * KILLS_A_BANK:
            banks.append(Bank(folder / f"bank-{len(banks)}.db"))
        done += banks[-1].kill(chance.uniform(0, SPREAD))
        banks[-1].recover()
    points: Counter[str] = Counter()
    for bank in banks:
        points += bank.points
    return {
        "kills": done,
        "seed": seed,
        "transfers": sum(bank.first for bank in banks),
        "bookings": sum(bank.bookings() for bank in banks),
        "at_the_kill": dict(points.most_common()),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a bank at random points, and audit its books.")
    parser.add_argument("--kills", type=int, default=500, help="how often (500)")
    parser.add_argument("--seed", type=int, default=1, help="of the points at which it is killed (1)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            figures = play(options.kills, options.seed, Path(folder))
        except WrongBooksError as error:
            print(f"the books are wrong: {error}", file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps(figures))
        return 0
    print(
        f"{figures['kills']} kills, {figures['transfers']} transfers, {figures['bookings']} bookings: no cent is lost"
    )
    for point, times in figures["at_the_kill"].items():
        print(f"{times:6} times: {point}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

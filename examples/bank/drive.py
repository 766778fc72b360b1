"""Transfer money until it is done or killed: `python drive.py [--first N] [--count N]`.

Transfers are numbered, and what each of them asks for follows from its number. So the same command again does nothing
twice, and a client that does not know how its transfer ended just asks for it again.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from bank import ACCOUNTS, CENTS, PATH, Transfer, make_engine, make_tables, transfer

from stepwell import Engine

THREADS = 2  # transfers at once


def order_of(number: int) -> Transfer:
    """The transfer of a number."""
    chance = random.Random(number)
    source, target = chance.sample(range(ACCOUNTS), 2)
    return Transfer(f"transfer-{number}", f"account-{source}", f"account-{target}", chance.randint(1, CENTS))


def drive(engine: Engine, numbers: Iterator[int]) -> None:
    """Ask for one transfer after the other; several threads share the numbers."""
    for number in numbers:
        order = order_of(number)
        engine.start(transfer, order, run_id=order.id)


class Numbers:
    """An iterator that several threads may ask."""

    def __init__(self, first: int, count: int) -> None:
        self._left = iter(range(first, first + count))
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._left)


def main() -> int:
    parser = argparse.ArgumentParser(description="Transfer money between accounts.")
    parser.add_argument("--first", type=int, default=0, help="number of the first transfer")
    parser.add_argument("--count", type=int, default=20, help="how many")
    options = parser.parse_args()
    if not Path(PATH).exists():
        make_tables()
    with make_engine() as engine:
        engine.run_due()  # what a process that was killed has left
        print("ready", flush=True)
        numbers = Numbers(options.first, options.count)
        threads = [threading.Thread(target=drive, args=(engine, numbers)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    db = sqlite3.connect(PATH)
    total, booked = db.execute("SELECT sum(cents), (SELECT count(*) FROM bookings) FROM accounts").fetchone()
    db.close()
    print(f"{booked} bookings, {total:,} cents on {ACCOUNTS} accounts")
    return 0


if __name__ == "__main__":
    sys.exit(main())

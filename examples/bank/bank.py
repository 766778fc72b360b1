"""A bank: money goes from one account to another, exactly once, whenever the process dies.

The accounts are tables of this program, in the same SQLite file as the runs. `move` writes them in a Transaction: its
rows and the record that it was done are committed together, so there is no moment at which one is there without the
other.
"""

from __future__ import annotations

import os
import sqlite3

from attrs import frozen

from stepwell import Engine, Flow, Step, Transaction, failed, workflow

PATH = os.environ.get("BANK", "bank.db")
ACCOUNTS = 10
CENTS = 10_000  # on each account in the beginning

TABLES = """
CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0)) STRICT;
CREATE TABLE bookings (transfer TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, cents INTEGER) STRICT;
"""  # nothing forbids two bookings of one transfer: that there are none is for stepwell to see to


@frozen
class Transfer:
    id: str
    source: str
    target: str
    cents: int


class NoSuchAccountError(Exception):
    """Nobody has an account of that name."""


def check(order: Transfer) -> None:
    """A step: what would ask another service, such as one that knows of fraud."""
    if order.cents <= 0:
        raise ValueError(f"{order.cents} cents can't be transferred")


def move(db: sqlite3.Connection, order: Transfer) -> bool:
    """A transaction: False when the source has not enough. Whatever it raises, no row of it stays."""
    for name in (order.source, order.target):
        if db.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)).fetchone() is None:
            raise NoSuchAccountError(name)
    taken = "UPDATE accounts SET cents = cents - :cents WHERE name = :source AND cents >= :cents"
    row = {"id": order.id, "source": order.source, "target": order.target, "cents": order.cents}
    if db.execute(taken, row).rowcount == 0:
        return False
    db.execute("UPDATE accounts SET cents = cents + :cents WHERE name = :target", row)
    db.execute("INSERT INTO bookings VALUES (:id, :source, :target, :cents)", row)
    return True


@workflow
def transfer(order: Transfer) -> Flow[str]:
    yield from Step(check, order)
    try:
        moved = yield from Transaction(move, order)
    except failed(NoSuchAccountError) as error:
        return f"refused: no account {error.failure.message!r}"
    return "moved" if moved else "refused: not enough money"


def make_tables(path: str = PATH) -> None:
    """Open the bank: the tables are this program's own, and made by a connection of its own."""
    db = sqlite3.connect(path)
    db.executescript(TABLES)
    db.executemany("INSERT INTO accounts VALUES (?, ?)", [(f"account-{n}", CENTS) for n in range(ACCOUNTS)])
    db.commit()
    db.close()


def make_engine(path: str = PATH) -> Engine:
    """`stepwell --store sqlite:///bank.db` shows the same runs."""
    return Engine(f"sqlite:///{path}", workflows=[transfer])

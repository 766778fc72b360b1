"""The tables of the page about stores: what each can do is asked of the code, what it costs is written here."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from stepwell.moves import Movable
from stepwell.store import Store, Transactional

__all__ = ["capabilities_table", "costs_table", "survives_table"]

CLASSES = {
    "memory:": ("stepwell_stores.memory", "MemoryStore"),
    "file:": ("stepwell_stores.jsonl", "JsonlStore"),
    "sqlite:": ("stepwell_stores.sqlite", "SqliteStore"),
    "postgresql:": ("stepwell_stores.postgres", "PostgresStore"),
    "redis:": ("stepwell_stores.redis", "RedisStore"),
    "s3:": ("stepwell_stores.s3", "S3Store"),
}

# What can't be asked of the code, by scheme. A new store adds its column to each row.
FACTS: dict[str, dict[str, str]] = {
    "Who shares it": {
        "memory:": "threads of one process",
        "file:": "processes of one machine",
        "sqlite:": "processes of one machine",
        "postgresql:": "any number of machines",
        "redis:": "any number of machines",
        "s3:": "any number of machines",
    },
    "Fit for": {
        "memory:": "tests",
        "file:": "up to 10,000 runs, to read and grep",
        "sqlite:": "millions of runs",
        "postgresql:": "millions of runs, many machines",
        "redis:": "millions of small runs, as far as memory goes",
        "s3:": "some 10,000 runs at a time, without a server",
    },
    "A dead owner is noticed": {
        "memory:": "when its lease is over",
        "file:": "at once, by the lock that its process held",
        "sqlite:": "at once, by the lock that its process held",
        "postgresql:": "when its lease is over",
        "redis:": "when its lease is over",
        "s3:": "on the same machine at once, else when its lease is over",
    },
    "Another process hears of a signal": {
        "memory:": "there is none",
        "file:": "by looking, every 0.2 s",
        "sqlite:": "by looking, every 0.2 s",
        "postgresql:": "at once, by `NOTIFY`; or by looking",
        "redis:": "at once, by pub/sub; or by looking",
        "s3:": "by looking, every `poll` seconds",
    },
    "A page of a list": {
        "memory:": "looks at all runs",
        "file:": "looks at the files of all runs",
        "sqlite:": "by index",
        "postgresql:": "by index",
        "redis:": "by index",
        "s3:": "looks at the names of all objects",
    },
    "Space of removed runs": {
        "memory:": "free at once",
        "file:": "free at once; a small file stays of each",
        "sqlite:": "filled again; `vacuum` gives it back",
        "postgresql:": "filled again, by autovacuum",
        "redis:": "free at once",
        "s3:": "free after `keep_deleted` seconds; two small objects stay of each",
    },
}

COSTS: dict[str, dict[str, str]] = {
    "start": {
        "memory:": "none",
        "file:": "2 syncs",
        "sqlite:": "1 sync",
        "postgresql:": "1 commit",
        "redis:": "1 script",
        "s3:": "2 writes",
    },
    "a step": {
        "memory:": "none",
        "file:": "1 sync",
        "sqlite:": "1 sync",
        "postgresql:": "1 commit, 1 round trip",
        "redis:": "1 script, 1 sync of the log",
        "s3:": "1 write",
    },
    "a step beside 15 others": {
        "memory:": "none",
        "file:": "1 sync",
        "sqlite:": "1 sync for all that wait",
        "postgresql:": "1 commit for all that wait",
        "redis:": "1 script; the server syncs for all that wait",
        "s3:": "1 write",
    },
    "park": {
        "memory:": "none",
        "file:": "none, if nothing is recorded",
        "sqlite:": "1 sync",
        "postgresql:": "1 commit",
        "redis:": "1 script",
        "s3:": "1 write, another for a timer",
    },
    "a signal": {
        "memory:": "none",
        "file:": "1 sync",
        "sqlite:": "1 sync",
        "postgresql:": "1 commit",
        "redis:": "2 scripts",
        "s3:": "1 to 3 reads, 1 write",
    },
    "claim": {
        "memory:": "none",
        "file:": "2 syncs",
        "sqlite:": "1 sync, for as many as are claimed",
        "postgresql:": "1 commit, for as many as are claimed",
        "redis:": "1 script, for as many as are claimed",
        "s3:": "1 read, 1 write",
    },
    "renew a lease": {
        "memory:": "none",
        "file:": "none",
        "sqlite:": "1 sync",
        "postgresql:": "1 commit",
        "redis:": "1 script",
        "s3:": "2 reads, 1 write",
    },
    "a list of 100": {
        "memory:": "all runs",
        "file:": "a `stat` of three files a run",
        "sqlite:": "100 rows",
        "postgresql:": "100 rows",
        "redis:": "100 hashes",
        "s3:": "1 list a 1,000 objects, and the runs that changed",
    },
    "move a run in": {"memory:": "none", "file:": "9 syncs", "sqlite:": "4 syncs", "postgresql:": "4 commits"},
    "move a run out": {"memory:": "none", "file:": "5 syncs", "sqlite:": "2 syncs", "postgresql:": "2 commits"},
}

SURVIVES: dict[str, dict[str, str]] = {
    "the end of the process, `kill -9`": {
        "memory:": "no",
        "file:": "yes",
        "sqlite:": "yes",
        "postgresql:": "yes",
        "redis:": "yes; of the server too, with `appendonly yes`",
        "s3:": "yes",
    },
    "a power cut": {
        "memory:": "no",
        "file:": "yes; not with `?sync=off`",
        "sqlite:": "yes; not with `?sync=normal`",
        "postgresql:": "yes; not with `fsync=off`",
        "redis:": "with `appendfsync always` only",
        "s3:": "as the bucket says",
    },
    "the loss of the machine": {
        "memory:": "no",
        "file:": "no",
        "sqlite:": "no",
        "postgresql:": "as its replicas are set up",
        "redis:": "no: replicas lag",
        "s3:": "as the bucket says",
    },
    "a full disk": {
        "memory:": "",
        "file:": "yes: nothing is written",
        "sqlite:": "yes: nothing is written",
        "postgresql:": "yes: nothing is written",
        "redis:": "yes: nothing is written",
        "s3:": "there is none",
    },
}


def _classes() -> dict[str, Any]:
    """The stores, by scheme."""
    return {scheme: getattr(import_module(module), name) for scheme, (module, name) in CLASSES.items()}


def _table(head: str, rows: dict[str, dict[str, str]]) -> list[str]:
    schemes = list(_classes())
    lines = [f"| {head} | {' | '.join(f'`{one}`' for one in schemes)} |", "|---" * (len(schemes) + 1) + "|"]
    for what, cells in rows.items():
        lines.append(f"| {what} | {' | '.join(cells.get(one, '') for one in schemes)} |")
    return lines


def capabilities_table() -> list[str]:
    """What each store can do."""
    classes = _classes()

    def has(protocol: Any) -> dict[str, str]:
        wanted = [name for name, one in vars(protocol).items() if inspect.isfunction(one) and name[0] != "_"]
        return {
            scheme: "yes" if all(callable(getattr(cls, name, None)) for name in wanted) else "no"
            for scheme, cls in classes.items()
        }

    rows = {
        "The whole contract (`stepwell.store.Store`)": has(Store),
        "[Transactions](../how-to/transactions.md) with your own rows": has(Transactional),
        "[Runs move](../how-to/move.md) in and out": has(Movable),
        **FACTS,
    }
    return _table("", rows)


def costs_table() -> list[str]:
    """What each thing costs."""
    return _table("What is done", COSTS)


def survives_table() -> list[str]:
    """What each store survives."""
    return _table("What happens", SURVIVES)

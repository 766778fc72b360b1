"""The floors of servers: what the same bytes cost with a bare driver. Each is run in a process of its own.

A file of records holds those that a real run wrote, one on a line.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .floors import bodies
from .probes import peak_memory
from .server_probes import bucket_of, client_of, connection_to, kind_of_url, setting_of, stored

__all__ = ["first_insert", "page", "records_decoded", "writes"]

WARM = 20
ROWS = 1000
_TABLE = """CREATE TABLE floor (run_id text NOT NULL, incarnation integer NOT NULL, seq integer NOT NULL,
    body bytea NOT NULL, PRIMARY KEY (run_id, incarnation, seq))"""
_INSERT = "INSERT INTO floor VALUES ('run', 0, %s, %s)"
_PUSH = "return redis.call('RPUSH', KEYS[1], ARGV[1])"


@contextmanager
def writer(url: str) -> Iterator[Callable[[int, bytes], object]]:
    """What writes one record: a transaction, a script that appends to a list, or an object that is not there yet."""
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:
            db.execute(_TABLE)
            yield lambda seq, body: db.execute(_INSERT, (seq, body))
    elif kind == "redis":
        with client_of(url) as client:
            push = client.register_script(_PUSH)
            yield lambda _seq, body: push(keys=["floor"], args=[body])
    else:
        import obstore

        bucket = bucket_of(url)
        yield lambda seq, body: obstore.put(bucket, f"floor/{seq:012}", body, mode="create")


def writes(directory: str, records: str, count: int) -> dict[str, Any]:
    """Write `count` records, each acknowledged before the next one."""
    rows = bodies(records, count)
    with writer(directory) as write:
        for seq in range(WARM):
            write(seq, rows[0])
        before = stored(directory)
        began = time.perf_counter()
        for seq, body in enumerate(rows):
            write(WARM + seq, body)
        seconds = time.perf_counter() - began
    return {
        "rate": count / seconds,
        "ms": 1000 * seconds / count,
        "memory": peak_memory(),
        "durability": setting_of(directory),
        "bytes": (stored(directory) - before) / count,
    }


def filled(url: str, rows: Iterable[bytes]) -> None:
    """Write records as fast as it goes: how they were written is not what is measured."""
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:
            db.execute(_TABLE)
            with db.cursor().copy("COPY floor (run_id, incarnation, seq, body) FROM STDIN") as copy:
                for seq, body in enumerate(rows):
                    copy.write_row(("run", 0, seq, body))
            db.execute("ANALYZE floor")
        return
    if kind == "redis":
        with client_of(url) as client:
            for part in batches(rows, 1000):
                client.rpush("floor", *part)
        return
    import asyncio

    import obstore

    bucket = bucket_of(url)

    async def put_all() -> None:
        numbered = list(enumerate(rows))
        for part in batches(numbered, 50):
            await asyncio.gather(*(obstore.put_async(bucket, f"floor/{seq:012}", body) for seq, body in part))

    asyncio.run(put_all())


def batches(things: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many."""
    left = iter(things)
    while part := list(itertools.islice(left, size)):
        yield part


@contextmanager
def reader(url: str) -> Iterator[Callable[[int | None], Iterable[bytes]]]:
    """What reads the records that were filled in, or the newest of them.

    It is one SELECT, one LRANGE, or a listing and GETs, fifty at once.
    """
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:

            def selected(newest: int | None) -> Iterator[bytes]:
                order = "incarnation, seq" if newest is None else f"incarnation DESC, seq DESC LIMIT {newest}"
                query = f"SELECT body FROM floor WHERE run_id = 'run' ORDER BY {order}"
                return (body for (body,) in db.execute(query))

            yield selected
    elif kind == "redis":
        with client_of(url) as client:
            yield lambda newest: client.lrange("floor", 0 if newest is None else -newest, -1)
    else:
        yield lambda newest: objects(url, newest)


def objects(url: str, newest: int | None) -> Iterator[bytes]:
    """The objects of a place."""
    import asyncio

    import obstore

    bucket = bucket_of(url)

    async def fetched(names: list[str]) -> list[bytes]:
        found = await asyncio.gather(*(obstore.get_async(bucket, name) for name in names))
        return [bytes(await one.bytes_async()) for one in found]

    names = [one["path"] for found in obstore.list(bucket, "floor/") for one in found]
    for part in batches(names[-newest:] if newest else names, 50):
        yield from asyncio.run(fetched(part))


def records_decoded(directory: str, records: str, count: int) -> dict[str, Any]:
    """Fill in records; then read them in one go, each decoded into plain objects, which is what is measured."""
    import msgspec

    filled(directory, bodies(records, count))
    decode = msgspec.json.decode
    began = time.perf_counter()
    found = 0
    with reader(directory) as read:
        for body in read(None):
            decode(body)
            found += 1
    seconds = time.perf_counter() - began
    assert found == count, found
    return {"rate": count / seconds, "seconds": seconds, "memory": peak_memory(), "durability": "reading"}


def page(directory: str, records: str, rows: int, times: int) -> dict[str, Any]:
    """The newest of a thousand records, nothing decoded: milliseconds for a page."""
    filled(directory, bodies(records, ROWS))
    spent = []
    with reader(directory) as read:
        for _ in range(times):
            began = time.perf_counter()
            found = list(read(rows))
            spent.append(time.perf_counter() - began)
            assert len(found) == rows
    return {"ms": 1000 * sorted(spent)[len(spent) // 2], "durability": "reading"}


def first_insert() -> None:
    """One run's worth of records in a new place, each written durably: what a program does at its very least."""
    url, count = sys.argv[1], int(sys.argv[2])
    with writer(url) as write:
        for seq in range(count):
            write(seq, b"{}")
        print(time.monotonic())
    print(setting_of(url))

"""What the tests of wrappers share: runs with a secret in every payload, and records put together by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from stepwell import Compensate, Emit, Engine, Flow, SetState, Step, Stream, Suspend, workflow
from stepwell.store import Store
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore

CANARY = "CANARY-4711"
KEYS = {"k1": bytes(range(32))}
ROTATED = {"k2": bytes(32), **KEYS}
KINDS = ("memory", "sqlite", "file")


def make(kind: str, folder: Path) -> Store:
    """A store that keeps bytes itself."""
    match kind:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SqliteStore(folder / "runs.db")
        case _:
            return JsonlStore(folder / "runs")


def bytes_of(folder: Path) -> bytes:
    """Every byte of every file below a folder, and every name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def shout(text: str) -> str:
    return text.upper()


def refuse(text: str) -> str:
    raise ValueError(f"no {text}")


def chunks(text: str) -> Iterator[str]:
    for number in range(5):
        yield f"{text} {number}"


def undo(text: str) -> None:
    assert text


@workflow
def everything(text: str) -> Flow[str]:
    """Puts its text wherever a payload may go, and waits."""
    found = yield from Step(shout, text)
    yield SetState(seen=text)
    yield Emit({"said": text})
    yield Compensate(undo, text)
    yield Stream(chunks, text).options(record_chunks=True)
    answer = yield from Suspend("answer", into=str, reason=f"please look at {text}", show=text)
    yield Step(shout, text * 3).options(name=f"step {text[:40]}")
    return f"{found} {answer}"


@workflow
def failing(text: str) -> Flow[str]:
    """Fails with its text in the message."""
    yield Step(shout, text)
    return (yield from Step(refuse, text))


def engine_on(store: Store, **options: Any) -> Engine:
    """An engine with these workflows."""
    return Engine(store, [everything, failing], **options)


def forged(line: bytes) -> bytes:
    """A record with the checksum that it would have, as who tampers with it would write it."""
    body = line[:-18]
    return b'%b,"crc":"%08x"}' % (body, crc32(body))

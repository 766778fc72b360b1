"""What programs do with an engine, on each real server, bare and with all wrappers around the store."""

from __future__ import annotations

import threading
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.tools import eventually
from tests.stores.wrapped_tools import CANARY, everything, failing

from stepwell import Child, Engine, Flow, NotFoundError, Race, Sleep, Step, workflow
from stepwell.store import HeadFilter
from stepwell.worker import Worker
from stepwell_stores import open_store
from stepwell_stores.wrapping import EncryptedStore, OffloadingStore, find

KEYS = {"k1": bytes(range(32)), "k2": bytes(32)}


def ring(*names: str) -> str:
    """Keys as the environment has them, the current one first."""
    return ",".join(f"{name}:{b64encode(KEYS[name]).decode()}" for name in names)


@pytest.fixture(params=["postgres", "redis", "s3"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STEPWELL_KEYS", ring("k1"))
    match request.param:
        case "postgres":
            return str(request.getfixturevalue("database"))
        case "redis":
            return str(request.getfixturevalue("valkey_server").url(prefix=uuid.uuid4().hex))
        case _:
            server = request.getfixturevalue("s3_server")
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            return str(server.url())


@pytest.fixture
def wrapped(url: str, tmp_path: Path) -> str:
    joint = "&" if "?" in url else "?"
    return f"compressed+encrypted+offloaded+{url}{joint}blobs={tmp_path}/blobs&above=100&threshold=300"


@workflow
def nap(seconds: float) -> Flow[str]:
    yield Sleep(timedelta(seconds=seconds))
    return "awake"


@workflow
def parent(text: str) -> Flow[tuple[str, str]]:
    first = yield from Child(nap, 0.05).options(run_id=f"{text}/nap")
    name, _ = yield from Race(quick=Step(str.lower, text).options(into=str), slow=Sleep(timedelta(days=1)))
    return first, name


def closed(engine: Engine, run_id: str) -> Any:
    """What a run came to, once a worker has brought it to its end."""
    eventually(lambda: engine.get(run_id).completed is not None)
    return engine.wait(run_id, 60).unwrap()


@contextmanager
def working(engine: Engine) -> Iterator[None]:
    worker = Worker(engine, threads=2)
    thread = threading.Thread(target=worker.run, kwargs={"handle_signals": False})
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(60)


def records_of(store: Any) -> Iterator[bytes]:
    """Every record of every run, as the innermost store has it."""
    while hasattr(store, "inner"):
        store = store.inner
    for head in store.heads(HeadFilter(), limit=100):
        for number in range(head.incarnation + 1):
            tail = store.read(head.run_id, incarnation=number)
            assert tail is not None
            yield from tail.records


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "wrapped"])
def test_a_life_of_runs(bare: bool, url: str, wrapped: str) -> None:
    flows: list[Any] = [everything, failing, nap, parent]
    place = url if bare else wrapped
    with Engine(place, flows) as engine:
        assert engine.start(everything, CANARY * 40, run_id="whole").status == "suspended"
        assert engine.start(failing, CANARY, run_id="fails").status == "failed"
        engine.submit(parent, "parent", run_id="parent")
        engine.submit(nap, 0.01, run_id="nap", tags={"kind": "nap"})
        assert (CANARY.encode() in b"".join(records_of(engine.store))) is bare
    with Engine(place, flows) as engine:  # another process, as far as the store can tell
        engine.signal("whole", "answer", "yes", id="once")
        engine.signal("whole", "answer", "yes", id="once")
        with working(engine):
            assert ("awake", "quick") == closed(engine, "parent")
            assert closed(engine, "whole").endswith("yes")
            assert "awake" == closed(engine, "nap")
        assert ["nap"] == [record.id for record in engine.runs(tag=("kind", "nap"))]
        assert CANARY * 40 == engine.query("whole")["seen"]
        assert 5 == sum(event.kind == "chunk" for event in engine.history("whole"))
        assert [] == [part.problem for part in engine.store.verify() if part.problem is not None]
        assert {"completed": 4, "failed": 1} == engine.size().runs
        engine.delete("fails")
        with pytest.raises(NotFoundError):
            engine.get("fails")
        assert 4 == engine.prune(older_than=0).removed
        assert [] == engine.runs()
        engine.vacuum()


def test_keys_are_rotated_and_payloads_collected(wrapped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(wrapped, [everything]) as engine:
        engine.start(everything, CANARY * 40, run_id="r")
    monkeypatch.setenv("STEPWELL_KEYS", ring("k2", "k1"))
    with closing(open_store(wrapped)) as store:
        encrypted, offloaded = find(store, EncryptedStore), find(store, OffloadingStore)
        assert encrypted is not None
        assert offloaded is not None
        if not wrapped.partition("offloaded+")[2].startswith("s3:"):
            list(encrypted.rekey())
            monkeypatch.setenv("STEPWELL_KEYS", ring("k2"))
        assert 0 == offloaded.collect(grace=0).removed
    with Engine(wrapped, [everything]) as engine:
        assert engine.resume("r", "answer", "yes").unwrap().endswith("yes")

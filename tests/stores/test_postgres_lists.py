"""Every list and every claim of the Postgres store goes by an index, however many runs there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.servers.postgres import Postgres

from stepwell.store import HeadFilter, Lease
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.session import Quick
from stepwell_stores.postgres.upkeep import closed_statement

RUNS = 100_000

# Every hundredth run is closed, every tenth waits, some are due, leased or blocked; each has one of a thousand tags.
FILL = """INSERT INTO stepwell.stepwell_runs (run_id, incarnation, next_seq, fence, born, closed, status, workflow,
        version, created, updated, due, waiting, tags, blocked, blocked_by, owner, lease_until, lease_token)
    SELECT 'run-' || n, 0, 1, 1, 1, n % 100 = 0, CASE WHEN n % 100 = 0 THEN 'completed' WHEN n % 10 = 1 THEN 'suspended'
        ELSE 'pending' END, 'flow' || n % 50, '1', n, n, CASE WHEN n % 100 IN (2, 3) THEN n END,
        CASE WHEN n % 10 = 1 THEN '[{{"signal": "s' || n % 70 || '", "wait": "w", "since": 1, "reason": null,
            "due": null}}]' ELSE '[]' END,
        CASE WHEN n % 20 = 5 THEN '[["team", "t' || n % 1000 || '"]]' ELSE '[]' END,
        CASE WHEN n % 100 = 3 THEN '{{"code": "X", "message": "m", "fingerprints": ["f"]}}' END,
        CASE WHEN n % 100 = 3 THEN '["f"]' END, CASE WHEN n % 1000 = 7 THEN 'me' END,
        CASE WHEN n % 1000 = 7 THEN CASE WHEN n % 2000 = 7 THEN n ELSE {0} END END, CASE WHEN n % 1000 = 7 THEN '' END
    FROM generate_series(1, {1}) AS n"""


@pytest.fixture(scope="module")
def crowd(postgres_server: Postgres) -> Iterator[PostgresStore]:
    """A store with very many runs, without what a session of the store's own has set: as a pool's may be."""
    name = postgres_server.database()
    store = PostgresStore(postgres_server.url(name))
    assert store.head("r") is None
    with postgres_server.connect(name) as db:
        db.execute(FILL.format(2**60, RUNS))
        db.execute("INSERT INTO stepwell.stepwell_events SELECT 'run-5', 0, n, 'x' FROM generate_series(1, 9999) n")
        every = f"FROM generate_series(1, {RUNS}) AS n"
        db.execute(f"INSERT INTO stepwell.stepwell_events SELECT 'run-' || n, 0, 0, 'x' {every}")
        db.execute(f"INSERT INTO stepwell.stepwell_attempts SELECT 'run-' || n, 'a', 0, 0 {every}")
        db.execute("ANALYZE")
    yield store
    store.close()
    postgres_server.drop(name)


def plan(store: PostgresStore, statement: str, values: dict[str, Any], *, kept: bool = False) -> str:
    """How the server would do it; `kept`: with a plan for any values."""
    with psycopg.connect(store.place.replace("?schema=stepwell", ""), cursor_factory=psycopg.ClientCursor) as db:
        if not kept:
            return "\n".join(row[0] for row in db.execute(f"EXPLAIN {statement}", values))
        names = list(values)
        types = {int: "bigint", str: "text", list: "text[]"}
        text = re.sub(r"%\((\w+)\)[sb]", lambda found: f"${names.index(found[1]) + 1}", statement)
        db.execute("SET plan_cache_mode = force_generic_plan")
        kinds = ", ".join(types[type(value)] for value in values.values())
        db.execute(f"PREPARE it ({kinds}) AS {text}")
        marks = ", ".join(["%s"] * len(values))
        return "\n".join(row[0] for row in db.execute(f"EXPLAIN EXECUTE it ({marks})", list(values.values())))


def numbered(statement: Quick, *values: str) -> str:
    """A statement with values in place of its numbers."""
    text = statement.text.decode()
    for number, value in enumerate(values, 1):
        text = text.replace(f"${number}", value)
    return text


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (HeadFilter(), "stepwell_runs_created"),
        (HeadFilter(status="suspended"), "stepwell_runs_status"),
        (HeadFilter(status="completed"), "stepwell_runs_status"),
        (HeadFilter(status="running"), "stepwell_runs_leased"),
        (HeadFilter(workflow="flow7"), "stepwell_runs_workflow"),
        (HeadFilter(tag=("team", "t5")), "stepwell_tags_pkey"),
        (HeadFilter(tag=("team", None)), "stepwell_tags_names"),
        (HeadFilter(waiting_for="s1"), "stepwell_waits_pkey"),
        (HeadFilter(blocked=True), "stepwell_runs_blocked"),
    ],
    ids=repr,
)
def test_a_page_of_a_list_is_read_from_an_index_in_its_order(
    crowd: PostgresStore, where: HeadFilter, index: str
) -> None:
    page = crowd.heads(where, limit=20)
    assert 20 == len(page)
    after = page[-1]
    for start in (None, (after.head.created, after.run_id)):
        told = plan(crowd, *crowd._sql.page(where, start, 20))
        assert f"using {index} on" in told
        assert "Seq Scan" not in told
        assert "Sort" not in told, "the order is the index's"


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_done_for_each_run_reads_no_table_as_a_whole(crowd: PostgresStore, kept: bool) -> None:
    sql = crowd._sql
    lease = {"owner": "me", "ttl": 1}
    told = {
        "find": plan(crowd, sql.find, {"run": "run-5"}, kept=kept),
        "claim": plan(crowd, sql.claim, {"run": "run-5", **lease}, kept=kept),
        "claim_due": plan(crowd, sql.claim_due, {"now": 50, "limit": 10, "known": ["x"], **lease}, kept=kept),
        "next_due": plan(crowd, sql.next_due, {}),
        "read": plan(crowd, numbered(sql.read, "'run-5'", "0", "0", "50"), {}),
        "delete": plan(crowd, sql.delete, {"run": "run-5", "incarnation": 0, "fence": 1}, kept=kept),
        "closed": plan(crowd, *closed_statement(sql, ("flow0", 5, "x"), None, False, 10)),
        "closed, newest": plan(crowd, *closed_statement(sql, None, ("flow0", 5000, "x"), True, 10)),
    }
    for name, text in told.items():
        assert not re.search(r"Seq Scan on stepwell_(?!schema|deleted)", text), f"{name}:\n{text}"
    assert "Merge Append" in told["read"]
    assert "stepwell_runs_due" in told["claim_due"]
    assert "stepwell_runs_lapsing" in told["claim_due"]
    assert "stepwell_runs_kinds" in told["claim_due"]
    assert "stepwell_runs_closed" in told["closed"]


def test_appends_find_their_runs_by_the_key(crowd: PostgresStore) -> None:
    sql = crowd._sql
    one = numbered(sql.append_one, "'run-5'", "0", "1", "1", "'x'")
    asked = '[{"run": "run-5", "incarnation": 0, "fence": 1, "seq": 1, "n": 1, "sets": false, "frees": false}]'
    many = numbered(sql.append_many, f"'{asked}'", "'{1}'", "'{0}'", "'{x}'")
    for text in (plan(crowd, one, {}), plan(crowd, many, {})):
        assert "using stepwell_runs_pkey" in text
        assert not re.search(r"Seq Scan on stepwell_(?!schema)", text), text


def test_claims_of_a_crowd_come_earliest_first_and_pass_blocked_ones_by(crowd: PostgresStore) -> None:
    first = crowd.claim_due("me", 60, now=2**40, limit=3)
    assert ["run-2", "run-7", "run-102"] == [lease.run_id for lease in first], "one was left by its owner"
    known = crowd.claim_due("me", 60, now=2**40, limit=3, fingerprints=("g",))
    assert ["run-3", "run-103", "run-202"] == [lease.run_id for lease in known]
    assert 302 == crowd.next_due()
    for lease in (*first, *known):
        assert isinstance(lease, Lease)
        crowd.release(lease)

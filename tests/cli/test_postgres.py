"""The command line on a Postgres store."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.servers.postgres import Postgres

from stepwell import Engine, Flow, Step, workflow


@workflow
def shout(text: str) -> Flow[str]:
    return (yield from Step(str.upper, text).options(into=str))


@pytest.fixture
def filled(here: Any, database: str) -> str:
    url = database.replace("postgres@", "postgres:hunter2@")  # nobody asks for it
    with Engine(url, [shout]) as engine:
        for n in range(3):
            engine.start(shout, f"run {n}", run_id=f"r{n}")
    return url


def test_doctor_says_what_the_server_s_settings_survive(stepwell: Any, filled: str) -> None:
    done = stepwell("--store", filled, "--json", "doctor")
    told = json.loads(done.out)
    assert (1, "postgres", 3) == (done.code, told["store"], told["runs"]["completed"])
    assert {"processCrash": True, "powerLoss": False, "failover": False} == told["survives"]
    assert ["off", True] == [told["settings"]["fsync"], told["advice"][0]["safety"]]
    assert "set fsync and full_page_writes on" in told["advice"][0]["text"]
    plain = stepwell("--store", filled, "doctor")
    assert "postgres, postgresql://postgres@127.0.0.1" in plain.out
    assert "hunter2" not in done.out + plain.out


def test_verify_reads_every_record_and_names_the_place_of_a_damaged_one(
    stepwell: Any, filled: str, postgres_server: Postgres, database: str
) -> None:
    done = stepwell("--store", filled, "--json", "verify")
    assert 0 == done.code, done.out + done.err
    with postgres_server.connect(database.rsplit("/", 1)[1]) as db:
        db.execute("UPDATE stepwell.stepwell_events SET body = 'x' || body WHERE run_id = 'r1' AND seq = 1")
        db.execute("DELETE FROM stepwell.stepwell_events WHERE run_id = 'r2' AND seq = 1")
        db.execute("INSERT INTO stepwell.stepwell_events VALUES ('nobody', 0, 0, 'x')")
    done = stepwell("--store", filled, "verify")
    assert 4 == done.code
    for words in ("run 'r1', incarnation 0, seq 1", "record 1 of 3 is missing", "run 'nobody': belongs to no run"):
        assert words in done.out + done.err
    assert "hunter2" not in done.out + done.err


def test_a_server_that_is_away_is_said_in_a_line(stepwell: Any, here: Any) -> None:
    done = stepwell("--store", "postgresql://me:hunter2@127.0.0.1:1/runs", "list")
    assert done.code not in (0, 4)
    assert "is the server running?" in done.err
    assert "Traceback" not in done.err
    assert "hunter2" not in done.err

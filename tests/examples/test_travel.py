"""examples/travel as its README says: each step in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from stepwell import Engine

ROOT = Path(__file__).parents[2]
TRAVEL = ROOT / "examples" / "travel"
PATHS = [str(TRAVEL), *(str(ROOT / name) for name in ("engine", "stores"))]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "STEPWELL_STORE"}
ENVIRONMENT |= {"PYTHONPATH": os.pathsep.join(PATHS), "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def call(tmp_path):
    def run(*words):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


def bookings(folder):
    path = folder / "bookings.txt"
    return [line.split(" ", 1)[1] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_a_trip_is_booked_and_one_that_fails_leaves_nothing_behind(call, tmp_path):
    assert "trip-ada: completed, spent 510\n" == call(str(TRAVEL / "travel_now.py"), "ada")
    assert ["car ada", "flight ada", "hotel ada"] == sorted(bookings(tmp_path))
    (tmp_path / "no-car").touch()
    said = call(str(TRAVEL / "travel_now.py"), "bert")
    assert "trip-bert: failed, spent 510" in said
    assert "no car left" in said
    assert ["car ada", "flight ada", "hotel ada"] == sorted(bookings(tmp_path))


def test_a_trip_that_is_killed_goes_on_and_books_nothing_twice(call, tmp_path):
    words = [sys.executable, str(TRAVEL / "travel_now.py"), "ada"]
    for lines in (1, 2):
        process = subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(bookings(tmp_path)) < lines:
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
    assert "trip-ada: completed, spent 510\n" == call(*words[1:])
    assert ["car ada", "flight ada", "hotel ada"] == sorted(bookings(tmp_path))


def test_the_desk_takes_orders_and_its_trips_live_by_themselves(call, tmp_path):
    app = ["-m", "stepwell", "--app", "travel:engine"]
    call(*app, "start", "desk", "0", "--run-id", "desk")
    for name in ("cleo", "dan"):
        call(*app, "signal", "desk", "order", f'"{name}"')
    call(*app, "worker", "--drain")
    assert Counter({"cleo": 3, "dan": 3}) == Counter(line.split(" ")[1] for line in bookings(tmp_path))
    with Engine(f"sqlite:///{tmp_path}/travel.db") as engine:
        assert ("suspended", "completed") == (engine.get("desk").status, engine.get("trip-dan").status)

"""examples/travel as its README says: each step in a process of its own."""

from __future__ import annotations

import time
from collections import Counter

from stepwell import Engine


def bookings(folder):
    path = folder / "bookings.txt"
    return [line.split(" ", 1)[1] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_a_trip_is_booked_and_one_that_fails_leaves_nothing_behind(call, tmp_path):
    assert "trip-ada: completed, spent 510\n" == call("travel_now.py", "ada").stdout
    assert ["car ada", "flight ada", "hotel ada"] == sorted(bookings(tmp_path))
    (tmp_path / "no-car").touch()
    said = call("travel_now.py", "bert").stdout
    assert "trip-bert: failed, spent 510" in said
    assert "no car left" in said
    assert ["car ada", "flight ada", "hotel ada"] == sorted(bookings(tmp_path))


def test_a_trip_that_is_killed_goes_on_and_books_nothing_twice(begin, call, tmp_path):
    for lines in (1, 2):
        process = begin("travel_now.py", "ada")
        deadline = time.monotonic() + 60
        while process.poll() is None and len(bookings(tmp_path)) < lines:
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
    assert "trip-ada: completed, spent 510\n" == call("travel_now.py", "ada").stdout
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

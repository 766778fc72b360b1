"""examples/carts as its README says: each step in a process of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

MESSAGES = (Path(__file__).parents[2] / "examples" / "carts" / "messages.txt").read_text("utf-8")
PATIENCE = 60.0
"""Seconds after which a test that waits for a restart is sure that it won't come."""


@pytest.fixture
def stepwell(call):
    def run(*words):
        return json.loads(call("-m", "stepwell", "--app", "carts:engine", "--json", *words).stdout)

    return run


def work(call):
    call("-m", "stepwell", "--app", "carts:engine", "worker", "--drain")


def send(call, text, code=0):
    return call("send_messages.py", given=text, code=code)


def test_messages_make_carts_and_count_once(call, stepwell):
    for _ in range(2):
        send(call, MESSAGES)
    work(call)
    assert "ada paid for 1 milk, 3 tea" == stepwell("show", "cart-ada")["result"]
    assert "suspended" == stepwell("show", "cart-bob")["status"]
    send(call, MESSAGES)
    assert 1 == stepwell("show", "cart-ada")["attempts"]
    late = send(call, "m9 ada rice 1\n", code=2)
    assert late.stderr.startswith("RUN_CLOSED: ")


def test_a_cart_waits_until_the_till_is_open(call, stepwell, tmp_path):
    send(call, MESSAGES)
    (tmp_path / "till-is-closed").touch()
    work(call)
    record = stepwell("show", "cart-ada")
    assert ("suspended", True) == (record["status"], "due" in record)
    assert record["attempts"] >= 2
    (tmp_path / "till-is-closed").unlink()
    deadline = time.monotonic() + PATIENCE
    while stepwell("show", "cart-ada")["status"] != "completed":
        assert time.monotonic() < deadline
        work(call)
    assert "ada paid for 1 milk, 3 tea" == stepwell("show", "cart-ada")["result"]


def test_a_report_is_made_once(call, tmp_path):
    send(call, MESSAGES)
    work(call)
    for _ in range(2):
        assert "1 carts were paid\n" == call("report_paid.py", "2026-07-31").stdout
    assert "usage" in call("report_paid.py", code=2).stderr


@pytest.mark.parametrize("line", ["m1", "m1 ada tea", "m1 ada tea many"])
def test_what_is_no_message_is_told(call, line):
    assert f"no message: {line!r}\n" == send(call, line + "\n", code=2).stderr

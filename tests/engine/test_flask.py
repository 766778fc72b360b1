"""An engine behind a real Flask application: start, ask, decide."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from attrs import frozen
from flask import Flask, jsonify, request

from stepwell import (
    ConflictError,
    Engine,
    EventMismatchError,
    Flow,
    InvalidInputError,
    NotFoundError,
    RunClosedError,
    Signal,
    Step,
    StepwellError,
    Suspend,
    workflow,
)

from .tools import PATIENCE, Tally


@frozen
class Verdict:
    """What a person decides."""

    approved: bool
    by: str


REVIEW = Signal("review", Verdict)
STATUS = {InvalidInputError: 400, NotFoundError: 404, ConflictError: 409, EventMismatchError: 409, RunClosedError: 410}


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def app(bench: Any, tally: Tally) -> Flask:
    def pay(amount: int) -> int:
        tally.add("pay")
        return amount

    @workflow
    def refund(amount: int) -> Flow[str]:
        if amount > 100:
            verdict = yield from Suspend(REVIEW, reason=f"{amount} is a lot")
            if not verdict.approved:
                return f"refused by {verdict.by}"
        paid = yield from Step(pay, amount)
        return f"paid {paid}"

    engine: Engine = bench.engine(refund)
    made = Flask("shop")

    @made.post("/refunds/<run_id>")
    def start(run_id: str) -> Any:
        outcome = engine.start(refund, request.get_json()["amount"], run_id=run_id)
        return jsonify(status=outcome.status), 201

    @made.get("/refunds/<run_id>")
    def status(run_id: str) -> Any:
        record = engine.get(run_id)
        waits = [
            {"signal": w.signal, "wait": w.wait, "reason": w.reason} for w in engine.waiting() if w.run_id == run_id
        ]
        return jsonify(status=record.status, result=record.result, waiting=waits)

    @made.post("/refunds/<run_id>/review")
    def review(run_id: str) -> Any:
        body = request.get_json()
        return jsonify(status=engine.resume(run_id, REVIEW, body["verdict"], wait=body.get("wait")).status)

    @made.errorhandler(StepwellError)
    def refuse(error: StepwellError) -> Any:
        return jsonify(code=error.code, message=error.message), STATUS.get(type(error), 500)

    return made


def test_a_small_refund_is_paid_at_once(app: Flask) -> None:
    client = app.test_client()
    answer = client.post("/refunds/7", json={"amount": 20})
    assert (201, {"status": "completed"}) == (answer.status_code, answer.get_json())
    assert {"status": "completed", "result": "paid 20", "waiting": []} == client.get("/refunds/7").get_json()


def test_a_big_refund_waits_for_a_person(app: Flask, tally: Tally) -> None:
    client = app.test_client()
    assert {"status": "suspended"} == client.post("/refunds/7", json={"amount": 200}).get_json()
    (wait,) = client.get("/refunds/7").get_json()["waiting"]
    assert ("review", "200 is a lot", 0) == (wait["signal"], wait["reason"], tally["pay"])
    decision = {"verdict": {"approved": True, "by": "ada"}, "wait": wait["wait"]}
    assert {"status": "completed"} == client.post("/refunds/7/review", json=decision).get_json()
    assert ("paid 200", 1) == (client.get("/refunds/7").get_json()["result"], tally["pay"])


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/refunds/8/review", {"verdict": {"approved": True, "by": "ada"}}, 404, "NOT_FOUND"),
        ("/refunds/7/review", {"verdict": {"approved": "no", "by": "ada"}}, 400, "INVALID_INPUT"),
        ("/refunds/7/review", {"verdict": {"approved": True, "by": "ada"}, "wait": "old"}, 409, "EVENT_MISMATCH"),
        ("/refunds/7", {"amount": 300}, 409, "CONFLICT"),
        ("/refunds/9", {"amount": "300"}, 400, "INVALID_INPUT"),
        ("/refunds/a%0Ab", {"amount": 300}, 400, "INVALID_INPUT"),
    ],
)
def test_a_wrong_request_gets_a_typed_answer(app: Flask, path: str, body: Any, status: int, code: str) -> None:
    client = app.test_client()
    client.post("/refunds/7", json={"amount": 200})
    answer = client.post(path, json=body)
    assert (status, code) == (answer.status_code, answer.get_json()["code"])
    assert "suspended" == client.get("/refunds/7").get_json()["status"]


def test_a_click_that_comes_twice_pays_once(app: Flask, tally: Tally) -> None:
    client = app.test_client()
    client.post("/refunds/7", json={"amount": 200})
    body = {"verdict": {"approved": True, "by": "ada"}}
    answers = [client.post("/refunds/7/review", json=body).status_code for _ in range(2)]
    assert ([200, 410], 1) == (answers, tally["pay"])


def test_requests_in_many_threads_pay_once(app: Flask, tally: Tally) -> None:
    app.test_client().post("/refunds/7", json={"amount": 200})
    together = threading.Barrier(6)
    codes: list[int] = []

    def click() -> None:
        together.wait(PATIENCE)
        body = {"verdict": {"approved": True, "by": "ada"}}
        codes.append(app.test_client().post("/refunds/7/review", json=body).status_code)

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert 6 == len(codes)
    assert set(codes) <= {200, 409, 410}
    assert 1 == tally["pay"]

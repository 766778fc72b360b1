"""Expenses that wait for an approval, on one small web page: flask --app inbox run

Who is asking is said by the `X-User` header, which a proxy in front sets once it has authenticated somebody. Without a
proxy, for a look: STEPWELL_DEMO_USER=grace flask --app inbox run
"""

from __future__ import annotations

import os
from typing import Any

from expenses import APPROVERS, engine, expense, review
from flask import Flask, abort, redirect, render_template_string, request

from stepwell import StepwellError

app = Flask(__name__)

PAGE = """<!doctype html><title>Expenses</title>
<h1>Expenses to approve</h1>
{% for one in waiting %}
<form method="post" action="/decisions/{{ one.run_id }}"><p>
  {{ one.show.employee }} spent {{ "%.2f" % (one.show.cents / 100) }} on {{ one.show.purpose }},
  asked {{ one.since.date() }}.
  <input type="hidden" name="wait" value="{{ one.wait }}">
  <input name="note" placeholder="note">
  <button name="approved" value="yes">Approve</button> <button name="approved" value="no">Refuse</button>
</p></form>
{% else %}<p>Nothing waits.</p>
{% endfor %}
{% if last %}<p><a href="/?after={{ last }}">Older ones</a></p>{% endif %}
"""
SIZE = 20


def user() -> str:
    """Who is asking."""
    name = request.headers.get("X-User") or os.environ.get("STEPWELL_DEMO_USER")
    return name or abort(401)


@app.get("/")
def inbox() -> str:
    waiting = engine.waiting(review, limit=SIZE, after=request.args.get("after"))
    last = waiting[-1].run_id if len(waiting) >= SIZE else None
    return render_template_string(PAGE, waiting=waiting, last=last)


@app.post("/expenses/<run_id>")
def spend(run_id: str) -> Any:
    """An expense, as another program sends it: the same one twice is one."""
    body = request.get_json()
    outcome = engine.start(expense, user(), body["cents"], body["purpose"], run_id=run_id)
    return {"id": run_id, "status": outcome.status}, 201


@app.post("/decisions/<run_id>")
def decide(run_id: str) -> Any:
    """A click. It names its question, so of two people who click at once one decides and the other is told."""
    if user() not in APPROVERS:
        abort(403)
    form = request.form
    verdict = {"approved": form["approved"] == "yes", "note": form.get("note", "")}
    engine.decide(run_id, form["wait"], verdict, actor=user(), metadata={"agent": request.user_agent.string[:200]})
    return redirect("/")


@app.get("/expenses/<run_id>")
def look(run_id: str) -> Any:
    record = engine.get(run_id)
    return {"id": run_id, "status": record.status, "result": record.result}


CODES = {"NOT_FOUND": 404, "INVALID_INPUT": 422, "CONFLICT": 409, "RUN_CLOSED": 409, "EVENT_MISMATCH": 409}


@app.errorhandler(StepwellError)
def refused(error: StepwellError) -> Any:
    return {"code": error.code, "message": error.message}, CODES.get(error.code, 500)

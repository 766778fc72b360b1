"""The chat for a browser, with server-sent events: flask --app chat_server run

A worker drives the runs (`stepwell worker --app chat:engine`), in this process or another: the words are recorded, so
it makes no difference. The browser reconnects by itself, and goes on behind the last position that it has seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chat import chat, engine
from flask import Flask, Response, request

from stepwell import StepwellError
from stepwell.run_streams import RunStream
from stepwell.streaming import Chunk, Done, StreamEvent

app = Flask(__name__)


@app.post("/chats/<run_id>")
def ask(run_id: str) -> tuple[dict[str, Any], int]:
    engine.submit(chat, str(request.get_json()["question"]), run_id=run_id)
    return {"events": f"/chats/{run_id}/events"}, 202


@app.get("/chats/<run_id>/events")
def events(run_id: str) -> Response:
    seen = request.headers.get("Last-Event-ID", "")
    incarnation, _, seq = seen.partition(".")
    after = (int(incarnation), int(seq)) if seen else None
    return Response(messages(engine.stream(run_id, after=after)), mimetype="text/event-stream")


def messages(stream: RunStream) -> Iterator[str]:
    """What the browser gets; when it hangs up, the generator is closed, and with it the stream."""
    with stream:
        for event in stream:
            if (what := described(event)) is not None:
                where = "" if event.position is None else "id: {}.{}\n".format(*event.position)
                yield f"{where}data: {json.dumps(what)}\n\n"


def described(event: StreamEvent) -> dict[str, Any] | None:
    match event:
        case Chunk(value=word, index=index, attempt=attempt):
            return {"word": word, "index": index, "attempt": attempt}
        case Done(outcome=outcome):
            return {"done": outcome.status}
    return None


@app.errorhandler(StepwellError)
def refused(error: StepwellError) -> tuple[dict[str, Any], int]:
    return {"code": error.code, "message": error.message}, 404 if error.code == "NOT_FOUND" else 409

"""examples/chat as its README says: drivers and watchers in processes of their own, and a browser."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from stepwell import Engine
from stepwell import events as e

from ..engine.tools import eventually

CHAT = Path(__file__).parents[2] / "examples" / "chat"
QUESTION = "What is a store, and what is replay?"
ANSWER = (
    "A store keeps histories: a file, SQLite, or what you write yourself. "
    "On replay a workflow is answered from its history, and nothing runs twice."
)


@pytest.fixture
def begin(begin):
    return functools.partial(begin, CHAT_PAUSE="0.01")


def ended(process, code=0):
    said, complained = process.communicate(timeout=60)
    assert code == process.returncode, complained
    assert "Traceback" not in complained
    return said


def test_an_answer_is_watched_by_who_comes_late(begin, tmp_path):
    assert "q-1: completed\n" == ended(begin("chat_ask.py", "q-1", QUESTION))
    whole = ended(begin("chat_watch.py", "q-1"))
    assert f"[sources: 2]\n{ANSWER} \n[completed]\n" == whole
    rest = ended(begin("chat_watch.py", "q-1", "--after", "0.5"))
    assert whole.endswith(rest)
    assert rest.startswith("histories: a file,")


def test_a_driver_that_is_killed_begins_the_answer_anew_before_the_eyes_of_the_watcher(begin, tmp_path):
    killed = begin("chat_ask.py", "q-1", QUESTION, CHAT_PAUSE="0.3")
    with Engine(f"sqlite:///{tmp_path}/chat.db") as engine:
        eventually(engine.runs)
        watcher = begin("chat_watch.py", "q-1")
        assert "[sources: 2]\n" == watcher.stdout.readline()
        assert "A store " == watcher.stdout.read(8)
        killed.kill()
        killed.wait()
        assert "q-1: completed\n" == ended(begin("chat_ask.py", "q-1", QUESTION))
        rest = ended(watcher)
        assert f"\n[attempt 2]\n{ANSWER} \n[completed]\n" == rest[rest.index("\n[attempt 2]") :]
        assert 1 == sum(isinstance(event, e.Step) and event.name == "search" for event in engine.history("q-1"))


def test_a_browser_gets_server_sent_events(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_STORE", f"sqlite:///{tmp_path}/chat.db")
    monkeypatch.setenv("CHAT_PAUSE", "0")
    monkeypatch.syspath_prepend(str(CHAT))
    for name in ("chat", "chat_server"):
        sys.modules.pop(name, None)
    import chat
    import chat_server

    client = chat_server.app.test_client()
    assert 202 == client.post("/chats/q-1", json={"question": QUESTION}).status_code
    chat.engine.run_due()
    text = client.get("/chats/q-1/events").text
    messages = [message.split("\n") for message in text.strip().split("\n\n")]
    assert ["id: 0.3", 'data: {"word": "A ", "index": 0, "attempt": 1}'] == messages[0]
    assert 'data: {"done": "completed"}' == messages[-1][1]
    seen = messages[4][0].removeprefix("id: ")
    rest = client.get("/chats/q-1/events", headers={"Last-Event-ID": seen}).text
    assert text.endswith(rest)
    assert len(messages) - 5 == rest.count("id: ")
    assert 404 == client.get("/chats/q-2/events").status_code
    chat.engine.close()


def test_a_mistake_is_told_without_a_traceback(begin):
    assert "" == ended(begin("chat_watch.py", "nobody"), code=2)
    ended(begin("chat_ask.py", "q-1", QUESTION))
    assert "" == ended(begin("chat_ask.py", "q-1", "Another?"), code=2)

"""examples/approvals: the page, its clicks, and what it refuses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "approvals"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's modules, imported anew, with a store of their own."""
    monkeypatch.setenv("STEPWELL_STORE", f"sqlite:///{tmp_path}/expenses.db")
    monkeypatch.delenv("STEPWELL_DEMO_USER", raising=False)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("inbox", "expenses"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module: Any = importlib.import_module("inbox")
    yield module
    module.engine.close()
    for name in ("inbox", "expenses"):
        monkeypatch.delitem(sys.modules, name)


class Person:
    """Somebody in front of the page."""

    def __init__(self, page: Any, name: str) -> None:
        self.client, self.headers = page.app.test_client(), {"X-User": name}

    def spend(self, run_id: str, cents: int, purpose: str = "a train") -> Any:
        body = {"cents": cents, "purpose": purpose}
        return self.client.post(f"/expenses/{run_id}", json=body, headers=self.headers).json

    def decide(self, run_id: str, wait: str, approved: str = "yes", **more: str) -> Any:
        form = {"wait": wait, "approved": approved, **more}
        return self.client.post(f"/decisions/{run_id}", data=form, headers=self.headers)

    def look(self, path: str = "/") -> str:
        return str(self.client.get(path, headers=self.headers).text)


def test_a_small_expense_is_paid_at_once(page: Any) -> None:
    assert {"id": "e", "status": "completed"} == Person(page, "ada").spend("e", 4_999)


def test_a_big_one_is_shown_and_decided_by_a_click(page: Any) -> None:
    ada, grace = Person(page, "ada"), Person(page, "grace")
    assert "suspended" == ada.spend("e", 12_000, "<b>")["status"] == ada.spend("e", 12_000, "<b>")["status"]
    shown = grace.look()
    assert "ada spent 120.00 on &lt;b&gt;" in shown
    (wait,) = page.engine.waiting()
    assert f'value="{wait.wait}"' in shown
    assert 302 == grace.decide("e", wait.wait).status_code
    assert "120.00 paid to ada" in grace.look("/expenses/e")
    assert "Nothing waits" in grace.look()
    (event,) = [event for event in page.engine.history("e") if event.kind == "resume"]
    assert "grace" == event.actor


def test_who_clicks_second_is_told_who_was_first(page: Any) -> None:
    Person(page, "ada").spend("e", 12_000)
    (wait,) = page.engine.waiting()
    Person(page, "grace").decide("e", wait.wait, "no", note="too dear")
    late = Person(page, "heidi").decide("e", wait.wait)
    assert (409, "EVENT_MISMATCH", True) == (late.status_code, late.json["code"], "by 'grace'" in late.json["message"])
    assert "refused by grace: too dear" in Person(page, "ada").look("/expenses/e")


def test_nobody_approves_their_own_expense(page: Any) -> None:
    grace = Person(page, "grace")
    grace.spend("e", 12_000)
    (first,) = page.engine.waiting()
    grace.decide("e", first.wait)
    (second,) = page.engine.waiting()
    assert first.wait != second.wait
    Person(page, "heidi").decide("e", second.wait)
    assert "120.00 paid to grace" in grace.look("/expenses/e")


def test_only_those_decide_who_may(page: Any) -> None:
    Person(page, "ada").spend("e", 12_000)
    (wait,) = page.engine.waiting()
    assert 403 == Person(page, "ada").decide("e", wait.wait).status_code
    assert 401 == page.app.test_client().post("/decisions/e", data={"wait": wait.wait, "approved": "yes"}).status_code
    assert 404 == Person(page, "grace").decide("none", wait.wait).status_code
    assert "suspended" == page.engine.get("e").status


def test_older_questions_are_a_page_away(page: Any) -> None:
    ada = Person(page, "ada")
    for number in range(page.SIZE + 1):
        ada.spend(f"e{number:02}", 12_000)
    first = ada.look()
    assert page.SIZE == first.count("<form")
    assert "/?after=e01" in first
    assert 1 == ada.look("/?after=e01").count("<form")

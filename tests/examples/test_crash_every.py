"""Every example's workflows, killed after every event: the run ends as it does without, and nothing runs twice.

Each module below examples/ that makes a workflow is found by its text. What is to be done with each workflow stands in
SCENES; one that is missing there fails the test.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import Workflow
from stepwell.testing import assert_deterministic, assert_ends, raised, received, simulate, takes

EXAMPLES = Path(__file__).parents[2] / "examples"
MAKES = re.compile(r"^@workflow\b", re.MULTILINE)


def modules() -> list[Path]:
    """The modules of examples that make workflows."""
    return [path for path in sorted(EXAMPLES.rglob("*.py")) if MAKES.search(path.read_text("utf-8"))]


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of an example under a name of its own: several have the same."""
    monkeypatch.syspath_prepend(str(path.parent))
    name = f"example_{re.sub(r'[^a-z]', '_', path.parent.name)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def workflows(module: Any) -> list[Workflow[..., Any]]:
    """The workflows of a module in all of their versions, those that only its engine knows too."""
    known = module.engine._parts.registry if hasattr(module, "engine") else None
    found = [one for versions in (known._by_name.values() if known else ()) for one in versions.values()]
    made = [one for one in (*vars(module).values(), *found) if isinstance(one, Workflow)]
    return list({(one.name, one.version): one for one in made}.values())


Scene = dict[str, Any]
"""`inputs`, and what `simulate` takes; `status`, how it ends."""


def expense(m: Any) -> list[Scene]:
    verdicts = [(60, received(m.review, m.Verdict(True), actor="ada")), (90, received(m.review, m.Verdict(True)))]
    return [
        {"inputs": ("ada", 9000, "a chair"), "fakes": {"pay": "paid"}, "signals": {m.review: verdicts}},
        {"inputs": ("ada", 9000, "a chair")},
        {"inputs": ("ada", 90, "a pen"), "fakes": {"pay": raised(ConnectionError("down"))}, "status": "failed"},
    ]


def transfer(m: Any) -> list[Scene]:
    order = m.Transfer("t", "a", "b", 5)
    return [
        {"inputs": (order,), "fakes": {"check": None, "move": True}},
        {"inputs": (order,), "fakes": {"check": None, "move": m.NoSuchAccountError("b")}},
    ]


def bulk_import(m: Any) -> list[Scene]:
    rows = [takes(9, OSError("killed")), takes(5, 120)]
    return [{"inputs": ("a.csv", "b.db", 0.0), "fakes": {"import_rows": rows}}]


def cart(m: Any) -> list[Scene]:
    sent = [(1, m.Message("tea", 2)), (2, m.Message("tea", 1)), (5, m.Message())]
    closed = [ConnectionError("closed"), ConnectionError("closed"), "ada paid"]
    return [{"inputs": ("ada",), "fakes": {"pay": closed}, "signals": {m.messages: sent}}]


def report(m: Any) -> list[Scene]:
    return [{"inputs": (3,), "fakes": {"report": "3 carts were paid"}}]


def chat(m: Any) -> list[Scene]:
    fakes = {"search": ["a source"], "complete": [ConnectionError("lost"), "an answer"]}
    return [{"inputs": ("What?",), "fakes": fakes | {"search": lambda question: ["a source"]}}]


def message(m: Any) -> list[Scene]:
    return [{"inputs": ("hello",), "fakes": {"handle": "Hello"}}]


def trip(m: Any) -> list[Scene]:
    booked = {"book": ["flight", "hotel", "car"], "cancel_booking": None}
    gone = {"book": ["flight", "hotel", m.SoldOut("no car")], "cancel_booking": None}
    return [
        {"inputs": ("ada",), "fakes": booked, "budget": 600},
        {"inputs": ("ada",), "fakes": gone, "status": "failed"},
        {"inputs": ("ada",), "fakes": {m.booking: str.upper, "cancel_booking": None}, "status": "failed"},
    ]


def booking(m: Any) -> list[Scene]:
    return [{"inputs": ("car", "ada"), "fakes": {"book": "car"}}]


def desk(m: Any) -> list[Scene]:
    orders = [(10 * n, f"guest-{n}") for n in range(12)]
    return [{"inputs": (0,), "fakes": {m.trip: lambda _: ["f", "h", "c"]}, "signals": {"order": [*orders, (500, "")]}}]


def subscription(m: Any) -> list[Scene]:
    months = [(timedelta(days=30 * number), name) for number, name in enumerate(("May", "June", "July"), 1)]
    fakes = {"check_address": "1, ada street", "charge": None, "send": None}
    return [
        {"inputs": ("ada",), "fakes": fakes, "signals": {m.issue: months}},
        {
            "inputs": ("ada",),
            "fakes": fakes | {"charge": OSError("gone")},
            "signals": {m.issue: months},
            "status": "failed",
        },
    ]


def triage(m: Any) -> list[Scene]:
    fakes = {"classify": m.Classification("bug", 5), "draft": "dear"}
    yes = {m.review: (timedelta(days=3), m.Verdict(True, "alice", "soon"))}
    no = {m.review: (timedelta(days=3), m.Verdict(False, "alice"))}
    ticket = m.Ticket("t", "ada", "help", "it is broken")
    return [{"inputs": (ticket,), "fakes": fakes, "signals": signals} for signals in (yes, no)]


def loan(m: Any) -> list[Scene]:
    scores = {points: {"score": m.Score(points, "x"), "decline": "no", "pay_out": "paid"} for points in (10, 50, 90)}
    asked = {m.decision: (60, m.Decision(True, "grace"))}
    return [{"inputs": ("ada", 100), "fakes": fakes, "signals": asked} for fakes in scores.values()]


SCENES: dict[str, Any] = {
    "approvals/expense": expense,
    "bank/transfer": transfer,
    "bulk_import/bulk_import": bulk_import,
    "carts/cart": cart,
    "carts/report": report,
    "chat/chat": chat,
    "deploys/subscription": subscription,
    "retention/message": message,
    "travel/booking": booking,
    "travel/desk": desk,
    "travel/trip": trip,
    "triage/triage": triage,
    "what-if/loan": loan,
}


def test_every_example_has_a_module_with_workflows() -> None:
    shown = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert shown - {"own-store"} == {path.parent.name for path in modules()}


def test_every_scene_is_of_an_example() -> None:
    assert {path.parent.name for path in modules()} == {name.partition("/")[0] for name in SCENES}


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kill_after_every_event_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_STORE", raising=False)
    module = load(path, monkeypatch)
    found = workflows(module)
    assert found
    for workflow in found:
        key = f"{path.parent.name}/{workflow.name}"
        assert key in SCENES, f"say in SCENES of {__name__} how workflow {workflow.name!r} of {path} is simulated"
        for scene in SCENES[key](module):
            how = dict(scene)
            inputs, status = how.pop("inputs"), how.pop("status", "completed")
            run = simulate(workflow, *inputs, **how, crash_after="every")
            assert (key, status) == (key, run.status), run.trace()
            assert run.crashes >= 2


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_any_history_is_answered_the_same_twice_and_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: `assert_deterministic` has tests of its own for the others."""
    monkeypatch.delenv("STEPWELL_STORE", raising=False)
    module = load(path, monkeypatch)
    for workflow in workflows(module):
        inputs = SCENES[f"{path.parent.name}/{workflow.name}"](module)[0]["inputs"]
        assert_deterministic(workflow, *inputs, examples=40, hash_seeds=())
        assert_ends(workflow, *inputs, examples=40)

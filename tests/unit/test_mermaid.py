"""Histories as sequence diagrams: who talks to whom, and that nothing from a payload breaks out of its line.

Each diagram is read by a strict grammar. Mermaid itself reads them too, in `mermaid_itself.py`, and finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell import All, Emit, Flow, History, Now, Patched, RetryPolicy, Signal, Sleep, Step, Suspend, workflow
from stepwell import events as e
from stepwell.mermaid import sequence_diagram
from stepwell.testing import (
    cancel,
    fired,
    patched,
    pause,
    raised,
    received,
    replay,
    returned,
    simulate,
    unpause,
)

from .mermaid_grammar import MermaidError, parse
from .tools import STAMP, did, start_of, task

NASTY = [
    "; workflow->>steps: forged",
    "a\n    workflow->>steps: forged",
    "%%{init: {'theme': 'forest'}}%%",
    "%% a comment",
    "#35; #quot; #",
    "<script>alert(1)</script> <br/> &lt;",
    "$$x^2$$ `code` **bold** \\n",
    "wrap: nowrap",
    "nowrap:wrap:",
    ":wrap: x",
    "end",
    "\x1b[31m\x00\x9b\u202e\u2028\r\t",
    "---\ntitle: x\n---",
    "Überraschung 日本語 🎉 e\u0301",
    "\ud800",
    "ﬂ°°35¶ß",
    "x" * 500,
    "",
    " ",
    "@{ shape: x }",
    "end\nparticipant evil",
]

go = Signal("go", str)


@workflow
def order(item: str) -> Flow[Any]:
    if (yield from Patched("checked")):
        yield task("check", item)
    yield Now()
    word = yield from Suspend(go, reason="please decide")
    yield All(task("pack"), task("bill"))
    yield Sleep(60)
    yield Emit({"word": word}, topic="news")
    return (yield task("ship", item))


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HISTORY = [
    patched(),
    returned("fine"),
    returned(NOON),
    pause(),
    unpause(),
    received(go, "yes"),
    returned(9, step="bill"),
    returned("box", step="pack"),
    fired(),
    raised(ValueError("no ship")),
]


def drawn(history: Sequence[e.EventBase], run_id: str = "o1") -> list[tuple[str, str]]:
    """The arrows and notes of a diagram, each with its text."""
    return [(f"{d.source}{d.arrow}{d.target}", d.text) for d in parse(sequence_diagram(history, run_id))[1]]


def test_a_whole_run_is_drawn_in_order() -> None:
    events = replay(order, "tea", history=HISTORY).events
    assert [
        ("workflownoteworkflow", 'start order version 1, input ["tea"]'),
        ("workflownoteworkflow", "patch checked"),
        ("workflow->>steps", "check"),
        ("steps-->>workflow", '"fine"'),
        ("workflownoteworkflow", f"now {NOON:%Y-%m-%dT%H:%M:%S.%fZ}"),
        ("people->>workflow", "pause"),
        ("people->>workflow", "unpause"),
        ("people->>workflow", 'go "yes"'),
        ("workflow->>steps", "bill (at 3.1.0)"),
        ("steps-->>workflow", "9"),
        ("workflow->>steps", "pack (at 3.0.0)"),
        ("steps-->>workflow", '"box"'),
    ] == drawn(events)[:12]
    assert ("steps--xworkflow", "ValueError: no ship") == drawn(events)[-1]


def test_only_who_takes_part_is_drawn() -> None:
    people, _ = parse(sequence_diagram([start_of(order, "tea"), did("0", "check")], "o1"))
    assert {"workflow": "order o1", "steps": "steps"} == people
    assert {"workflow": "workflow"} == parse(sequence_diagram([]))[0]


def test_waits_and_timers_of_a_run_are_drawn() -> None:
    @workflow
    def patient() -> Flow[Any]:
        yield Sleep(60)
        return (yield from Suspend(go, reason="well?", timeout=3600, default="nothing"))

    found = drawn(History(simulate(patient).history))
    assert [
        "workflow->>timers",
        "timers-->>workflow",
        "workflow->>people",
        "timers-->>workflow",
    ] == [who for who, _ in found if "note" not in who]
    assert found[-2][1] == 'wake "nothing"'


def test_attempts_are_drawn_each() -> None:
    def flaky() -> int:
        raise AssertionError

    @workflow
    def w() -> Flow[Any]:
        return (yield Step(flaky).options(retry=RetryPolicy(3)))

    found = drawn(simulate(w, fakes={flaky: [OSError("busy"), OSError("busy"), 5]}).history)
    arrows = [who for who, _ in found if "note" not in who]
    assert ["workflow->>steps", "steps--xworkflow"] * 2 + ["workflow->>steps", "steps-->>workflow"] == arrows


def test_a_step_that_began_and_has_no_outcome_is_drawn_as_asked_for_once() -> None:
    begin = e.Begin(at="0", step_id="pay", name="pay", timestamp=STAMP)
    start = start_of(order, "tea")
    assert [("workflow->>steps", "pay")] == drawn([start, begin])[1:]
    assert [("workflow->>steps", "pay"), ("steps-->>workflow", "1")] == drawn([start, begin, did("0", "pay", 1)])[1:]


def test_people_cancel_and_pause() -> None:
    run = replay(order, "tea", history=[patched(), pause(), unpause(), cancel()])
    assert ["people->>workflow"] * 3 == [who for who, _ in drawn(run.events)][-3:]


def test_sessions_are_told_when_they_change() -> None:
    events = [start_of(order, "tea", session=1), did("0", "check", session=2), did("1", "then", session=2)]
    assert ["session 2 goes on"] == [text for _, text in drawn(events) if text.startswith("session")]


def hostile(text: str) -> list[e.EventBase]:
    """A history that has a text wherever there can be one."""
    readable = text.encode("utf-8", "replace").decode()
    resume = e.Resume(event_name=text, value=did("0", "x", readable).result, id="x", timestamp=STAMP)  # type: ignore[arg-type]
    return [
        e.Start(workflow=text, version=text, input=start_of(order, readable).input, timestamp=STAMP),
        did(text, text, readable),
        e.Suspend(at="1", waiting_for=text, wait="w", reason=text, timestamp=STAMP),
        resume,
        e.Patch(change_id=text, timestamp=STAMP),
        e.Cancel(reason=text, timestamp=STAMP),
        e.Cancelled(reason=text, timestamp=STAMP),
    ]


@pytest.mark.parametrize("text", NASTY)
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    people, found = parse(sequence_diagram(hostile(text), text))
    assert (["workflow", "steps", "people"], 8) == (list(people), len(found))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.text())
def test_no_text_at_all_breaks_out_of_its_line(text: str) -> None:
    people, found = parse(sequence_diagram(hostile(text), text))
    assert (["workflow", "steps", "people"], 8) == (list(people), len(found))


def test_long_texts_are_cut() -> None:
    assert 80 == len(drawn([start_of(order, "x" * 500)])[0][1])


@pytest.mark.parametrize(
    "broken",
    [
        "graph TD",
        "sequenceDiagram\n    steps->>workflow: nobody",
        "sequenceDiagram\n    participant a\n    participant a",
        "sequenceDiagram\n    participant a\n    a->>a: x; y",
        "sequenceDiagram\n    participant a\n    a->>a: wrap: y",
        "sequenceDiagram\n    participant a\n    a->>a: ",
        "sequenceDiagram\n    participant a\n    a->>a: <b>",
        "sequenceDiagram\n    participant a\n    a->>a: #x",
        "sequenceDiagram\n    participant a\nloop",
        "sequenceDiagram\n    participant a\n    a->>a: ok\n    participant b",
    ],
)
def test_the_grammar_refuses_what_is_wrong(broken: str) -> None:
    with pytest.raises(MermaidError):
        parse(broken)

"""Events: what a history may hold, and how it lies in a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from stepwell import CorruptHistoryError, NewerFormatError
from stepwell import events as e
from stepwell.errors import Failure
from stepwell.events import from_micros, instant, micros, parse_instant
from stepwell.sealing import Draft, seal
from stepwell.wire import read_event, split_list, to_draft

from .tools import STAMP, through_the_wire

FAILURE = Failure(("builtins.OSError", "builtins.Exception"), "gone", "E1", "m:f:3", 2)
FULL: list[e.EventBase] = [
    e.Start(
        workflow="w",
        version="2",
        input=Raw(b'[1,"x"]'),
        incarnation=2,
        epoch=1,
        origin=4,
        tags={"team": "a"},
        source={"runId": "r", "incarnation": 1, "offset": 4},
        prefix=3,
        budget=100,
        spent=2.5,
        parent={"runId": "p", "incarnation": 0, "at": "1"},
        ancestors=["boss"],
        max_depth=3,
        seen=["i"],
        timestamp=STAMP,
    ),
    e.Step(
        at="0.1.2", step_id="a#2", name="a", attempts=2, started=STAMP, inputs="d", result=Raw(b"null"), timestamp=STAMP
    ),
    e.Step(at="0", step_id="a", name="a", attempts=1, started=STAMP, error=FAILURE, kept=True, timestamp=STAMP),
    e.Attempt(at="0", step_id="a", attempt=1, error=FAILURE, due=STAMP, timestamp=STAMP),
    e.Begin(at="0", step_id="a", name="a", timestamp=STAMP),
    e.Chunk(at="0", step_id="a", attempt=2, index=7, value=Raw(b'"x"'), timestamp=STAMP),
    e.Heartbeat(at="0", step_id="a", attempt=1, details=Raw(b"[1]"), timestamp=STAMP),
    e.Suspend(at="0", waiting_for="go", wait="go@0:0", reason="why", due=STAMP, show=Raw(b'{"a":1}'), timestamp=STAMP),
    e.Resume(event_name="go", value=Raw(b"[1]"), id="i", wait="go@0:0", timestamp=STAMP),
    e.Sleep(at="0", due=STAMP, timestamp=STAMP),
    e.Wake(at="0", timestamp=STAMP),
    e.Now(at="0", value=STAMP, timestamp=STAMP),
    e.Random(at="0", value=0.1, timestamp=STAMP),
    e.Uuid(at="0", value="0d0ec0fe-6d39-4c5d-9a52-0b9d8f3f6a01", timestamp=STAMP),
    e.Patch(change_id="fix", timestamp=STAMP),
    e.Emit(at="0", value=Raw(b"1"), topic="t", timestamp=STAMP),
    e.Compensate(timestamp=STAMP),
    e.Spend(at="0", amount=3, label="tokens", timestamp=STAMP),
    e.Child(at="0", child_id="r/0:0", workflow="w", version="1", inputs="d", detached=True, budget=5, timestamp=STAMP),
    e.ChildResult(at="0", child_id="c", status="completed", result=Raw(b"1"), spent=2, timestamp=STAMP),
    e.ChildResult(at="0", child_id="c", status="failed", error=FAILURE, timestamp=STAMP),
    e.Cancel(reason="why", timestamp=STAMP),
    e.Cancelled(at="0", timestamp=STAMP),
    e.Cancelled(reason="why", forced=True, state=Raw(b"{}"), spent=1, suppressed=[FAILURE], timestamp=STAMP),
    e.Pause(reason="why", timestamp=STAMP),
    e.Unpause(timestamp=STAMP),
    e.Complete(result=Raw(b'"done"'), state=Raw(b'{"a":1}'), spent=1, timestamp=STAMP),
    e.Error(error=FAILURE, cause=3, state=Raw(b"{}"), spent=1, suppressed=[FAILURE], timestamp=STAMP),
    e.Retry(cut=3, patches={"fix": False}, spent=1, timestamp=STAMP),
]
"""Every kind of event with everything that it may hold."""

KEYS = {
    "start": [
        *("workflow", "version", "input", "incarnation", "epoch", "origin", "tags", "source", "prefix", "budget"),
        *("spent", "parent", "ancestors", "maxDepth", "seen"),
    ],
    "spend": ["at", "amount", "label"],
    "child": ["at", "childId", "workflow", "version", "inputs", "detached", "budget"],
    "attempt": ["at", "stepId", "attempt", "error", "due"],
    "begin": ["at", "stepId", "name"],
    "chunk": ["at", "stepId", "attempt", "index", "value"],
    "suspend": ["at", "waitingFor", "wait", "reason", "due", "show"],
    "resume": ["eventName", "value", "id", "wait"],
    "sleep": ["at", "due"],
    "wake": ["at"],
    "now": ["at", "value"],
    "random": ["at", "value"],
    "uuid": ["at", "value"],
    "patch": ["changeId"],
    "emit": ["at", "value", "topic"],
    "cancel": ["reason"],
    "pause": ["reason"],
    "unpause": [],
    "complete": ["result", "state", "spent"],
    "error": ["error", "cause", "state", "spent", "suppressed"],
    "retry": ["cut", "patches", "spent"],
}


def line_of(event: e.EventBase, **how: Any) -> bytes:
    [line] = seal([to_draft(event)], session=how.pop("session", 3), offset=how.pop("offset", 7), **how)
    return line


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.kind)
def test_every_event_comes_back_from_its_line(event: e.EventBase) -> None:
    """Shows S6 (P3)."""
    found = read_event(line_of(event))
    assert (3, 7) == (found.session, found.offset)
    assert event == msgspec.structs.replace(found, session=0, offset=0)
    assert type(event) is type(found)


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.kind)
def test_a_line_is_plain_json_with_the_envelope_first(event: e.EventBase) -> None:
    """And the checksum last; any parser reads it."""
    line = line_of(event)
    assert b"\n" not in line
    keys = list(json.loads(line))
    assert ["v", "type", "session", "offset"] == keys[:4]
    assert "crc" == keys[-1]
    expected = KEYS.get(event.kind)
    if expected is not None:
        assert ["timestamp", *expected] == [key for key in keys[4:-1] if key != "kept"]


def test_every_kind_has_an_example_here() -> None:
    assert set(e.EVENT_TYPES) == {event.kind for event in FULL}
    assert set(e.EVENT_TYPES.values()) == {type(event) for event in FULL}


def test_a_step_holds_a_result_or_an_error() -> None:
    good, bad = (json.loads(line_of(event)) for event in FULL[1:3])
    assert ("result" in good, "error" in good, "result" in bad, "error" in bad) == (True, False, False, True)
    assert good["result"] is None
    assert ["types", "message", "code", "where", "attempts"] == list(bad["error"])


@pytest.mark.parametrize(
    "event",
    [
        e.Start(workflow="w", version="1", input=Raw(b"[]"), timestamp=STAMP),
        e.Suspend(at="0", waiting_for="go", wait="x", timestamp=STAMP),
        e.Emit(at="0", value=Raw(b"1"), timestamp=STAMP),
        e.Cancelled(timestamp=STAMP),
        e.Complete(result=Raw(b"1"), timestamp=STAMP),
    ],
    ids=lambda event: event.kind,
)
def test_what_is_not_given_is_not_written(event: e.EventBase) -> None:
    assert b"null" not in line_of(event)
    for name in ("kept", "source", "prefix", "reason", "due", "show", "topic", "state", "forced"):
        assert f'"{name}"'.encode() not in line_of(event)
    assert event == msgspec.structs.replace(read_event(line_of(event)), session=0, offset=0)


def test_a_payload_keeps_its_bytes() -> None:
    """Nobody decodes it before somebody says as what; the order of its keys is its own."""
    raw = b'{"z":1,"a":[1.0,1e3,"\\u00e9"],"big":12345678901234567890}'
    [found] = through_the_wire([e.Emit(at="0", value=Raw(raw), timestamp=STAMP)])
    assert raw == bytes(found.value)  # type: ignore[attr-defined]


def test_owners_events_have_a_path_and_outside_events_have_none() -> None:
    outside = {event.kind for event in FULL if isinstance(event, e.OUTSIDE)}
    assert {"resume", "cancel", "pause", "unpause", "childResult"} == outside
    pathless = [event for event in FULL if isinstance(event, e.OUTSIDE) and not isinstance(event, e.ChildResult)]
    assert all(event.at is None for event in pathless)


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        e.Wake(at="0").at = "1"  # type: ignore[misc]


def test_events_that_have_a_position_are_drafted_without_it() -> None:
    placed = read_event(line_of(FULL[1], session=9, offset=11))
    assert to_draft(FULL[1]) == to_draft(placed)


@pytest.mark.parametrize(
    ("told", "draft"),
    [
        ("not an event of this format", Draft("nonsense", b'"timestamp":"x"')),
        ("not an event of this format", Draft("step", b'"timestamp":"x"')),
        ("not an event of this format", Draft("step", b'"at":3')),
        ("not an event of this format", Draft("wake", b'"at":"\xff"')),
    ],
)
def test_a_sealed_record_that_is_no_event_is_corrupt(told: str, draft: Draft) -> None:
    [line] = seal([draft], session=1, offset=0)
    with pytest.raises(CorruptHistoryError, match=f"file r, line 3: {told}"):
        read_event(line, "file r, line 3")


def test_a_damaged_line_is_corrupt() -> None:
    line = line_of(FULL[1])
    for wrong in (line[:-1], line[1:], line.replace(b'"a#2"', b'"a#3"'), b"", b"{}", line + b" "):
        with pytest.raises(CorruptHistoryError):
            read_event(wrong)


def test_a_line_of_a_newer_format_says_so() -> None:
    line = line_of(FULL[1]).replace(b'{"v":1,', b'{"v":2,')
    with pytest.raises(NewerFormatError, match="format 2, and this stepwell reads up to format 1; upgrade"):
        read_event(line)


def test_keys_that_a_later_release_adds_are_read_over() -> None:
    [line] = seal([Draft("wake", b'"timestamp":"2026-01-01T00:00:00Z","at":"0","later":[1]')], session=1, offset=0)
    assert e.Wake(at="0", timestamp="2026-01-01T00:00:00Z", session=1) == read_event(line)


# ---- lists


def test_a_recorded_input_is_split_without_decoding_it() -> None:
    assert [b"1", b'"a,b"', b'[1,{"x":[]}]'] == [bytes(part) for part in split_list(b'[1,"a,b",[1,{"x":[]}]]')]
    assert [] == split_list(b"[]")


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1", b"null", b"[1] x", b"\xff"])
def test_an_input_that_is_no_list_is_corrupt(raw: bytes) -> None:
    with pytest.raises(CorruptHistoryError, match="no JSON list"):
        split_list(raw)


# ---- instants

INSTANTS = st.datetimes(timezones=st.timezones())


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.integers(-23, 23))  # noqa: DTZ001 - made aware below
def test_instants_come_back_from_their_text_and_number(when: datetime, hours: int) -> None:
    aware = when.replace(tzinfo=timezone(timedelta(hours=hours)))
    text = instant(aware)
    assert aware == parse_instant(text)
    assert aware == from_micros(micros(aware))
    assert len("2026-01-01T00:00:00.000000Z") == len(text)
    assert text.endswith("Z")


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)))  # noqa: DTZ001
def test_texts_of_instants_sort_as_the_instants_do(one: datetime, other: datetime) -> None:
    first, second = (when.replace(tzinfo=UTC) for when in (one, other))
    assert (first < second) == (instant(first) < instant(second))
    assert (first < second) == (micros(first) < micros(second))


def test_unset_is_not_none() -> None:
    """A step that gave nothing has the result null; one that failed has no result."""
    assert Raw(b"null") == FULL[1].result  # type: ignore[attr-defined]
    assert UNSET is FULL[2].result  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("wake", '"timestamp":"yesterday","at":"0"'),
        ("wake", '"timestamp":"2026-01-01T00:00:00","at":"0"'),
        ("now", '"timestamp":"","at":"0","value":"noon"'),
        ("uuid", '"timestamp":"","at":"0","value":"0-0"'),
        ("sleep", '"timestamp":"","at":"0","due":"later"'),
    ],
)
def test_texts_that_are_read_later_are_checked_where_the_place_is_known(kind: str, body: str) -> None:
    [line] = seal([Draft(kind, body.encode())], session=1, offset=0)
    with pytest.raises(CorruptHistoryError, match="here: not an event of this format"):
        read_event(line, "here")


@pytest.mark.parametrize("types", [["a\0b"], ["x"] * 101])
def test_a_failure_of_impossible_types_is_refused(types: list[str]) -> None:
    failure = {"type": "E", "types": types, "message": "m", "attempts": 1}
    body = b'"timestamp":"","error":' + msgspec.json.encode(failure)
    [line] = seal([Draft("error", body)], session=1, offset=0, then="closed")
    with pytest.raises(CorruptHistoryError, match="not an event of this format"):
        read_event(line)

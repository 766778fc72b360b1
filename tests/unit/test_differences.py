"""Where two histories part: what is matched, what counts, and how it is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell import All, Diff, Flow, InvalidInputError, Patched, Race, Signal, Sleep, Suspend, diff, workflow
from stepwell import events as e
from stepwell.differences import DIFF_COLUMNS, diff_rows
from stepwell.testing import Answer, cancelled, fired, patched, pause, raised, received, replay, returned, unpause

from .tools import STAMP, did, raw, task

go = Signal("go", str)


@workflow
def order(item: str) -> Flow[Any]:
    found = yield task("look", item)
    if found == "rare":
        yield Suspend(go)
    yield All(task("pack"), task("bill"))
    yield Sleep(60)
    return (yield task("ship", found))


COMMON = (returned("box", step="pack"), returned(9, step="bill"), fired())


def events(*answers: Answer, item: str = "tea") -> list[e.EventBase]:
    return replay(order, item, history=list(answers)).events


def marks(found: Diff) -> list[tuple[str, str]]:
    """Every row that isn't the same, with the kind of what it has."""
    return [(row.mark, side.kind) for row in found.rows if row.mark != "same" and (side := row.a or row.b) is not None]


def test_a_history_is_the_same_as_itself() -> None:
    one = events(returned("plain"), *COMMON, returned("sent"))
    found = diff(one, one)
    assert (True, None, len(one)) == (found.same, found.first, len(found.rows))
    assert "a (a) and b (b) are the same: 7 events" == str(found)


def test_another_result_is_told_by_its_place() -> None:
    answers = [
        returned({"price": 1, "sizes": [1, 2], "name": "x"}),
        returned({"price": 2, "sizes": [1, 3], "name": "x"}),
    ]
    found = diff(*(events(answer, *COMMON) for answer in answers))
    first = found.first
    assert first is not None
    assert first.a is not None
    assert ("step", 1, "0", "look") == (first.a.kind, first.a.seq, first.a.at, first.a.step_id)
    assert (("result",), ["result.price", "result.sizes[1]"]) == (first.changed, [c.path for c in first.changes])
    assert [("changed", "step")] == marks(found)
    assert "part at event 1, step look at 0: result.price: 1 | 2; result.sizes[1]: 2 | 3" in str(found)


def test_another_input_is_told() -> None:
    one, other = (did("0", "look", "x", inputs=digest) for digest in ("aa", "bb"))
    found = diff([one], [other])
    assert found.first is not None
    assert (("inputs",), "other inputs") == (found.first.changed, str(found).rpartition(": ")[2].split("\n")[0])


def test_inputs_that_nobody_knows_are_no_difference() -> None:
    assert diff([did("0", "look", "x", inputs="aa")], [did("0", "look", "x")]).same


def test_a_failure_against_a_result_and_against_another_failure() -> None:
    ends = [returned("plain"), raised(ValueError("no")), raised(ValueError("never")), raised(KeyError("no"))]
    told = [events(end) for end in ends]
    against = [diff(told[1], other).first for other in told]
    assert [("result", "error"), None, ("error",), ("error",)] == [
        None if first is None else tuple(sorted(first.changed, reverse=True)) for first in against
    ]
    assert against[2] is not None
    assert ["error.message"] == [change.path for change in against[2].changes]


def test_where_in_the_code_it_failed_and_after_how_many_tries_is_no_difference() -> None:
    failure = events(raised(ValueError("no")))[1]
    assert isinstance(failure, e.Step)
    assert failure.error is not None
    moved = msgspec.structs.replace(failure, error=type(failure.error)(failure.error.types, "no", None, "m:f:99", 3))
    assert diff([failure], [msgspec.structs.replace(moved, attempts=3)]).same


def test_times_sessions_ids_and_tags_do_not_count() -> None:
    one = events(returned("rare"), received(go, "yes"), *COMMON, returned("sent"))
    other = [
        msgspec.structs.replace(
            event,
            session=7,
            timestamp="2030-01-01T00:00:00.000000Z",
            **({"wait": "go@3:1", "id": "x"} if isinstance(event, e.Resume) else {}),
            **({"tags": {"a": "b"}, "incarnation": 2, "epoch": 1} if isinstance(event, e.Start) else {}),
        )
        for event in one
    ]
    assert one != other
    assert diff(one, other).same


def test_what_no_workflow_sees_is_shown_and_does_not_count() -> None:
    attempt = e.Attempt(at="0", step_id="look", attempt=1, error=_failure(), due=STAMP, timestamp=STAMP)
    begin = e.Begin(at="0", step_id="look", name="look", timestamp=STAMP)
    plain = events(returned("plain"))
    other = [*events(pause(), unpause()), begin, attempt, plain[1]]
    found = diff(plain, other)
    assert found.same
    assert [("beside", kind) for kind in ("pause", "unpause", "begin", "attempt")] == marks(found)
    assert "2 events, and 4 that no workflow sees" in str(found)


def _failure() -> Any:
    step = events(raised(ValueError("no")))[1]
    assert isinstance(step, e.Step)
    return step.error


def test_the_order_of_branches_does_not_count_and_what_comes_of_it_does() -> None:
    bill_first = (returned(9, step="bill"), returned("box", step="pack"), fired())
    one, other = (events(returned("plain"), *each, returned("sent")) for each in (COMMON, bill_first))
    assert one != other
    found = diff(one, other)
    assert found.same
    assert len(one) == len(found.rows)

    @workflow
    def first_of() -> Flow[Any]:
        index, _value = yield Race(task("left"), task("right"))
        return (yield task("then", index))

    races = [
        replay(first_of, history=[returned("x", step=name), cancelled(), returned(1)]).events
        for name in ("left", "right")
    ]
    assert [("changed", "step"), ("changed", "cancelled")] == marks(diff(*races))


def test_a_run_that_is_further_parts_where_the_other_stands() -> None:
    whole = events(returned("plain"), *COMMON, returned("sent"))
    found = diff(whole[:3], whole)
    assert found.first is not None
    assert ("only b", None) == (found.first.mark, found.first.a)
    assert [("only b", event.kind) for event in whole[3:]] == marks(found)
    assert "part at event 3: only b has step bill at 1.1.0" in str(found)


def test_another_command_at_the_same_place_is_one_row() -> None:
    rare = events(returned("rare"), received(go, "yes"))
    plain = events(returned("plain"), returned("box", step="pack"))
    wait = e.Suspend(at="1", waiting_for="go", wait="go@0:1", timestamp=STAMP)
    sleep = e.Sleep(at="1", due=STAMP, timestamp=STAMP)
    found = diff([*rare[:2], wait], [*plain[:2], sleep])
    assert [("changed", "step"), ("changed", "suspend")] == marks(found)
    assert ("kind",) == found.rows[-1].changed


def test_signals_are_matched_by_name_and_number() -> None:
    one, two = (e.Resume(event_name="go", value=raw(word), id=word, timestamp=STAMP) for word in ("x", "y"))
    stop = e.Resume(event_name="stop", value=raw(1), id="s", timestamp=STAMP)
    assert diff([one, stop, two], [stop, one, two]).same
    assert ["value"] == [c.path for c in diff([one, two], [one, one]).rows[1].changes]


def test_patches_are_matched_by_their_change() -> None:
    @workflow
    def mended() -> Flow[Any]:
        new = yield Patched("fast")
        return (yield task("new" if new else "old"))

    new, old = (replay(mended, history=h).events for h in ([patched(), returned(1)], [returned(1)]))
    found = diff(new, old)
    assert [("only a", "patch"), ("changed", "step")] == marks(found)
    assert ("stepId", "name") == found.rows[-1].changed


def test_closes_are_matched_however_they_come() -> None:
    done, over = e.Complete(result=raw(1), timestamp=STAMP), e.Cancelled(timestamp=STAMP)
    found = diff([done], [did("0", "more"), over])
    assert [("only b", "step"), ("changed", "complete")] == marks(found)


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (0, False), ("1", 1), (None, 0), ([], {}), ([1], [1, 2])])
def test_values_of_other_json_types_differ(a: Any, b: Any) -> None:
    assert not diff([did("0", "x", a)], [did("0", "x", b)]).same


def test_null_is_not_nothing() -> None:
    timed_out, default = e.Wake(at="0", timestamp=STAMP), e.Wake(at="0", value=raw(None), timestamp=STAMP)
    assert ["value"] == [change.path for change in diff([timed_out], [default]).rows[0].changes]
    assert not diff([did("0", "x", {"a": None})], [did("0", "x", {})]).same


def test_the_order_of_keys_does_not_count() -> None:
    assert diff([did("0", "x", {"a": 1, "b": 2})], [did("0", "x", {"b": 2, "a": 1})]).same


def test_it_is_json() -> None:
    found = diff(events(returned("plain")), events(returned("rare"), received(go, "yes")), names=("one", "two"))
    shape = json.loads(json.dumps(found.json()))
    assert ("one", "two", False, 1) == (shape["a"], shape["b"], shape["same"], shape["first"])
    row = shape["rows"][1]
    assert ("changed", ["result"], "look", "plain") == (
        row["mark"],
        row["changed"],
        row["a"]["stepId"],
        row["a"]["values"]["result"],
    )
    assert [{"path": "result", "a": "plain", "b": "rare"}] == row["changes"]
    assert None is diff([], []).json()["first"]


def test_it_is_frozen() -> None:
    found = diff([], [])
    with pytest.raises(AttributeError):
        found.rows = ()  # type: ignore[misc]


def test_a_long_history_is_shown_around_its_differences() -> None:
    same = [did(str(at), f"s{at}", at) for at in range(40)]
    found = diff(same, [*same[:20], did("20", "s20", "other"), *same[21:]])
    rows = diff_rows(found)
    assert ["18 step s18", "19 step s19", "20 step s20", "21 step s21", "22 step s22"] == [
        row[2] for row in rows if row[2]
    ]
    assert ["... 18 events without a difference", "... 17 events without a difference"] == [rows[0][-1], rows[-1][-1]]
    assert 41 == len(str(diff(same, [])).splitlines()) - 2


def test_nothing_from_a_payload_is_shown_raw() -> None:
    nasty = "\x1b[31m\r\n\u202e"
    found = diff([did("0", nasty, nasty), did(nasty, "x", 1)], [did("0", nasty, {nasty: nasty})], names=(nasty, nasty))
    assert set() == {char for char in str(found) if not char.isprintable() and char != "\n"}


@pytest.mark.parametrize("wrong", [None, 3, "r1", ["start"], {}])
def test_only_histories_are_compared(wrong: Any) -> None:
    if wrong == {}:
        wrong = {"a": 1}
    with pytest.raises(InvalidInputError, match="diff compares histories, and 'b' is"):
        diff([], wrong)


answers = st.lists(
    st.tuples(st.sampled_from(["0", "1", "2.0.0", "2.1.0"]), st.sampled_from("xy"), st.integers(0, 1)), max_size=8
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(answers, answers)
def test_every_event_has_one_row_and_the_mirror_image_says_the_same(one: Any, other: Any) -> None:
    a, b = ([did(at, name, value) for at, name, value in told] for told in (one, other))
    there, back = diff(a, b), diff(b, a)
    for side, history in (("a", a), ("b", b)):
        seen = [found.seq for row in there.rows if (found := getattr(row, side)) is not None]
        assert sorted(seen) == list(range(len(history)))
    assert there.same == back.same
    mirror = {"same": "same", "changed": "changed", "only a": "only b", "only b": "only a"}
    assert sorted(mirror[row.mark] for row in there.rows) == sorted(row.mark for row in back.rows)
    assert [row.a.seq for row in there.rows if row.a] == list(range(len(a))), "a stays in its order"
    assert len(diff_rows(there)[0]) == len(DIFF_COLUMNS) if there.rows else True

"""`*.history.jsonl`: written, left alone when nothing changed, read back, and what is damaged named."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell import (
    Child,
    ContinueAsNew,
    CorruptHistoryError,
    Engine,
    Flow,
    InvalidInputError,
    NotFoundError,
    Step,
    Suspend,
    VersionMismatchError,
    workflow,
)
from stepwell.registry import Registry
from stepwell.testing import HistoryFile
from stepwell.testing.history_files import find_workflow, steady
from stepwell.wire import read_event


def reserve(item: str, size: str = "small") -> str:
    return f"{item} is reserved"


@workflow
def order(item: str) -> Flow[str]:
    yield Step(reserve, item, size="large")
    return (yield from Suspend("paid", into=str))


@workflow(name="order", version="2")
def order_2(item: str) -> Flow[str]:
    yield Step(reserve, item)
    return item


def recorded(item: str = "teapot", *, resumed: bool = True) -> HistoryFile:
    with Engine("memory:", workflows=[order]) as engine:
        engine.start(order, item, run_id="o1")
        if resumed:
            engine.resume("o1", "paid", "yes")
        tail = engine.store.read("o1")
        assert tail is not None
        return HistoryFile.of(order, tail.records, run="o1", test="test_x.py::test_y")


def test_a_file_has_whose_it_is_the_records_and_the_arguments(tmp_path: Path) -> None:
    file = recorded()
    path = tmp_path / "deep" / "order.history.jsonl"
    assert "new" == file.write(path)
    header, *records, inputs = path.read_bytes().splitlines()
    assert tuple(records) == file.records
    assert {"stepwell": "inputs", "at": "0", "stepId": "reserve", "inputs": [["teapot"], {"size": "large"}]} == (
        json.loads(inputs)
    )
    told = json.loads(header)
    assert ("history", "order", "1", "o1") == (told["stepwell"], told["workflow"], told["version"], told["run"])
    assert ("order", "test_x.py::test_y") == (told["qualname"], told["test"])
    assert [path.name] == [one.name for one in path.parent.iterdir()]


def test_what_was_written_is_read_back_and_fits(tmp_path: Path) -> None:
    file = recorded()
    path = tmp_path / "order.history.jsonl"
    file.write(path)
    found = HistoryFile.read(path)
    assert file.says_the_same(found)
    assert (file.records, file.inputs, str(path)) == (found.records, found.inputs, found.place)
    assert ["start", "step", "suspend", "resume", "step"][:4] == [event.kind for event in found.events][:4]
    assert found.check(order) is None
    assert found.check() is None  # found by module and name


def test_a_run_that_is_made_again_changes_no_byte(tmp_path: Path) -> None:
    """Its times and made-up ids are others; nothing that a workflow sees is."""
    path = tmp_path / "order.history.jsonl"
    recorded().write(path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = recorded()
    assert again.records != HistoryFile.read(path).records
    assert "same" == again.write(path)
    assert before == (path.read_bytes(), path.stat().st_mtime_ns)
    assert "changed" == recorded("kettle").write(path)
    assert before[0] != path.read_bytes()


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "order.history.jsonl"
    path.write_text("no history\n")
    assert "changed" == recorded().write(path)


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"teapot", b"kettle"), *lines[2:]], "line 2"),
        (lambda lines: [lines[0], lines[1], *lines[3:]], "line 3: holds event 2, and event 1 is missing"),
        (lambda lines: [lines[0], *lines[2:]], "line 2"),
        (lambda lines: lines[:1], "does not begin with a start event"),
        (lambda lines: [lines[0][:-5], *lines[1:]], "line 1: no line of a history file"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":9'), *lines[1:]], "written by a newer stepwell"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, damage: Any, place: str) -> None:
    path = tmp_path / "order.history.jsonl"
    recorded().write(path)
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    with pytest.raises(CorruptHistoryError, match=place) as caught:
        HistoryFile.read(path)
    assert str(path) in caught.value.message


def test_line_ends_of_another_system_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "order.history.jsonl"
    recorded().write(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert HistoryFile.read(path).check(order) is None


def test_bare_records_are_a_file_too_and_need_an_engine_that_knows_their_workflow(tmp_path: Path) -> None:
    """What `stepwell show --raw` prints, of a run in production."""
    path = tmp_path / "order.history.jsonl"
    path.write_bytes(b"\n".join(recorded(resumed=False).records))
    file = HistoryFile.read(path)
    assert ("order", "1", "", {}) == (file.workflow, file.version, file.module, file.inputs)
    assert file.check(app=Registry([order])) is None
    found = file.check()
    assert found is not None
    assert ("workflow", "NOT_FOUND") == (found.kind, found.code)
    assert "stepwell_app = module:engine" in found.message


def test_changed_inputs_show_the_recorded_values() -> None:
    @workflow(name="order")
    def changed(item: str) -> Flow[str]:
        yield Step(reserve, item, size="small")
        return (yield from Suspend("paid", into=str))

    found = recorded().check(changed)
    assert found is not None
    ((change),) = found.changed
    assert ('[["teapot"],{"size":"large"}]', '[["teapot"],{"size":"small"}]') == (change.recorded, change.now)
    assert '[["teapot"],{"size":"large"}]  (digest ' in str(found)


def test_a_version_that_is_gone_is_told() -> None:
    found = recorded().check(app=Registry([order_2]))
    assert found is not None
    assert ("version", "VERSION_MISMATCH", "version") == (found.kind, found.code, found.remedies[0].by)


def test_a_workflow_is_found_by_its_name_when_it_has_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_2 is find_workflow(__name__, "old_name", "order", "2")
    assert order is find_workflow(__name__, "order_2", "order", "1")
    with pytest.raises(VersionMismatchError, match="has 1, 2"):
        find_workflow(__name__, "order", "order", "3")
    with pytest.raises(NotFoundError, match="has no workflow 'parcel'"):
        find_workflow(__name__, "order", "parcel", "1")
    with pytest.raises(NotFoundError, match="can't be imported: ModuleNotFoundError"):
        find_workflow("no_such_module", "order", "order", "1")


@pytest.mark.parametrize("text", ["def (", "raise LookupError('no')", "raise SystemExit(3)"])
def test_a_module_that_can_not_be_imported_is_told_and_what_would_not_help_is_not(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine has no part in it: the text says what to do."""
    (tmp_path / "broken_flows.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = msgspec.structs.replace(recorded(), module="broken_flows").check()
    assert found is not None
    assert "module 'broken_flows', where workflow 'order' was, can't be imported" in str(found)
    assert "mend by" not in str(found)


def test_a_history_without_a_name_is_told_without_one() -> None:
    found = msgspec.structs.replace(recorded(), run="").check(app=Registry([order_2]))
    assert found is not None
    assert str(found).startswith("a run without a name: ")


@workflow
def count(number: int) -> Flow[int]:
    if number < 3:
        yield ContinueAsNew(number + 1)
    return number


@workflow(name="count")
def count_by_two(number: int) -> Flow[int]:
    if number < 3:
        yield ContinueAsNew(number + 2)
    return number


@workflow(name="count")
def count_no_more(number: int) -> Flow[int]:
    return number
    yield


@workflow(name="count")
def count_when_told(number: int) -> Flow[int]:
    yield Suspend("go")
    yield ContinueAsNew(number + 1)
    return number


def test_a_history_that_went_on_as_new_has_to_end_so(tmp_path: Path) -> None:
    with Engine("memory:", workflows=[count]) as engine:
        engine.start(count, 2, run_id="c1")
        first = engine.store.read("c1", incarnation=0)
    assert first is not None
    path = tmp_path / "count.history.jsonl"
    HistoryFile.of(count, first.records, run="c1", next_input="[3]").write(path)
    file = HistoryFile.read(path)
    assert "[3]" == file.next_input
    assert file.check(count) is None
    for code, yielded in (
        (count_by_two, "going on as new with [4]"),
        (count_no_more, "nothing: the workflow has ended (complete)"),
        (count_when_told, "suspend 'go' at 0"),
    ):
        misfit = file.check(code)
        assert misfit is not None
        assert ("result", "going on as new with [3]", yielded) == (misfit.kind, misfit.recorded, misfit.yielded)
    assert "changed" == msgspec.structs.replace(file, next_input="[5]").write(path)


def test_records_of_another_workflow_are_refused() -> None:
    @workflow
    def parcel() -> Flow[None]:
        yield Suspend("x")

    with pytest.raises(InvalidInputError, match="no history of <workflow parcel"):
        HistoryFile.of(parcel, recorded().records)
    with pytest.raises(InvalidInputError, match="no history"):
        HistoryFile.of(parcel, [])


@workflow
def packing(item: str) -> Flow[str]:
    return (yield from Step(reserve, item))


@workflow
def parent(item: str) -> Flow[str]:
    number = yield from Child(packing, item).options(detached=True)
    yield Suspend("go", timeout=timedelta(days=1))
    return f"{number}"


def test_made_up_ids_become_steady() -> None:
    """Ids of runs, signals and attempts that nobody chose; all else stays as it was written."""
    lines = []
    for _ in range(2):
        with Engine("memory:", workflows=[parent, packing]) as engine:
            run_id = engine.start(parent, "teapot").run_id
            engine.resume(run_id, "go")
            tail = engine.store.read(run_id)
            assert tail is not None
            lines.append([json.loads(line) for line in steady(tail.records, {run_id: "run-1"})])
            assert [read_event(line).kind for line in steady(tail.records, {})] == [one["type"] for one in lines[-1]]
    for one, other in zip(*lines, strict=True):
        for key in ("timestamp", "started", "due", "crc"):
            one.pop(key, None)
            other.pop(key, None)
    assert [one | {"result": ""} for one in lines[0]] == [one | {"result": ""} for one in lines[1]]
    assert "run-1/1:0" == next(one["childId"] for one in lines[0] if one["type"] == "child")
    assert f"{1:032x}" == next(one["id"] for one in lines[0] if one["type"] == "resume")
    assert not any("attemptId" in one for one in lines[0])

"""Several versions of a workflow side by side, what becomes of runs whose version is gone, and of changes in place."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    ConflictError,
    Flow,
    InvalidInputError,
    Patched,
    RunCompleted,
    RunSuspended,
    Step,
    Suspend,
    VersionMismatchError,
    workflow,
)
from stepwell.testing import patched, received, replay, returned


def say(text: str) -> str:
    return text


@workflow(name="order")
def order_1(item: str) -> Flow[str]:
    yield Step(say, "reserve")
    yield Suspend("paid")
    return (yield from Step(say, f"{item} by 1"))


@workflow(name="order", version="2")
def order_2(item: str, count: int = 1) -> Flow[list[str]]:
    yield Suspend("paid")
    return [(yield from Step(say, f"{count} {item} by 2"))]


def test_each_run_stays_on_the_version_that_it_was_started_with(bench: Any) -> None:
    engine = bench.engine(order_1, order_2)
    engine.start(order_1, "tea", run_id="old")
    engine.start(order_2, "tea", run_id="new")
    for fresh in (engine, bench.engine(order_2, order_1)):
        assert ["1", "2"] == [fresh.get(run_id).version for run_id in ("old", "new")]
    engine = bench.engine(order_2, order_1)
    assert RunCompleted("old", "tea by 1") == engine.resume("old", "paid")
    assert RunCompleted("new", ["1 tea by 2"]) == engine.resume("new", "paid")


def test_a_start_with_a_newer_version_joins_the_open_run_which_stays_on_its_own(bench: Any) -> None:
    engine = bench.engine(order_1)
    engine.start(order_1, "tea", run_id="r")
    newer = bench.engine(order_1, order_2)
    assert isinstance(newer.start(order_2, "tea", run_id="r"), RunSuspended)
    assert ("1", 3) == (newer.get("r").version, newer.get("r").events)
    with pytest.raises(ConflictError, match="with other input"):
        newer.start(order_2, "milk", run_id="r")
    with pytest.raises(ConflictError, match="with other input"):
        newer.start(order_2, "tea", 2, run_id="r")
    newer.resume("r", "paid")
    assert RunCompleted("r", "tea by 1") == newer.start(order_2, "tea", run_id="r")


def test_a_start_with_a_newer_version_alone_says_that_the_old_one_is_missing(bench: Any) -> None:
    bench.engine().start(order_1, "tea", run_id="r")
    engine = bench.engine(order_2)
    with pytest.raises(VersionMismatchError, match=r"version '1'.* has 2; keep the old version in workflows="):
        engine.start(order_2, "tea", run_id="r", if_closed="error")
    assert ("suspended", None) == (engine.get("r").status, engine.get("r").blocked)


def test_a_start_may_begin_the_run_anew_on_another_version(bench: Any) -> None:
    engine = bench.engine(order_1)
    engine.start(order_1, "tea", run_id="r")
    engine.start(order_2, "tea", run_id="r", if_open="restart")
    assert ("2", 2) == (engine.get("r").version, engine.get("r").attempts)


@pytest.mark.parametrize("how", ["retry", "fork", "reset"])
def test_retry_fork_and_reset_keep_the_recorded_version(bench: Any, how: str) -> None:
    failing = [True]

    def work() -> str:
        if failing:
            raise ValueError("no")
        return "done by 1"

    @workflow(name="w")
    def w1() -> Flow[str]:
        yield Step(say, "first")
        return (yield from Step(work))

    @workflow(name="w", version="2")
    def w2() -> Flow[str]:
        return (yield from Step(say, "done by 2"))

    bench.engine().start(w1, run_id="r")
    failing.clear()
    calls: dict[str, Callable[[Any], Any]] = {
        "retry": lambda engine: engine.retry("r"),
        "fork": lambda engine: engine.fork("r", before="work", new_run_id="f"),
        "reset": lambda engine: engine.reset("r"),
    }
    newer = bench.engine(w2)
    with pytest.raises(VersionMismatchError, match="the run is on version '1'"):
        calls[how](newer)
    assert ["failed"] == [record.status for record in newer.runs()]
    both = bench.engine(w1, w2)
    outcome = calls[how](both)
    assert ("done by 1", "1") == (outcome.unwrap(), both.get(outcome.run_id).version)


def test_runs_of_a_version_can_be_listed(bench: Any) -> None:
    engine = bench.engine(order_1, order_2)
    for number in range(3):
        engine.start(order_1, "tea", run_id=f"old{number}")
    engine.start(order_2, "tea", run_id="new")
    engine.resume("old1", "paid")

    def found(**where: Any) -> list[str]:
        return sorted(record.id for record in engine.runs(**where))

    assert ["old0", "old1", "old2"] == found(version="1")
    assert ["old0", "old2"] == found(workflow="order", version="1", closed=False)
    assert ["old1"] == found(closed=True)
    assert ["new"] == found(version="2")
    for run_id in ("old0", "old2"):
        engine.cancel(run_id)
    assert [] == found(version="1", closed=False)
    with pytest.raises(InvalidInputError, match="closed must be True, False or None"):
        engine.runs(closed=1)


# ---- changes in place, and how their Patched goes


APART = """
from stepwell import Flow, Suspend, workflow


@workflow(name="order", version="2")
def order(item: str) -> Flow[None]:
    yield Suspend("paid")
"""


@workflow(name="order")
def with_patch(item: str) -> Flow[str]:
    if (yield from Patched("fraud-check")):
        yield Step(say, "check")
    yield Step(say, "reserve")
    yield Suspend("paid")
    return (yield from Step(say, f"{item} by 1"))


@workflow(name="order")
def without_question(item: str) -> Flow[str]:
    yield Step(say, "check")
    yield Step(say, "reserve")
    yield Suspend("paid")
    return (yield from Step(say, f"{item} by 1"))


def test_three_deploys_take_a_change_in_and_its_question_out_again(bench: Any) -> None:
    bench.engine().start(order_1, "tea", run_id="old")
    second = bench.engine(with_patch)
    second.start(with_patch, "tea", run_id="new")
    assert ["old"] == [record.id for record in second.unpatched("fraud-check")]
    assert ["old"] == [record.id for record in bench.engine().unpatched("fraud-check")], "by histories alone too"
    second.resume("old", "paid").unwrap()
    assert [] == second.unpatched("fraud-check")
    assert [] == bench.engine(without_question).unpatched("fraud-check")
    third = bench.engine(without_question)
    assert RunCompleted("new", "tea by 1") == third.resume("new", "paid")


@workflow(name="late")
def late_patch() -> Flow[str]:
    yield Suspend("go")
    if (yield from Patched("late-change")):
        yield Step(say, "changed")
    yield Suspend("end")
    return "done"


@workflow(name="late")
def before_late_patch() -> Flow[str]:
    yield Suspend("go")
    yield Suspend("end")
    return "done"


def test_a_run_that_has_not_come_to_the_change_will_have_it(bench: Any) -> None:
    """By the code it is on neither side; by its history alone nobody can tell."""
    old = bench.engine()
    for run_id in ("before", "behind"):
        old.start(before_late_patch, run_id=run_id)
    old.resume("behind", "go")
    engine = bench.engine(late_patch)
    assert ["behind"] == [record.id for record in engine.unpatched("late-change")]
    assert ["before", "behind"] == sorted(record.id for record in bench.engine().unpatched("late-change"))
    engine.resume("before", "go")
    assert ["behind"] == [record.id for record in bench.engine().unpatched("late-change")]


def test_only_open_runs_of_a_workflow_are_looked_at(bench: Any) -> None:
    engine = bench.engine(order_1, order_2, late_patch)
    engine.start(order_1, "tea", run_id="open")
    engine.start(order_1, "tea", run_id="closed")
    engine.resume("closed", "paid")
    engine.start(late_patch, run_id="other")
    other = bench.engine()
    assert ["open"] == [record.id for record in other.unpatched("fraud-check", workflow="order")]
    assert ["open", "other"] == sorted(record.id for record in other.unpatched("fraud-check"))


def test_a_run_that_the_code_does_not_fit_is_judged_by_its_history(bench: Any) -> None:
    bench.engine().start(order_1, "tea", run_id="old")
    bench.engine().start(with_patch, "tea", run_id="new")
    misfit = bench.engine(without_question)
    assert ["old"] == [record.id for record in misfit.unpatched("fraud-check")]


def test_an_id_that_the_code_nowhere_holds_lists_all_whose_history_lacks_it(bench: Any) -> None:
    """It is mistyped, or too late to ask: that must not look as if the question could go."""
    engine = bench.engine(with_patch)
    engine.start(with_patch, "tea", run_id="new")
    mistyped = "check-fraud".replace("fraud", "freud")
    assert ["new"] == [record.id for record in engine.unpatched(mistyped)]
    assert [] == engine.unpatched("fraud-check")


def test_a_version_that_never_asks_is_not_listed_wherever_its_code_stands(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version_2_apart.py").write_text(APART, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    apart: Any = importlib.import_module("version_2_apart")
    monkeypatch.delitem(sys.modules, "version_2_apart")
    bench.engine().start(order_1, "tea", run_id="old")
    engine = bench.engine(with_patch, apart.order)
    engine.start(apart.order, "tea", run_id="other-version")
    assert ["old"] == [record.id for record in engine.unpatched("fraud-check")]
    without = bench.engine(apart.order)
    assert ["old", "other-version"] == sorted(record.id for record in without.unpatched("fraud-check")), "nobody asks"


def test_a_retried_run_keeps_its_answer(bench: Any) -> None:
    broken = [True]

    def work() -> str:
        if broken:
            raise ValueError("no")
        return "done"

    def flow(asks: bool) -> Any:
        @workflow(name="w")
        def w() -> Flow[str]:
            if asks:
                yield Patched("change")
            result = yield from Step(work)
            yield Suspend("end")
            return result

        return w

    bench.engine().start(flow(False), run_id="old")
    asking = flow(True)
    bench.engine().start(asking, run_id="new")
    broken.clear()
    engine = bench.engine(asking)
    for run_id in ("old", "new"):
        engine.retry(run_id)
    assert ["old"] == [record.id for record in engine.unpatched("change")]


@pytest.mark.parametrize("wrong", ["", None, "a\nb"])
def test_what_is_no_change_id_is_refused(memory: Any, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="change id of 1 to 200 printable characters"):
        memory.engine().unpatched(wrong)


def test_fake_histories_of_each_deploy() -> None:
    new = [patched(), returned("check"), returned("reserve"), received("paid")]
    assert Step(say, "tea by 1") == replay(with_patch, "tea", history=new).next
    old = [returned("reserve"), received("paid")]
    assert Step(say, "tea by 1") == replay(with_patch, "tea", history=old).next
    recorded = replay(with_patch, "tea", history=new).events
    assert Step(say, "tea by 1") == replay(without_question, "tea", history=recorded).next


# ---- in processes of their own

SHOP = """
import json, sys
from stepwell import Engine, Flow, Step, Suspend, workflow

def say(text: str) -> str:
    return text

@workflow(name="order")
def order_1(item: str) -> Flow[str]:
    yield Step(say, "reserve")
    yield Suspend("paid")
    return (yield from Step(say, f"{item} by 1"))

@workflow(name="order", version="2")
def order_2(item: str) -> Flow[str]:
    yield Suspend("paid")
    return (yield from Step(say, f"{item} by 2"))

known = {"1": order_1, "2": order_2}
engine = Engine(sys.argv[1], [known[name] for name in sys.argv[2].split(",")])
for call in sys.argv[3:]:
    verb, *rest = call.split()
    if verb == "start":
        engine.start(known[rest[0]], "tea", run_id=rest[1])
    elif verb == "paid":
        engine.signal(rest[0], "paid")
print(json.dumps([[o.run_id, o.status, getattr(o, "result", None)] for o in engine.run_due()]))
"""


@pytest.fixture
def deploy(disk: Any, python: Callable[..., subprocess.Popen[str]]) -> Callable[..., Any]:
    """Run a program that has these versions, and makes these calls; what `run_due` then did."""

    def run(versions: str, *calls: str) -> Any:
        process = python(SHOP, disk.url, versions, *calls)
        said, _ = process.communicate(timeout=60)
        assert 0 == process.returncode
        return json.loads(said)

    return run


def test_runs_of_the_old_version_go_on_with_its_code_beside_the_new_one(deploy: Callable[..., Any]) -> None:
    assert [] == deploy("1", "start 1 a", "start 1 b")
    assert [["a", "completed", "tea by 1"]] == deploy("1,2", "start 2 c", "paid a")
    found = deploy("2,1", "paid b", "paid c")
    assert [["b", "completed", "tea by 1"], ["c", "completed", "tea by 2"]] == sorted(found)


def test_a_deploy_that_drops_a_version_too_early_blocks_its_runs_until_the_version_is_back(
    disk: Any, deploy: Callable[..., Any]
) -> None:
    deploy("1", "start 1 a")
    assert [["c", "completed", "tea by 2"]] == deploy("2", "start 2 c", "paid a", "paid c")
    engine = disk.engine()
    blocked = engine.get("a").blocked
    assert "VERSION_MISMATCH" == blocked.code
    assert "keep the old version in workflows=[...] until its runs are closed" in blocked.message
    assert ["a"] == [record.id for record in engine.runs(blocked=True, version="1")]
    assert [] == deploy("2")
    assert [["a", "completed", "tea by 1"]] == deploy("1,2")
    assert None is engine.get("a").blocked

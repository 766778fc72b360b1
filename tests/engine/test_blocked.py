"""Code that does not fit a history: the run is blocked, nobody claims it, and changed code goes on with it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    CodecError,
    DivergenceError,
    Engine,
    EventMismatchError,
    Flow,
    InvalidYieldError,
    NotFoundError,
    RunCompleted,
    Step,
    Suspend,
    VersionMismatchError,
    workflow,
)

from .tools import Meddled, Tally, kinds, steps


def price(count: int) -> int:
    return 3 * count


@workflow
def buy(count: int) -> Flow[int]:
    return (yield from Step(price, count))


@workflow
def ask(name: str) -> Flow[str]:
    return name + (yield from Suspend("answer", into=str))


def test_a_run_whose_workflow_is_unknown_is_refused_and_left_as_it_was(bench: Any) -> None:
    bench.engine().submit(buy, 1, run_id="r")
    ignorant = bench.engine(ask)
    with pytest.raises(NotFoundError, match=r"knows no workflow 'buy' \(it knows: ask\)"):
        ignorant.advance("r")
    assert ("pending", None) == (ignorant.get("r").status, ignorant.get("r").blocked)
    assert [] == ignorant.run_due()
    assert "NOT_FOUND" == ignorant.get("r").blocked.code
    assert [RunCompleted("r", 3)] == bench.engine(buy).run_due()


def test_a_run_of_another_version_is_refused_and_left_as_it_was(bench: Any) -> None:
    @workflow(name="buy", version="2")
    def newer(count: int) -> Flow[int]:
        return (yield from Step(price, count))

    bench.engine().submit(buy, 1, run_id="r")
    engine = bench.engine(newer)
    with pytest.raises(VersionMismatchError, match="the run is on version '1', and this engine has 2"):
        engine.advance("r")
    assert engine.get("r").blocked is None
    assert [] == engine.run_due()
    assert "VERSION_MISMATCH" == engine.get("r").blocked.code
    assert [RunCompleted("r", 3)] == bench.engine(newer, buy).run_due()


def test_a_wrong_first_yield_writes_nothing(bench: Any) -> None:
    @workflow
    def wrong() -> Flow[int]:
        yield price  # type: ignore[misc]
        return 1

    engine = bench.engine()
    with pytest.raises(InvalidYieldError, match=r"test_blocked.py:\d+, in .*wrong.*write Step\(function"):
        engine.start(wrong, run_id="r")
    with pytest.raises(InvalidYieldError):
        engine.submit(wrong, run_id="r")
    assert [] == engine.runs()


def test_a_wrong_later_yield_blocks_the_run_until_the_code_changes(bench: Any) -> None:
    tally = Tally()

    @workflow(name="w")
    def wrong() -> Flow[int]:
        yield tally.step("first")
        yield 7  # type: ignore[misc]
        return 1

    @workflow(name="w")
    def mended() -> Flow[int]:
        yield tally.step("first")
        return 2

    engine = bench.engine()
    with pytest.raises(InvalidYieldError, match="it yielded 7, which is no command"):
        engine.start(wrong, run_id="r")
    assert ["first"] == steps(engine)
    record = engine.get("r")
    assert ("pending", "INVALID_YIELD", None) == (record.status, record.blocked.code, record.lease_until)
    assert [] == engine.run_due()
    with pytest.raises(InvalidYieldError):
        engine.advance("r")  # forces a try
    assert [RunCompleted("r", 2)] == bench.engine(mended).run_due()
    assert (None, 1) == (engine.get("r").blocked, tally["first"])


def test_changed_code_blocks_the_run_and_says_what_differs(bench: Any) -> None:
    """Shows S8 (P3)."""
    tally = Tally()

    @workflow(name="w")
    def before() -> Flow[str]:
        yield tally.step("one")
        return (yield from Suspend("go", into=str))

    @workflow(name="w")
    def after() -> Flow[str]:
        yield tally.step("zero")
        return (yield from Suspend("go", into=str))

    old, new = bench.engine(before), bench.engine(after)
    old.start(before, run_id="r")
    with pytest.raises(DivergenceError, match="Guard the change with Patched") as caught:
        new.advance("r")
    found = caught.value
    assert ("r", 1, "0", "step 'one'") == (found.run_id, found.seq, found.at, found.recorded)
    assert "zero" in found.yielded
    assert (0, "DIVERGENCE") == (tally["zero"], new.get("r").blocked.code)
    assert ["r"] == [record.id for record in new.runs(blocked=True)]
    with pytest.raises(DivergenceError):
        new.resume("r", "go", "now")
    assert RunCompleted("r", "now") == old.resume("r", "go", "now")
    assert [] == new.runs(blocked=True)


def test_a_recorded_result_that_no_longer_fits_blocks_the_run(bench: Any) -> None:
    def number() -> int:
        return 1

    def text() -> str:
        return "one"

    @workflow(name="w")
    def before() -> Flow[str]:
        yield Step(number).options(name="n")
        return (yield from Suspend("go", into=str))

    @workflow(name="w")
    def after() -> Flow[str]:
        yield Step(text).options(name="n")
        return (yield from Suspend("go", into=str))

    bench.engine().start(before, run_id="r")
    engine = bench.engine(after)
    with pytest.raises(CodecError, match="the recorded result of step 'n' does not fit"):
        engine.advance("r")
    assert "CODEC" == engine.get("r").blocked.code


def test_a_run_is_blocked_whatever_lands_meanwhile(bench: Any) -> None:
    """The owner's appends are the step's outcome and the mark; a signal comes before each of them."""

    @workflow
    def wrong() -> Flow[int]:
        yield Step(price, 1)
        yield 7  # type: ignore[misc]
        return 1

    stranger = bench.engine()
    for nth in (1, 2):
        store = Meddled(bench.store(), nth, lambda nth=nth: stranger.signal(f"r{nth}", "noise"))  # type: ignore[misc]
        engine = bench.engine(store=store)
        with pytest.raises(InvalidYieldError):
            engine.start(wrong, run_id=f"r{nth}")
        record = engine.get(f"r{nth}")
        assert ("INVALID_YIELD", None) == (record.blocked.code, record.lease_until)
        assert ["resume", "step"] == sorted(kinds(engine, f"r{nth}")[1:])
        assert [] == engine.run_due()


def test_a_blocked_run_can_be_given_up(bench: Any) -> None:
    @workflow
    def wrong() -> Flow[int]:
        yield Step(price, 1)
        yield 7  # type: ignore[misc]
        return 1

    engine = bench.engine()
    with pytest.raises(InvalidYieldError):
        engine.start(wrong, run_id="r")
    with pytest.raises(InvalidYieldError):
        engine.cancel("r")
    assert "cancelled" == engine.cancel("r", force=True).status


def test_a_signal_to_a_blocked_run_is_not_lost(bench: Any) -> None:
    @workflow(name="ask")
    def changed(name: str) -> Flow[str]:
        yield Step(price, 1)
        return name

    old, new = bench.engine(ask), bench.engine(changed)
    old.start(ask, "ada", run_id="r")
    (wait,) = old.waiting()
    with pytest.raises(DivergenceError):
        new.advance("r")
    with pytest.raises(EventMismatchError, match="with wait 'stale'"):
        new.signal("r", "answer", "!", wait="stale")
    new.signal("r", "answer", "!", wait=wait.wait)
    assert "DIVERGENCE" == new.get("r").blocked.code
    assert [RunCompleted("r", "ada!")] == old.run_due()


def test_a_run_whose_index_row_is_damaged_too_is_marked_all_the_same(tmp_path: Path) -> None:
    """Or it would be claimed again for ever: claiming looks at less than loading does."""

    @workflow
    def w() -> Flow[int]:
        yield from ()
        return 1

    engine = Engine(f"sqlite:///{tmp_path}/runs.db", [w])
    engine.submit(w, run_id="bad")
    engine.submit(w, run_id="good")
    db = sqlite3.connect(tmp_path / "runs.db")
    db.execute("UPDATE stepwell_runs SET status = 'nonsense' WHERE run_id = 'bad'")
    db.execute("UPDATE stepwell_events SET body = X'00' WHERE run_id = 'bad'")
    db.commit()
    assert ["good"] == [outcome.run_id for outcome in engine.run_due()]
    assert [] == engine.run_due()
    found = db.execute("SELECT lease_until, blocked_by IS NULL FROM stepwell_runs WHERE run_id = 'bad'").fetchone()
    assert (None, 0) == found
    db.close()
    engine.close()

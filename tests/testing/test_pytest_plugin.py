"""The pytest plugin, in sessions of their own: fixtures, recording, replay tests, and what it costs when unused."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import stepwell
import stepwell_pytest
import stepwell_stores

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
FLOWS = """
from datetime import timedelta
from stepwell import Engine, Flow, Random, Signal, Sleep, Step, Suspend, Transaction, Uuid, workflow

paid = Signal("paid", str)

def reserve(item: str) -> str:
    return f"{item} is reserved"

def ship(item: str) -> str:
    return f"{item} is on its way"

@workflow
def order(item: str) -> Flow[str]:
    yield Step(reserve, item)
    yield Sleep(timedelta(days=1))
    yield Suspend(paid)
    return (yield from Step(ship, item))

@workflow
def dice() -> Flow[str]:
    return f"{(yield Random())} {(yield Uuid())}"
"""
TESTS = """
from datetime import timedelta
import pytest
from flows import Engine, dice, order, paid
from stepwell.testing import simulate

def test_shipped(stepwell_engine):
    engine = stepwell_engine(order)
    engine.start(order, "teapot", run_id="o1")
    (outcome,) = stepwell_engine.pass_time(timedelta(days=1))
    assert outcome.waiting_for == ("paid",)
    assert engine.resume("o1", paid, "bank 1").unwrap() == "teapot is on its way"

def test_own_engine():
    with Engine("memory:") as engine:
        engine.start(order, "kettle")

@pytest.mark.parametrize("store", ["sqlite:///runs.db", "file:runs"])
def test_on_disk(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Engine(store) as engine:
        engine.start(order, "vase", run_id="v/1")
    with Engine(store, [order]) as engine:
        engine.signal("v/1", paid, "early")

def test_simulated():
    assert simulate(dice).status == "completed"

def test_dice(stepwell_engine):
    stepwell_engine(dice).start(dice).unwrap()

def test_fails(stepwell_engine):
    stepwell_engine(order).start(order, "broken", run_id="broken")
    assert False
"""
FILES = {
    "test_shop/test_shipped.o1",
    "test_shop/test_own_engine.run-1",
    "test_shop/test_on_disk-sqlite-runs.db",
    "test_shop/test_on_disk-file-runs",
    "test_shop/test_simulated.simulation",
    "test_shop/test_dice.run-1",
}


def is_installed() -> bool:
    return any(one.value == "stepwell_pytest" for one in metadata.entry_points(group="pytest11", name="stepwell"))


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Runs pytest in a process of its own, warnings being errors."""
    packages = (stepwell, stepwell_stores, stepwell_pytest)
    path = [str(pytester.path), *dict.fromkeys(str(Path(one.__path__[0]).parent) for one in packages)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    plugin = () if is_installed() else ("-p", "stepwell_pytest")

    def run(*arguments: Any) -> pytest.RunResult:
        own = ("-W", "error", "--strict-markers", "--strict-config", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess(*plugin, *own, *arguments, timeout=120)

    return run


@pytest.fixture
def shop(pytester: pytest.Pytester) -> Path:
    """A project with workflows and their tests."""
    (pytester.path / "flows.py").write_text(FLOWS)
    (pytester.path / "test_shop.py").write_text(TESTS)
    return pytester.path


def files_in(folder: Path) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def plain(names: Any) -> set[str]:
    """Names without the digests of what no file can be called."""
    return {re.sub(r"-[0-9a-f]{8}(\.v-1-[0-9a-f]{8})?\.history|\.history", ".history", name)[:-14] for name in names}


# ---- recording and replay


def test_the_histories_of_passing_tests_are_recorded_and_replayed(shop: Path, session: Any) -> None:
    done = session("--stepwell-record", "golden")
    done.assert_outcomes(passed=6, failed=1)
    done.stdout.fnmatch_lines([f"histories in {shop}/golden: 6 new, 0 changed, 0 same"])
    assert FILES == plain(files_in(shop / "golden"))
    session("golden").assert_outcomes(passed=6)


def test_recording_again_changes_no_byte(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden")
    before = files_in(shop / "golden")
    done = session("--stepwell-record", "golden")
    done.assert_outcomes(passed=6, failed=1)
    done.stdout.fnmatch_lines(["histories in *: 0 new, 0 changed, 6 same"])
    assert before == files_in(shop / "golden")


def test_virtual_time_and_seeded_chance_give_the_same_bytes_anywhere(shop: Path, session: Any) -> None:
    for folder in ("one", "other"):
        session("--stepwell-record", folder, "-k", "shipped or dice or simulated")
    assert files_in(shop / "one") == files_in(shop / "other")
    assert 3 == len(files_in(shop / "one"))


def test_a_failed_test_shows_how_commands_differ_and_what_was_simulated(shop: Path, session: Any) -> None:
    (shop / "test_fails.py").write_text(
        """
from flows import order, reserve, ship
from stepwell import Step
from stepwell.testing import replay, returned, simulate

def test_the_next_command():
    assert replay(order, "tea", history=[]).next == Step(reserve, "coffee")

def test_the_end():
    fakes = {reserve: "done", ship: "sent"}
    assert simulate(order, "vase", fakes={reserve: "x", ship: "y"}, signals={}).status == "suspended"
    assert simulate(order, "tea", fakes=fakes).status == "completed"
"""
    )
    done = session("test_fails.py")
    done.assert_outcomes(failed=2)
    text = done.stdout.str()
    assert [] == [part for part in ("args", "'tea'", "'coffee'", "reserve('tea')") if part not in text]
    assert 1 == text.count("stepwell: what happened in the last simulation")
    assert "vase" not in text.partition("what happened in the last simulation")[2]


@pytest.mark.parametrize("order", [("-n", "2"), ("-n", "2", "--dist", "each"), ("-p", "shuffled")])
def test_it_is_the_same_with_workers_and_in_any_order(shop: Path, session: Any, order: tuple[str, ...]) -> None:
    (shop / "shuffled.py").write_text(
        "import random\ndef pytest_collection_modifyitems(items):\n    random.Random(7).shuffle(items)\n"
    )
    session("--stepwell-record", "golden")
    before = files_in(shop / "golden")
    done = session("--stepwell-record", "golden", *order)
    times = 2 if "each" in order else 1
    done.assert_outcomes(passed=6 * times, failed=times)
    done.stdout.fnmatch_lines([f"histories in *: 0 new, 0 changed, {6 * times} same"])
    assert before == files_in(shop / "golden")


def test_workers_write_the_files_that_one_process_writes(shop: Path, session: Any) -> None:
    session("--stepwell-record", "one", "-n", "2").stdout.fnmatch_lines(["histories in *: 6 new, *"])
    session("--stepwell-record", "other")
    assert files_in(shop / "one").keys() == files_in(shop / "other").keys()


def test_changed_code_shows_what_does_not_fit_and_what_mends_it(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden", "-k", "shipped")
    (shop / "flows.py").write_text(
        FLOWS.replace("yield Suspend(paid)", "yield Step(ship, 'x')\n    yield Suspend(paid)")
    )
    done = session("golden")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*history test_shipped.o1.history.jsonl*",
            "run 'o1', event 4 at 2: the workflow asks for something else than is recorded (*'order', version 1)",
            "  recorded   suspend 'paid'",
            "  yielded    step 'ship'   (flows.py:*, in order)",
            "  left over  4 recorded events from there on",
            "    4 suspend 'paid'",
            "  mend by    Patched: *",
            "  or by      version: *",
            "  or by      fork: *",
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")


def test_changed_inputs_show_both_values(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden", "-k", "shipped")
    (shop / "flows.py").write_text(FLOWS.replace("yield Step(reserve, item)", "yield Step(reserve, item.upper())"))
    done = session("golden")
    done.stdout.fnmatch_lines(['    recorded ?"teapot"?  (digest *', '    yielded  ?"TEAPOT"?  (digest *'])


def test_a_failed_test_leaves_its_file_as_it_is(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden", "-k", "shipped")
    before = files_in(shop / "golden")
    (shop / "flows.py").write_text(FLOWS.replace("on its way", "lost"))
    session("--stepwell-record", "golden", "-k", "shipped").assert_outcomes(failed=1)
    assert before == files_in(shop / "golden")


def test_what_can_not_be_replayed_by_itself_is_said_and_not_written(pytester: pytest.Pytester, session: Any) -> None:
    pytester.makepyfile(
        """
        import random
        import pytest
        from stepwell import Flow, Step, Suspend, workflow

        @workflow
        def gambles() -> Flow[str]:
            yield Step(str, random.random()).options(into=str)
            yield Suspend("x")

        def test_inner(stepwell_engine):
            @workflow
            def inner() -> Flow[str]:
                yield Suspend("x")
            stepwell_engine().start(inner, run_id="a")

        def test_chance(stepwell_engine):
            stepwell_engine().start(gambles, run_id="b")

        @pytest.mark.stepwell(record=False)
        def test_left_out(stepwell_engine):
            stepwell_engine().start(gambles, run_id="c")
        """
    )
    done = session("--stepwell-record", "golden")
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(
        [
            "histories in *: 0 new, 0 changed, 0 same",
            "not recorded: *::test_inner, run a: workflow 'inner' has no name in *",
            "not recorded: *::test_chance, run b: the code of the test itself does not fit it: *other inputs*",
        ]
    )
    assert not (pytester.path / "golden").exists()


def test_what_a_run_went_on_with_as_new_is_recorded_and_compared(pytester: pytest.Pytester, session: Any) -> None:
    flow = """
        from stepwell import ContinueAsNew, Flow, workflow

        @workflow
        def count(number: int) -> Flow[int]:
            if number < 3:
                yield ContinueAsNew(number + 1)
            return number
        """
    pytester.makepyfile(counting=flow)
    pytester.makepyfile(
        """
        from counting import count

        def test_counts(stepwell_engine):
            assert 3 == stepwell_engine().start(count, 1, run_id="c").unwrap()
        """
    )
    session("--stepwell-record", "golden").assert_outcomes(passed=1)
    session("golden").assert_outcomes(passed=3)
    pytester.makepyfile(counting=flow.replace("number + 1", "number + 2"))
    done = session("golden")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*recorded * going on as new with ?2?", "*yielded * going on as new with ?3?"])


def test_a_history_from_production_needs_the_app(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden", "-k", "shipped")
    (file,) = (shop / "golden").rglob("*.jsonl")
    file.write_bytes(b"".join(line + b"\n" for line in file.read_bytes().splitlines() if b"stepwell" not in line))
    done = session("golden")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*name an engine that knows it: stepwell_app = module:engine*"])
    (shop / "app.py").write_text("from flows import *\nengine = Engine('memory:', workflows=[order])\n")
    session("golden", "--stepwell-app", "app:engine").assert_outcomes(passed=1)
    (shop / "pytest.ini").write_text("[pytest]\nstepwell_app = app:engine\n")
    session("golden").assert_outcomes(passed=1)
    done = session("golden", "--stepwell-app", "app:missing")
    done.stdout.fnmatch_lines(["*APP: --stepwell-app app:missing: module 'app' has no 'missing'"])


def test_a_damaged_file_fails_with_its_place(shop: Path, session: Any) -> None:
    (shop / "bad.history.jsonl").write_text("{}\n")
    done = session("bad.history.jsonl")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"CORRUPT_HISTORY: {shop}/bad.history.jsonl, line 1: not a history record*"])


def test_histories_can_be_left_alone(shop: Path, session: Any) -> None:
    session("--stepwell-record", "golden", "-k", "shipped")
    (shop / "pytest.ini").write_text("[pytest]\nstepwell_histories = false\n")
    assert 5 == session("golden").ret  # nothing is collected


# ---- fixtures


def test_fixtures_give_virtual_time_and_engines_on_one_store(pytester: pytest.Pytester, session: Any) -> None:
    pytester.makepyfile(
        """
        from datetime import UTC, datetime, timedelta
        import pytest
        from flows import dice, order, paid
        from stepwell import ClosedError, InvalidInputError

        made = []

        def test_time_stands_still_until_it_is_moved(stepwell_engine, stepwell_clock):
            engine = stepwell_engine(order)
            began = stepwell_clock.now()
            assert began == datetime(2026, 1, 1, tzinfo=UTC) == stepwell_engine.clock.now()
            assert engine.start(order, "teapot", run_id="o").status == "suspended"
            assert stepwell_clock.now() == began
            assert stepwell_engine.pass_time(timedelta(hours=23)) == []
            assert stepwell_engine.pass_time(3600)[0].waiting_for == ("paid",)
            assert stepwell_clock.now() == began + timedelta(days=1)
            made.append(engine)

        def test_engines_are_closed_with_their_test():
            with pytest.raises(ClosedError):
                made[0].get("o")

        def test_another_engine_has_the_same_runs(stepwell_engine):
            with stepwell_engine(order) as first:
                first.start(order, "teapot", run_id="o")
            second = stepwell_engine(order)
            assert second.get("o").status == "suspended"
            assert second.store.durability.settings["store"] == EXPECTED

        def test_the_runs_of_another_test_are_not_there(stepwell_engine):
            assert stepwell_engine().runs() == []

        def test_chance_is_the_same_each_time(stepwell_engine):
            made.append(stepwell_engine(dice).start(dice).unwrap())
            assert made[1] == DICE if len(made) > 2 else True

        @pytest.mark.stepwell(seed=7, start=datetime(2030, 5, 1, tzinfo=UTC))
        def test_a_marker_says_otherwise(stepwell_engine, stepwell_clock):
            assert stepwell_clock.now().year == 2030
            assert stepwell_engine(dice).start(dice).unwrap() != made[-1]

        @pytest.mark.stepwell(store="sqlite")
        class TestOnSqlite:
            def test_a_class_may_have_a_store(self, stepwell_engine, tmp_path):
                stepwell_engine(order).start(order, "vase")
                assert (tmp_path / "runs.db").exists()

            @pytest.mark.stepwell(store="file")
            def test_the_nearest_marker_counts(self, stepwell_engine, tmp_path):
                stepwell_engine(order).start(order, "vase")
                assert (tmp_path / "runs").is_dir()

        def test_the_environment_is_the_fixtures_own(stepwell_engine):
            with pytest.raises(InvalidInputError, match="virtual time"):
                stepwell_engine(order, clock=None)
            with pytest.raises(InvalidInputError, match="make an engine first"):
                stepwell_engine.pass_time(1)
        """
    )
    (pytester.path / "flows.py").write_text(FLOWS)
    source = next(pytester.path.glob("test_*.py"))
    text = source.read_text()
    for arguments, kind in (((), "memory"), (("--stepwell-store", "sqlite"), "sqlite")):
        source.write_text(text.replace("EXPECTED", repr(kind)))
        session(*arguments).assert_outcomes(passed=9)
    source.write_text(text.replace("EXPECTED", "'jsonl'"))
    (pytester.path / "pytest.ini").write_text("[pytest]\nstepwell_store = file:{tmp}/kept\n")
    session().assert_outcomes(passed=9)


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ("colour='red'", "*takes record, seed, start, store, and got colour*"),
        ("3", "*takes record, seed, start, store, and got 3*"),
        ("store='oracle'", "*no store for this test: not a store URL: 'oracle'*or one of: memory, sqlite, file*"),
        ("start=5", "*takes an aware datetime, got 5*"),
    ],
)
def test_a_wrong_marker_is_told(pytester: pytest.Pytester, session: Any, marker: str, text: str) -> None:
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.stepwell({marker})\ndef test_it(stepwell_engine):\n    stepwell_engine()\n"
    )
    done = session()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([text])


def test_the_options_and_the_marker_are_in_the_help(session: Any) -> None:
    done = session("--help")
    done.stdout.fnmatch_lines(["stepwell: durable workflows:", "*--stepwell-record=DIR*", "*stepwell_histories*"])
    session("--markers").stdout.fnmatch_lines(["@pytest.mark.stepwell(*"])


# ---- what it costs


def test_a_session_that_uses_nothing_of_it_does_not_import_the_engine(pytester: pytest.Pytester, session: Any) -> None:
    pytester.makepyfile(
        """
        import sys
        import pytest

        def test_nothing_is_imported():
            with pytest.raises(AssertionError):
                assert [1] == [2]
            assert "stepwell_pytest" in sys.modules
            assert [name for name in sys.modules if name.partition(".")[0] in ("stepwell", "stepwell_stores")] == []
            assert not {"msgspec", "cattrs", "sqlite3"} & set(sys.modules)
        """
    )
    session().assert_outcomes(passed=1)
    done = pytester.run(
        *(sys.executable, "-X", "importtime", "-m", "pytest", "--co", "-q", "-p", "no:cacheprovider"),
        *(() if is_installed() else ("-p", "stepwell_pytest")),
    )
    imported = {line.rpartition("|")[2].strip() for line in done.errlines if line.startswith("import time:")}
    assert {"pytest", "argparse"} <= imported
    assert set() == {name for name in imported if name.startswith("stepwell")} - {"stepwell_pytest"}


def test_the_reference_has_every_option_setting_and_fixture(pytester: pytest.Pytester, session: Any) -> None:
    page = (ROOT / "docs" / "reference" / "pytest.md").read_text("utf-8")
    told = session("--help").stdout.str() + session("--fixtures").stdout.str()
    names = set(re.findall(r"--stepwell-\w+|\bstepwell_(?:app|store|histories|engine|clock)\b", told))
    assert {"--stepwell-record", "--stepwell-app", "--stepwell-store", "stepwell_engine", "stepwell_clock"} <= names
    assert [] == [name for name in names if f"`{name}" not in page]

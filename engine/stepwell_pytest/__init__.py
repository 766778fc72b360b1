"""The pytest plugin of stepwell: fixtures, recorded histories as tests, and differences of commands in words.

pytest loads a plugin in every session, whether anything in it uses stepwell or not. So this is a package of its own
that imports nothing of the library: what is behind each hook lies in `stepwell.testing` and is imported when a fixture
is asked for, a history file is met, or an option is given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell.testing import VirtualClock
    from stepwell.testing.pytest_fixtures import EngineFactory

__all__ = ["stepwell_clock", "stepwell_engine"]

_MARKER = (
    "stepwell(store=None, seed=None, start=None, record=True): how `stepwell_engine` is made for this test: its store "
    "('memory', 'sqlite', 'file' or a URL), the seed of chance, the first virtual instant; record=False: "
    "--stepwell-record leaves it out"
)
_ENDING = ".history.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and settings."""
    group = parser.getgroup("stepwell", "stepwell: durable workflows")
    group.addoption(
        "--stepwell-record",
        metavar="DIR",
        help="write the histories of the runs that passing tests make as *.history.jsonl below DIR",
    )
    group.addoption(
        "--stepwell-app",
        metavar="MODULE:ENGINE",
        help="an engine that knows the workflows of recorded histories (default: the module that a file names)",
    )
    group.addoption(
        "--stepwell-store",
        metavar="STORE",
        help="what `stepwell_engine` keeps runs in: memory, sqlite, file, or a URL; {tmp} in it is the test's folder",
    )
    parser.addini("stepwell_app", "as --stepwell-app")
    parser.addini("stepwell_store", "as --stepwell-store", default="memory")
    parser.addini("stepwell_histories", "collect *.history.jsonl as tests", type="bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and watch engines when histories are to be recorded."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--stepwell-record"):
        from stepwell.testing.pytest_recording import Recording

        config.pluginmanager.register(Recording(config), "stepwell-recording")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take recorded histories as tests, but those that are being written anew."""
    if not file_path.name.endswith(_ENDING) or not parent.config.getini("stepwell_histories"):
        return None
    from stepwell.testing.pytest_histories import HistoryModule, is_recorded_now

    if is_recorded_now(parent.config, file_path):
        return None
    found: pytest.Collector = HistoryModule.from_parent(parent, path=file_path)
    return found


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say in words how two commands or events differ."""
    if op != "==" or "stepwell.command" not in sys.modules:  # then neither of them can be one of ours
        return None
    from stepwell.testing import explain_difference

    return explain_difference(left, right)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Show with a test that fails what happened in the last simulation that it made."""
    if "stepwell.testing" not in sys.modules:  # or there is none
        yield
        return
    from stepwell.testing import traced

    with traced(most=1) as stories:
        outcome: Any = yield
    if outcome.excinfo is not None:
        for story in stories:
            item.add_report_section("call", "stepwell: what happened in the last simulation", str(story))


@pytest.fixture
def stepwell_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """The virtual time of this test's engines: it stands still until it is moved.

    It begins on the first of January 2026, or when the marker says: `@pytest.mark.stepwell(start=...)`.
    """
    from stepwell.testing.pytest_fixtures import clock_of

    return clock_of(request)


@pytest.fixture
def stepwell_engine(request: pytest.FixtureRequest, stepwell_clock: VirtualClock) -> Iterator[EngineFactory]:
    """Makes engines on one store of the test's own, with virtual time and seeded chance; all are closed with the test.

    `stepwell_engine(workflow, ...)` gives an `Engine`; another call gives another engine on the same runs, as another
    process would have. `stepwell_engine.pass_time(duration)` moves the clock on and drives what becomes due.
    """
    from stepwell.testing.pytest_fixtures import factory_for

    with factory_for(request, stepwell_clock) as factory:
        yield factory

"""Behind `pytest --stepwell-record DIR`: the hooks that watch each test and write what its runs came to."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .pytest_histories import recorded_in
from .recording import Recorder, told

__all__ = ["Recording"]

_KEY = "stepwell_recording"


class Recording:
    """A plugin of one session; with several workers each has its own, and the controller sums up.

    Args:
        config: of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        folder = recorded_in(config)
        assert folder is not None
        self._recorder = Recorder(folder)
        self._passed = False
        self._recorder.install()

    def pytest_unconfigure(self) -> None:
        """Let the engines alone again."""
        self._recorder.uninstall()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """A test begins."""
        self._passed = False
        self._recorder.begin()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """See how the test itself ended: a failed one leaves its files as they are."""
        report = yield
        if call.when == "call":
            self._passed = report.passed and not hasattr(report, "wasxfail")
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Read while fixtures are still open, and write once all is over."""
        marks = item.iter_markers("stepwell")
        wanted = self._passed and all(mark.kwargs.get("record", True) for mark in marks)
        if wanted:
            self._recorder.look()
            self._recorder.write(item.nodeid)
        return (yield)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell the controller, if there is one."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = {"written": dict(self._recorder.written), "skipped": [*map(list, self._recorder.skipped)]}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended."""
        output = getattr(node, "workeroutput", {}).get(_KEY)
        if output is not None:
            self._recorder.written.update(output["written"])
            self._recorder.skipped += [(test, run, why) for test, run, why in output["skipped"]]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was written, and what could not be."""
        terminalreporter.section("stepwell")
        for line in told(self._recorder):
            terminalreporter.line(line)

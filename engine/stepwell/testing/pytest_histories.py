"""`*.history.jsonl` as tests of pytest: each is replayed against the code at hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ..cli.opening import load_app, parts_of
from ..errors import StepwellError
from ..loading import Parts
from .history_files import HistoryFile
from .misfits import Misfit

__all__ = ["HistoryItem", "HistoryMisfitError", "HistoryModule", "is_recorded_now", "recorded_in"]


class HistoryMisfitError(AssertionError):
    """A recorded history does not fit the code at hand.

    Attributes:
        misfit: where, and what mends it.
    """

    def __init__(self, misfit: Misfit) -> None:
        super().__init__(str(misfit))
        self.misfit = misfit


class HistoryModule(pytest.File):
    """A file with the history of one run."""

    def collect(self) -> Iterator[pytest.Item]:
        """Give its one test."""
        item: pytest.Item = HistoryItem.from_parent(self, name="replay")
        yield item


class HistoryItem(pytest.Item):
    """The replay of one history."""

    def runtest(self) -> None:
        """Replay it; HistoryMisfitError when it does not fit."""
        file = HistoryFile.read(self.path)
        app = _app(self.config.getoption("--stepwell-app") or self.config.getini("stepwell_app") or "")
        misfit = file.check() if app is None else file.check(app=app.registry, codec=app.codec)
        if misfit is not None:
            raise HistoryMisfitError(misfit)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what does not fit, without a traceback of ours."""
        if isinstance(excinfo.value, HistoryMisfitError):
            return str(excinfo.value)
        if isinstance(excinfo.value, StepwellError):
            return f"{excinfo.value.code}: {excinfo.value.message}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """What stands above the text of a failure."""
        return self.path, None, f"history {self.path.name}"


@cache
def _app(spec: str) -> Parts | None:
    """The parts of the engine that `MODULE:ENGINE` names."""
    return parts_of(load_app(spec, "--stepwell-app")) if spec else None


def recorded_in(config: pytest.Config) -> Path | None:
    """The folder that histories are written to in this session, None when they aren't."""
    folder = config.getoption("--stepwell-record")
    return config.invocation_params.dir.joinpath(folder).resolve() if folder else None


def is_recorded_now(config: pytest.Config, file: Path) -> bool:
    """Whether a file lies where histories are being written."""
    folder = recorded_in(config)
    return folder is not None and file.resolve().is_relative_to(folder)

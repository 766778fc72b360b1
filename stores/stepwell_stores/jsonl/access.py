"""How a run's files are reached: under its lock, mended where that is due, with the system's errors as the port's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from stepwell.errors import ClosedError, StoreUnavailableError
from stepwell.store import NotApplied, Unknown

from ..disk import translated
from ..file_names import encode
from .files import Directory, UnsyncedError, WriteError
from .runs import Run, Runs

__all__ = ["Access"]

T = TypeVar("T")


class Access:
    """The runs of one directory."""

    def __init__(self, files: Directory, runs: Runs) -> None:
        self._files = files
        self._runs = runs
        self._closed = False

    @contextlib.contextmanager
    def opened(self, run_id: str, *, writing: bool = True) -> Iterator[tuple[str, Run | None]]:
        """Hold a run's lock: the stem of its files, and where it stands."""
        stem = encode(run_id)
        with self._translated(), self._files.locked(stem):
            self.check_open()
            yield stem, self._runs.load(stem, writing=writing)

    @contextlib.contextmanager
    def found(self, run_id: str, *, writing: bool = True) -> Iterator[tuple[str, Run | None]]:
        """As `opened`, and says of a run that was moved where it is."""
        with self.opened(run_id, writing=writing) as (stem, run):
            if run is None:
                self._runs.refuse_absent(stem)
            yield stem, run

    def attempt(self, run_id: str, work: Callable[[str, Run | None], T]) -> T | NotApplied | Unknown:
        """Run a write whose failure is an outcome. `work` turns what fails after the write into one by itself."""
        self.check_open()
        stem = encode(run_id)
        try:
            with self._files.locked(stem):
                self.check_open()
                run = self._runs.load(stem, writing=True)
                if run is None:
                    self._runs.refuse_absent(stem)
                try:
                    return work(stem, run)
                except UnsyncedError as e:
                    return Unknown(e)
                except OSError as e:
                    return NotApplied(e)
        except StoreUnavailableError as e:
            return NotApplied(e)
        except (OSError, UnsyncedError, WriteError) as e:
            error = translated(self._files.path, e)
            if isinstance(error, StoreUnavailableError):
                return NotApplied(error)
            raise error from e

    def names(self) -> list[str]:
        """The names of all files."""
        with self._translated():
            self._files.prepare()
            return self._files.names()

    @contextlib.contextmanager
    def locked(self, stem: str) -> Iterator[None]:
        """Hold a run's lock by the stem of its files."""
        with self._translated(), self._files.locked(stem):
            self.check_open()
            yield

    def close(self) -> None:
        """Close the lock files; further use raises ClosedError."""
        self._closed = True
        self._files.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        self.check_open()
        try:
            yield
        except (OSError, UnsyncedError, WriteError) as e:
            raise translated(self._files.path, e) from e

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"the store {self._files.path} is closed")

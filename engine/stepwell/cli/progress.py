"""How far long work has come, on a terminal: a bar when rich is there, else a percentage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

__all__ = ["Progress"]

_SECONDS = 0.1  # between two pictures of the bar


class Progress:
    """Shows a share while it lasts, and leaves nothing behind. Where there is no terminal it shows nothing.

    Args:
        stream: where to; standard error, so that standard output stays what was asked for.
        what: what is being done.
    """

    def __init__(self, stream: TextIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._shown = ""
        self._bar: Any = None
        self._show: Callable[[float, str], None] = lambda _share, _note: None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            with contextlib.suppress(OSError):  # as everywhere here: who closes this stream still wants the other
                self._show = self._rich_bar() or self._percentage
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            if self._bar is not None:
                self._bar.stop()
            elif self._shown:
                self._stream.write("\r" + " " * len(self._shown) + "\r")
                self._stream.flush()

    def show(self, share: float, note: str = "") -> None:
        """Show how much is done, 0 to 1, and a word beside it."""
        with contextlib.suppress(OSError):
            self._show(min(max(share, 0.0), 1.0), note)

    def _percentage(self, share: float, note: str) -> None:
        text = f"{self._what}: {100 * share:3.0f} %" + (f", {note}" if note else "")
        if text != self._shown:
            self._stream.write("\r" + text.ljust(len(self._shown)))
            self._stream.flush()
            self._shown = text

    def _rich_bar(self) -> Callable[[float, str], None] | None:
        """A bar as rich draws it; None without rich."""
        try:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError:
            return None

        class Patient(Console):
            def on_broken_pipe(self) -> None:  # rich would redirect standard output and exit
                self.quiet = True

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        console = Patient(file=self._stream, legacy_windows=False)
        # What is written to standard output must not be taken to this stream.
        bar = Bar(*columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        task = bar.add_task(self._what, total=1.0, note="")
        bar.start()
        self._bar = bar
        shown = time.monotonic()

        def show(share: float, note: str) -> None:
            nonlocal shown
            bar.update(task, completed=share, note=note)
            if time.monotonic() - shown > _SECONDS:
                shown = time.monotonic()
                bar.refresh()

        return show

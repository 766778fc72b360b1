"""Text for people: what is safe to show, colour, and tables."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ..texts import cut, harmless, safe, width

__all__ = ["Terminal", "cut", "safe", "safe_json"]

_STYLES = {
    "heading": "1;36",
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "1;31",
    "wait": "33",
    "busy": "36",
    "off": "35",
}
_RICH = {"good": "green", "bad": "bold red", "wait": "yellow", "busy": "cyan", "off": "magenta", "heading": "bold cyan"}
_STATUS = {
    "completed": "good",
    "failed": "bad",
    "cancelled": "off",
    "suspended": "wait",
    "paused": "wait",
    "running": "busy",
    "pending": "busy",
}
_WRAPPED = {"what", "tags", "step or signal", "updated (UTC)"}  # columns that may take several lines
_UNSAFE_IN_JSON = re.compile(r"[^\x20-\x7e]")


def safe_json(line: str) -> str:
    """The same JSON, with what `safe` would show as an escape written as a JSON escape."""
    return _UNSAFE_IN_JSON.sub(lambda m: m[0] if harmless(m[0]) else json.dumps(m[0])[1:-1], line)


class Terminal:
    """Writes to a stream: colour and fitted tables on a terminal, plain aligned text elsewhere.

    Args:
        stream: where to; looked at once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.tty = stream.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self.colour = self.tty and not plain

    @property
    def columns(self) -> int:
        """Width to fit into; without a terminal there is none to speak of."""
        return shutil.get_terminal_size().columns if self.tty else 10_000

    def write(self, text: str) -> None:
        """Write text and a line break as they are; what the stream's encoding lacks is escaped."""
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    def flush(self) -> None:
        """Bring it to its reader."""
        self._stream.flush()

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line, made safe."""
        self.write(self.styled(text, style))

    def json(self, value: Any) -> None:
        """Write a value as JSON in plain ASCII, indented."""
        self.write(json.dumps(value, indent=2))

    def raw(self, line: bytes) -> None:
        """Write a stored line: byte for byte to a file or pipe, with JSON escapes for what is unsafe to a terminal."""
        buffer = getattr(self._stream, "buffer", None)
        if self.tty or buffer is None:
            self.write(safe_json(line.decode("utf-8", "backslashreplace")))
        else:
            self._stream.flush()
            buffer.write(line + b"\n")

    def styled(self, text: str, style: str = "") -> str:
        """The text made safe, and in colour where there is any."""
        code = _STYLES.get(style)
        return f"\x1b[{code}m{safe(text)}\x1b[0m" if code and self.colour else safe(text)

    def status(self, status: str) -> str:
        """A run's status in its colour."""
        return self.styled(status, _STATUS.get(status, ""))

    def fields(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write names and values, aligned."""
        rows = list(pairs)
        room = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.write(f"{self.styled(name.ljust(room), 'dim')}  {value}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0) -> None:
        """Write a table. A column named "status" is coloured; the last one takes what room is left."""
        cells = [[safe(cell) for cell in row] for row in rows]
        text = self._rich_table(columns, cells, indent) if self.tty else None
        if text is None:
            text = self._plain_table(columns, cells, indent)
        for line in text:
            self.write(line)

    def _plain_table(self, columns: Sequence[str], rows: list[list[str]], indent: int) -> list[str]:
        last = len(columns) - 1
        widths = [max(width(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]
        room = max(12, self.columns - indent - sum(widths[:last]) - 2 * last)
        lines = []
        for row in [[name.upper() for name in columns], *rows]:
            parts = [cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row[:last])]
            parts.append(cut(row[last], room))
            lines.append((" " * indent + "  ".join(parts)).rstrip())
        if self.colour:
            lines[0] = f"\x1b[{_STYLES['dim']}m{lines[0]}\x1b[0m"
        return lines

    def _rich_table(self, columns: Sequence[str], rows: list[list[str]], indent: int) -> list[str] | None:
        """The table as rich sets it; None without rich."""
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
            for name in columns:
                table.add_column(name.upper(), no_wrap=name not in _WRAPPED, overflow="fold")
            for row in rows:
                styles = (
                    _RICH.get(_STATUS.get(cell, ""), "") if name == "status" else ""
                    for name, cell in zip(columns, row, strict=True)
                )
                table.add_row(*map(Text, row, styles))
            out = io.StringIO()
            Console(
                file=out,
                width=max(40, self.columns - indent),
                force_terminal=self.colour,
                no_color=not self.colour,
                legacy_windows=False,
            ).print(table)
            return [" " * indent + line.rstrip() for line in out.getvalue().splitlines()]
        return None

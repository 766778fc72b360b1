"""What is safe to show, and how it is set."""

from __future__ import annotations

import io
import json
import sys

import pytest

from stepwell.cli.terminal import Terminal, cut, safe, safe_json


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Tty()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zoë 佐藤 🦊", "Zoë 佐藤 🦊"),
        ("👩‍💻", "👩‍💻"),
        ("no\xa0break", "no\xa0break"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines\r\tand", "two\\nlines\\r\\tand"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\u2028\u200e\x00", "\\u2028\\u200e\\x00"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_moves_a_terminal_is_shown_as_an_escape(text, shown):
    assert shown == safe(text)


def test_json_stays_the_same_json_when_it_is_made_safe():
    value = {"é🦊": "\u202e\x9b31m \U000e0041 ok"}
    line = safe_json(json.dumps(value, ensure_ascii=False))
    assert line.isprintable()
    assert "é🦊" in line
    assert value == json.loads(line)


@pytest.mark.parametrize(
    ("text", "columns", "short"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("佐藤花子", 5, "佐藤…")]
)
def test_text_is_cut_by_the_columns_that_it_takes(text, columns, short):
    assert short == cut(text, columns)


def test_a_plain_table_is_aligned_whatever_the_script():
    out = io.StringIO()
    Terminal(out).table(("run", "what"), [("佐藤", "a"), ("Zoë\n", "b" * 300)])
    assert ["RUN    WHAT", "佐藤   a", "Zoë\\n  " + "b" * 300] == out.getvalue().splitlines()


def test_a_table_on_a_terminal_fits_and_has_colour(tty):
    Terminal(tty).table(("run", "status", "what"), [("r1", "failed", "word " * 40)])
    text = tty.getvalue()
    assert "\x1b[1;31mfailed\x1b[0m" in text
    assert 3 < len(text.splitlines())


def test_a_terminal_without_rich_cuts_what_does_not_fit(tty, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    Terminal(tty).table(("run", "what"), [("r1", "word " * 40)])
    assert 2 == len(tty.getvalue().splitlines())
    assert tty.getvalue().endswith("…\n")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(tty, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    terminal = Terminal(tty)
    terminal.line("text", "bad")
    terminal.table(("run", "status"), [("r1", "failed")])
    assert "\x1b" not in tty.getvalue()


def test_a_file_has_no_colour():
    out = io.StringIO()
    Terminal(out).line("text", "bad")
    assert "text\n" == out.getvalue()


def test_what_the_encoding_lacks_is_escaped():
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    Terminal(stream).line("Zoë 🦊")
    stream.flush()
    assert b"Zo\\xeb \\U0001f98a\n" == buffer.getvalue()


def test_a_stored_line_goes_to_a_pipe_as_it_is_and_to_a_terminal_as_safe_json(tty):
    line = '{"a":"\u202e\x9b"}'.encode()
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="utf-8")
    Terminal(stream).raw(line)
    assert line + b"\n" == buffer.getvalue()
    Terminal(tty).raw(line)
    assert '{"a":"\\u202e\\u009b"}\n' == tty.getvalue()

"""Pages whose blocks run, each page in a directory and a module of its own, from top to bottom.

| block | what becomes of it |
|---|---|
| `python` | runs in the page's module, and its functions `test_...` are called; `# name.py` in front: written there |
| `pycon` | runs as a doctest in the page's module |
| `console` | lines after `$ ` are run, and what they print is compared; `$ echo $?` shows how the last one ended |
| `text`, `json` | what the block before has printed; `...` stands for anything |
| `sh` | isn't run: set-up lines only, which `test_readme.py` compares with what `.ci/run` runs |

A page that prints what it doesn't show fails, and so does one with a block of another kind.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import stepwell
import stepwell_stores

ROOT = Path(__file__).parents[2]
SOURCES = [str(Path(package.__path__[0]).parent) for package in (stepwell, stepwell_stores)]
"""Where the packages are that are tested: for commands, which run in processes of their own."""

PLUGIN_FOUND = any(one.value == "stepwell_pytest" for one in entry_points(group="pytest11", name="stepwell"))
"""Whether pytest finds the plugin by itself: not in a checkout that isn't installed."""

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LANGUAGES = ("python", "pycon", "console", "text", "json", "sh")
PATIENCE = 60.0
"""Seconds after which a command of a page is sure not to come back."""

_FILE = re.compile(r"# ([\w-]+\.py)\n")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)(.*)$", re.MULTILINE)
_FLAGS = doctest.ELLIPSIS
_checker = doctest.OutputChecker()


def name_of(path: Path) -> str:
    """The path as seen from the project's top."""
    return path.relative_to(ROOT).as_posix()


def languages_of(text: str) -> list[str]:
    """What the opening fences of a page say, in order."""
    return _FENCE.findall(text)[::2]


def blocks_of(path: Path, language: str) -> list[str]:
    """The sources of all blocks of a language."""
    sybil = Sybil([CodeBlockParser(language, lambda example: None)])
    return [str(example.parsed) for example in sybil.parse(path)]


class Runner:
    """Runs one page.

    Args:
        path: the page.
        folder: an empty directory, where its files go.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder / "work"
        self.folder.mkdir()
        self.module = ModuleType(f"page_{re.sub(r'[^a-z0-9]', '_', path.stem.lower())}")
        self.ran = 0
        self._printed: str | None = None
        self._printer = 0
        self._bin = folder / "bin"

    def run(self) -> None:
        """Run every block, in order.

        Raises:
            SybilFailure: a block came to something else than the page says.
        """
        self._make_commands()
        parsers = [CodeBlockParser(language, getattr(self, f"_{language}")) for language in LANGUAGES]
        document: Document = Sybil(parsers).parse(self.path)
        with contextlib.chdir(self.folder), self._importable():
            for example in document.examples():
                if example.region.lexemes["arguments"] not in ("text", "json"):
                    self._all_shown()
                example.evaluate()
                self.ran += 1
        self._all_shown()

    @contextlib.contextmanager
    def _importable(self) -> Iterator[None]:
        """The page's module can be found by name, as the module of its classes; and so can the files that it writes."""
        before = dict(sys.modules)
        sys.modules[self.module.__name__] = self.module
        sys.path.insert(0, str(self.folder))
        try:
            yield
        finally:
            sys.path.remove(str(self.folder))
            for name in {self.module.__name__, *(file.stem for file in self.folder.glob("*.py"))} - before.keys():
                sys.modules.pop(name, None)

    def _all_shown(self) -> None:
        assert not self._printed, (
            f"{self.path}:{self._printer}: the page does not show what this prints:\n{self._printed}"
        )
        self._printed = None

    # ---- kinds of blocks

    def _python(self, example: Example) -> str | None:
        source = str(example.parsed)
        file = _FILE.match(source)
        if file:
            (self.folder / file[1]).write_text(source, "utf-8")
            return None
        before = dict(vars(self.module))
        code = compile("\n" * example.line + source, self.path, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, vars(self.module))
            for name, value in list(vars(self.module).items()):
                if name.startswith("test_") and value is not before.get(name):
                    value()
        self._printed, self._printer = printed.getvalue(), example.line
        return None

    def _pycon(self, example: Example) -> str | None:
        test = doctest.DocTestParser().get_doctest(
            str(example.parsed), dict(vars(self.module)), self.path.name, str(self.path), example.line
        )
        report = io.StringIO()
        failed, _ = doctest.DocTestRunner(optionflags=_FLAGS, verbose=False).run(test, out=report.write)
        return report.getvalue() if failed else None

    def _console(self, example: Example) -> str | None:
        status = 0
        for command, wanted in _commands(str(example.parsed)):
            if command == "echo $?":
                got, status = f"{status}\n", 0
            elif status > 0:
                return f"the command before {command!r} ended with {status}, and the page does not say so"
            else:
                status, got = self._call(command)
            if not _checker.check_output(wanted, got, _FLAGS):
                return f"$ {command}\nexpected:\n{wanted}got:\n{got}"
        return f"the last command ended with {status}, and the page does not say so" if status > 0 else None

    def _text(self, example: Example) -> str | None:
        got, self._printed = self._printed, None
        if got is None:
            return "no block before this one prints anything"
        wanted = str(example.parsed)
        return None if _checker.check_output(wanted, got, _FLAGS) else f"expected:\n{wanted}got:\n{got}"

    _json = _text

    def _sh(self, example: Example) -> None:
        """Not run."""

    # ---- commands

    def _make_commands(self) -> None:
        """`python` and `stepwell` as a shell would find them with this interpreter's environment active."""
        self._bin.mkdir()
        for name, arguments in (("python", ""), ("stepwell", " -m stepwell")):
            script = self._bin / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n', "utf-8")
            script.chmod(0o755)

    def _call(self, command: str) -> tuple[int, str]:
        """Run a command; how it ended and what it printed; no shell, but a leading `NAME=value` is understood."""
        words = shlex.split(command)
        environment: dict[str, Any] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("STEPWELL_", "PYTEST_"))},
            "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(SOURCES),
            "PYTHONWARNINGS": "error",
            "PYTHONUTF8": "1",
            **({} if PLUGIN_FOUND else {"PYTEST_PLUGINS": "stepwell_pytest"}),
        }
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, environment[name] = words.pop(0).partition("=")
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            text=True,
            check=False,
        )
        killed = "Killed\n" if done.returncode == -9 else ""  # what a shell says of it
        return done.returncode, done.stdout + killed


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it is to print."""
    command: str | None = None
    wanted: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield command, "".join(wanted)
            command, wanted = line[2:], []
        else:
            assert command is not None, f"a console block begins with a command, not with {line!r}"
            wanted.append(f"{line}\n")
    assert command is not None, "a console block without a command"
    yield command, "".join(wanted)

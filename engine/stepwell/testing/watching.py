"""Calls that a workflow's own code makes and no history answers: clocks, chance, the environment, I/O.

A clock that is read for its hour gives the same twice, and another answer tomorrow: comparing two replays does not find
it. So the calls themselves are looked at, while a workflow is replayed.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

__all__ = ["watched"]

_MODULES = {
    "time": (
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime"),
        "sleep",
    ),
    "posix": ("urandom", "getpid", "getcwd", "stat", "listdir", "scandir"),
    "nt": ("urandom", "getpid", "getcwd", "stat", "listdir", "scandir"),
    "uuid": ("uuid1", "uuid4"),
    "secrets": ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"),
    "builtins": ("input",),
    "io": ("open",),
    "_io": ("open",),
    "pathlib": (
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "mkdir", "unlink"),
        *("stat", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "cwd", "home"),
    ),
    "genericpath": ("exists", "isfile", "isdir", "getsize", "getmtime"),
    "subprocess": ("run", "call", "check_call", "check_output"),
    "socket": ("create_connection", "gethostname"),
    "urllib.request": ("urlopen",),
    "os": ("getenv",),
}
_SAID = {
    "posix": "os.",
    "nt": "os.",
    "pathlib": "Path.",
    "genericpath": "os.path.",
    "io": "",
    "_io": "",
    "builtins": "",
}
_CHANCE: Any = vars(random)["_inst"]
"""Whose methods the functions of `random` are."""

_CLOCKS = ("now", "utcnow", "today")


@contextmanager
def watched(codes: set[CodeType]) -> Iterator[list[str]]:
    """Note, while this lasts, what the functions of these codes call that no history answers.

    Args:
        codes: of the workflow's own functions; what a library does inside is its business.

    Yields:
        a list that gets a text for each call: what was called, and where.
    """
    found: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            name = _of_builtin(called) if frame.f_code in codes else None
        elif event == "call" and frame.f_back is not None and frame.f_back.f_code in codes:
            name, frame = _of_function(frame), frame.f_back
        else:
            return
        if name is not None:
            file = frame.f_code.co_filename.replace("\\", "/").rpartition("/")[2]
            found.append(f"{name} in {file}:{frame.f_lineno}, in {frame.f_code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _of_builtin(called: Any) -> str | None:
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    if owner is _CHANCE:
        return f"random.{name}()"
    if isinstance(owner, type) and owner.__module__ == "datetime" and name in _CLOCKS:
        return f"{owner.__name__}.{name}()"
    return _known(str(getattr(called, "__module__", None) or getattr(owner, "__name__", "")), name)


def _of_function(frame: FrameType) -> str | None:
    module, name, owner = frame.f_globals.get("__name__", ""), frame.f_code.co_name, frame.f_locals.get("self")
    if owner is _CHANCE or isinstance(owner, random.SystemRandom):
        return f"random.{name}()"
    return "os.environ" if owner is os.environ else _known(module, name)


def _known(module: str, name: str) -> str | None:
    """What is called, when it is of those that no history answers."""
    module = "pathlib" if module.startswith("pathlib.") else module.lstrip("_") if module == "_socket" else module
    return f"{_SAID.get(module, f'{module}.')}{name}()" if name in _MODULES.get(module, ()) else None

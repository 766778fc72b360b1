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
    "time": ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime"),
    "posix": ("urandom", "getpid", "getcwd", "stat", "listdir"),
    "nt": ("urandom", "getpid", "getcwd", "stat", "listdir"),
    "uuid": ("uuid1", "uuid4"),
    "secrets": ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"),
    "_io": ("open",),
    "socket": ("create_connection",),
    "os": ("getenv",),
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
    module = str(getattr(called, "__module__", None) or getattr(owner, "__name__", ""))
    return f"{module.replace('posix', 'os')}.{name}()" if name in _MODULES.get(module, ()) else None


def _of_function(frame: FrameType) -> str | None:
    module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
    if module == "random" and frame.f_locals.get("self") is _CHANCE:
        return f"random.{name}()"
    if module == "os" and frame.f_locals.get("self") is os.environ:
        return "os.environ"
    return f"{module}.{name}()" if name in _MODULES.get(module, ()) else None

"""Faults at single operations on files: what is done in place of the n-th one.

An *observer* is told of every operation before it is done and says what becomes of it. The same observer serves the
functions of `os`, which the JSONL store calls, and SQLite's layer of files (`sqlite_vfs`), so that one count runs
through both.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, TypeAlias

from attrs import define, field, frozen

__all__ = ["GO", "READS", "WRITES", "Action", "Killer", "Observer", "OsFaults", "Point", "die"]


@frozen
class Action:
    """What becomes of an operation.

    Attributes:
        made: False leaves it out.
        part: so many bytes of a write are written; None: all of them.
        code: what the caller is told in place of the truth: an errno or a result code of SQLite's, 0 for success.
        after: called when it is done.
    """

    made: bool = True
    part: int | None = None
    code: int | None = None
    after: Callable[[], object] | None = None


GO = Action()
"""It is done as if nobody watched."""

Observer: TypeAlias = Callable[[str, str, int], Action]
"""Is given the kind of the operation, the path of the file ("" when it isn't known), and how many bytes are written."""

Place: TypeAlias = Literal["before", "middle", "after"]

WRITES = frozenset(
    {"create", "write", "fsync", "fdatasync", "ftruncate", "replace", "unlink", "mkdir", "chmod", "fchmod"}
)
"""The functions of `os` that change files; `create` is `open` with O_CREAT."""

READS = frozenset({"open", "read", "stat", "fstat", "listdir", "lseek", "close"})
"""The others that the stores call."""


def die() -> None:
    """End this process at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@frozen
class Point:
    """Where a process dies.

    Attributes:
        at: number of the operation, from 1; for the middle, of those that write two bytes or more.
        place: before, in the middle of, or after it.
        cut: share of the bytes that are written before a death in the middle; at least one, and never all.
    """

    at: int
    place: Place = "before"
    cut: float = 0.5


@define
class Killer:
    """An observer that kills its process at a point, and counts.

    Attributes:
        point: None only counts.
        tell: called with a word on the place, right before the end.
        operations: how many there were.
        writes: how many of them can be cut in the middle.
    """

    point: Point | None
    tell: Callable[[str], object]
    operations: int = 0
    writes: int = 0

    def __call__(self, kind: str, path: str, size: int) -> Action:
        self.operations += 1
        self.writes += size > 1
        point = self.point
        if point is None:
            return GO
        if point.place == "middle":
            if size < 2 or self.writes != point.at:
                return GO
            self.tell(f"killed in the middle of {kind} {_ending(path)}")
            return Action(part=min(size - 1, max(1, int(size * point.cut))), after=die)
        if self.operations != point.at:
            return GO
        self.tell(f"killed {point.place} {kind} {_ending(path)}")
        if point.place == "before":
            die()
        return Action(after=die)


def _ending(path: str) -> str:
    """What kind of file it is: `jsonl`, `db-wal`, ..."""
    return path.rpartition("/")[2].rpartition(".")[2]


@define
class OsFaults:
    """Puts an observer in front of functions of `os`, in this whole process.

    Args:
        observer: decides.
        kinds: of which operations it is told.

    Example:
        >>> seen = []
        >>> faults = OsFaults(lambda kind, path, size: seen.append(kind) or GO, {"unlink"})
        >>> with faults:
        ...     os.unlink("/no/such/file")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'
        >>> seen
        ['unlink']
    """

    observer: Observer
    kinds: Iterable[str] = WRITES
    counts: Counter[str] = field(factory=Counter)
    _real: dict[str, Any] = field(factory=dict)
    _paths: dict[int, str] = field(factory=dict)

    def __enter__(self) -> Self:
        wanted = frozenset(self.kinds)
        for name in sorted((wanted | {"open"}) - {"create"}):
            real = self._real[name] = getattr(os, name)
            wrapper = self._opening(real, wanted) if name == "open" else self._wrapped(name, real)
            setattr(os, name, wrapper)
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        self._real.clear()

    def _opening(self, real: Callable[..., int], wanted: frozenset[str]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *rest: Any, **how: Any) -> int:
            kind = "create" if flags & os.O_CREAT else "open"
            if kind in wanted:
                fd: int = self._do(kind, str(path), 0, lambda: real(path, flags, *rest, **how))
            else:
                fd = real(path, flags, *rest, **how)
            self._paths[fd] = str(path)
            return fd

        return opened

    def _wrapped(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(fd: int, data: bytes) -> int:
            def done(part: int | None = None) -> int:
                return real(fd, data if part is None else bytes(data)[:part])

            return self._do(kind, self._path(fd), len(data), done)

        def other(*args: Any, **how: Any) -> Any:
            return self._do(kind, self._path(args[0] if args else ""), 0, lambda: real(*args, **how))

        return write if kind == "write" else other

    def _path(self, what: Any) -> str:
        return self._paths.get(what, "") if isinstance(what, int) else str(what)

    def _do(self, kind: str, path: str, size: int, call: Callable[..., Any]) -> Any:
        self.counts[kind] += 1
        action = self.observer(kind, path, size)
        # A descriptor whose close fails is closed all the same.
        made = action.made or kind == "close"
        result: Any = size if kind == "write" else None
        try:
            if made:
                result = call() if action.part is None else call(action.part)
        finally:  # a file that was not there to be removed is the end of an operation too
            if action.after is not None:
                action.after()
        if action.code:
            raise OSError(action.code, os.strerror(action.code), path or None)
        return result

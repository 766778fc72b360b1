"""Faults under SQLite: a layer of files that hands everything on to the default one, and asks an observer first.

The `sqlite3` module of the standard library can't be given such a layer, but the library behind it can: the same one
that the module has loaded is called here by ctypes. A copy of the default layer becomes the default; its `xOpen` calls
the real one and then puts a copy of the file's table of methods in the place of the real table.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import Any

from attrs import define, field

from .faults import Action, Observer

__all__ = ["CHANGES", "LOOKS", "Vfs", "install", "missing"]

CHANGES = frozenset({"open", "write", "sync", "truncate", "delete"})
"""Operations that change files, or can."""

LOOKS = frozenset({"read", "lock", "shmlock", "shmmap"})
"""The others whose failure SQLite has to cope with."""

_IOERR = 10
_SHM_UNLOCK = 1
_made: list[Any] = []  # for ever: a connection that nobody closed may still call it
_X_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_X_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_X_TRANSFER = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_X_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_X_FLAGS = CFUNCTYPE(c_int, c_void_p, c_int)
_X_SHM_LOCK = CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int)
_X_SHM_MAP = CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p)

_METHODS = {
    "read": ("xRead", _X_TRANSFER, 2),
    "write": ("xWrite", _X_TRANSFER, 2),
    "truncate": ("xTruncate", _X_TRUNCATE, None),
    "sync": ("xSync", _X_FLAGS, None),
    "lock": ("xLock", _X_FLAGS, None),
    "shmmap": ("xShmMap", _X_SHM_MAP, None),
    "shmlock": ("xShmLock", _X_SHM_LOCK, None),
}
"""By operation: the method, its type, and which argument is the number of bytes."""


class _VfsStruct(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        *((name, c_void_p) for name in ("xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError")),
        *((name, c_void_p) for name in ("xDlSym", "xDlClose", "xRandomness", "xSleep", "xCurrentTime")),
        *((name, c_void_p) for name in ("xGetLastError", "xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall")),
        ("xNextSystemCall", c_void_p),
    )


class _IoMethods(Structure):
    _fields_ = (
        ("iVersion", c_int),
        *((name, c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock")),
        *((name, c_void_p) for name in ("xUnlock", "xCheckReservedLock", "xFileControl", "xSectorSize")),
        *((name, c_void_p) for name in ("xDeviceCharacteristics", "xShmMap", "xShmLock", "xShmBarrier", "xShmUnmap")),
        *((name, c_void_p) for name in ("xFetch", "xUnfetch")),
    )


class _File(Structure):
    _fields_ = (("pMethods", POINTER(_IoMethods)),)


def _library() -> Any:
    """The SQLite that the `sqlite3` module uses: looked up among the libraries that the module itself has loaded."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = POINTER(_VfsStruct)
    library.sqlite3_vfs_find.argtypes = (c_char_p,)
    library.sqlite3_vfs_register.argtypes = (POINTER(_VfsStruct), c_int)
    library.sqlite3_vfs_unregister.argtypes = (POINTER(_VfsStruct),)
    return library


def missing() -> str | None:
    """Why the layer can't be put in here; None when it can."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} has another sqlite3 module"
    try:
        _library()
    except (OSError, AttributeError) as error:
        return f"the sqlite3 module of this Python hides its SQLite: {error}"
    return None


@define(eq=False)
class Vfs:
    """The layer, as long as it is the default one.

    Attributes:
        observer: decides; is given paths as SQLite does, in full.
        kinds: operations that it is told of; the others cost nothing.
        counts: how often each was asked for, by (kind, ending of the file's name), such as ("sync", "-wal").
        trouble: what was raised in the layer itself, which SQLite is told as an error of the disk.
    """

    observer: Observer
    kinds: Collection[str]
    counts: Counter[tuple[str, str]] = field(factory=Counter)
    trouble: list[BaseException] = field(factory=list)
    _kept: list[Any] = field(factory=list)  # SQLite has their addresses
    _tables: dict[int, Any] = field(factory=dict)
    _making: threading.Lock = field(factory=threading.Lock)
    _paths: dict[int, str] = field(factory=dict)

    def put_in(self, library: Any) -> Callable[[], None]:
        """Become the default; gives what undoes it."""
        real = library.sqlite3_vfs_find(None)
        own = _VfsStruct()
        ctypes.memmove(ctypes.byref(own), real, ctypes.sizeof(_VfsStruct))
        own.zName = b"stepwell-faults"
        self._kept += [real, own]
        own.xOpen = self._keep(_X_OPEN(self._opening(real, _X_OPEN(real.contents.xOpen))))
        if "delete" in self.kinds:
            own.xDelete = self._keep(_X_DELETE(self._deleting(real, _X_DELETE(real.contents.xDelete))))
        library.sqlite3_vfs_register(ctypes.byref(own), 1)

        def take_out() -> None:
            library.sqlite3_vfs_register(real, 1)
            library.sqlite3_vfs_unregister(ctypes.byref(own))

        return take_out

    def _keep(self, function: Any) -> int | None:
        self._kept.append(function)
        return ctypes.cast(function, c_void_p).value

    def _opening(self, real: Any, call: Any) -> Callable[..., int]:
        place = ctypes.cast(real, c_void_p).value

        def x_open(_vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
            path = ctypes.string_at(name).decode() if name else ""
            # By address: SQLite reads on behind the end of the name, where it keeps the parameters of a URI.
            done = self._do("open", path, 0, lambda: call(place, name, file, flags, out))
            methods = _File.from_address(file)
            if done == 0 and methods.pMethods:
                methods.pMethods = self._table(methods.pMethods)
                self._paths[file] = path
            return done

        return x_open

    def _deleting(self, real: Any, call: Any) -> Callable[..., int]:
        place = ctypes.cast(real, c_void_p).value

        def x_delete(_vfs: int, name: bytes, sync: int) -> int:
            return self._do("delete", name.decode(), 0, lambda: call(place, name, sync))

        return x_delete

    def _table(self, real: Any) -> Any:
        """The copy of a table of methods with the watched ones replaced; one copy for each real table."""
        address = ctypes.addressof(real.contents)
        with self._making:  # a second copy would be collected while SQLite uses it
            if address not in self._tables:
                own = _IoMethods()
                size = ctypes.sizeof(_IoMethods) if real.contents.iVersion >= 3 else _IoMethods.xFetch.offset
                ctypes.memmove(ctypes.byref(own), real, size)
                for kind, (method, made, size_at) in _METHODS.items():
                    function = getattr(real.contents, method) if kind in self.kinds else None
                    if function:
                        setattr(own, method, self._keep(made(self._method(kind, made(function), size_at))))
                self._tables[address] = ctypes.pointer(own)
            return self._tables[address]

    def _method(self, kind: str, call: Any, size_at: int | None) -> Callable[..., int]:
        def method(file: int, *args: Any) -> int:
            if kind == "shmlock" and args[2] & _SHM_UNLOCK:
                return int(call(file, *args))  # no system refuses that
            size = 0 if size_at is None else args[size_at - 1]

            def done(part: int | None = None) -> int:
                if part is None:
                    return int(call(file, *args))
                return int(call(file, args[0], part, *args[2:]))

            return self._do(kind, self._paths.get(file, ""), size if kind == "write" else 0, done)

        return method

    def _do(self, kind: str, path: str, size: int, call: Callable[..., int]) -> int:
        if kind not in self.kinds:
            return call()
        try:
            self.counts[kind, _ending(path)] += 1
            action: Action = self.observer(kind, path, size)
            result = 0
            if action.made:
                result = call() if action.part is None else call(action.part)
            if action.after is not None:
                action.after()
            return result if action.code is None else action.code
        except BaseException as error:  # it must not fly through SQLite's own frames
            self.trouble.append(error)
            return _IOERR


def _ending(path: str) -> str:
    return next((end for end in ("-wal", "-journal", "-shm") if path.endswith(end)), "")


@contextlib.contextmanager
def install(observer: Observer, kinds: Collection[str] = CHANGES) -> Iterator[Vfs]:
    """Have an observer asked about the file operations of every connection that is opened meanwhile.

    A connection that was opened under it goes on asking when it has ended.

    Raises:
        OSError: the library is not to be had; `missing` says why.
    """
    vfs = Vfs(observer, kinds)
    _made.append(vfs)
    take_out = vfs.put_in(_library())
    try:
        yield vfs
    finally:
        take_out()

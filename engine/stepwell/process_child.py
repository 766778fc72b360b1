"""What runs in the process of a step: it is told what to call, calls it, and tells what came of it. Floor 4.

The two processes talk over a pair of sockets: JSON objects, each after its length. What the child is told to call comes
from the live function of its parent, never from a store; arguments and result pass as the JSON that would be recorded.

SIGTERM means that nobody wants the result any more: `Cancelled` is raised in the step, so that its `finally` clauses
run; who takes longer than `GRACE` is killed. When the parent is gone, the child ends itself, and all that it started.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .codec import Codec, argument_types, return_annotation
from .errors import Cancelled, Failure, StepwellError
from .failures import failure_of
from .performers import StepContext, running

__all__ = ["GRACE", "LENGTH", "Beat", "Began", "Raised", "Request", "Returned", "Said", "main", "read_said"]

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

LENGTH = 4
"""Bytes of the length before each message."""

_POLL = 1000  # milliseconds between two looks whether the parent is there: a fork of it may hold its socket open


class Request(msgspec.Struct):
    """What to call, and for which attempt.

    Attributes:
        into: whether the parent knows the type of the result better than the function.
        details: what an earlier attempt told last.
    """

    module: str
    name: str
    args: list[Raw]
    kwargs: dict[str, Raw]
    into: bool
    run_id: str
    step_id: str
    attempt: int
    key: tuple[str, str, str]
    max_bytes: int
    max_depth: int
    details: Raw | UnsetType = UNSET


_read_request = msgspec.json.Decoder(Request).decode


class Began(msgspec.Struct, tag="began"):
    """The function is about to be called."""


class Beat(msgspec.Struct, tag="beat"):
    """A sign of life."""

    details: Raw | UnsetType = UNSET


class Returned(msgspec.Struct, tag="returned"):
    """The result, as it is recorded."""

    result: Raw


class Raised(msgspec.Struct, tag="raised"):
    """How it failed; `gave_up` when that is because it was told that nobody wants it."""

    types: tuple[str, ...]
    message: str
    code: str | None
    where: str
    retryable: bool
    gave_up: bool
    trace: str


Said: TypeAlias = Began | Beat | Returned | Raised
read_said = msgspec.json.Decoder(Said).decode
"""What a child says."""


class Child:
    """This process, as the host of its one step.

    Args:
        link: the socket to the parent.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._parent = os.getppid()
        self._lock = threading.RLock()  # the handler of a signal may beat while a beat is sent
        self._request: Request | None = None
        self._context: StepContext | None = None
        self._told = False
        self._runs = False

    # ---- what the step's context asks

    def beat(self, context: StepContext, details: bytes | None) -> None:  # noqa: ARG002 - there is one step here
        """Tell the parent."""
        self._say(Beat(UNSET if details is None else Raw(details)))

    def details_before(self, context: StepContext) -> bytes | None:  # noqa: ARG002
        """What came with the request."""
        details = UNSET if self._request is None else self._request.details
        return None if details is UNSET else bytes(details)

    # ---- the call

    def serve(self) -> None:
        """Take the request, call the function, and say what came of it."""
        signal.signal(signal.SIGTERM, self._end)
        header = _read(self._link, LENGTH)
        raw = b"" if header is None else _read(self._link, int.from_bytes(header, "big"))
        if not raw:
            return
        request = self._request = _read_request(raw)
        self._context = StepContext(request.run_id, request.step_id, request.attempt, request.key, self)
        threading.Thread(target=self._mind_parent, name="stepwell-parent", daemon=True).start()
        try:
            said: Said = Returned(Raw(self._call(request, self._context)))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - it is told
            said = _raised(error, gave_up=self._told and isinstance(error, Cancelled))
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        self._say(said)

    def _call(self, request: Request, context: StepContext) -> bytes:
        codec = Codec(max_bytes=request.max_bytes, max_depth=request.max_depth)
        self._runs = True
        try:
            if self._told:
                raise Cancelled
            fn: Any = import_module(request.module)
            for part in request.name.split("."):
                fn = getattr(fn, part)
            types = argument_types(fn)
            args = [codec.decode(raw, types(i)) for i, raw in enumerate(request.args)]
            kwargs = {name: codec.decode(raw, types(name)) for name, raw in request.kwargs.items()}
            self._say(Began())
            value = running(context, lambda: _awaited(fn(*args, **kwargs)))
        finally:
            self._runs = False
        return codec._loose(value) if request.into else codec.encode(value, return_annotation(fn))

    # ---- being ended

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM: the first one is raised in the step, which may clean up."""
        first, self._told = not self._told, True
        if self._context is None:
            os._exit(128 + signal.SIGTERM)
        self._context.cancel()
        if first and self._runs:
            raise Cancelled

    def _mind_parent(self) -> None:
        """Wait until the parent is gone, then end this process and whatever it has started."""
        ready = select.poll()
        ready.register(self._link, select.POLLIN | select.POLLHUP)
        while os.getppid() == self._parent:
            if ready.poll(_POLL) and not _peeked(self._link):
                break
        os.killpg(0, signal.SIGTERM)
        threading.Event().wait(GRACE)
        os.killpg(0, signal.SIGKILL)

    def _say(self, said: Said) -> None:
        raw = msgspec.json.encode(said)
        with self._lock, suppress(OSError):  # the parent is gone, and so is this process soon
            self._link.sendall(len(raw).to_bytes(LENGTH, "big") + raw)


def _awaited(value: Any) -> Any:
    """The value, or what comes of it on an event loop of its own."""
    import inspect

    if not inspect.isawaitable(value):
        return value
    import asyncio

    async def awaited() -> Any:
        return await value

    return asyncio.run(awaited())


def _raised(error: BaseException, *, gave_up: bool) -> Raised:
    """What is told of a failure."""
    import traceback

    failure: Failure = failure_of(error)
    retryable = isinstance(error, Exception) and not (isinstance(error, StepwellError) and not error.retryable)
    trace = "".join(traceback.format_exception(error))[-10_000:].encode("utf-8", "replace").decode()
    return Raised(failure.types, failure.message, failure.code, failure.where, retryable, gave_up, trace)


def _peeked(link: socket.socket) -> bytes:
    """What the parent has said; it says nothing more, so this is its end."""
    try:
        return link.recv(1, socket.MSG_PEEK)
    except OSError:
        return b""


def _read(link: socket.socket, count: int) -> bytes | None:
    """So many bytes; None when the other side is gone before."""
    found = bytearray()
    while len(found) < count:
        more = link.recv(count - len(found))
        if not more:
            return None
        found += more
    return bytes(found)


def messages(buffer: bytearray) -> Iterator[bytes]:
    """Take whole messages out of what was received."""
    while len(buffer) >= LENGTH and len(buffer) >= (end := LENGTH + int.from_bytes(buffer[:LENGTH], "big")):
        yield bytes(buffer[LENGTH:end])
        del buffer[:end]


def main(descriptor: int) -> None:
    """Serve the parent at the other end of this socket."""
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)  # what the step starts must not hold it open
    try:
        Child(link).serve()
    finally:
        link.detach()  # it stays open until the process is gone

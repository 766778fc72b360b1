"""Steps in processes of their own, which can be ended whatever they do. Floor 4.

The child is a fresh interpreter, not a fork, and leads a process group of its own: what it starts is ended with it. A
thread listens to it, and ends it when nobody wants the result any more: SIGTERM, which lets the step clean up, and
`GRACE` seconds later SIGKILL. When this process dies, the child sees its socket closed and ends itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw

from . import process_child as child
from .codec import Codec, argument_types
from .commands import UNSET, Step
from .errors import Cancelled, CodecError, Failure, InvalidInputError, StepProcessError
from .failures import ToldError
from .performers import NoThreadError, StepContext
from .results import Form
from .steps import wrong_for_process

__all__ = ["STARTING", "StepProcess"]

STARTING = 60.0
"""Seconds that a process may take until it calls the function: an interpreter is started, and modules are imported."""

_POLL = 0.1
"""Seconds between two looks at a child that says nothing."""

_SOON = 0.005
"""Seconds between two looks at a child that is ending."""

_CODE = "import sys; sys.path[:] = {path!r}; from stepwell.process_child import main; main({descriptor})"


class StepProcess:
    """One attempt in a process of its own.

    Args:
        step: what to call; its arguments go over as the JSON that they would be recorded as.
        context: of this attempt; its `cancel` ends the process.
        form: how the result is read.
        codec: the engine's.
        details: what an earlier attempt told last, as JSON.
        began: called, in another thread, when the process is about to call the function.

    Raises:
        InvalidInputError: a process can't be told what to call, or an argument is no JSON by its annotation.
    """

    def __init__(
        self,
        step: Step[Any],
        context: StepContext,
        form: Form,
        codec: Codec,
        details: bytes | None,
        began: Callable[[], None],
    ) -> None:
        self._began = began
        self._request = msgspec.json.encode(_request(step, context, codec, details))
        self._step_id = context.step_id
        self._context = context
        self._form = form
        self._lock = threading.Lock()
        self._over = False
        self._kill_at: float | None = None  # by time.monotonic
        self._future: Future[Any] = Future()

    def start(self) -> Future[Any]:
        """Start the process and the thread that listens to it; the future is its end.

        Raises:
            NoThreadError: there is no process to be had now; the step was not begun.
        """
        try:
            link, theirs = socket.socketpair()
        except OSError as error:
            raise NoThreadError(str(error)) from error
        path = [entry for entry in sys.path if isinstance(entry, str)]
        options: list[str] = getattr(
            subprocess, "_args_from_interpreter_flags", list
        )()  # -W, -X and the like: as our own
        code = _CODE.format(path=path, descriptor=theirs.fileno())
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with code of ours
                    [sys.executable, *options, "-c", code],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
        except (OSError, ValueError) as error:
            link.close()
            raise NoThreadError(f"no process for a step: {error}") from error
        self._link = link
        self._future.set_running_or_notify_cancel()
        try:
            threading.Thread(target=self._mind, name=f"stepwell-{self._step_id}", daemon=True).start()
        except BaseException as error:
            self._signal(signal.SIGKILL)
            self._process.wait()
            link.close()
            if isinstance(error, RuntimeError):
                raise NoThreadError(str(error)) from error
            raise
        self._context.when_cancelled(self)
        return self._future

    def set(self) -> None:
        """Nobody wants the result any more: end the process. Called by the context, from any thread."""
        with self._lock:
            if self._over or self._kill_at is not None:
                return
            self._kill_at = time.monotonic() + child.GRACE
        self._signal(signal.SIGTERM)

    # ---- its thread

    def _mind(self) -> None:
        """Listen to the child until it is gone."""
        try:
            with self._link:
                end = self._listen()
                if self._kill_at is not None:  # no other attempt begins before it is gone
                    self._wait_for_exit()
                self._tell(end)
                self._wait_for_exit()
        except BaseException as error:  # noqa: BLE001 - the future's reader decides
            if not self._future.done():
                self._future.set_exception(error)
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _listen(self) -> child.Returned | child.Raised | None:
        """What the child says in the end; None when it is gone without a word."""
        self._link.settimeout(_POLL)
        with suppress(OSError):  # it may be gone already
            self._link.sendall(len(self._request).to_bytes(child.LENGTH, "big") + self._request)
        buffer, gone = bytearray(), False
        while True:
            try:
                more = self._link.recv(1 << 16)
            except TimeoutError:
                if gone:
                    return None
                gone = self._is_gone()  # what it has said last is read all the same
                continue
            except OSError:
                return None
            if not more:
                return None
            buffer += more
            for raw in child.messages(buffer):
                said: child.Said = child.read_said(raw)
                if isinstance(said, child.Began):
                    self._began()
                elif isinstance(said, child.Beat):
                    self._beat(said)
                else:
                    return said

    def _beat(self, said: child.Beat) -> None:
        host = self._context._host
        if host is not None:
            host.beat(self._context, None if said.details is msgspec.UNSET else bytes(said.details))

    def _tell(self, said: child.Returned | child.Raised | None) -> None:
        """Set the future to what the child came to."""
        if said is None:
            self._wait_for_exit()
            self._future.set_exception(Cancelled() if self._kill_at is not None else self._death())
        elif isinstance(said, child.Returned):
            try:
                value = self._form.read(said.result)
            except CodecError as unfit:
                self._future.set_exception(unfit)
            else:
                self._future.set_result(value)
        elif said.gave_up:
            self._future.set_exception(Cancelled())
        else:
            failure = Failure(said.types, said.message, said.code, said.where)
            error = ToldError(failure, retryable=said.retryable)
            error.add_note(f"In its own process:\n{said.trace}")
            self._future.set_exception(error)

    def _death(self) -> StepProcessError:
        code = self._process.returncode
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"signal {signal.Signals(-code).name}"
        return StepProcessError(f"the process of step {self._step_id!r} ended without a result: {how}", code)

    def _wait_for_exit(self) -> None:
        """Until it is gone; what has said its last word and does not leave is ended too."""
        patient = time.monotonic() + child.GRACE
        while not self._is_gone():
            if time.monotonic() >= patient:
                self._signal(signal.SIGKILL)
            time.sleep(_SOON)

    def _is_gone(self) -> bool:
        """Whether the child has ended; one whose time is up is killed, with all that it has started."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)
        with self._lock:
            if self._over:
                return True
            if self._process.poll() is None:
                return False
            self._over = True
            if self._kill_at is not None:  # what it has started ends with it
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            return True

    def _signal(self, number: int) -> None:
        """Send a signal to the child and all that it has started."""
        with self._lock:
            if not self._over and self._process.returncode is None:
                with suppress(OSError):
                    os.killpg(self._process.pid, number)


def _request(step: Step[Any], context: StepContext, codec: Codec, details: bytes | None) -> child.Request:
    """What the child is told.

    Raises:
        InvalidInputError: it can't be.
    """
    fn, place = step.fn, f"step {context.step_id!r}"
    wrong = "" if hasattr(os, "killpg") else "a step with process=True needs POSIX processes, which this system has not"
    if wrong := wrong or wrong_for_process(fn) or _not_found(fn):
        raise InvalidInputError(f"{place}: {wrong}")
    if not codec._is_plain:
        raise InvalidInputError(
            f"{place}: this engine's codec has a converter of its own, which a process can't be given; "
            "run the step without process=True, or pass and return what the codec knows itself"
        )
    types = argument_types(fn)

    def written(at: int | str, value: Any) -> Raw:
        try:
            return Raw(codec.encode(value, types(at)))
        except CodecError as error:
            what = f"argument {at + 1}" if isinstance(at, int) else f"argument {at!r}"
            raise InvalidInputError(f"{place}: {what} can't be passed to a process: {error.message}") from error

    return child.Request(
        module=fn.__module__,
        name=fn.__qualname__,
        args=[written(i, value) for i, value in enumerate(step.args)],
        kwargs={name: written(name, value) for name, value in step.kwargs.items()},
        into=step.given.into is not UNSET,
        run_id=context.run_id,
        step_id=context.step_id,
        attempt=context.attempt,
        key=context._key,
        details=msgspec.UNSET if details is None else Raw(details),
        max_bytes=codec._max_bytes,
        max_depth=codec._max_depth,
    )


def _not_found(fn: Any) -> str:
    """Why another process would not find this very function by its name, or ""."""
    found: Any = sys.modules.get(fn.__module__)
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is fn:
        return ""
    name = f"{fn.__module__}.{fn.__qualname__}"
    return f"a step with process=True needs a function that can be imported, and {name} is not this function"

"""The processes of `stepwell check`: each loads the app itself, and looks at the runs that it is given.

They talk over pipes, a line of JSON for each lot and one for what became of it. What the user's code prints goes to
standard error: standard output is the pipe.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from ..cli.opening import load_app, parts_of
from ..errors import StepwellError
from .fleet import Checker, Lot, Result, reader_of, store_at

__all__ = ["FleetError", "Worker", "main"]

_CODE = "import sys; sys.path[:] = {path!r}; from stepwell.testing.fleet_processes import main; main()"
_PATIENCE = 10.0  # seconds that a process may take to end once it has nothing to do


class FleetError(StepwellError):
    """A process of the check has died."""

    code = "CHECK"


_read_result, _read_lot = msgspec.json.Decoder(Result).decode, msgspec.json.Decoder(Lot).decode


class _Task(msgspec.Struct):
    """What a process is told first."""

    app: str
    url: str | None
    inputs: bool


class Worker:
    """A process that checks lots.

    Args:
        app: MODULE:ENGINE.
        url: of the store; None: the app's own.
        inputs: whether changed inputs of steps count.
    """

    def __init__(self, app: str, url: str | None, *, inputs: bool) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        options: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()  # -W, -X: as our own
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with code of ours
            [sys.executable, *options, "-c", _CODE.format(path=path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._say(_Task(app, url, inputs))

    def check(self, lot: Lot) -> Result:
        """Have a lot looked at.

        Raises:
            FleetError: the process has died.
            StepwellError: the store can't be read.
        """
        self._say(lot)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        if line.startswith(b"{"):
            told = msgspec.json.decode(line)
            raise FleetError(f"{told['code']}: {told['message']}")
        return _read_result(line)

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, what: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(what) + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _death(self) -> FleetError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        how = self._process.returncode
        return FleetError(f"a process of the check has died (exit code {how}); what it printed says why")


def main() -> None:
    """Load the app, and look at lots until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    asked = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        task = msgspec.json.Decoder(_Task).decode(asked.readline())
        engine = load_app(task.app)
        parts = parts_of(engine)
        store = reader_of(parts.store if task.url is None else store_at(task.url))
        checker = Checker(parts, store, inputs=task.inputs)
        gc.collect()
        gc.freeze()
        gc.disable()  # a lot at a time is cheaper
        while line := asked.readline():
            try:
                answer = msgspec.json.encode(checker.check(_read_lot(line)))
            except StepwellError as error:
                answer = msgspec.json.encode({"code": error.code, "message": error.message})
            answers.write(answer + b"\n")
            answers.flush()
            gc.collect()

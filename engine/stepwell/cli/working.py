"""`stepwell worker`: drive whatever is due, in several threads, and tell what comes of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..engine import Engine
from ..errors import StoreUnavailableError
from ..logs import logger
from ..outcomes import Outcome, RunCancelled, RunFailed, Running, RunSuspended
from .describing import failure_json, instant_json, many, when
from .mistakes import OK
from .opening import open_engine
from .terminal import Terminal, safe

__all__ = ["work"]

_GIVEN_UP = "given up"  # as the worker counts it


def work(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell worker`: until SIGTERM or SIGINT, or with `--drain` until nothing is due any more."""
    from ..worker import Worker

    with open_engine(options, needs_code=True, may_create=True) as engine:
        teller = _Teller(terminal, options.json)
        worker = Worker(
            engine, threads=options.threads, poll=options.poll, on_outcome=teller.tell, prune_every=options.prune_every
        )
        teller.on_broken = worker.stop
        with _stopped_by_signals(worker.stop), _warnings_shown(teller.lock):
            if not options.json:
                teller.say(_beginning(engine, options.threads, drain=options.drain))
            _begin_schedules(engine, teller, quiet=options.json)
            counts = worker.run(drain=options.drain)
        if teller.broken is not None:
            raise teller.broken
        if options.json:
            teller.say(json.dumps({"summary": dict(counts)}))
        else:
            done = ", ".join(f"{number} {how}" for how, number in counts.most_common())
            teller.say(terminal.styled("done: ", "bold") + (done or "no run was due"))
    return OK


def _begin_schedules(engine: Engine, teller: _Teller, *, quiet: bool) -> None:
    """Ensure the app's schedules; without any, their code is not loaded."""
    if "stepwell.schedules" in sys.modules:
        from .scheduling import ensure_all

        for name, how in ensure_all(engine).items():
            if not quiet:
                teller.say(safe(f"schedule {name}: {how}"))


class _Teller:
    """Writes whole lines from any thread, each at once; a line that can't be written is the end of the worker.

    Attributes:
        lock: held while a line is written.
        on_broken: called once, when a line could not be written.
        broken: why it could not.
    """

    def __init__(self, terminal: Terminal, as_json: bool) -> None:
        self._terminal = terminal
        self._as_json = as_json
        self.lock = threading.Lock()
        self.on_broken: Callable[[], None] = lambda: None
        self.broken: OSError | None = None

    def say(self, line: str) -> None:
        """Write a line that is safe as it is."""
        with self.lock:
            self._terminal.write(line)
            self._terminal.flush()

    def tell(self, outcome: Outcome[Any]) -> None:
        """Write the line of an outcome."""
        if self.broken is not None:
            return
        line = json.dumps(_outcome_json(outcome)) if self._as_json else self._line(outcome)
        try:
            self.say(line)
        except OSError as error:  # the reader is gone, or the disk is full
            self.broken = error
            self.on_broken()

    def _line(self, outcome: Outcome[Any]) -> str:
        text = f"{self._terminal.styled(outcome.run_id, 'bold')}  {self._terminal.status(_how(outcome))}"
        said = _said(outcome)
        return f"{text}  {safe(said)}" if said else text


def _beginning(engine: Engine, threads: int, *, drain: bool) -> str:
    store, kind = engine.store, ""
    with contextlib.suppress(StoreUnavailableError):  # the worker waits for it
        kind = str(store.durability.settings.get("store", ""))
    where = " ".join(filter(None, (kind or type(store).__name__, str(getattr(store, "path", "") or ""))))
    until = ", until nothing is due" if drain else ""
    return safe(
        f"worker on {where}, {many(threads, 'thread')}{until}. Ctrl-C or SIGTERM: finish the steps that run, then exit"
    )


def _how(outcome: Outcome[Any]) -> str:
    return _GIVEN_UP if isinstance(outcome, Running) else outcome.status


def _said(outcome: Outcome[Any]) -> str:
    """What there is to say of an outcome beside its status, in short."""
    match outcome:
        case RunSuspended(waiting_for=()):
            return f"sleeps until {when(outcome.due)}"
        case RunSuspended():
            until = f" until {when(outcome.due)}" if outcome.due else ""
            reason = f": {outcome.reason}" if outcome.reason else ""
            return f"waits for {', '.join(map(repr, outcome.waiting_for))}{until}{reason}"
        case RunFailed():
            return next(iter(str(outcome.failure).splitlines()), "")
        case RunCancelled():
            return outcome.reason or ""
        case Running():
            return "another worker goes on with it"
    return ""


def _outcome_json(outcome: Outcome[Any]) -> dict[str, Any]:
    """An outcome as a JSON object, without the result, which may be large; absent values are left out."""
    found: dict[str, Any] = {"runId": outcome.run_id, "status": _how(outcome)}
    match outcome:
        case RunSuspended():
            found |= {"waitingFor": list(outcome.waiting_for), "reason": outcome.reason}
            found["due"] = instant_json(outcome.due)
        case RunFailed():
            found["failure"] = failure_json(outcome.failure)
        case RunCancelled():
            found["reason"] = outcome.reason
    return {name: value for name, value in found.items() if value is not None}


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGINT stop the worker, also just before `run` has handlers of its own in place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _warnings_shown(lock: threading.Lock) -> Iterator[None]:
    """While this lasts, what the library warns of is shown on stderr, unless the app has its log there already."""
    there = (*logger.handlers, *logging.getLogger().handlers)
    if any(isinstance(one, logging.StreamHandler) and one.stream is sys.stderr for one in there):
        yield
        return
    handler = _Warnings(lock)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    """Shows each warning and error in one line that is safe for a terminal."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(logging.WARNING)
        self._terminal = Terminal(sys.stderr)
        self._writing = lock

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; a log that nobody reads must not end the work."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        style = "bad" if record.levelno >= logging.ERROR else "wait"
        with contextlib.suppress(OSError, ValueError), self._writing:
            self._terminal.line(f"stepwell: {' '.join(text.split())}", style)
            self._terminal.flush()

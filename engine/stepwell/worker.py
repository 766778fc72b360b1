"""The worker: drives whatever is submitted, due or abandoned, until it is told to stop. Floor 5.

One thread looks for runs and claims as many as there are free threads; each of the others drives one run at a time.
While runs end quickly it claims ahead, no more than is driven in a moment, so that many are claimed in one write; what
then has to wait all the same is given back, for another worker may be idle. A
write of this process that makes a run due wakes the looking thread at once; what other processes write is found by
looking again, every `poll` seconds. So a lost wake-up costs at most that.

A run that can't be driven, because its workflow is not known here, its history can't be read or the code does not fit
it, is marked as blocked, with the code that failed: no worker with that code claims it again. The others go on.

From time to time closed runs whose workflow has a `ttl` are removed, in a thread that lives for one short pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any

from . import events as e
from .engine import Engine
from .errors import InvalidInputError, StoreError, StoreMisconfiguredError
from .logs import logger
from .outcomes import Outcome, Running
from .retry import as_seconds
from .session import Session
from .store import Lease
from .sweeping import Sweeper

__all__ = ["Worker"]

_LONGEST_PAUSE = 5.0
"""Seconds between two tries while the store fails."""

_AHEAD = 0.05
"""Seconds of work that are claimed ahead."""

_STALLED = 0.25
"""Seconds after which what was claimed ahead is given back, when no run ends meanwhile."""

_SHORTEST = 8 * _STALLED
"""Seconds that a lease has to last, or nothing is claimed ahead: no lease is renewed before its run is driven."""

_SHARE = 5
"""A look that takes long is repeated only after this many times as long: a store without an index scans all runs."""


class Worker:
    """Drives the runs of an engine's store that are due, in threads, until `stop`.

    Args:
        engine: knows the workflows, and stays the caller's to close.
        threads: how many runs are driven at once, 1 to 1,000.
        poll: seconds or timedelta between two looks at the store while there is nothing to do; at least a millisecond.
        on_outcome: is given each outcome, in the thread that drove the run.
        prune_every: seconds or timedelta, at least a millisecond, between two sweeps that remove closed runs whose
            workflow's `ttl` is over, the first one at the beginning; None: never. 10 minutes.

    Raises:
        InvalidInputError: an argument is wrong.

    Example:
        >>> from stepwell import Engine, Flow, workflow
        >>> from stepwell.worker import Worker
        >>> @workflow
        ... def nothing() -> Flow[int]:
        ...     yield from ()
        ...     return 1
        >>> engine = Engine("memory:", workflows=[nothing])
        >>> _ = engine.submit(nothing)
        >>> Worker(engine, threads=1).run(drain=True)
        Counter({'completed': 1})
    """

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int = 16,
        poll: timedelta | float = 0.2,
        on_outcome: Callable[[Outcome[Any]], None] | None = None,
        prune_every: timedelta | float | None = 600.0,
    ) -> None:
        if not isinstance(engine, Engine):
            raise InvalidInputError(f"a Worker works for an Engine, got {engine!r}")
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1000:
            raise InvalidInputError(f"threads must be 1 to 1,000, got {threads!r}")
        self._poll = as_seconds(poll, "poll")
        if self._poll < 0.001:
            raise InvalidInputError(f"poll must be at least 0.001 seconds, got {poll!r}")
        self._prune_every = None if prune_every is None else as_seconds(prune_every, "prune_every")
        if self._prune_every is not None and self._prune_every < 0.001:
            raise InvalidInputError(
                f"prune_every must be at least 0.001 seconds, or None for never, got {prune_every!r}"
            )
        self._engine = engine
        self._parts, self._driver = engine._parts, engine._driver
        self._threads = threads
        self._on_outcome = on_outcome
        self._lock = threading.RLock()  # a signal's handler may call `stop` while `run` begins or ends
        self._running = False
        self._reset()

    def _reset(self) -> None:
        self._leases: SimpleQueue[tuple[float, Lease] | None] = SimpleQueue()  # with the time when each was claimed
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._free = self._threads  # less than 0 by what is claimed ahead
        self._seconds = _LONGEST_PAUSE  # that a run takes, a moving average
        self._moved = 0.0  # when a run ended last, or was claimed for a free thread
        self._failed_looks, self._failed_drives = 0, 0  # each in a row, for want of a store that works
        self._sessions: dict[Lease, Session] = {}
        self._ended: Counter[str] = Counter()
        self._sweeper = Sweeper(self._parts, self._prune_every, self._stopped)

    def run(self, *, drain: bool = False, handle_signals: bool = True) -> Counter[str]:
        """Work until `stop`; in the main thread, SIGTERM and SIGINT (Ctrl-C) mean that too, and a second one kills.

        Args:
            drain: also end when nothing is due any more; what waits for a signal or a later instant is left alone.
            handle_signals: False leaves the process's signals to the caller.

        Returns:
            How many stretches of driving ended how: by the status of the outcome; "given up" when told to stop; "given
            back" undriven; "not driven": blocked, or taken over by another owner; "store failed". "pruned" is how many
            closed runs were removed.

        Raises:
            StoreMisconfiguredError, NewerFormatError, CorruptHistoryError: the store can't be used; a store that fails
                for a while is waited for.
            ClosedError: the engine was closed.
            InvalidInputError: this worker runs already.
        """
        with self._lock:
            if self._running:
                raise InvalidInputError("this worker runs already; make another one, or give it more threads")
            self._running = True
        try:
            if threading.current_thread() is threading.main_thread():
                with self._stopping_on_signals() if handle_signals else contextlib.nullcontext():
                    self._work_elsewhere(drain)
            else:
                self._work(drain)
        finally:
            with self._lock:
                ended = +self._ended
                self._running = False
                self._reset()
        return ended

    def stop(self) -> None:
        """Ask the worker, from any thread, to claim nothing more, record the steps that run, and give its runs up.

        Before `run`, it makes the next `run` end at once: a stop that comes while its thread starts is not lost.
        """
        with self._lock:
            self._stopped.set()
            sessions = list(self._sessions.values())
        for session in sessions:
            session.leave()
        self._wake.set()

    # ---- the thread that looks

    def _work(self, drain: bool) -> None:
        """Look for runs until told to stop; then wait until the threads have given up theirs."""
        unlisten = self._parts.store.on_due(self._wake.set)
        crew = [
            threading.Thread(target=self._drive_claimed, name=f"stepwell-worker-{number}", daemon=True)
            for number in range(self._threads)
        ]
        for thread in crew:
            thread.start()
        try:
            while not self._stopped.is_set():
                if not self._look(drain):
                    break
            self._sweeper.wait()
        finally:
            self.stop()
            for _ in crew:
                self._leases.put(None)
            for thread in crew:
                thread.join()
            self._sweeper.wait()
            self._ended["pruned"] = self._sweeper.removed
            unlisten()

    def _look(self, drain: bool) -> bool:
        """Claim what the free threads can take, or wait when there is nothing; False when there won't be any more."""
        self._wake.clear()  # before looking: what comes while we look is looked for again
        if self._stopped.is_set():  # the call that would have woken us is wiped out
            return False
        self._sweeper.look()
        free, room = self._free, self._room()
        if free < 0 and time.perf_counter() - self._moved > _STALLED:
            self._give_back()
            return True
        if room <= 0:
            self._wait(self._wake, _STALLED if free < 0 else _LONGEST_PAUSE)  # a thread that becomes free wakes us
            return True
        began, now = time.perf_counter(), e.micros(self._parts.now())
        try:
            leases = self._driver.claim_due(room)
            pause = 0.0 if leases else self._seconds_to_next(now)
        except StoreMisconfiguredError:
            raise
        except StoreError as error:
            with self._lock:
                self._failed_looks += 1
            self._in_trouble("looking for runs failed", error, self._failed_looks)
            return True
        self._failed_looks = 0
        if leases:
            claimed = time.perf_counter()
            with self._lock:
                if self._free > 0:
                    self._moved = claimed
                self._free -= len(leases)
            for lease in leases:
                self._leases.put((claimed, lease))
        elif drain and free == self._threads:
            return False
        else:
            longest = max(self._poll, _SHARE * (time.perf_counter() - began))
            self._wait(self._wake, min(longest, pause, _STALLED if free < 0 else longest))
        return True

    def _room(self) -> int:
        """How many runs to claim now: none as long as half of what may be claimed ahead is there."""
        ahead = min(self._threads, int(self._threads * _AHEAD / self._seconds)) if self._parts.ttl >= _SHORTEST else 0
        return self._free + ahead if self._free > 0 or 2 * (self._free + ahead) > ahead else 0

    def _give_back(self) -> None:
        """Give up what was claimed ahead: the runs that are driven take longer than those before them."""
        self._seconds = _LONGEST_PAUSE
        with contextlib.suppress(Empty):
            while (waiting := self._leases.get_nowait()) is not None:
                _, lease = waiting
                with self._lock:
                    self._free += 1
                try:
                    self._parts.store.release(lease)
                except StoreError as error:
                    logger.warning("the lease of run %r could not be released: %s", lease.run_id, error)

    def _seconds_to_next(self, now: int) -> float:
        due = self._parts.store.next_due()
        if due is None or due <= now:  # what was due and not given can't be claimed, so it is no reason to hurry
            return _LONGEST_PAUSE
        return max(0.001, (due - e.micros(self._parts.now())) / 1e6)

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        return self._parts.environment.clock.wait(event, seconds)

    def _in_trouble(self, what: str, error: StoreError, times: int) -> None:
        """The store failed so many times in a row: tell, and let it rest, longer each time."""
        pause = min(_LONGEST_PAUSE, 0.05 * 2 ** min(times, 10))
        logger.warning("%s, trying again in %.1f s: %s", what, pause, error)
        self._wait(self._stopped, pause)

    # ---- the threads that drive

    def _drive_claimed(self) -> None:
        while (waiting := self._leases.get()) is not None:
            claimed, lease = waiting
            began = time.perf_counter()
            try:
                how = self._drive(lease, waited=began - claimed)
            finally:
                self._moved = ended = time.perf_counter()
                with self._lock:
                    self._seconds += 0.1 * (ended - began - self._seconds)
                    self._free += 1
                    self._sessions.pop(lease, None)
                    wanted = self._room() > 0
                if wanted:
                    self._wake.set()
            with self._lock:
                self._ended[how] += 1

    def _drive(self, lease: Lease, waited: float) -> str:
        """Drive one run; whatever goes wrong with it stays with it. How it ended, as `run` counts it.

        Args:
            waited: seconds since its lease was granted. Nobody has renewed it since, so it may have lapsed.
        """
        try:
            if self._stopped.is_set():
                self._parts.store.release(lease)
                return "given back"
            if waited > self._parts.ttl / 8 and self._parts.store.renew(lease, self._parts.ttl) is None:
                return "given back"  # to somebody else
            outcome = self._driver.take_due(lease, lambda session: self._began(lease, session), contained=BaseException)
        except StoreError as error:
            with self._lock:
                self._failed_drives += 1
            self._in_trouble(f"run {lease.run_id!r} could not be driven on", error, self._failed_drives)
            return "store failed"
        except BaseException as error:  # noqa: BLE001 - a step that calls sys.exit() must not end the others
            logger.error("run %r tried to end the process: %r", lease.run_id, error)
            return "not driven"
        self._failed_drives = 0
        if outcome is None:
            return "not driven"
        if self._on_outcome is not None:
            try:
                self._on_outcome(outcome)
            except BaseException:  # noqa: BLE001 - it is the user's code, and this thread is needed
                logger.exception("on_outcome raised")
        return "given up" if isinstance(outcome, Running) else outcome.status

    def _began(self, lease: Lease, session: Session) -> None:
        with self._lock:
            self._sessions[lease] = session
            leaving = self._stopped.is_set()
        if leaving:
            session.leave()

    # ---- signals

    def _work_elsewhere(self, drain: bool) -> None:
        """Work in another thread: a handler that calls `stop` in the midst of a wait must not need that wait's lock."""
        failed: list[BaseException] = []
        ended = threading.Event()  # not join(): one that Ctrl-C interrupts takes the thread for ended (CPython 3.11)

        def work() -> None:
            try:
                self._work(drain)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)
            finally:
                ended.set()

        threading.Thread(target=work, name="stepwell-worker", daemon=True).start()
        try:
            while not ended.wait(1.0):
                pass
        except BaseException:  # Ctrl-C, when signals are left to the caller
            self.stop()
            ended.wait()
            raise
        if failed:
            raise failed[0]

    @contextlib.contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        wanted = (signal.SIGTERM, signal.SIGINT)

        def again(number: int, _frame: Any) -> None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            os._exit(128 + number)  # the first process of a container survives a signal that it doesn't handle

        def first(_number: int, _frame: Any) -> None:
            for number in wanted:
                signal.signal(number, again)
            self.stop()

        before = {number: signal.signal(number, first) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

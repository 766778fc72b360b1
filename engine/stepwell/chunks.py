"""The streams that are under way in a session: what they yield is told to readers, and recorded in batches. Floor 4.

A stream runs where a step would: in the session's own thread, in one of the executor's, or on the event loop. What it
yields goes to the readers of the run at once. With `record_chunks` it goes into the history instead, which only the
session's thread writes: that thread takes what waits for it, some hundred chunks or a tenth of a second of them in one
append, and all that is left before the outcome. A stream that yields faster than the store writes waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec import Raw

from . import events as e
from .commands import Stream
from .errors import CodecError
from .hub import Live
from .loading import Loaded, Parts
from .machine import Machine
from .performers import Host, StepContext
from .results import Form

__all__ = ["BATCH", "BATCH_BYTES", "BATCH_TIME", "StreamContext", "StreamStopped", "Streams"]

BATCH = 100
"""Chunks of one stream that are written at once, at most."""

BATCH_BYTES = 256 << 10
"""Bytes of them, from which on they are written."""

BATCH_TIME = timedelta(seconds=0.1)
"""How long a chunk waits for others to be written with."""


class StreamStopped(Exception):
    """Nobody wants the rest of a stream; its generator was closed."""


class Owner(Protocol):
    """What is asked of the session."""

    @property
    def machine(self) -> Machine: ...

    def record(self, events: list[e.EventBase]) -> bool:
        """Write events, and only then feed them; False when the tail had moved."""
        ...


class StreamContext(StepContext):
    """What a running stream may know of itself; and where its chunks go.

    Args:
        streams: those of the session.
        command: what was yielded.
        form: how chunks are recorded.
        at: path of the command.
        host: takes its heartbeats.
    """

    def __init__(
        self, streams: Streams, command: Stream[Any, Any], form: Form, at: str, step_id: str, attempt: int, host: Host
    ) -> None:
        run = streams.run
        super().__init__(run.run_id, step_id, attempt, (run.start.line, at, command.name), host)
        assert form.chunk is not None
        self._streams, self._write = streams, form.chunk
        self._collect, self._records = command.collect, command.record_chunks
        self._base, self._index = run.seq, 0
        self._kept: list[Any] = []
        self._lock = threading.Lock()
        self._gate: Future[None] | None = None
        self._interrupt: Any = None
        self._asked = self._dropped = self._void = False
        self._bytes = 0
        self.waiting: list[e.EventBase] = []  # to be written
        self.since: datetime | None = None  # when the oldest of them was yielded
        self.ended = False

    # ---- from the session

    def cancel(self) -> None:
        super().cancel()
        interrupt = self._interrupt
        if interrupt is not None and not self._dropped and not self._asked:  # once: clean-up is not to be interrupted
            self._asked = True
            with suppress(RuntimeError):  # the loop is closed, and with it the generator
                interrupt()
        self._open_gate()

    def drop(self) -> None:
        """Whatever it brings is forgotten: whoever drops it cancels its task as well."""
        self._dropped = True

    @property
    def owes(self) -> bool:
        """Whether chunks wait to be written that nobody has dropped."""
        return bool(self.waiting) and not self._dropped and not self._void

    def was_stopped(self, error: BaseException) -> bool:
        """Whether an attempt ended since nobody wanted the rest."""
        return isinstance(error, StreamStopped) or (self._asked and isinstance(error, CancelledError))

    def void(self) -> None:
        """Nobody asks for it any more: what waits to be written never is."""
        self._void = True
        self.cancel()

    def is_due(self, now: datetime) -> bool:
        """Whether what waits is to be written now."""
        return self.since is not None and (self._full() or now >= self.since + BATCH_TIME)

    def written(self, count: int) -> None:
        """So many of those that waited are recorded."""
        with self._lock:
            del self.waiting[:count]
            self._bytes = sum(len(event.value) for event in self.waiting if isinstance(event, e.Chunk))
            if not self.waiting:
                self.since = None
        self._open_gate()

    # ---- from wherever the stream runs

    def drain(self, value: Any) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Run a generator to its end and give the result; of an async one, a coroutine that does so."""
        if isinstance(value, Generator):
            return self._drain(value)
        if isinstance(value, AsyncGenerator):
            return self._drain_async(value)
        return value  # of a simulation

    def _drain(self, chunks: Generator[Any, Any, Any]) -> Any:
        result = None
        try:
            while True:
                self._check()
                try:
                    chunk = next(chunks)
                except StopIteration as stop:
                    result = stop.value
                    break
                self._take(chunk)
                while (gate := self._gate_when_full()) is not None:
                    gate.result()
        finally:
            self.ended = True
            chunks.close()
        return self._result(result)

    async def _drain_async(self, chunks: AsyncGenerator[Any, Any]) -> Any:
        import asyncio  # a sync stream has no need of it

        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._interrupt = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            try:
                self._check()
                async for chunk in chunks:
                    self._take(chunk)
                    while (gate := self._gate_when_full()) is not None:
                        await asyncio.wrap_future(gate)
                    self._check()
            finally:
                self._interrupt = None
                self.ended = True
                await chunks.aclose()
        except asyncio.CancelledError:
            if self._asked:
                raise StreamStopped(self._stopped()) from None
            raise
        return self._result(None)

    def _result(self, value: Any) -> Any:
        return value if self._collect is None else self._collect(self._kept)

    def _check(self) -> None:
        if self._cancelled:
            raise StreamStopped(self._stopped())

    def _stopped(self) -> str:
        return f"stream {self.step_id!r} was stopped after {self._index} chunks: nobody waits for the rest"

    def _take(self, chunk: Any) -> None:
        """Tell readers of a chunk, or have it recorded."""
        self._check()
        index, parts = self._index, self._streams.parts
        try:
            raw = self._write(chunk)
        except CodecError as error:
            text = f"chunk {index} of stream {self.step_id!r} can't be handed on: {error.message}"
            raise CodecError(text, path=error.path) from error
        self._index += 1
        if self._collect is not None:
            self._kept.append(chunk)
        if not self._records:
            if self.run_id in parts.hub.readers:
                message = Live(self._incarnation, self._base, self.step_id, self.at, self.attempt, index, raw)
                parts.hub.put(self.run_id, message)
            return
        event = e.Chunk(
            at=self.at,
            step_id=self.step_id,
            attempt=self.attempt,
            index=index,
            value=Raw(raw),
            timestamp=parts.stamp(),
        )
        with self._lock:
            self.waiting.append(event)
            self._bytes += len(raw)
            first = self.since is None
            if first:
                self.since = parts.now()
        self._streams.arrived(self, first=first)

    @property
    def _incarnation(self) -> int:
        return self._streams.run.incarnation

    def _full(self) -> bool:
        return len(self.waiting) >= BATCH or self._bytes >= BATCH_BYTES

    def _gate_when_full(self) -> Future[None] | None:
        """What opens once there is room again; None when there is some."""
        if not self._records or not self._streams.bounded:
            return None
        with self._lock:
            if self._cancelled or not self._full():
                return None
            if self._gate is None:
                self._gate = Future()
                self._gate.set_running_or_notify_cancel()  # so that one task's end can't cancel it
            gate = self._gate
        self._streams.wakeup.set()
        return gate

    def _open_gate(self) -> None:
        with self._lock:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.set_result(None)


class Streams:
    """The streams of one session that are under way.

    Args:
        parts: what the engine works with.
        run: the run that is driven.
        wakeup: wakes the session.
        owner: the session.
    """

    def __init__(self, parts: Parts, run: Loaded, wakeup: threading.Event, owner: Owner) -> None:
        self.parts = parts
        self.run = run
        self.wakeup = wakeup
        self.bounded = parts.performer.awaits  # in a simulation the session may wait for a stream in its own thread
        self.broken: BaseException | None = None
        self._owner = owner
        self._thread = threading.get_ident()
        self._recording: dict[str, StreamContext] = {}

    def open(
        self, command: Stream[Any, Any], form: Form, at: str, step_id: str, attempt: int, host: Host
    ) -> StreamContext:
        """The context of an attempt that is about to begin."""
        context = StreamContext(self, command, form, at, step_id, attempt, host)
        if command.record_chunks:
            self._recording[at] = context
        return context

    def forget(self, stream: StreamContext) -> None:
        """Nobody waits for an attempt any more: what it has yielded and is not written is dropped."""
        stream.drop()
        if self._recording.get(stream.at) is stream:
            del self._recording[stream.at]

    def deadlines(self) -> Iterator[datetime]:
        """When chunks are to be written that wait for others now."""
        return (one.since + BATCH_TIME for one in list(self._recording.values()) if one.since is not None)

    def is_due(self) -> bool:
        """Whether chunks are to be written now."""
        if not self._recording:
            return False
        now = self.parts.now()
        return any(one.is_due(now) for one in list(self._recording.values()))

    def flush(self) -> bool:
        """Write all that waits, and feed it; False when the tail had moved.

        Raises:
            StepwellError: the store failed, now or while a stream was under way in this thread.
        """
        if self.broken is not None:
            raise self.broken
        pending = self._owner.machine.pending
        events: list[e.EventBase] = []
        counts: list[tuple[StreamContext, int]] = []
        for at, one in list(self._recording.items()):
            if at not in pending:  # the run has gone another way
                one.void()
                del self._recording[at]
            elif waiting := list(one.waiting):
                counts.append((one, len(waiting)))
                events += waiting
            elif one.ended:
                del self._recording[at]
        if events and not self._owner.record(events):
            return False
        for one, count in counts:
            one.written(count)
        return True

    def arrived(self, stream: StreamContext, *, first: bool) -> None:
        """A chunk waits to be written: in the session's own thread it may be done here, else the session is told."""
        if threading.get_ident() != self._thread:
            if first:
                self.wakeup.set()
        elif stream.is_due(self.parts.now()):
            self._flush_here(stream)

    def _flush_here(self, stream: StreamContext) -> None:
        try:
            while not self.flush():
                pass  # what came between is taken in
        except BaseException as error:
            self.broken = error  # of the session, not the stream's own failure
            raise StreamStopped(str(error)) from error
        pending = self._owner.machine.pending.get(stream.at)
        if pending is None or pending.cancelling:
            stream.cancel()

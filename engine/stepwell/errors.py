"""Every error of stepwell, each with a stable code.

Three families, split by who is at fault and who may catch it:

* `StepwellError`: raised by the engine, the codec and the stores to *callers*. `code` is stable and may be matched
  by programs; `retryable` tells a queue consumer whether delivering the same message again can succeed.
* `StepFailed`, `TimedOut`, `SignalRejected`: thrown *into workflows* at the `yield` whose command they answer.
  They are rebuilt from recorded data, so they are the same live and on replay.
* `Cancelled`: thrown into workflows too, but a `BaseException`, so that `except Exception` can't swallow it.

A recorded failure is data (`Failure`), never an instance of the user's class: `failed(CardDeclined)` gives the class
to catch. Floor 0.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from .failure import Failure, dotted, type_names

__all__ = [
    "CancelIgnoredError",
    "Cancelled",
    "ChildFailed",
    "ClosedError",
    "CodecError",
    "ConflictError",
    "CorruptHistoryError",
    "DivergenceError",
    "EventMismatchError",
    "Failure",
    "InvalidInputError",
    "InvalidYieldError",
    "LeaseLostError",
    "NewerFormatError",
    "NotFoundError",
    "RunArrivingError",
    "RunBusyError",
    "RunCancelledError",
    "RunClosedError",
    "RunFailedError",
    "RunMovedError",
    "RunNotFinishedError",
    "SignalRejected",
    "StepFailed",
    "StepInterrupted",
    "StepProcessError",
    "StepTimeoutError",
    "StepwellError",
    "StepwellWarning",
    "StoreError",
    "StoreMisconfiguredError",
    "StoreUnavailableError",
    "Thrown",
    "TimedOut",
    "TransactionError",
    "VersionMismatchError",
    "failed",
    "type_names",
]


class StepwellWarning(UserWarning):
    """Something in a workflow that is probably a mistake, such as a command that was made and never yielded."""


class StepwellError(Exception):
    """Base of every error that the library raises to its callers.

    Attributes:
        code: stable name of the error, for programs.
        retryable: True when the same call may succeed later without anybody mending anything.
    """

    code: ClassVar[str] = "STEPWELL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **where: Any) -> None:
        super().__init__(message)
        for name, value in where.items():
            setattr(self, name, value)

    @property
    def message(self) -> str:
        """The text of the error, one or more lines."""
        return str(self.args[0]) if self.args else ""


class InvalidInputError(StepwellError):
    """An argument is wrong; nothing was written. The text names the argument, its value and the remedy."""

    code = "INVALID_INPUT"


class InvalidYieldError(InvalidInputError):
    """A workflow yielded something that is no command; the text shows the value and the workflow's own line."""

    code = "INVALID_YIELD"


class CancelIgnoredError(StepwellError):
    """A workflow was cancelled and went on waiting, time and again: the run fails with this."""

    code = "CANCEL_IGNORED"


class NotFoundError(StepwellError):
    """No such run, workflow, step or incarnation."""

    code = "NOT_FOUND"


class ConflictError(StepwellError):
    """The run id is taken by a run of another workflow or with other input, or the caller asked for an error."""

    code = "CONFLICT"


class DivergenceError(StepwellError):
    """The workflow yielded something other than what its history holds.

    Attributes:
        run_id: the run, "" when a bare machine found it.
        seq: 0-based position of the recorded event.
        at: path of the command.
        recorded: what the history holds, in words.
        yielded: what the workflow asked for, in words.
    """

    code = "DIVERGENCE"
    run_id: str = ""
    seq: int = -1
    at: str = ""
    recorded: str = ""
    yielded: str = ""


class VersionMismatchError(StepwellError):
    """The run was started on a version of the workflow that this engine doesn't have."""

    code = "VERSION_MISMATCH"


class EventMismatchError(StepwellError):
    """The run does not wait for that signal, or not for that wait id, or not any more.

    Attributes:
        wait: the wait id that was named, None when none was.
        decided_by: who has decided the question, as that sender said it; None when nobody said, or nobody has.
        decided_at: when that was recorded, aware UTC; None when nobody has decided it.
    """

    code = "EVENT_MISMATCH"
    wait: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None


class RunClosedError(StepwellError):
    """The run is completed, failed or cancelled: nothing can be sent to it any more."""

    code = "RUN_CLOSED"
    status: str = ""


class RunBusyError(StepwellError):
    """Another owner holds a live lease on the run.

    Attributes:
        lease_until: aware UTC instant at which the lease lapses unless it is renewed.
    """

    code = "RUN_BUSY"
    retryable = True
    run_id: str = ""
    lease_until: datetime | None = None


class RunMovedError(StepwellError):
    """The run was moved to another store and goes on there: nothing reaches it here any more.

    Attributes:
        to: where it is now, without passwords.
        token: which move that was.
    """

    code = "RUN_MOVED"
    to: str = ""
    token: str = ""


class RunArrivingError(StepwellError):
    """A run of this id is being moved here from `origin`, and is not here yet."""

    code = "RUN_ARRIVING"
    retryable = True
    origin: str = ""


class RunFailedError(StepwellError):
    """`unwrap()` of a failed run.

    Attributes:
        failure: the recorded failure.
    """

    code = "RUN_FAILED"
    failure: Failure | None = None


class RunCancelledError(StepwellError):
    """`unwrap()` of a cancelled run."""

    code = "RUN_CANCELLED"


class RunNotFinishedError(StepwellError):
    """`unwrap()` of a run that is suspended, paused or running elsewhere."""

    code = "RUN_NOT_FINISHED"
    retryable = True


class CodecError(StepwellError):
    """A value can't be written as JSON, or recorded JSON doesn't fit the type that was asked for.

    Attributes:
        path: where in the value, such as `$.items[3].price`.
    """

    code = "CODEC"
    path: str = "$"


class CorruptHistoryError(StepwellError):
    """Recorded bytes are damaged. The text names file or key, line or row, and byte."""

    code = "CORRUPT_HISTORY"
    place: str = ""
    seq: int = -1
    byte: int = -1


class NewerFormatError(CorruptHistoryError):
    """The history was written by a newer stepwell, in a format that this one doesn't know."""

    code = "NEWER_FORMAT"


class StoreError(StepwellError):
    """The store failed and its state is not known; it was left as it is."""

    code = "STORE"


class StoreUnavailableError(StoreError):
    """The store is away or busy, or did not say what became of a write; the same call can be made again."""

    code = "STORE_UNAVAILABLE"
    retryable = True


class StoreMisconfiguredError(StoreError):
    """The store's address or settings are wrong: unknown scheme, not a database, no permission."""

    code = "STORE_MISCONFIGURED"


class TransactionError(StepwellError):
    """The function of a Transaction did what it may not: end the transaction, change stepwell's own tables, ..."""

    code = "TRANSACTION"


class LeaseLostError(StepwellError):
    """A newer session owns the run: what this one had not yet recorded is void."""

    code = "LEASE_LOST"
    retryable = True


class ClosedError(StepwellError):
    """The engine or store was closed."""

    code = "CLOSED"


class Thrown(Exception):
    """Base of what is thrown into workflows as a command's answer: `at` is its path, `seq` the event of the answer."""

    at: str = ""
    seq: int = -1


class StepFailed(Thrown):
    """A step ended in failure; thrown into the workflow at its `yield`, the same live and on replay.

    `except StepFailed as e: e.failure` has the record; `except failed(CardDeclined):` catches by recorded type.

    Attributes:
        failure: the recorded failure.
        step_id: name of the step, with `#2`, `#3` on repeats.
        at: path of the command in its run.
        seq: position of the recorded outcome, -1 when it is not known.
    """

    def __init__(self, failure: Failure, step_id: str = "", at: str = "", seq: int = -1) -> None:
        super().__init__(failure, step_id, at, seq)
        self.failure = failure
        self.step_id = step_id
        self.at = at
        self.seq = seq

    def __str__(self) -> str:
        tries = f" after {self.failure.attempts} attempts" if self.failure.attempts > 1 else ""
        what = "child" if isinstance(self, ChildFailed) else "step"
        return f"{what} {self.step_id!r} failed{tries}: {self.failure}"

    @classmethod
    def of(cls, failure: Failure, step_id: str = "", at: str = "", seq: int = -1) -> StepFailed:
        """Build the exception whose class every matching `failed(...)` catches."""
        return _class_of(failure.types, cls)(failure, step_id, at, seq)


class StepInterrupted(StepFailed):
    """A step marked `at_most_once` was begun and its outcome is not known: it is not run again."""


class ChildFailed(StepFailed):
    """A child failed, or was cancelled by somebody else than this run; thrown at its `Child`.

    A kind of StepFailed: `failed(CardDeclined)` catches the failure of a step of the child as well. `step_id` is the
    run id of the child.
    """


class TimedOut(Thrown):
    """A `Suspend` got no signal in time. Attributes: `signal` (its name), `at`, `seq`."""

    def __init__(self, signal: str, at: str = "", seq: int = -1) -> None:
        super().__init__(signal, at, seq)
        self.signal = signal
        self.at = at
        self.seq = seq

    def __str__(self) -> str:
        return f"no signal {self.signal!r} in time"


class SignalRejected(Thrown):
    """A buffered signal did not fit the type that the `Suspend` asked for; it is consumed."""

    def __init__(self, signal: str, reason: str, at: str = "", seq: int = -1) -> None:
        super().__init__(signal, reason, at, seq)
        self.signal = signal
        self.reason = reason
        self.at = at
        self.seq = seq

    def __str__(self) -> str:
        return f"signal {self.signal!r} was refused: {self.reason}"


class Cancelled(BaseException):
    """Thrown into a cancelled workflow or branch, and by `heartbeat` into a step. Let it pass; use `finally`."""


class StepTimeoutError(Exception):
    """An attempt took longer than its `timeout`, or was silent for its `heartbeat_timeout`; recorded as its failure."""


class StepProcessError(Exception):
    """The process of a step ended without a result: `exitcode` says how, negative for a signal. Fails an attempt."""

    def __init__(self, message: str, exitcode: int = 0) -> None:
        super().__init__(message, exitcode)
        self.exitcode = exitcode

    def __str__(self) -> str:
        return str(self.args[0])


_marks: dict[str, type[StepFailed]] = {}
_classes: dict[tuple[str, ...], type[StepFailed]] = {}


def failed(*classes: type[BaseException] | str) -> tuple[type[StepFailed], ...]:
    """Give what `except` needs to catch steps that failed with one of these classes or a subclass.

    The match is by the recorded type names along the MRO, so it is the same live and on replay, and the user's class is
    never called. Determinism: pure.

    Args:
        classes: exception classes, or dotted names `module.QualName` where importing the class is not wanted.

    Returns:
        A tuple of exception classes, for `except`.

    Raises:
        InvalidInputError: an argument is no exception class and no dotted name.

    Example:
        >>> try:
        ...     raise StepFailed.of(Failure(type_names(ConnectionError), "gone"), "fetch")
        ... except failed(OSError) as e:
        ...     print(e)
        step 'fetch' failed: ConnectionError: gone
    """
    for cls in classes:
        if not isinstance(cls, str) and not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise InvalidInputError(f"failed() takes exception classes or dotted names, got {cls!r}")
    if not classes:
        raise InvalidInputError("failed() needs at least one exception class, as in `except failed(CardDeclined):`")
    return tuple(_mark(dotted(cls)) for cls in classes)


def _mark(name: str) -> type[StepFailed]:
    mark = _marks.get(name)
    if mark is None:
        mark = _marks.setdefault(name, type(f"StepFailed[{name}]", (StepFailed,), {"__module__": __name__}))
    return mark


# Python matches `except` by real base classes, never by a metaclass hook, so a recorded failure is raised as a class
# that has one base for each recorded type name.
_OWN = {f"{__name__}.StepInterrupted": StepInterrupted}


def _class_of(types: Iterable[str], kind: type[StepFailed]) -> type[StepFailed]:
    kind = ChildFailed if issubclass(kind, ChildFailed) else StepFailed
    key = (kind.__name__, *types)
    cls = _classes.get(key)
    if cls is None:
        own = next((_OWN[name] for name in key if name in _OWN), StepFailed) if kind is StepFailed else kind
        bases = tuple(_mark(name) for name in dict.fromkeys(key[1:]))
        bases = (*bases, own) if own is not StepFailed else bases or (StepFailed,)
        made = type(kind.__name__, bases, {"__module__": __name__, "__qualname__": kind.__name__})
        copyreg.pickle(made, _reduce)  # a class made at run time can't be found by name
        cls = _classes.setdefault(key, made)
    return cls


def _reduce(exc: StepFailed) -> tuple[Any, ...]:
    kind = ChildFailed if isinstance(exc, ChildFailed) else StepFailed
    return kind.of, (exc.failure, exc.step_id, exc.at, exc.seq)

"""stepwell: durable workflows as plain Python generators.

A workflow yields *commands*; an engine performs each one, writes down what came of it, and on a retry answers from what
was written. What is written down never runs twice.
"""

from typing import TYPE_CHECKING, Any

from .codec import Codec
from .commands import (
    All,
    Child,
    Command,
    Compensate,
    ContinueAsNew,
    Decision,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    SetState,
    Signal,
    Sleep,
    Spend,
    Step,
    Stream,
    Suspend,
    Transaction,
    Uuid,
    step,
)
from .composing import durable
from .engine import Engine
from .errors import (
    Cancelled,
    ChildFailed,
    ClosedError,
    CodecError,
    ConflictError,
    CorruptHistoryError,
    DivergenceError,
    EventMismatchError,
    Failure,
    InvalidInputError,
    InvalidYieldError,
    LeaseLostError,
    NewerFormatError,
    NotFoundError,
    RunArrivingError,
    RunBusyError,
    RunCancelledError,
    RunClosedError,
    RunFailedError,
    RunMovedError,
    RunNotFinishedError,
    SignalRejected,
    StepFailed,
    StepInterrupted,
    StepProcessError,
    StepTimeoutError,
    StepwellError,
    StepwellWarning,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
    TimedOut,
    TransactionError,
    VersionMismatchError,
    failed,
)
from .limits import BudgetExceededError, CycleDetectedError, DepthExceededError, HistoryLimitError
from .loading import HistoryLimit
from .logs import get_logger
from .outcomes import (
    Outcome,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Running,
    RunPaused,
    RunRecord,
    RunSuspended,
    WaitingFor,
)
from .performers import StepContext, current_step
from .retry import RetryPolicy
from .upkeep import Moved, Pruned, StoreSize
from .workflows import Workflow, workflow

if TYPE_CHECKING:
    from .differences import Diff, diff
    from .histories import History

__all__ = [
    "All",
    "BudgetExceededError",
    "Cancelled",
    "Child",
    "ChildFailed",
    "ClosedError",
    "Codec",
    "CodecError",
    "Command",
    "Compensate",
    "ConflictError",
    "ContinueAsNew",
    "CorruptHistoryError",
    "CycleDetectedError",
    "Decision",
    "DepthExceededError",
    "Diff",
    "DivergenceError",
    "Emit",
    "Engine",
    "EventMismatchError",
    "Failure",
    "Flow",
    "History",
    "HistoryLimit",
    "HistoryLimitError",
    "InvalidInputError",
    "InvalidYieldError",
    "LeaseLostError",
    "Moved",
    "NewerFormatError",
    "NotFoundError",
    "Now",
    "Outcome",
    "Patched",
    "Pruned",
    "Race",
    "Random",
    "RetryPolicy",
    "RunArrivingError",
    "RunBusyError",
    "RunCancelled",
    "RunCancelledError",
    "RunClosedError",
    "RunCompleted",
    "RunFailed",
    "RunFailedError",
    "RunMovedError",
    "RunNotFinishedError",
    "RunPaused",
    "RunRecord",
    "RunSuspended",
    "Running",
    "SetState",
    "Signal",
    "SignalRejected",
    "Sleep",
    "Spend",
    "Step",
    "StepContext",
    "StepFailed",
    "StepInterrupted",
    "StepProcessError",
    "StepTimeoutError",
    "StepwellError",
    "StepwellWarning",
    "StoreError",
    "StoreMisconfiguredError",
    "StoreSize",
    "StoreUnavailableError",
    "Stream",
    "Suspend",
    "TimedOut",
    "Transaction",
    "TransactionError",
    "Uuid",
    "VersionMismatchError",
    "WaitingFor",
    "Workflow",
    "current_step",
    "diff",
    "durable",
    "failed",
    "get_logger",
    "step",
    "workflow",
]

if not TYPE_CHECKING:  # type checkers would take it to mean that there is every name
    _LATE = {"Diff": "differences", "diff": "differences", "History": "histories"}

    def __getattr__(name: str) -> Any:
        """Import what few programs use when it is asked for."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})

"""What the command line itself refuses, and the exit code that each error stands for."""

from __future__ import annotations

from ..errors import (
    ClosedError,
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    NewerFormatError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
)

__all__ = ["EXIT_CODES", "AppError", "DemoError", "UsageError", "exit_code_of"]

OK, ENDED_BADLY, MISTAKE, TRY_AGAIN, DAMAGED, INTERNAL, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 70, 130, 141

EXIT_CODES = {
    OK: "done: the run is completed, or it waits, is paused, or is driven by somebody else; worker: it has ended",
    ENDED_BADLY: "the run has failed or was cancelled; demo: the demonstration failed; doctor: data are in danger; "
    "diff: the runs differ; lint: something was found; check: a run would break",
    MISTAKE: "your mistake: arguments, values, run, workflow, app or store; nothing was changed",
    TRY_AGAIN: "try again: the store or the run is busy",
    DAMAGED: "the history is damaged, does not fit the code, or the store failed; verify: something is wrong",
    INTERNAL: "a bug in stepwell; the traceback is for its authors",
    INTERRUPTED: "interrupted with Ctrl-C; what was recorded stays",
    BROKEN_PIPE: "the reader of the output went away",
}
"""What a script may rely on; `stepwell --help` shows it."""


class UsageError(StepwellError):
    """The command line itself is wrong: an argument is missing, unknown or malformed."""

    code = "USAGE"


class AppError(StepwellError):
    """What `--app` names can't be loaded, or is no engine."""

    code = "APP"


class DemoError(StepwellError):
    """The demonstration did not go as it should."""

    code = "DEMO"


# The first that fits decides, so a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[StepwellError], int], ...] = (
    (DemoError, ENDED_BADLY),
    (NewerFormatError, MISTAKE),
    (StoreMisconfiguredError, MISTAKE),
    (StoreError, DAMAGED),
    (CorruptHistoryError, DAMAGED),
    (DivergenceError, DAMAGED),
    (CodecError, DAMAGED),
    (ClosedError, INTERNAL),
)


def exit_code_of(error: StepwellError) -> int:
    """The exit code of an error: what a script may do about it."""
    if error.retryable:
        return TRY_AGAIN
    return next((code for cls, code in _BY_ERROR if isinstance(error, cls)), MISTAKE)

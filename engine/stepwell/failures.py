"""From a live exception to what is recorded of it. Floor 2: pure."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from attrs import evolve

from .errors import ChildFailed, CodecError, Failure, StepFailed, StepwellError, type_names

__all__ = ["ToldError", "failure_of"]

_MAX_MESSAGE = 10_000
_MAX_CODE = 200
_OWN = __name__.partition(".")[0]


class ToldError(Exception):
    """A failure that another process has told of: the exception itself stayed there.

    Attributes:
        failure: what is recorded of it.
        retryable: whether a retry policy may have the step tried again.
    """

    def __init__(self, failure: Failure, *, retryable: bool = True) -> None:
        super().__init__(failure, retryable)
        self.failure = failure
        self.retryable = retryable

    def __str__(self) -> str:
        return str(self.failure)


def failure_of(error: BaseException, *, attempts: int = 0) -> Failure:
    """Take down an exception as data: type names, message, code and place; no stack and no host path.

    Args:
        error: the live exception. A `StepFailed` that left a workflow keeps the types of the step's own failure behind
            its own, so that `failed(CardDeclined)` catches it one level up.
        attempts: how often the step was tried; 0 when it is no step's failure.
    """
    if isinstance(error, ToldError):
        return evolve(error.failure, attempts=attempts)
    code = _code(error)
    names = tuple(map(_utf8, type_names(type(error))))
    if isinstance(error, StepFailed):
        kind = "ChildFailed" if isinstance(error, ChildFailed) else "StepFailed"
        names = (f"{_OWN}.errors.{kind}", *error.failure.types)
        code = error.failure.code
    return Failure(
        types=tuple(dict.fromkeys(names)),
        message=_text(error),
        code=code,
        where=_where(error.__traceback__),
        attempts=attempts or (error.failure.attempts if isinstance(error, StepFailed) else 0),
    )


def _text(error: BaseException) -> str:
    try:
        text = error.message if isinstance(error, (StepwellError, CodecError)) else str(error)
    except Exception:
        text = f"<{type(error).__name__} whose text can't be made>"
    text = _utf8(text)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _code(error: BaseException) -> str | None:
    try:
        code = getattr(error, "code", None)
        text = str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else None
    except Exception:  # a property of the user's, or an int of thousands of digits, which has no text
        return None
    return None if text is None else _utf8(text)[:_MAX_CODE]


def _utf8(text: str) -> str:
    """The text, a lone surrogate as its escape: it can't be recorded as it is."""
    return text.encode("utf-8", "backslashreplace").decode()


def _where(traceback: TracebackType | None) -> str:
    """`module:function:line` of the innermost frame that is not the library's."""
    found = ""
    while traceback is not None:
        frame: Any = traceback.tb_frame
        module = str(frame.f_globals.get("__name__", "?"))
        if module.partition(".")[0] != _OWN:
            found = _utf8(f"{module}:{frame.f_code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return found

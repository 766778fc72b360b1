"""How often, and after what delay, a failing step is tried again: pure arithmetic. Floor 1."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from attrs import field, frozen

from .digests import blake2b
from .errors import Failure, InvalidInputError, StepwellError

__all__ = ["NO_RETRY", "RetryPolicy", "as_seconds"]


def as_seconds(value: timedelta | float, name: str) -> float:
    """Turn a duration (timedelta, or a number of seconds) into seconds, at least 0.

    Raises:
        InvalidInputError: it is neither, negative, NaN or infinite; the text names `name` and shows the value.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise InvalidInputError(f"{name} must be a timedelta or a number of seconds, got {value!r}")
    if not 0 <= seconds <= 3.2e11:  # about 10,000 years: what datetime can hold; also false for NaN
        raise InvalidInputError(f"{name} must be between 0 seconds and 10,000 years, got {value!r}")
    return seconds


@frozen(init=False)
class RetryPolicy:
    """When a step that failed is tried again.

    One attempt unless asked for more. The delay before attempt n + 1 is `min(cap, initial * factor ** (n - 1))`, less
    up to `jitter` of it. The jitter is drawn from a hash of run, step and attempt, so that a resumed run computes the
    same delay. Determinism: pure. Source: exponential back-off with jitter, as in AWS's and Temporal's retry policies.

    Attributes:
        attempts: how often the step is tried at most, 1 or more.
        initial: seconds before the second attempt.
        factor: by what the delay grows, 1 or more.
        cap: longest delay in seconds.
        jitter: share of the delay that chance may take away, 0 to 1.
        on: exception classes that are worth another attempt (subclasses too); None means every `Exception`.
        give_up_on: exception classes that never are; stronger than `on`.
        when: a predicate on the live exception, asked last; None means yes.
    """

    attempts: int
    initial: float
    factor: float
    cap: float
    jitter: float
    on: tuple[type[BaseException], ...] | None
    give_up_on: tuple[type[BaseException], ...]
    when: Callable[[BaseException], bool] | None = field(eq=False)

    def __init__(
        self,
        attempts: int = 3,
        *,
        initial: timedelta | float = 1.0,
        factor: float = 2.0,
        cap: timedelta | float = 60.0,
        jitter: float = 0.1,
        on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        give_up_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        when: Callable[[BaseException], bool] | None = None,
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise InvalidInputError(f"RetryPolicy attempts must be a whole number of 1 or more, got {attempts!r}")
        if not isinstance(factor, (int, float)) or not 1 <= factor <= 1e6:
            raise InvalidInputError(f"RetryPolicy factor must be between 1 and 1,000,000, got {factor!r}")
        if not isinstance(jitter, (int, float)) or not 0 <= jitter <= 1:
            raise InvalidInputError(f"RetryPolicy jitter must be between 0 and 1, got {jitter!r}")
        if when is not None and not callable(when):
            raise InvalidInputError(f"RetryPolicy when must be a callable that takes the exception, got {when!r}")
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            attempts,
            as_seconds(initial, "RetryPolicy initial"),
            float(factor),
            as_seconds(cap, "RetryPolicy cap"),
            float(jitter),
            None if on is None else _classes(on, "on"),
            _classes(give_up_on, "give_up_on"),
            when,
        )

    def delay(self, attempt: int, seed: str) -> float:
        """Seconds to wait after failed attempt number `attempt` (1-based); `seed` names run and step."""
        exponent = min(attempt - 1, 1000)
        try:
            base = min(self.cap, self.initial * self.factor**exponent)
        except OverflowError:
            base = self.cap
        drawn = blake2b(f"{seed}/{attempt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return base * (1 - self.jitter * (int.from_bytes(drawn, "big") / 2**64))

    def wants(self, error: BaseException, attempt: int) -> bool:
        """Whether failed attempt number `attempt` (1-based) is followed by another one."""
        if attempt >= self.attempts or not isinstance(error, Exception):
            return False
        if isinstance(error, self.give_up_on) or (isinstance(error, StepwellError) and not error.retryable):
            return False
        if self.on is not None and not isinstance(error, self.on):
            return False
        return self.when is None or bool(self.when(error))

    def wants_recorded(self, failure: Failure, attempt: int) -> bool:
        """The same for a failure of which only the record is left; `when` is not asked."""
        if attempt >= self.attempts or (self.give_up_on and failure.is_a(*self.give_up_on)):
            return False
        return self.on is None or failure.is_a(*self.on)


def _classes(value: object, name: str) -> tuple[type[BaseException], ...]:
    found: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    for cls in found:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise InvalidInputError(f"RetryPolicy {name} takes exception classes, got {cls!r}")
    return found


NO_RETRY = RetryPolicy(1)
"""One attempt: what holds where nothing else is asked for."""

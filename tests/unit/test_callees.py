"""What is remembered of the functions that steps call."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

from stepwell import Step, step


def test_nothing_holds_a_function_that_a_step_was_made_of() -> None:
    def late() -> None: ...

    assert "late" == Step(late).name
    gone = weakref.ref(late)
    del late
    gc.collect()
    assert gone() is None


def test_a_wrapper_that_takes_a_function_s_attributes_over_is_known_by_itself() -> None:
    """What is known of a function is kept at it, and `functools.wraps` copies that to the wrapper."""

    def plain(x: int) -> int:
        return x

    assert Step(plain, 1).given.timeout is None

    def limited(fn: Callable[..., Any]) -> Callable[..., Any]:
        @step(name="limited", timeout=5)
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args)

        return wrapper

    wrapped = limited(plain)
    assert ("limited", 5) == (Step(wrapped, 1).name, Step(wrapped, 1).given.timeout)
    assert ("plain", None) == (Step(plain, 1).name, Step(plain, 1).given.timeout)


def test_an_object_that_answers_to_every_name_is_looked_at_itself() -> None:
    class Proxy:
        def __init__(self, fn: Callable[..., Any]) -> None:
            self.fn = fn

        def __getattr__(self, name: str) -> Any:
            if name == "broken":
                raise RuntimeError
            return getattr(self.fn, name)

        def __call__(self, x: int) -> int:
            return int(self.fn(x))

    def plain(x: int) -> int:
        return x

    Step(plain, 1)
    assert "plain" == Step(Proxy(plain), 1).name

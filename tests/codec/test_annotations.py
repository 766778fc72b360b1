# mypy: disable-error-code="empty-body"
"""What a function says of its result and its parameters is found in every way of saying it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar

import attrs
import pytest

from stepwell.codec import Codec, argument_types, parameter_annotations, return_annotation
from stepwell.commands import UNSET, Command, Flow, step
from stepwell.errors import CodecError
from stepwell.workflows import workflow

if TYPE_CHECKING:
    from fractions import Fraction as Hidden

T = TypeVar("T")


@attrs.frozen
class Ticket:
    id: str
    priority: int = 0


def plain(x: int) -> str: ...
def nothing(x: int) -> None: ...
def bare(x, y=1): ...
def anything() -> Any: ...
def ticket(a: Ticket, b: list[Ticket], *args: int, flag: bool = False, **kwargs: str) -> dict[str, Ticket]: ...
def annotated() -> Annotated[int, "percent"]: ...
def optional() -> Ticket | None: ...
def hidden(a: int, b: Hidden, c: str) -> int: ...
def hidden_result(a: int) -> list[Hidden]: ...
def later() -> DefinedLater: ...
def positional(a: int, /, b: str) -> int: ...
def waits() -> Awaitable[int]: ...
def coroutine() -> Coroutine[Any, Any, list[int]]: ...
async def fetch(url: str) -> bytes: ...
async def gives_awaitable() -> Awaitable[int]: ...
def literal_text() -> "Ticket": ...  # noqa: UP037 - text in text
def generator(x: Ticket) -> Flow[int]:
    yield from ()
    return 1


class DefinedLater:
    pass


class Service:
    def run(self, x: int) -> Ticket: ...

    @classmethod
    def make(cls, x: int) -> list[int]: ...

    @staticmethod
    def help(x: str) -> bool: ...

    def __call__(self, x: float) -> tuple[int, ...]: ...


@attrs.define
class Callable_:
    """Not hashable, so nothing can be kept by it."""

    x: int = 0

    def __call__(self, y: int) -> float: ...


def decorated(fn: Callable[..., Any]) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (plain, str),
        (nothing, type(None)),
        (bare, UNSET),
        (anything, Any),
        (ticket, dict[str, Ticket]),
        (annotated, Annotated[int, "percent"]),
        (optional, Ticket | None),
        (hidden, int),
        (later, DefinedLater),
        (literal_text, Ticket),
        (waits, int),
        (coroutine, list[int]),
        (fetch, bytes),
        (gives_awaitable, Awaitable[int]),
        (functools.partial(plain, 1), str),
        (functools.partial(functools.partial(fetch), "x"), bytes),
        (Service().run, Ticket),
        (Service.run, Ticket),
        (Service.make, list[int]),
        (Service().help, bool),
        (Service(), tuple[int, ...]),
        (Callable_(), float),
        (functools.partial(Service().run, 1), Ticket),
        (decorated(ticket), dict[str, Ticket]),
        (step(retry=None)(plain), str),
        (functools.lru_cache(optional), Ticket | None),
        (Ticket, Ticket),
        (int, int),
        (lambda: 1, UNSET),
        (len, UNSET),
        (int.__mul__, UNSET),
        ("a".upper, UNSET),
    ],
)
def test_the_type_of_a_result_is_found(fn: Any, expected: Any) -> None:
    assert expected == return_annotation(fn)
    assert expected == return_annotation(fn)  # kept, where it can be


def test_a_generator_keeps_its_whole_annotation() -> None:
    """The machine takes the third part of it."""
    assert Generator[Command[Any], Any, int] == return_annotation(generator)
    assert Generator[Command[Any], Any, int] == return_annotation(workflow(generator))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (plain, (int,)),
        (bare, (Any, Any)),
        (anything, ()),
        (ticket, (Ticket, list[Ticket])),
        (positional, (int, str)),
        (generator, (Ticket,)),
        (workflow(generator), (Ticket,)),
        (Service().run, (int,)),
        (Service.run, (Any, int)),
        (Service.make, (int,)),
        (Service(), (float,)),
        (Callable_(), (int,)),
        (functools.partial(positional, 1), (str,)),
        (functools.partial(ticket, b=[]), (Ticket,)),
        (decorated(plain), (int,)),
        (Ticket, (str, int)),
        (len, (Any,)),
    ],
)
def test_the_types_of_positional_parameters_are_found(fn: Any, expected: Any) -> None:
    assert expected == parameter_annotations(fn)
    assert expected == parameter_annotations(fn)


def test_a_name_that_does_not_resolve_is_told_with_function_and_remedy() -> None:
    with pytest.raises(CodecError) as caught:
        return_annotation(hidden_result)
    assert "return annotation 'list[Hidden]'" in caught.value.message
    assert f"{__name__}:hidden_result" in caught.value.message
    assert ".options(into=T)" in caught.value.message


def test_a_parameter_that_does_not_resolve_is_named() -> None:
    with pytest.raises(CodecError, match=r"parameter 'b' 'Hidden'.*hidden"):
        parameter_annotations(hidden)


def test_an_unknown_name_elsewhere_does_not_matter() -> None:
    assert int is return_annotation(hidden)


def test_names_of_an_enclosing_function_are_found_where_python_keeps_them() -> None:
    @attrs.frozen
    class Local:
        x: int

    def used(x: int) -> Local:
        return Local(x)

    def unused() -> Local: ...

    assert Local is return_annotation(used)
    with pytest.raises(CodecError, match="local to a function"):
        return_annotation(unused)


def test_a_class_is_told_by_its_own_name_only() -> None:
    """`Self` and the parameters of a generic can't be decoded, and the check says so before the call."""

    class Maker(Generic[T]):
        def make(self) -> Self: ...

        def item(self) -> T: ...

    codec = Codec()
    with pytest.raises(CodecError, match="Self"):
        codec.check(return_annotation(Maker().make))
    codec.check(return_annotation(Maker().item))  # as Any


def test_functions_are_not_kept_alive() -> None:
    import gc
    import weakref

    def fn(x: int) -> str: ...

    return_annotation(fn)
    parameter_annotations(fn)
    ref = weakref.ref(fn)
    del fn
    gc.collect()
    assert ref() is None


def test_the_types_of_arguments_go_by_position_and_name() -> None:
    def fn(a: int, /, b: str, *rest: float, c: bytes, d=None, **more: list[int]) -> None: ...

    types = argument_types(fn)
    assert [int, str, float, float] == [types(place) for place in range(4)]
    assert [str, bytes, Any, list[int]] == [types(name) for name in ("b", "c", "d", "e")]
    assert list[int] == types("a"), "a name that is positional only is free for the rest"


def test_arguments_that_nobody_declares_are_of_any_type() -> None:
    def fn(a): ...

    assert [Any, Any, Any] == [argument_types(fn)(0), argument_types(fn)(7), argument_types(fn)("b")]
    assert Any is argument_types(print)(0)
    assert Any is argument_types(min)(0)


def test_an_argument_whose_type_can_not_be_resolved_is_told() -> None:
    def fn(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    with pytest.raises(CodecError, match="annotation of parameter 'a' 'Nowhere'"):
        argument_types(fn)(0)

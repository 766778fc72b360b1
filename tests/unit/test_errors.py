"""Errors: stable codes, records of failures, and `failed()`, which catches by what was recorded."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import stepwell.errors
from stepwell import (
    Cancelled,
    Failure,
    InvalidInputError,
    SignalRejected,
    StepFailed,
    StepInterrupted,
    TimedOut,
    failed,
)
from stepwell.errors import StepwellError, Thrown, type_names
from stepwell.failures import failure_of


class CardDeclined(Exception):
    """An exception that can't be built again: its constructor wants more than its text."""

    made = 0

    def __init__(self, card: str, *, limit: int) -> None:
        type(self).made += 1
        super().__init__(f"{card} is declined over {limit}")
        self.code = "DECLINED"


class CardStolen(CardDeclined):
    """A special case."""


ERRORS = [
    value for _, value in inspect.getmembers(stepwell.errors, inspect.isclass) if issubclass(value, StepwellError)
]


def thrown(error: BaseException, **where: Any) -> StepFailed:
    """What is thrown into a workflow for a step that raised this."""
    return StepFailed.of(failure_of(error, attempts=1), **where)


# ---- what `failed` catches


def test_it_catches_the_class_that_was_raised() -> None:
    with pytest.raises(failed(CardDeclined)):
        raise thrown(CardDeclined("x", limit=1))


@pytest.mark.parametrize("cls", [CardStolen, CardDeclined, Exception, BaseException])
def test_it_catches_subclasses_by_the_recorded_types(cls: type[BaseException]) -> None:
    assert isinstance(thrown(CardStolen("x", limit=1)), failed(cls))


@pytest.mark.parametrize("cls", [OSError, ArithmeticError, StepInterrupted])
def test_it_lets_everything_else_pass(cls: type[BaseException]) -> None:
    assert not isinstance(thrown(CardStolen("x", limit=1)), failed(cls))
    assert not isinstance(thrown(CardDeclined("x", limit=1)), failed(CardStolen))


def test_it_gives_a_tuple_for_except_and_takes_several() -> None:
    classes = failed(OSError, CardDeclined)
    assert isinstance(classes, tuple)
    assert 2 == len(classes)
    for error in (ConnectionError("x"), CardStolen("x", limit=1)):
        with pytest.raises(classes):
            raise thrown(error)


def test_it_takes_dotted_names_where_the_class_is_not_at_hand() -> None:
    name = f"{__name__}.CardDeclined"
    assert failed(name) == failed(CardDeclined)
    assert isinstance(thrown(CardStolen("x", limit=1)), failed(name))


def test_the_same_question_has_the_same_answer() -> None:
    assert failed(OSError) == failed(OSError)


def test_nothing_is_rebuilt_by_calling_its_type() -> None:
    """Such a class is never called again: neither for the record, nor to catch it, nor to copy it."""
    error = CardDeclined("x", limit=1)
    before = CardDeclined.made
    for found in (thrown(error), copy.deepcopy(thrown(error)), pickle.loads(pickle.dumps(thrown(error)))):
        assert isinstance(found, failed(CardDeclined))
        assert not isinstance(found, CardDeclined)
    assert before == CardDeclined.made


def test_the_class_itself_does_not_catch_it() -> None:
    """A recorded failure is data; `except CardDeclined` is for the step's own code."""
    assert not isinstance(thrown(CardDeclined("x", limit=1)), CardDeclined)


def test_every_failed_step_is_caught_by_step_failed() -> None:
    assert isinstance(thrown(OSError("x")), StepFailed)
    assert isinstance(StepFailed.of(Failure(())), StepFailed)


def test_an_interrupted_step_is_caught_by_its_own_name() -> None:
    error = StepFailed.of(Failure(type_names(StepInterrupted), "unknown"), "charge")
    assert isinstance(error, StepInterrupted)
    assert isinstance(error, failed(StepInterrupted))
    assert not isinstance(thrown(OSError("x")), StepInterrupted)


def test_a_failure_that_left_a_workflow_is_caught_one_level_up() -> None:
    """The record of a StepFailed holds the types of the step's own failure behind its own."""
    outer = failure_of(thrown(CardStolen("x", limit=1)))
    assert outer.is_a(StepFailed, CardDeclined)
    assert "DECLINED" == outer.code
    assert isinstance(StepFailed.of(outer), failed(CardDeclined))


@pytest.mark.parametrize("wrong", [3, int, None, OSError("x")])
def test_only_exception_classes_and_names_can_be_asked_for(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="takes exception classes or dotted names, got"):
        failed(wrong)
    with pytest.raises(InvalidInputError, match="needs at least one exception class"):
        failed()


# ---- copies

THROWN = [
    StepFailed.of(Failure(("builtins.OSError", "builtins.Exception"), "gone", "E1", "m:f:3", 2), "fetch", "0.1", 7),
    StepFailed(Failure(("builtins.OSError",), "gone"), "fetch", "0", 3),
    StepFailed.of(Failure(type_names(StepInterrupted), "unknown"), "charge", "0", 3),
    TimedOut("go", "0", 4),
    SignalRejected("go", "no int", "0", 5),
]


@pytest.mark.parametrize("error", THROWN, ids=str)
@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_what_is_thrown_can_be_copied_and_pickled(error: Thrown, how: str) -> None:
    ways: dict[str, Any] = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda e: pickle.loads(pickle.dumps(e)),
    }
    found = ways[how](error)
    assert type(error) is type(found)
    assert (str(error), error.at, error.seq, vars(error)) == (str(found), found.at, found.seq, vars(found))


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_of_the_library_can_be_copied_and_pickled(cls: type[StepwellError]) -> None:
    error = cls("text", run_id="r")
    for found in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (cls, "text", {"run_id": "r"}) == (type(found), found.message, vars(found))


def test_codes_are_stable_and_unique() -> None:
    codes = {cls.__name__: cls.code for cls in ERRORS}
    assert len(codes) == len(set(codes.values()))
    for code in codes.values():
        assert code == code.upper()


def test_what_may_be_tried_again_is_known() -> None:
    expected = {"LeaseLostError", "RunArrivingError", "RunBusyError", "RunNotFinishedError", "StoreUnavailableError"}
    assert expected == {cls.__name__ for cls in ERRORS if cls.retryable}


def test_cancelled_is_no_exception() -> None:
    assert not issubclass(Cancelled, Exception)


# ---- records


def test_a_failure_is_recorded_as_data() -> None:
    def raising() -> None:
        raise CardStolen("visa", limit=5)

    with pytest.raises(CardStolen) as caught:
        raising()
    failure = failure_of(caught.value, attempts=3)
    expected = ["CardStolen", "CardDeclined", "Exception", "BaseException"]
    assert expected == [name.rpartition(".")[2] for name in failure.types]
    assert ("visa is declined over 5", "DECLINED", 3) == (failure.message, failure.code, failure.attempts)
    assert failure.where.endswith(f"raising:{raising.__code__.co_firstlineno + 1}")
    assert f"{__name__}.CardStolen: visa is declined over 5" == str(failure)


def test_no_path_of_this_machine_is_recorded() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x")
    failure = failure_of(caught.value)
    assert "/" not in repr(failure)
    assert "\\" not in repr(failure)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("", ValueError()),
        ("'x'", KeyError("x")),
        ("\\ud800", ValueError("\ud800")),
        ("<Loud whose text can't be made>", type("Loud", (Exception,), {"__str__": lambda self: 1 / 0})()),
    ],
)
def test_any_text_can_be_recorded(told: str, error: BaseException) -> None:
    assert told == failure_of(error).message


def test_a_long_text_is_cut() -> None:
    assert 10_003 == len(failure_of(ValueError("x" * 20_000)).message)


@pytest.mark.parametrize(("told", "code"), [("E1", "E1"), ("404", 404), (None, None), (None, True), (None, [1])])
def test_a_code_is_recorded_as_text(told: str | None, code: Any) -> None:
    error = ValueError("x")
    error.code = code  # type: ignore[attr-defined]
    assert told == failure_of(error).code


@pytest.mark.parametrize(
    ("told", "code"),
    [("\\ud800", "\ud800"), ("x" * 200, "x" * 201), (None, 10**5000)],
    ids=["surrogate", "long", "int"],
)
def test_a_code_that_can_not_be_recorded_as_it_is_is_cleaned(told: str | None, code: Any) -> None:
    """A lone surrogate is written as its escape, a long code is cut, and one without text is none."""
    error = ValueError("x")
    error.code = code  # type: ignore[attr-defined]
    assert told == failure_of(error).code


def test_a_code_that_can_not_be_read_is_none() -> None:
    """A property of the user's may raise, and must not hide the failure itself."""
    loud = type("Loud", (Exception,), {"code": property(lambda self: 1 / 0)})
    assert failure_of(loud("x")).code is None


def test_the_names_of_a_failure_are_cleaned_of_what_is_no_utf_8() -> None:
    """Modules that are made at run time may be called anything."""
    odd = type("Odd", (Exception,), {"__module__": "m\ud800"})
    space: dict[str, Any] = {"__name__": "made\ud800", "odd": odd}
    exec("def raising(): raise odd('x')", space)
    with pytest.raises(odd) as caught:
        space["raising"]()
    failure = failure_of(caught.value)
    assert ("m\\ud800.Odd", "made\\ud800:raising:1") == (failure.types[0], failure.where)
    assert isinstance(StepFailed.of(failure), failed("m\\ud800.Odd"))


def test_the_text_of_a_failed_step_names_step_failure_and_attempts() -> None:
    failure = Failure(("builtins.OSError",), "gone", attempts=3)
    assert "step 'fetch' failed after 3 attempts: OSError: gone" == str(StepFailed.of(failure, "fetch"))
    assert "step 'fetch' failed: OSError" == str(StepFailed.of(Failure(("builtins.OSError",)), "fetch"))


def test_a_failure_without_types_is_still_one() -> None:
    assert "builtins.Exception" == Failure(()).type

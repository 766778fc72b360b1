"""fork, reset and delete."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import (
    ConflictError,
    Flow,
    InvalidInputError,
    NotFoundError,
    RunCancelled,
    RunCompleted,
    RunSuspended,
    Step,
    Suspend,
    current_step,
    workflow,
)

from .tools import kinds


@workflow
def story(tail: str) -> Flow[list[Any]]:
    first = yield from Step(str.upper, "a").options(into=str)
    second = yield from Step(str.upper, "b").options(into=str)
    got = yield from Suspend("go", into=str)
    return [first, second, got, tail]


def test_a_fork_begins_with_the_history_before_a_step(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r", tags={"a": "1"})
    parked = engine.fork("r", before="upper#2", new_run_id="f")
    assert RunSuspended("f", ("go",)) == parked
    assert ["start", "step", "step", "suspend"] == kinds(engine, "f")
    start = engine.history("f")[0]
    assert ({"runId": "r", "incarnation": 0, "offset": 2}, 1) == (start.source, start.prefix)
    assert {"a": "1"} == engine.get("f").tags
    assert RunCompleted("f", ["A", "B", "mine", "end"]) == engine.resume("f", "go", "mine")
    assert "suspended" == engine.get("r").status
    assert {"b": "2"} == engine.get(engine.fork("r", before=1, tags={"b": "2"}).run_id).tags


def test_a_fork_of_a_closed_run_may_go_another_way(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r")
    engine.resume("r", "go", "first")
    history = engine.history("r")
    seq = next(event.offset for event in history if event.kind == "resume")
    assert isinstance(engine.fork("r", before=seq, new_run_id="f"), RunSuspended)
    assert ["A", "B", "second", "end"] == engine.resume("f", "go", "second").unwrap()
    assert history == engine.history("r")


@pytest.mark.parametrize(
    ("before", "error", "text"),
    [
        ("upper#3", NotFoundError, "recorded steps: upper, upper#2"),
        (0, InvalidInputError, "a seq from 1 to 4, got 0"),
        (5, InvalidInputError, "a seq from 1 to 4, got 5"),
        (True, InvalidInputError, "got True"),
        (None, InvalidInputError, "got None"),
    ],
)
def test_a_fork_needs_a_place(memory: Any, before: Any, error: Any, text: str) -> None:
    engine = memory.engine()
    engine.start(story, "end", run_id="r")
    with pytest.raises(error, match=text):
        engine.fork("r", before=before)
    assert ["r"] == [record.id for record in engine.runs()]


def test_a_fork_needs_a_run_id_of_its_own(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r")
    for taken in ("r", "f"):
        engine.start(story, "end", run_id=taken)
        with pytest.raises(ConflictError, match="is there already"):
            engine.fork("r", before=1, new_run_id=taken)


def test_a_fork_after_a_cancel_is_refused(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r")
    engine.cancel("r")
    with pytest.raises(ConflictError, match="comes after a cancel"):
        engine.fork("r", before=5)
    assert isinstance(engine.fork("r", before=4, new_run_id="f"), RunSuspended)


def test_a_fork_of_a_workflow_that_is_unknown_writes_nothing(bench: Any) -> None:
    bench.engine().start(story, "end", run_id="r")
    engine = bench.engine()
    with pytest.raises(NotFoundError, match="knows no workflow"):
        engine.fork("r", before=1, new_run_id="f")
    with pytest.raises(NotFoundError, match="knows no workflow"):
        engine.reset("r")
    assert [("r", "suspended", 1)] == [(run.id, run.status, run.attempts) for run in engine.runs()]


# ---- reset and delete


def test_a_reset_begins_anew_with_the_same_input(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r", tags={"a": "1"})
    engine.resume("r", "go", "first")
    assert RunSuspended("r", ("go",)) == engine.reset("r")
    record = engine.get("r")
    assert (2, ["end"], {"a": "1"}) == (record.attempts, record.input, record.tags)
    assert RunCompleted("r", ["A", "B", "second", "end"]) == engine.resume("r", "go", "second")
    assert "resume" in kinds(engine, incarnation=0)


def test_a_reset_of_an_open_run_closes_it_first(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r")
    (wait,) = engine.waiting()
    engine.reset("r")
    assert "cancelled" == kinds(engine, incarnation=0)[-1]
    (again,) = engine.waiting()
    assert wait.wait != again.wait, "a click on the old question never answers the new one"


def test_idempotency_keys_are_new_after_a_reset_and_in_a_fork(bench: Any) -> None:
    keys: list[str] = []

    def note() -> None:
        keys.append(current_step().idempotency_key)

    @workflow
    def w() -> Flow[None]:
        yield Step(note)

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.reset("r")
    engine.fork("r", before=1)
    assert 3 == len(set(keys))


def test_idempotency_keys_are_new_when_a_run_id_is_used_again_after_a_delete(bench: Any) -> None:
    """Or the service that they are handed to would take the new run's calls for the old one's."""
    keys: list[str] = []
    works = {"now": False}

    def note() -> None:
        keys.append(current_step().idempotency_key)
        if not works["now"]:
            raise ConnectionError

    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")
        yield Step(note)

    engine = bench.engine(w)
    for _ in range(2):
        engine.start(w, run_id="r")
        engine.resume("r", "go")
        bench.engine(w).retry("r")  # each in sessions of their own, with the same key
        engine.delete("r")
    works["now"] = True
    engine.start(w, run_id="r")
    engine.resume("r", "go")
    first, again, second, twice, third = keys
    assert (first, second) == (again, twice)
    assert 3 == len({first, second, third})


def test_a_closed_run_is_deleted_for_good(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "end", run_id="r")
    with pytest.raises(ConflictError, match="is open; cancel it before you delete it"):
        engine.delete("r")
    assert RunCancelled("r") == engine.cancel("r")
    engine.delete("r")
    with pytest.raises(NotFoundError):
        engine.get("r")
    with pytest.raises(NotFoundError):
        engine.delete("r")
    assert RunSuspended("r", ("go",)) == engine.start(story, "other", run_id="r")
    assert 1 == engine.get("r").attempts

"""A run that is deleted while somebody asks for it was never damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepwell import CorruptHistoryError, Engine, Flow, NotFoundError, Step, workflow
from stepwell_stores.memory import MemoryStore


@workflow
def greet(name: str) -> Flow[str]:
    return (yield from Step(str.upper, name).options(into=str))


class Deleting(MemoryStore):
    """Between the look at a run's head and the reading of its history, somebody deletes it."""

    deletes = begins = loses = False

    def read(self, run_id: str, from_seq: int = 0, **how: Any) -> Any:
        if self.deletes:
            self.deletes = False
            other = Engine(self, [greet])  # which would close the store, if it were closed
            other.delete(run_id)
            if self.begins:
                other.submit(greet, "grace", run_id=run_id)
        return None if self.loses else super().read(run_id, from_seq, **how)


@pytest.mark.parametrize("begins", [False, True], ids=["gone", "begun anew"])
@pytest.mark.parametrize("ask", [Engine.advance, Engine.wait], ids=lambda one: one.__name__)
def test_a_run_that_is_deleted_meanwhile_is_not_found(ask: Callable[..., Any], begins: bool) -> None:
    store = Deleting()
    with Engine(store, [greet]) as engine:
        engine.start(greet, "ada", run_id="r")
        store.deletes, store.begins = True, begins
        with pytest.raises(NotFoundError, match="no run 'r'"):
            ask(engine, "r")


def test_a_record_that_is_missing_is_damage() -> None:
    store = Deleting()
    with Engine(store, [greet]) as engine:
        engine.start(greet, "ada", run_id="r")
        store.loses = True
        with pytest.raises(CorruptHistoryError, match="the record is missing"):
            engine.advance("r")

"""Runs move from any store to any other one, and go on there."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from stepwell import InvalidInputError, Moved
from stepwell.store import Store

from .conftest import Pair
from .zoo import KINDS, asking, buffering, engine_on, fill, finish, heads, judge, parent, picture, plain, refuses, same


def test_everything_arrives_as_it_was_and_goes_on(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), tmp_path / "log"
    fill(source, log, 2 * KINDS)
    before = picture(source)
    moved = engine_on(source).migrate(target)
    assert (len(before), {}) == (moved.moved, moved.kept)
    assert sorted(before) == sorted(moved.run_ids)
    same(before, picture(target))
    assert [] == list(heads(source))
    assert [] == arrivals(target)
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    for run_id in list(before)[:: len(before) // 12]:
        refuses(source, run_id)
    finish(target)
    judge(log, target)
    assert Moved() == engine_on(source).migrate(target)


def arrivals(store: Any) -> list[Any]:
    found: list[Any] = store.arrivals(limit=9)
    return found


class Meddled:
    """A store with something that happens before a call."""

    def __init__(self, store: Store, **before: Any) -> None:
        self._store, self._before = store, before

    def __getattr__(self, name: str) -> Any:
        found, before = getattr(self._store, name), self._before.get(name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            if before is not None:
                before()
            return found(*args, **options)

        return call


def test_what_is_sent_while_a_run_is_copied_goes_along(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), str(tmp_path / "log")
    engine = engine_on(source)
    engine.start(buffering, log, "r", run_id="r")
    left = [1, 2, 3]

    def send() -> None:
        if left:
            engine.signal("r", "early", left.pop(), id=str(len(left)))

    one: Any = Meddled(source, depart=send)
    assert 1 == engine_on(one).migrate(target).moved
    assert [] == left
    late = engine_on(target)
    late.resume("r", "first", 0)
    assert [0, 3, 2] == late.get("r").result


def test_a_run_that_another_id_has_taken_stays_with_its_family(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), str(tmp_path / "log")
    engine = engine_on(source)
    engine.start(parent, log, "p", run_id="p")
    engine.start(asking, log, "other", run_id="other")
    engine_on(target).start(plain, log, "elsewhere", run_id="p-kid")
    told: list[tuple[str, str]] = []
    done = engine.migrate(target, on_run=lambda *what: told.append(what))
    assert (("other",), {"taken": 2}) == (done.run_ids, done.kept)
    assert {"p": "taken", "p-kid": "taken"} == done.kept_ids
    assert {("other", "moved"), ("p", "taken"), ("p-kid", "taken")} == set(told)
    assert [] == arrivals(target)
    engine.resume("p-kid", "go")
    assert "completed" == engine.get("p").status
    engine_on(target).delete("p-kid")
    assert 2 == engine.migrate(target).moved


def test_a_filter_takes_the_family_along(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), str(tmp_path / "log")
    engine = engine_on(source)
    for number in range(3):
        engine.start(parent, log, f"p{number}", run_id=f"p{number}", tags={"n": str(number)})
        engine.start(plain, log, f"c{number}", run_id=f"c{number}", tags={"n": str(number)})
    assert {"c1", "p1", "p1-kid"} == set(engine.migrate(target, tag=("n", "1"), dry_run=True).run_ids)
    assert {"c1", "p1", "p1-kid"} == set(engine.migrate(target, tag=("n", "1")).run_ids)
    assert {"p0", "p0-kid", "p2", "p2-kid"} == set(engine.migrate(target, workflow="kid").run_ids)
    assert ("c2", "c0") == engine.migrate(target, status="completed").run_ids


def test_a_child_that_went_ahead_is_waited_for(pair: Pair, tmp_path: Path) -> None:
    """A move that ends between a child and its parent: the parent may be driven, and begins nothing anew."""
    source, target, log = pair.source.store(), pair.target.store(), tmp_path / "log"
    engine = engine_on(source)
    engine.start(parent, str(log), "p", run_id="p")

    class Enough(Exception):
        """The move ends here."""

    left = [None]

    def stop() -> None:
        if not left:
            raise Enough
        left.pop()

    one: Any = Meddled(source, depart=stop)
    with pytest.raises(Enough):
        engine_on(one).migrate(target)
    assert ["p-kid"] == [run.run_id for run in heads(target)]
    assert "suspended" == engine.advance("p").status
    engine_on(target).resume("p-kid", "go")
    assert "suspended" == engine_on(source).advance("p").status
    moved = engine_on(source).migrate(target)
    assert ("p",) == moved.run_ids
    engine_on(target).run_due()
    assert "two" == engine_on(target).get("p").result
    judge(log, target)


def test_two_who_move_the_same_runs_lose_none(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), tmp_path / "log"
    fill(source, log, KINDS)
    before, failures = picture(source), list[BaseException]()

    def move() -> None:
        try:
            engine_on(source).migrate(target, wait=30)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=move) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [] == failures
    assert {} == engine_on(source).migrate(target).kept
    same(before, picture(target))
    finish(target)
    judge(log, target)


@pytest.mark.parametrize(
    "wrong", [{"wait": -1}, {"dry_run": 1}, {"status": "gone"}, {"tag": 3}, {"target": 7}], ids=repr
)
def test_a_wrong_argument_is_refused(wrong: dict[str, Any]) -> None:
    engine = engine_on(open_memory())
    with pytest.raises(InvalidInputError):
        engine.migrate(**{"target": "memory:", **wrong})


def open_memory() -> Store:
    from stepwell_stores import open_store

    return open_store("memory:")

"""Runs move from any store to any other one, and go on there."""

from __future__ import annotations

from pathlib import Path

from stepwell import Moved

from .conftest import Pair
from .zoo import KINDS, engine_on, fill, finish, heads, judge, picture, refuses, same


def test_everything_arrives_as_it_was_and_goes_on(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), tmp_path / "log"
    fill(source, log, 2 * KINDS)
    before = picture(source)
    moved = engine_on(source).migrate(target)
    assert (len(before), {}) == (moved.moved, moved.kept)
    assert sorted(before) == sorted(moved.run_ids)
    same(before, picture(target))
    assert [] == list(heads(source))
    assert [] == target.arrivals(limit=9)  # type: ignore[attr-defined]
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    for run_id in list(before)[:: len(before) // 12]:
        refuses(source, run_id)
    finish(target)
    judge(log, target)
    assert Moved() == engine_on(source).migrate(target)

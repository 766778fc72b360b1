"""Every store to every other one: all kinds of runs move, and go on there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from stepwell_stores import open_store

from .places import STORES, Places
from .zoo import KINDS, engine_on, fill, finish, heads, judge, picture, refuses, same

WAYS = list(permutations(STORES, 2))


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def both(way: tuple[str, str], places: Places) -> Iterator[tuple[Any, Any]]:
    source, target = (open_store(places.url(kind, name)) for kind, name in zip(way, ("from", "to"), strict=True))
    with closing(source), closing(target):
        yield source, target


def test_runs_of_every_kind_move_and_go_on(way: tuple[str, str], both: tuple[Any, Any], tmp_path: Path) -> None:
    (source, target), log = both, tmp_path / "log"
    fill(source, log, KINDS)
    before = picture(source)
    moved = engine_on(source).migrate(target)
    assert (len(before), {}) == (moved.moved, moved.kept)
    same(before, picture(target))
    assert [] == list(heads(source))
    assert [] == target.arrivals(limit=9)
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    refuses(source, "r0003")
    finish(target)
    judge(log, target)

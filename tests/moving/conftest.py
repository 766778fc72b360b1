"""Pairs of stores: every one that `--stores` names, to every other one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest
from tests.engine.conftest import Bench, make_bench, python

__all__ = ["python"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = metafunc.config.getoption("--stores").split(",")
    if "pair" in metafunc.fixturenames:
        pairs = list(permutations(kinds, 2))
        metafunc.parametrize("pair", pairs, ids=["-".join(pair) for pair in pairs], indirect=True)


class Pair:
    """Two stores: from where, and where to."""

    def __init__(self, source: Bench, target: Bench) -> None:
        self.source, self.target = source, target


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    source, target = (make_bench(kind, request) for kind in request.param)
    yield Pair(next(source), next(target))
    for bench in (source, target):
        next(bench, None)

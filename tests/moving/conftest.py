"""Pairs of stores: every one that `--stores` names, to every other one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import Bench, make_bench, python

from .places import Places

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
    makers = [make_bench(kind, request) for kind in request.param]
    source, target = map(next, makers)
    if "sqlite" in target.url:  # what is around it may be all that tells it from the other one
        target = Bench(target.kind, target.beside("to"))
    yield Pair(source, target)
    target.close()
    for maker in makers:
        next(maker, None)


class _Started(dict[str, Any]):
    """The session's servers, each started when it is asked for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__()
        self._request = request

    def __missing__(self, kind: str) -> Any:
        return self._request.getfixturevalue({"redis": "valkey_server"}.get(kind, f"{kind}_server"))


@pytest.fixture
def places(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Places for stores of any kind; what lies on a server stays there until that ends."""
    servers = _Started(request)

    class Here(Places):
        def url(self, kind: str, name: str) -> str:
            if kind == "s3":
                for variable, value in servers[kind].environment.items():
                    monkeypatch.setenv(variable, value)
            return super().url(kind, name)

    return Here(tmp_path, servers)

"""Another package makes the scheme of its store known, by an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stepwell import Engine, Flow, Step, workflow
from stepwell.errors import StoreMisconfiguredError
from stepwell_stores import masked, open_store

MODULE = """
from stepwell.errors import StoreMisconfiguredError
from stepwell_stores.memory import MemoryStore

asked = []

def cabinet(url, *, must_exist, clock):
    asked.append((url, must_exist))
    if url == "cabinet:":
        raise StoreMisconfiguredError("cabinet: needs a drawer; write 'cabinet:top'")
    return MemoryStore(clock=clock)
"""


@workflow
def adds() -> Flow[int]:
    return (yield from Step(int, "4"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution with a module of its own; its name."""
    name = f"cabinets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[stepwell.stores]\ncabinet = {name}:cabinet\nbroken = {name}.not_there:cabinet\nmemory = {name}:cabinet\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_an_engine_opens_it_by_its_url(package: str) -> None:
    with Engine("cabinet:top?lock=brass", [adds]) as engine:
        assert 4 == engine.start(adds).unwrap()
    assert [("cabinet:top?lock=brass", False)] == sys.modules[package].asked


def test_its_own_errors_are_the_callers(package: str) -> None:
    with pytest.raises(StoreMisconfiguredError, match="needs a drawer"):
        open_store("cabinet:")


def test_it_cant_take_a_scheme_that_comes_with_stepwell(package: str) -> None:
    open_store("memory:").close()
    assert package not in sys.modules


def test_one_that_cant_be_imported_is_named(package: str) -> None:
    with pytest.raises(StoreMisconfiguredError, match=rf"{package}\.not_there.*can't be imported.*repair or remove"):
        open_store("broken:x")


def test_an_unknown_scheme_lists_it(package: str) -> None:
    words = r"unknown store scheme 'drawer'.*memory:.*broken:, cabinet:"
    with pytest.raises(StoreMisconfiguredError, match=words) as e:
        open_store("drawer://ada:secret@here")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:se:c@ret@db:5432/runs?a=b", "postgresql://ada:***@db:5432/runs?a=b"),
        ("postgresql://ada@db/runs?password=secret&a=b", "postgresql://ada@db/runs?password=***&a=b"),
        ("redis://:secret@db/0", "redis://:***@db/0"),
        ("s3://bucket/prefix?secret_access_key=x&token=y", "s3://bucket/prefix?secret_access_key=***&token=***"),
        ("file:runs@home", "file:runs@home"),
        ("sqlite:///a/b.db?sync=normal", "sqlite:///a/b.db?sync=normal"),
    ],
)
def test_a_password_is_masked(url: str, shown: str) -> None:
    assert shown == masked(url)

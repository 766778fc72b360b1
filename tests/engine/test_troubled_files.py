"""Files of one run that can't be read or written on a store of files: the other runs must not feel it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwell import Engine, Flow, Step, StoreMisconfiguredError, workflow
from stepwell.worker import Worker

RUNS = ["a", "b", "c"]  # b is in trouble
PARTS = ["b.tmp", "b.fence", "b.head.json", "b.0.jsonl", "b.0.jsonl.torn"]


def work() -> str:
    return "done"


@workflow
def one_step() -> Flow[str]:
    return (yield Step(work))


def as_directory(place: Path) -> None:
    place.unlink(missing_ok=True)
    place.mkdir()
    (place / "file").write_text("")


def as_link(place: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to("elsewhere")


def as_immutable(place: Path) -> None:
    place.touch()
    _attribute("+i", place)


def as_append_only(place: Path) -> None:
    place.touch()
    _attribute("+a", place)


def _attribute(change: str, place: Path) -> None:
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip("needs root and chattr")
    if subprocess.run(["chattr", change, str(place)], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"the file system of {place.parent} has no such attributes")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "runs"
    yield directory
    if shutil.which("chattr") is not None:
        subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(directory)], capture_output=True, check=False)


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    with Engine(f"file:{path}", [one_step]) as engine:
        for run_id in RUNS:
            engine.submit(one_step, run_id=run_id)
        yield engine


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("trouble", [as_directory, as_link, as_immutable, as_append_only])
def test_a_worker_drives_the_others(path: Path, engine: Engine, part: str, trouble: Callable[[Path], None]) -> None:
    if part.endswith(".torn"):
        with (path / "b.0.jsonl").open("ab") as file:
            file.write(b'{"v":1,"type":"st')
    trouble(path / part)
    assert Worker(engine, threads=1).run(drain=True)["completed"] >= 2
    for run_id in ("a", "c"):
        head = engine.store.head(run_id)
        assert head is not None
        assert head.head.status == "completed"


@pytest.mark.parametrize("part", PARTS[:4])
@pytest.mark.parametrize("trouble", [as_directory, as_immutable])
def test_the_others_are_driven_without_a_worker(
    path: Path, engine: Engine, part: str, trouble: Callable[[Path], None]
) -> None:
    trouble(path / part)
    done = [outcome.run_id for outcome in engine.run_due()]
    assert {"a", "c"} <= set(done)


def test_a_directory_that_can_not_be_written_is_the_stores_trouble(path: Path, engine: Engine) -> None:
    _attribute("+i", path)
    with pytest.raises(StoreMisconfiguredError, match="runs"):
        Worker(engine, threads=1).run(drain=True)

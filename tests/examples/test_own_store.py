"""examples/own-store keeps the contract, in at most two hundred lines; the how-to shows this very file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import settings

from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import Created
from stepwell.testing.contract import a_head, a_start

from ..contract.on_disk import DiskContract, DiskMachine

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("engine", "stores", "examples/own-store"))
SIGNALS = """
import sys
from one_file import OneFileStore
from stepwell.testing.contract import a_record

store = OneFileStore(sys.argv[1])
for number in range(20):
    store.append("r", None, None, [a_record(number, "resume")], attempt_id=f"{sys.argv[2]}-{number}")
"""
SOURCE = ROOT / "examples" / "own-store" / "one_file.py"
sys.path.insert(0, str(SOURCE.parent))
try:
    from one_file import OneFileStore
finally:
    sys.path.remove(str(SOURCE.parent))


class TestOneFile(DiskContract):
    opens = OneFileStore


class OneFileMachine(DiskMachine):
    opens = OneFileStore


TestOneFileMachine = OneFileMachine.TestCase
TestOneFileMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


def test_it_has_at_most_two_hundred_lines() -> None:
    assert 200 >= len(SOURCE.read_text("utf-8").splitlines())


def test_processes_share_the_file(tmp_path: Path) -> None:
    store = OneFileStore(tmp_path / "runs")
    assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="new"), Created)
    words = [sys.executable, "-W", "error", "-c", SIGNALS, str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONPATH": SOURCES}
    writers = [subprocess.Popen([*words, name], env=environment) for name in "abc"]
    assert [0, 0, 0] == [writer.wait(60) for writer in writers]
    assert 1 + 3 * 20 == store.size().events
    assert [None] == [part.problem for part in store.verify()]


def test_what_is_no_store_of_its_own_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"something else")
    with pytest.raises(CorruptHistoryError, match="runs is damaged"):
        OneFileStore(tmp_path / "runs").size()
    with pytest.raises(StoreError, match="nowhere"):
        OneFileStore(tmp_path / "nowhere" / "runs").size()


APP = """
from stepwell import Engine, Flow, Step, workflow

@workflow
def hello(name: str) -> Flow[str]:
    return (yield from Step(str.upper, name).options(into=str))

with Engine("drawer:runs.bin", workflows=[hello]) as engine:
    print(engine.start(hello, "ada", run_id="r").unwrap(), type(engine.store).__name__)
"""


def can_build() -> bool:
    """Whether setuptools makes a wheel here without fetching anything."""
    try:
        return int(version("setuptools").partition(".")[0]) >= 71 or bool(version("wheel"))
    except PackageNotFoundError:
        return False


def install(place: Path, source: Path) -> None:
    """Put the example where pip puts a package: by pip where that can build one, else with what pip would write."""
    if can_build():
        words = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", *words, str(place), str(source)], check=True, timeout=300
        )
        return
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))
    name, number = project["project"]["name"], project["project"]["version"]
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(source / f"{module}.py", place)
    info = place / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n", "utf-8")
    groups = project["project"]["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups)
    (info / "entry_points.txt").write_text(text, "utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that has the example installed."""
    place, copy = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "own-store"
    shutil.copytree(SOURCE.parent, copy)  # a build leaves files behind
    install(place, copy)
    sources = os.pathsep.join([str(place), *(str(ROOT / name) for name in ("engine", "stores"))])
    return {**os.environ, "PYTHONPATH": sources}


def called(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_its_url_is_known_once_it_is_installed(installed: dict[str, str], tmp_path: Path) -> None:
    assert "ADA OneFileStore\n" == called(installed, tmp_path, "-W", "error", "-c", APP).stdout
    listed = called(installed, tmp_path, "-m", "stepwell", "--store", "drawer:runs.bin", "list", "--json")
    assert '"runId": "r"' in listed.stdout
    wrong = called(installed, tmp_path, "-m", "stepwell", "--store", "drawer:", "list")
    assert (2, "stepwell: STORE_MISCONFIGURED: drawer: names no file; write 'drawer:runs.bin'\n") == (
        wrong.returncode,
        wrong.stderr,
    )
    missing = called(installed, tmp_path, "-m", "stepwell", "--store", "drawer:none.bin", "list")
    assert "no store at none.bin" in missing.stderr


def test_without_it_the_scheme_is_unknown(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": SOURCES}
    told = called(environment, tmp_path, "-m", "stepwell", "--store", "drawer:runs.bin", "list")
    assert "unknown store scheme 'drawer'" in told.stderr

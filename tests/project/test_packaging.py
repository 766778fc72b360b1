"""What is built is what is here, and importing it stays cheap."""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMPORT_ROOTS = (ROOT / "engine", ROOT / "stores")
CORE = {"attrs", "cattrs", "msgspec"}
# Costly, and needed only by who decodes a value or opens a database.
LATE = {"cattrs", "sqlite3"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def top_level() -> dict[str, Path]:
    """The folders that hold the import packages, by package name."""
    return {folder.name: folder for root in IMPORT_ROOTS for folder in root.iterdir() if any(folder.glob("*.py"))}


def packages_on_disk() -> set[str]:
    """Every folder with Python in it, as a dotted package name."""
    return {
        ".".join(path.parent.relative_to(root).parts)
        for root in IMPORT_ROOTS
        for path in root.rglob("*.py")
        if path.parent != root
    }


def canonical(requirement: str) -> str:
    """The name of the distribution that a requirement asks for, normalised."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def test_the_package_list_is_what_lies_on_the_disk(setup_cfg: configparser.ConfigParser) -> None:
    listed = setup_cfg["options"]["packages"].split()
    assert sorted(packages_on_disk()) == sorted(listed)


def test_every_package_has_an_init_file() -> None:
    without = [
        name
        for name in packages_on_disk()
        if not any((root.joinpath(*name.split(".")) / "__init__.py").is_file() for root in IMPORT_ROOTS)
    ]
    assert [] == without


def test_only_packages_lie_in_the_import_roots() -> None:
    assert {"stepwell", "stepwell_pytest", "stepwell_stores"} == set(top_level())
    assert [] == [str(path) for root in IMPORT_ROOTS for path in root.glob("*.py")]


def test_the_package_directories_are_the_import_roots(setup_cfg: configparser.ConfigParser) -> None:
    lines = setup_cfg["options"]["package_dir"].split("\n")
    mapping = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines if line.strip())
    assert {name: folder.relative_to(ROOT).as_posix() for name, folder in top_level().items()} == mapping


def test_the_marker_of_inline_types_is_there_and_shipped(setup_cfg: configparser.ConfigParser) -> None:
    for name, folder in top_level().items():
        assert (folder / "py.typed").is_file()
        assert "py.typed" in setup_cfg["options.package_data"][name].split()


def test_the_version_stands_in_one_place(setup_cfg: configparser.ConfigParser, pyproject: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", pyproject["project"]["version"])
    assert "metadata" not in setup_cfg
    again = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for root in IMPORT_ROOTS
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and isinstance(node.value, ast.Constant)
        and any(
            getattr(target, "id", "").strip("_").lower() == "version"
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        and node.value.value == pyproject["project"]["version"]
    ]
    assert [] == again


def test_the_command_resolves(pyproject: dict[str, Any]) -> None:
    assert {"stepwell": "stepwell.cli:main"} == pyproject["project"]["scripts"]
    for target in pyproject["project"]["scripts"].values():
        module, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_the_core_depends_on_three_libraries(pyproject: dict[str, Any]) -> None:
    assert CORE == {canonical(one) for one in pyproject["project"]["dependencies"]}


def test_requirements_have_a_lower_bound_and_no_upper_one(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    every = [*pyproject["project"]["dependencies"], *(one for extra in extras.values() for one in extra)]
    wrong = [one for one in every if canonical(one) != "stepwell" and not re.search(r">=[\w.]+(\s*;|$)", one)]
    assert [] == wrong


def test_the_licence_is_named_as_an_expression_and_shipped(pyproject: dict[str, Any]) -> None:
    assert "Apache-2.0" == pyproject["project"]["license"]
    assert ["LICENSE"] == pyproject["project"]["license-files"]
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert [] == [one for one in pyproject["project"]["classifiers"] if one.startswith("License ::")]


@pytest.mark.parametrize("package", ["stepwell", "stepwell_stores"])
def test_importing_brings_no_extra_and_nothing_costly(package: str, pyproject: dict[str, Any]) -> None:
    """A worker that starts a thousand times a day pays for each import a thousand times."""
    extras = pyproject["project"]["optional-dependencies"].values()
    wanted = {canonical(one) for extra in extras for one in extra} - CORE - {"stepwell"}
    unwelcome = {
        module for module, names in packages_distributions().items() if wanted & {canonical(name) for name in names}
    }
    assert {"pytest", "hypothesis"} <= unwelcome
    brought = modules_brought_by(package)
    assert package in brought
    assert set() == brought & (unwelcome | LATE)


def modules_brought_by(package: str) -> set[str]:
    """Top-level modules that a fresh interpreter loads for `import package`."""
    program = (
        "import json, sys\n"
        f"sys.path[:0] = {[str(root) for root in IMPORT_ROOTS]!r}\n"
        "before = set(sys.modules)\n"
        f"import {package}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))

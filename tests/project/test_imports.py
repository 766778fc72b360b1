"""What comes with `import stepwell`: every program pays for it, and few use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    *("asyncio", "concurrent.futures", "logging", "ssl", "socket", "subprocess", "multiprocessing"),
    *("cattrs", "sqlite3", "pathlib", "hashlib", "random", "json", "argparse"),
    *(
        "pytest",
        "hypothesis",
        "psycopg",
        "redis",
        "obstore",
        "flask",
        "pydantic",
        "stepwell_stores",
        "stepwell.testing",
        "stepwell.differences",
        "stepwell.histories",
    ),
]


def loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    path = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    done = subprocess.run([sys.executable, "-S", "-c", path + code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def by_import() -> set[str]:
    return loaded("import stepwell")


@pytest.mark.parametrize("name", HEAVY)
def test_importing_the_library_leaves_out_what_is_needed_later(by_import: set[str], name: str) -> None:
    assert "stepwell.engine" in by_import
    assert name not in by_import


def test_an_engine_can_log_and_branch_without_another_import() -> None:
    """A process that has no descriptor left can't read a module's file."""
    assert {"logging", "stepwell.pools"} <= loaded("import stepwell; stepwell.Engine('memory:').close()")

"""The page of scenarios is what the tests say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from .scenarios import FOLDER, SYSTEMS, rows_of, scenario_table

ROWS = [row for path in sorted(FOLDER.glob("test_*.py")) for row in rows_of(path)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_scenario_is_told_once(system: str) -> None:
    names = [name for one, name, *_ in ROWS if one == system]
    assert len(names) == len(set(names)) >= 20
    assert len(names) + 2 == len(scenario_table(system))


def test_what_is_otherwise_here_has_a_column_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "test_a.py"
    path.write_text('def test_x():\n    """AWS: Wait. It waits.\n\n    Here: for\n    longer."""\n', "utf-8")
    ((system, *told, test),) = rows_of(path)
    assert ("AWS", ["Wait", "It waits.", "for longer."]) == (system, told)
    assert "[test_a.py](../../tests/scenarios/test_a.py): `test_x`" == test


def test_a_test_that_does_not_say_what_it_shows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "test_a.py"
    path.write_text('def test_x():\n    """It waits."""\n', "utf-8")
    with pytest.raises(ValueError, match="test_x does not begin with"):
        list(rows_of(path))

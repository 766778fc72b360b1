"""The reference is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

import stepwell
from stepwell import errors, events, testing

from .generate import MARKED, PARTS, SECTIONS, regenerated, rendered_docstring
from .pages import ROOT, name_of

REFERENCE = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", REFERENCE, ids=name_of)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert regenerated(text) == text, "run: python tests/docs/generate.py"


def test_every_part_has_its_place() -> None:
    places = [found[1] for page in REFERENCE for found in MARKED.findall(page.read_text("utf-8"))]
    assert sorted(PARTS) == sorted(places)


def test_every_name_of_the_testing_kit_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    missing = [
        name
        for name in testing.__all__
        if f"### `stepwell.testing.{name}(" not in page and f"`stepwell.testing.{name}`" not in page
    ]
    assert [] == missing


def test_every_event_and_every_error_is_in_the_reference() -> None:
    event_page = (ROOT / "docs" / "reference" / "events.md").read_text("utf-8")
    assert [] == [kind for kind in events.EVENT_TYPES if f"| `{kind}` |" not in event_page]
    error_page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    codes = {value.code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "code")}
    codes -= {errors.Failure.__dict__.get("code")}
    assert [] == [code for code in codes if isinstance(code, str) and f"| `{code}` |" not in error_page]


def test_docstrings_become_markdown() -> None:
    def documented() -> None:
        """Do it.

        Well.

        Args:
            a, b: two things
                in two lines.

        Raises:
            InvalidInputError: it is wrong.

        Example:
            >>> 1 + 1
            2
        """

    wanted = [
        *["Do it.", "", "Well.", "", "*Args:*", "", "- `a`, `b`: two things", "  in two lines.", ""],
        *["*Raises:*", "", "- `InvalidInputError`: it is wrong.", "", "```pycon", ">>> 1 + 1", "2", "```"],
    ]
    assert wanted == rendered_docstring(documented)


def test_the_sections_name_nothing_twice() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert len(set(names)) == len(names)
    assert set(names) <= set(stepwell.__all__)

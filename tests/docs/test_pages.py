"""Every block of the README and the docs runs, and every page can be found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import LANGUAGES, PAGES, ROOT, Runner, blocks_of, languages_of, name_of

INDEX = ROOT / "docs" / "index.md"
LINK = re.compile(r"\]\(([^)#\s]+\.md)(?:#[^)\s]*)?\)")


def linked_from(page: Path) -> Iterator[Path]:
    """The pages that a page links to."""
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            yield (page.parent / target).resolve()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "REDIS_URL" in page.read_text("utf-8"):
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("valkey_server").url(1))
    if "DATABASE_URL" in page.read_text("utf-8"):
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("database"))
    runner = Runner(page, tmp_path)
    runner.run()
    assert len(languages_of(page.read_text("utf-8"))) == runner.ran


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert set() == set(languages_of(page.read_text("utf-8"))) - set(LANGUAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_only_setting_up_is_shown_and_not_run(page: Path) -> None:
    lines = [line for block in blocks_of(page, "sh") for line in block.splitlines()]
    assert [] == [line for line in lines if not re.match(r"python3 -m venv |\S*pip install ", line)]


def test_every_page_is_reached_from_the_index() -> None:
    found: set[Path] = set()
    ahead = [INDEX]
    while ahead:
        page = ahead.pop()
        if page not in found and page.is_relative_to(ROOT / "docs"):
            found.add(page)
            ahead.extend(linked_from(page))
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} == found


def test_no_page_names_a_place_on_somebodys_machine() -> None:
    places = re.compile(r"/home/\w|/Users/\w|/root\b|/work/|/tmp/")
    assert [] == [name_of(page) for page in PAGES if places.search(page.read_text("utf-8"))]

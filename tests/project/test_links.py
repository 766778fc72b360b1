"""Relative links between the project's pages lead somewhere, also to the right heading."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changelog.d").glob("README.md")])
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"|\{#([\w-]+)\}")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)


def name_of(path: Path) -> str:
    """The path as seen from the project's top."""
    return path.relative_to(ROOT).as_posix()


def links_of(text: str) -> list[str]:
    """Targets of all links and link definitions outside code."""
    plain = CODE.sub("", FENCE.sub("", text))
    return [*LINK.findall(plain), *DEFINITION.findall(plain)]


def anchors_of(text: str) -> set[str]:
    """What a `#fragment` may name: headings as their slugs, numbered on repeats, and explicit anchors."""
    slugs: set[str] = set()
    plain = FENCE.sub("", text)
    for heading in HEADING.findall(plain):
        words = re.sub(r"\{#[\w-]+\}|\]\([^)]*\)|[`*\[\]]", "", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = 0
        while (numbered := f"{slug}-{count}" if count else slug) in slugs:
            count += 1
        slugs.add(numbered)
    return slugs | {one or other for one, other in ANCHOR.findall(plain)}


def broken_links(page: Path) -> list[str]:
    """What is wrong with the relative links of a page, one line each."""
    wrong = []
    for target in links_of(page.read_text("utf-8")):
        if ELSEWHERE.match(target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.is_relative_to(ROOT.resolve()) and path:
            wrong.append(f"{target}: leads out of the project")
        elif not file.exists():
            wrong.append(f"{target}: no such file")
        elif fragment and file.suffix == ".md" and fragment not in anchors_of(file.read_text("utf-8")):
            wrong.append(f"{target}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert [] == broken_links(page)


def test_there_are_pages_to_check() -> None:
    assert {"CONTRIBUTING.md", "README.md", "SECURITY.md"} <= {name_of(page) for page in PAGES}
    assert [page for page in PAGES if page.is_relative_to(ROOT / "docs")]


def test_links_in_code_are_no_links() -> None:
    text = "[a](one.md) `[b](two.md)`\n\n```\n[c](three.md)\n```\n\n[d]: four.md\n[e [f]](five.md#six 'x')"
    assert ["one.md", "four.md"] == links_of(text)


def test_headings_are_found_as_the_web_pages_name_them() -> None:
    text = "# A page\n## `run_id` and *more*\n## Twice\n## Twice\n```\n# no\n```\n## Here {#there}\n"
    assert {"a-page", "run_id-and-more", "twice", "twice-1", "here", "there"} == anchors_of(text)

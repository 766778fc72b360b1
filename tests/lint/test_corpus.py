"""Every mistake of the corpus is found at its line by its rule, and good code raises no alarm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stepwell.testing import lint
from stepwell.testing.linting.rules import RULES

from .corpus import Snippet, snippets

BAD = list(snippets("bad"))
GOOD = list(snippets("good"))


def name_of(snippet: Snippet) -> str:
    return f"{snippet.rule}: {snippet.name}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("snippet", BAD, ids=name_of)
def test_a_mistake_is_found_where_it_is(snippet: Snippet) -> None:
    snippet.write(Path())
    found = [(one.file, one.line, one.rule) for one in lint("main.py")]
    assert snippet.expected == sorted(set(found))
    assert snippet.expected


@pytest.mark.parametrize("snippet", GOOD, ids=name_of)
def test_good_code_raises_no_alarm(snippet: Snippet) -> None:
    snippet.write(Path())
    assert [] == list(map(str, lint("main.py")))


def test_every_rule_has_its_mistakes_and_half_of_them_are_in_helpers() -> None:
    counts = Counter(snippet.rule for snippet in BAD)
    in_helpers = Counter(snippet.rule for snippet in BAD if snippet.helper)
    assert set(RULES) == set(counts)
    assert [] == [rule for rule in RULES if counts[rule] < 4 or in_helpers[rule] < 2]
    assert 2 * in_helpers.total() >= counts.total() >= 60


def test_no_rule_depends_on_the_order_of_a_set() -> None:
    """A linter of hash seeds had better have none itself."""
    for snippet in BAD[:20]:
        snippet.write(Path())
        once, twice = lint("main.py"), lint("main.py")
        assert once == twice

"""Snippets of the corpus: files of `bad` are named by their rule, those of `good` by what they are about.

=== name [helper]       a snippet; "helper": the mistake is not in the workflow's own body
--- other.py            another file beside it
... # BAD               a line that is found, by the rule of the file
... # BAD: io, clock    by these rules
# BAD BELOW             it is the next line
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from stepwell.testing.linting.things import COMMANDS

HERE = Path(__file__).parent
PRELUDE = f"from stepwell import {', '.join(sorted(COMMANDS))}, Flow, Signal, workflow\n"
_MARK = re.compile(r"# BAD(?P<below> BELOW)?(?:: (?P<rules>[\w, -]+))?$")


@frozen
class Snippet:
    """One program, of one file or several."""

    rule: str
    name: str
    helper: bool
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        """Lay its files into a folder."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")

    @property
    def expected(self) -> list[tuple[str, int, str]]:
        """File, line and rule of everything that is to be found."""
        found = []
        for name, text in self.files.items():
            for number, line in enumerate(text.splitlines(), 1):
                mark = _MARK.search(line)
                if mark:
                    rules = (mark["rules"] or self.rule).split(", ")
                    found += [(name, number + bool(mark["below"]), rule) for rule in rules]
        return sorted(found)


def snippets(folder: str) -> Iterator[Snippet]:
    """Those of `bad` or of `good`."""
    for path in sorted((HERE / folder).glob("*.txt")):
        for part in re.split(r"^=== ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            title, _, text = part.partition("\n")
            first, *others = re.split(r"^--- ", text, flags=re.MULTILINE)
            files = {"main.py": PRELUDE + first}
            for other in others:
                name, _, source = other.partition("\n")
                files[name] = PRELUDE + source
            helper = title.endswith("[helper]")
            yield Snippet(path.stem, title.removesuffix(" [helper]"), helper, files)

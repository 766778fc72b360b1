"""The part of Mermaid's sequence diagrams that is drawn here, strictly: what is not of this form is refused."""

from __future__ import annotations

import re

from attrs import frozen

ARROWS = {"->>", "-->>", "--x"}
_HEAD = re.compile(r"    (participant|actor) (\w+)(?: as (.+))?")
_ARROW = re.compile(r"    (\w+?)(->>|-->>|--x)(\w+): (.+)")
_NOTE = re.compile(r"    Note over (\w+): (.+)")
_ENTITY = re.compile(r"#(\d+);")
_RISKY = re.compile(r"[;<>&%$`\\\x00-\x1f\x7f]|#(?!\d+;)")
_OPTION = re.compile(r":|(?:no)?wrap:", re.IGNORECASE)


@frozen
class Drawn:
    """An arrow, or a note when `arrow` is "note"."""

    source: str
    arrow: str
    target: str
    text: str


class MermaidError(Exception):
    """Mermaid would not take it, or take it for something else."""


def parse(diagram: str) -> tuple[dict[str, str], list[Drawn]]:
    """Read a diagram: its participants, by name, with what they are shown as; and what is drawn between them."""
    head, *lines = diagram.split("\n")
    if head != "sequenceDiagram":
        raise MermaidError(f"it begins with {head!r}")
    people: dict[str, str] = {}
    drawn: list[Drawn] = []
    for line in lines:
        if (found := _HEAD.fullmatch(line)) and not drawn:
            if found[2] in people:
                raise MermaidError(f"two participants {found[2]!r}")
            people[found[2]] = _text(found[3] or found[2])
        elif found := _NOTE.fullmatch(line):
            drawn.append(Drawn(found[1], "note", found[1], _text(found[2])))
        elif found := _ARROW.fullmatch(line):
            drawn.append(Drawn(found[1], found[2], found[3], _text(found[4])))
        else:
            raise MermaidError(f"no statement: {line!r}")
        unknown = {name for one in drawn[-1:] for name in (one.source, one.target)} - people.keys()
        if unknown:
            raise MermaidError(f"{unknown} take no part: {line!r}")
    return people, drawn


def _text(text: str) -> str:
    if _RISKY.search(_ENTITY.sub("", text)):
        raise MermaidError(f"not plain: {text!r}")
    if _OPTION.match(text):
        raise MermaidError(f"an option to Mermaid: {text!r}")
    return _ENTITY.sub(lambda m: chr(int(m[1])), text)

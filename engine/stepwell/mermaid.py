"""A history as a sequence diagram in Mermaid's language. Floor 2.

The words come from `depicting`; here they are laid out between participants and escaped. Mermaid reads line by line,
ends a statement at `;`, begins a comment or a directive with `%%`, an entity with `#`, and draws what looks like HTML
or TeX. So what is not a letter, a digit or a plain mark is written as an entity, by its code point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import events as e
from .depicting import kind_of, said, subject_of
from .texts import cut, safe

__all__ = ["sequence_diagram"]

TEXT = 80
"""Columns that the text of one arrow or note may take."""

_PLAIN = frozenset(" _-.,()[]{}/=+*!?@'\":|")
_NAME = frozenset(" _-.")
_WRAPS = ("wrap:", "nowrap:", ":")  # what Mermaid takes for an option at the beginning of a text

_PARTICIPANTS = ("workflow", "steps", "people", "timers")


def sequence_diagram(history: Sequence[e.EventBase], run_id: str = "") -> str:
    """Draw a history: who asked whom for what, in the order in which it was recorded.

    Args:
        history: events, the start first.
        run_id: named beside the workflow; "" when there is none.

    Returns:
        Text that begins with `sequenceDiagram`, a statement a line, without a line break at its end.
    """
    start = history[0] if history else None
    name = f"{start.workflow if isinstance(start, e.Start) else ''} {run_id}".strip() or "workflow"
    statements = list(_statements(history))
    used = {word for statement in statements for word in _PARTICIPANTS if word in statement.partition(":")[0]}
    lines = ["sequenceDiagram", f"    participant workflow as {_escaped(name, _NAME)}"]
    if "steps" in used:
        lines.append("    participant steps")
    if "people" in used:
        lines.append("    actor people")
    if "timers" in used:
        lines.append("    participant timers")
    return "\n".join([*lines, *(f"    {statement}" for statement in statements)])


def _statements(history: Sequence[e.EventBase]) -> Iterator[str]:
    begun: set[str] = set()  # paths of steps that are drawn as asked for, and not answered
    session = history[0].session if history else 0
    for event in history:
        if event.session > session:
            session = event.session
            yield _note(f"session {session} goes on")
        yield from _drawn(event, begun)


def _drawn(event: e.EventBase, begun: set[str]) -> Iterator[str]:
    subject, what = subject_of(event), said(event)
    match event:
        case e.Begin():
            begun.add(event.at)
            yield _arrow("workflow->>steps", _placed(event, subject))
        case e.Step() | e.Attempt():
            if event.at not in begun:
                yield _arrow("workflow->>steps", _placed(event, subject))
            begun.discard(event.at)
            yield _arrow("steps--xworkflow" if event.error else "steps-->>workflow", what)
        case e.Suspend():
            yield _arrow("workflow->>people", f"{_placed(event, subject)}, {what}")
        case e.Resume():
            yield _arrow("people->>workflow", f"{subject} {what}")
        case e.Cancel() | e.Pause() | e.Unpause():
            yield _arrow("people->>workflow", f"{event.kind} {what}")
        case e.Sleep():
            yield _arrow("workflow->>timers", _placed(event, f"sleep {what}"))
        case e.Wake():
            yield _arrow("timers-->>workflow", _placed(event, f"wake {what}"))
        case _:
            yield _note(_placed(event, " ".join(filter(None, (kind_of(event), subject, what)))))


def _placed(event: e.EventBase, text: str) -> str:
    """The text with the path of its command, where there are branches."""
    at = event.at or ""
    return f"{text} (at {at})" if "." in at or (at and isinstance(event, e.Cancelled)) else text


def _arrow(between: str, text: str) -> str:
    return f"{between}: {_line(text)}"


def _note(text: str) -> str:
    return f"Note over workflow: {_line(text)}"


def _line(text: str) -> str:
    text = cut(safe(text).strip(), TEXT)
    escaped = _escaped(text, _PLAIN)
    if text.lower().startswith(_WRAPS):
        return escaped.replace(":", "#58;", 1)
    return escaped or "#32;"


def _escaped(text: str, plain: frozenset[str]) -> str:
    return "".join(c if c.isalnum() or c in plain else f"#{ord(c)};" for c in safe(text))

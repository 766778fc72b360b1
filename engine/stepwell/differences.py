"""Where two histories part, and how: events matched by what they answer, compared by what the workflow saw. Floor 2.

Two events are matched when they belong to the same command (the same `at`, counted), the same signal (by name,
counted), the same patch, or are both the start, or both the close. So what branches do in another order is no
difference: if it led to one, that shows where it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw

from . import events as e
from .errors import Failure, InvalidInputError

__all__ = ["DIFF_COLUMNS", "Change", "Diff", "Mark", "Row", "Side", "diff", "diff_head", "diff_rows"]

Mark: TypeAlias = Literal["same", "changed", "only a", "only b", "beside"]
"""How a row of a `Diff` compares; "beside": it does not count, since no workflow sees it."""

_Placed: TypeAlias = tuple[int, e.EventBase]

# Times, positions, and ids that are made anew for every run. What is left of an event counts.
_NOISE = frozenset(
    (
        *("session", "offset", "timestamp", "kept", "started", "due", "attempts", "wait", "id", "cause", "cut"),
        *("incarnation", "epoch", "origin", "source", "prefix", "tags", "run_id", "child_id", "parent", "seen"),
    )
)
DIFF_COLUMNS = ("", "at", "a", "b", "what")
"""What `diff_rows` gives."""

_SHOWN = 3  # places that a row names
_AROUND = 2  # rows that are the same and are shown before and after those that are not
_SIGNS = {"same": "", "changed": "*", "only a": "<", "only b": ">", "beside": "."}
_BESIDE = (e.Attempt, e.Begin, e.Chunk, e.Heartbeat, e.Pause, e.Unpause, e.Retry)


class Change(msgspec.Struct, frozen=True):
    """One place in which two events differ.

    Attributes:
        path: the key on the wire, and the way into the value: `result.items[2].price`.
        a, b: what each has there, plain JSON; None also when it has nothing there.
    """

    path: str
    a: Any
    b: Any


class Side(msgspec.Struct, frozen=True):
    """An event of one of the histories, by what counts.

    Attributes:
        seq: its position.
        kind: its type on the wire.
        at: path of its command, or None.
        step_id: for steps, their id; else None.
        subject: what it is about: step id, signal, workflow; "" when there is nothing to name.
        says: what it says in words, shortened; not made safe for a terminal.
        values: everything that is compared, plain JSON by its key on the wire: `inputs`, `result`, `error`, `value`.
    """

    seq: int
    kind: str
    at: str | None
    step_id: str | None
    subject: str
    says: str
    values: dict[str, Any]


class Row(msgspec.Struct, frozen=True):
    """Two events that belong together, or one that the other history has not.

    Attributes:
        mark: "same", "changed", "only a", "only b", or "beside": no workflow sees it, so it does not count.
        a, b: the event of each; None on one side when only the other has it.
        changed: for "changed", the keys that differ: `kind` and no other, or `inputs`, `result`, `error`, `value`, ...
        changes: for "changed", the places in them.
    """

    mark: Mark
    a: Side | None
    b: Side | None
    changed: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is a difference."""
        return self.mark not in ("same", "beside")


class Diff(msgspec.Struct, frozen=True):
    """What two histories have in common, and where they part; `str()` of it is a table for people.

    `Engine.diff` compares two runs, `stepwell.diff` any two histories. What counts is what a workflow sees: kinds,
    paths, names, the digests of step inputs, results and failures (type, message and code), payloads and values. Times,
    sessions, ids, tags, attempts and pauses don't. Nor does the order in which branches were answered.

    Attributes:
        a, b: the names of the two.
        rows: every event of both, in order; each has `.mark` ("same", "changed", "only a", "only b", "beside"), `.a`
            and `.b` (None, or an event's `.seq`, `.kind`, `.at`, `.step_id`, `.subject`, `.says`, `.values`),
            `.changed` (the keys that differ) and `.changes` (each a `.path` into them with its `.a` and `.b`).

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> engine = Engine("memory:", workflows=[hello])
        >>> for name in ("ada", "bob"):
        ...     outcome = engine.start(hello, name, run_id=name)
        >>> found = engine.diff("ada", "bob")
        >>> found.same, found.first.changes[0].path, [row.mark for row in found.rows]
        (False, 'input[0]', ['changed', 'changed', 'changed'])
    """

    a: str
    b: str
    rows: tuple[Row, ...]

    @property
    def first(self) -> Row | None:
        """The first row that differs: where the two part; None when they are the same."""
        return next((row for row in self.rows if row.counts), None)

    @property
    def same(self) -> bool:
        """Whether nothing differs that counts."""
        return self.first is None

    def json(self) -> dict[str, Any]:
        """Give all of it as plain JSON: `a`, `b`, `same`, `first` (its index in `rows`, or null) and `rows`."""
        first = next((i for i, row in enumerate(self.rows) if row.counts), None)
        rows = msgspec.to_builtins(self.rows)
        for row in rows:
            for side in filter(None, (row["a"], row["b"])):
                side["stepId"] = side.pop("step_id")
        return {"a": self.a, "b": self.b, "same": first is None, "first": first, "rows": rows}

    def __str__(self) -> str:
        if self.same:
            return diff_head(self)
        return "\n".join([diff_head(self), "", *_aligned([DIFF_COLUMNS, *diff_rows(self)])])


def diff(a: Sequence[e.EventBase], b: Sequence[e.EventBase], *, names: tuple[str, str] = ("a", "b")) -> Diff:
    """Compare two histories, of runs, of replays, or read from files.

    Args:
        a, b: events in order, the start first.
        names: what the two are called in texts.

    Raises:
        InvalidInputError: one of them is no list of events.

    Determinism: pure.

    Example:
        >>> from stepwell import Flow, Step, workflow
        >>> from stepwell.testing import replay, returned
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> one, two = (replay(hello, "ada", history=[returned(said)]) for said in ("ADA", "Ada"))
        >>> found = diff(one.events, two.events)
        >>> found.first.a.step_id, found.first.changed
        ('upper', ('result',))
    """
    for name, history in zip(names, (a, b), strict=True):
        if not isinstance(history, Sequence) or not all(isinstance(event, e.EventBase) for event in history):
            raise InvalidInputError(f"diff compares histories, and {name!r} is {type(history).__name__}")
    ones, others = _by_key(a), _by_key(b)
    place = {key: i for i, key in enumerate(others)}
    left = iter(others.items())  # of b, in its order
    rows: list[Row] = []
    reached = -1
    for key, event in ones.items():
        if place.get(key, -1) > reached:  # first what b alone has before it
            reached = place[key]
            rows += [_row(None, other) for k, other in _until(left, key) if k not in ones]
        rows.append(_row(event, others.get(key)))
    rows += [_row(None, other) for k, other in left if k not in ones]
    return Diff(*names, tuple(rows))


def _until(left: Iterator[tuple[Any, _Placed]], key: Any) -> Iterator[tuple[Any, _Placed]]:
    for found in left:
        if found[0] == key:
            return
        yield found


def _by_key(history: Sequence[e.EventBase]) -> Mapping[Any, _Placed]:
    """Events with their positions by what they belong to, in order."""
    counts: dict[Any, int] = {}
    found: dict[Any, _Placed] = {}
    for seq, event in enumerate(history):  # a replay's events have no offsets yet
        what = _belongs_to(event)
        counts[what] = number = counts.get(what, 0) + 1
        found[what, number] = seq, event
    return found


def _belongs_to(event: e.EventBase) -> Any:
    if isinstance(event, e.CLOSING) and event.at is None:
        return "close"
    if isinstance(event, _BESIDE):
        return event.kind, event.at
    if event.at is not None:
        return "at", event.at
    if isinstance(event, e.Resume):
        return "signal", event.event_name
    if isinstance(event, e.Patch):
        return "patch", event.change_id
    return event.kind


def _row(a: _Placed | None, b: _Placed | None) -> Row:
    one, other = _side(a), _side(b)
    if any(placed is not None and isinstance(placed[1], _BESIDE) for placed in (a, b)):
        return Row("beside", one, other)
    if one is None or other is None:
        return Row("only b" if one is None else "only a", one, other)
    if one.kind != other.kind:
        return Row("changed", one, other, ("kind",), (Change("kind", one.kind, other.kind),))
    keys = dict.fromkeys((*one.values, *other.values))
    changed = [key for key in keys if not _same(one.values, other.values, key)]
    if None in (one.values.get("inputs"), other.values.get("inputs")):
        changed = [key for key in changed if key != "inputs"]  # they did not encode, or it is a replay: nobody knows
    changes = tuple(c for key in changed for c in _changes(key, one.values.get(key), other.values.get(key)))
    return Row("changed" if changed else "same", one, other, tuple(changed), changes)


def _side(placed: _Placed | None) -> Side | None:
    if placed is None:
        return None
    from .depicting import said, subject_of  # late, as all that shows events

    seq, event = placed
    step_id = getattr(event, "step_id", None)
    return Side(seq, event.kind, event.at, step_id, subject_of(event), said(event), _values(event))


def _values(event: e.EventBase) -> dict[str, Any]:
    """What counts of an event, as plain JSON."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.name)
        if field.name in _NOISE or value is None or value is e.UNSET or field.name == "at":
            continue
        if isinstance(value, Raw):
            value = msgspec.json.decode(value)
        elif isinstance(value, Failure):
            value = {"type": value.type, "message": value.message, "code": value.code}
        else:
            value = msgspec.to_builtins(value, enc_hook=str)
        found[field.encode_name] = value
    return found


def _changes(path: str, a: Any, b: Any) -> Iterator[Change]:
    """The places in which two JSON values differ, from the outside in."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            if not _same(a, b, key):
                yield from _changes(_member(path, key), a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            if not _equal(one, other):
                yield from _changes(f"{path}[{i}]", one, other)
    else:
        yield Change(path, a, b)


def _member(path: str, key: str) -> str:
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]"


def _same(a: dict[str, Any], b: dict[str, Any], key: str) -> bool:
    """Whether both have a key with the same value; to have null is not to have nothing."""
    return key in a and key in b and _equal(a[key], b[key])


def _equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same: 1, 1.0 and true are not."""
    return msgspec.json.encode(a, order="sorted") == msgspec.json.encode(b, order="sorted")


# ---- for people


def diff_head(found: Diff) -> str:
    """Where two histories part, in a line or a few; safe for a terminal."""
    from .texts import many, safe

    a, b = safe(found.a), safe(found.b)
    first = found.first
    if first is None:
        counted = sum(row.mark == "same" for row in found.rows)
        beside = len(found.rows) - counted
        return f"{a} (a) and {b} (b) are the same: {many(counted, 'event')}" + (
            f", and {beside:,} that no workflow sees" if beside else ""
        )
    side = first.a or first.b
    assert side is not None
    place = f" at {safe(side.at)}" if side.at is not None else ""
    if first.a is not None and first.b is not None:
        where = str(first.a.seq) if first.a.seq == first.b.seq else f"{first.a.seq} of a, {first.b.seq} of b"
        return f"{a} (a) and {b} (b) part at event {where}, {_named(first.a)}{place}: {_what(first)}"
    which = "a" if first.b is None else "b"
    return f"{a} (a) and {b} (b) part at event {side.seq}: only {which} has {_named(side)}{place}"


def diff_rows(found: Diff) -> list[tuple[str, ...]]:
    """The rows of a table under `DIFF_COLUMNS`, safe for a terminal; long stretches of what is the same are left out.

    The first column has `*` for what is changed, `<` and `>` for what only a or b has, `.` for what does not count.
    """
    from .texts import many, safe

    near = {j for i, row in enumerate(found.rows) if row.counts for j in range(i - _AROUND, i + _AROUND + 1)}
    shown: list[tuple[str, ...]] = []
    skipped = 0
    for i, row in enumerate((*found.rows, None)):
        if row is not None and i not in near and len(found.rows) > 4 * _AROUND:
            skipped += 1
            continue
        if skipped:
            shown.append(("", "", "", "", f"... {many(skipped, 'event')} without a difference"))
            skipped = 0
        if row is not None:
            side = row.a or row.b
            assert side is not None
            cells = [f"{one.seq} {_named(one)}" if one is not None else "" for one in (row.a, row.b)]
            shown.append((_SIGNS[row.mark], safe(side.at or ""), *cells, _what(row)))
    return shown


def _named(side: Side) -> str:
    from .texts import safe

    return safe(f"{side.kind} {side.subject}".strip())


def _what(row: Row) -> str:
    """What there is to say of a row: the places that differ, or what the event says."""
    from .texts import cut, safe, short

    if row.mark == "changed":
        texts = [_changed(c, short(c.a, 40), short(c.b, 40)) for c in row.changes[:_SHOWN]]
        more = len(row.changes) - _SHOWN
        return safe("; ".join(texts) + (f"; and {more} more" if more > 0 else ""))
    side = row.a or row.b
    assert side is not None
    return safe(cut(side.says, 80))


def _changed(change: Change, a: str, b: str) -> str:
    """A place in words; of inputs only digests are recorded, which tell nobody anything."""
    return "other inputs" if change.path == "inputs" else f"{change.path}: {a} | {b}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    from .texts import width

    widths = [max(width(row[i]) for row in rows) for i in range(len(DIFF_COLUMNS) - 1)]
    for row in rows:
        cells = [cell + " " * (room - width(cell)) for cell, room in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()

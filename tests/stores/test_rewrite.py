"""Other records in place of those that are there: all or nothing, whoever drives the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    Rewritable,
    Store,
    Waiting,
    envelope,
    seal,
)
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.jsonl.files import Directory

from .wrapped_tools import KINDS, make


@pytest.fixture(params=[*KINDS, "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Open the same store once more."""
    if kind == "postgres":
        url = request.getfixturevalue("database")
        return lambda: open_store(url)
    return lambda: make(kind, tmp_path)


@pytest.fixture
def store(opened: Callable[[], Store]) -> Iterator[Store]:
    made = opened()
    yield made
    made.close()


def filled(store: Store) -> tuple[Lease, list[bytes]]:
    """A run of two incarnations, the second one open under a lease; and the records of that."""
    first = store.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(first, Created)
    store.append("r", 0, 1, [a_record(kind="complete")], attempt_id="x", head=a_head(), fence=1, then="closed")
    opened = store.open_incarnation(
        "r", 1, [a_start(), a_record(1)], head=a_head(), attempt_id="n", lease=LeaseRequest("me", 30)
    )
    assert isinstance(opened, Committed)
    assert opened.lease is not None
    store.append("r", None, None, [a_record(2, "resume")], attempt_id="out")
    return opened.lease, lines_of(store, 1)


def lines_of(store: Store, incarnation: int) -> list[bytes]:
    tail = store.read("r", incarnation=incarnation)
    assert tail is not None
    return tail.records


def other(line: bytes) -> bytes:
    """A record with another body under the same envelope."""
    seen = envelope(line)
    draft = [a_record("longer than it was " * 9, seen.type)]
    return seal(draft, session=seen.session, offset=seen.offset, then=seen.then, attempt_id=seen.attempt_id)[0]


def rewritable(store: Store) -> Rewritable:
    assert isinstance(store, Rewritable)
    return store


def test_records_and_head_are_put_in_place_of_others(store: Store, kind: str, opened: Callable[[], Store]) -> None:
    """Of the open incarnation and the one before; everything else is as it was, also for who opens it anew."""
    lease, lines = filled(store)
    head = store.head("r")
    assert head is not None
    new = [other(line) for line in lines[1:]]
    head_after = replace(head.head, waiting=(Waiting("go", "w", 1, "other"),), tags={"a": "b"})
    assert rewritable(store).rewrite("r", 1, 1, lines[1:], new, head=(head.head, head_after))
    old = lines_of(store, 0)
    assert rewritable(store).rewrite("r", 0, 0, old, [other(line) for line in old])
    for one in (store, store if kind == "memory" else opened()):
        assert lines_of(one, 1) == [lines[0], *new]
        assert lines_of(one, 0) == [other(line) for line in old]
        assert one.head("r") == replace(head, head=head_after)
        assert [run.run_id for run in one.heads(HeadFilter(tag=("a", "b")), limit=9)] == ["r"]
        assert [part.problem for part in one.verify() if part.problem is not None] == []
        again = one.append("r", None, None, [a_record(2, "resume")], attempt_id="out")
        assert again == AlreadyCommitted(2, 1)
        if one is not store:
            one.close()
    assert store.append("r", 1, 3, [a_record()], attempt_id="own", fence=lease.fence) == Committed(3, 1)
    assert store.renew(lease, 30) is not None


def test_what_is_not_there_is_not_rewritten(store: Store) -> None:
    _, lines = filled(store)
    head = store.head("r")
    assert head is not None
    new = [other(line) for line in lines]
    wrong: list[tuple[str, int, int, list[bytes], list[bytes], tuple[Head, Head] | None]] = [
        ("r", 1, 0, new, lines, None),
        ("r", 1, 1, lines, new, None),
        ("r", 0, 0, lines, new, None),
        ("r", 2, 0, lines, new, None),
        ("r", -1, 0, lines, new, None),
        ("r", 1, 0, [*lines, lines[0]], [*new, new[0]], None),
        ("r", 1, 0, lines, new[:2], None),
        ("s", 0, 0, lines, new, None),
        ("r", 1, 0, lines, new, (replace(head.head, workflow="x"), head.head)),
    ]
    for run_id, number, seq, old, after, heads in wrong:
        assert not rewritable(store).rewrite(run_id, number, seq, old, after, head=heads)
    assert lines_of(store, 1) == lines
    assert store.head("r") == head


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_another_store_that_has_the_run_open_goes_on(kind: str, tmp_path: Path) -> None:
    """It remembers files, sizes and pages; what it remembers is over."""
    mine, others = make(kind, tmp_path), make(kind, tmp_path)
    lease, lines = filled(mine)
    assert mine.append("r", 1, 3, [a_record(3)], attempt_id="a", fence=lease.fence) == Committed(3, 1)
    lines = lines_of(mine, 1)
    assert mine.read("r", 2, limit=1) is not None
    assert rewritable(others).rewrite("r", 1, 0, lines, [other(line) for line in lines])
    assert mine.append("r", 1, 4, [a_record(4)], attempt_id="b", fence=lease.fence) == Committed(4, 1)
    assert lines_of(mine, 1)[:4] == [other(line) for line in lines] == lines_of(others, 1)[:4]
    assert len(lines_of(others, 1)) == 5
    tail = mine.read("r", 2, limit=1)
    assert tail is not None
    assert tail.records == [other(lines[2])]
    mine.close()
    others.close()


class _KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.mark.parametrize("before", ["spoil", "publish", "overwrite"])
def test_killed_in_its_midst_a_file_holds_the_old_records_or_the_new(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JsonlStore(tmp_path / "runs")
    lease, lines = filled(store)
    new = [other(line) for line in lines]

    def killed(*_: object) -> None:
        raise _KilledError

    method: Callable[..., Any] = getattr(Directory, before)
    monkeypatch.setattr(Directory, before, killed)
    with pytest.raises(_KilledError):
        store.rewrite("r", 1, 0, lines, new)
    monkeypatch.setattr(Directory, before, method)
    again = JsonlStore(tmp_path / "runs")
    assert lines_of(again, 1) == (new if before == "overwrite" else lines)
    head = again.head("r")
    assert head is not None
    assert (head.incarnation, head.seq, head.fence, head.closed) == (1, 3, lease.fence, False)
    assert again.append("r", 1, 3, [a_record()], attempt_id="a", fence=lease.fence) == Committed(3, 1)
    assert [part.problem for part in again.verify() if part.problem is not None] == []
    again.close()
    store.close()

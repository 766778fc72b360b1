"""The store contract: runs that come from another store, and runs that go to one; see `stepwell.moves`."""

# ruff: noqa: S106 - a move's token is no password

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from stepwell.errors import (
    InvalidInputError,
    NotFoundError,
    RunArrivingError,
    RunMovedError,
    StoreError,
)
from stepwell.moves import Arrival, Departure, Movable
from stepwell.store import (
    AlreadyCommitted,
    Blocked,
    Committed,
    Conflict,
    Created,
    Fenced,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Store,
    Tail,
    Waiting,
    seal,
)

from .contract_bench import ODD_RUN_IDS, START, Bench, a_head, a_record, a_start, head_of, ids_of, lines_of, race

_MARK = Departure("elsewhere", "token")


class _Both(Store, Movable, Protocol):
    """What these tests need."""


def an_arrival(histories: list[list[bytes]], run_id: str = "r", **changes: Any) -> Arrival:
    """The arrival of an open run with these histories, under the token "token"."""
    head = changes.pop("head", a_head(status="suspended"))
    run = RunHead(run_id, len(histories) - 1, len(histories[-1]), 7, False, None, head)
    return Arrival(replace(run, **changes), tuple(map(len, histories)), "over there", "token")


def three() -> list[list[bytes]]:
    """Three incarnations: one closed, one left open, and one with records of others in it."""
    return [
        seal([a_start(), a_record(kind="complete")], session=1, offset=0, then="closed", attempt_id="new"),
        seal([a_start(), a_record("é")], session=3, offset=0, attempt_id="again"),
        [
            *seal([a_start()], session=4, offset=0, attempt_id="third", left=2),
            *seal([a_record("early", "resume")], session=4, offset=1, attempt_id="signal-2-x"),
            *seal([a_record(1), a_record(2)], session=6, offset=2),
        ],
    ]


def bring(store: _Both, histories: list[list[bytes]], run_id: str = "r", **changes: Any) -> Arrival:
    """Have a run arrive and stage all of its records."""
    arrival = store.arrive(an_arrival(histories, run_id, **changes))
    assert arrival is not None
    for number, lines in enumerate(histories):
        store.stage(run_id, "token", number, 0, lines)
    return arrival


class Moving(Bench):
    """Arrivals and departures."""

    @staticmethod
    def calls(store: _Both) -> list[Callable[[], object]]:
        """Everything that names a run and is refused when it is not here."""
        new: dict[str, Any] = {"head": a_head(), "attempt_id": "other"}
        return [
            lambda: store.create("r", [a_start()], **new),
            lambda: store.open_incarnation("r", 3, [a_start()], **new),
            lambda: store.append("r", None, None, [a_record()], attempt_id="other"),
            lambda: store.append("r", 2, 4, [a_record()], attempt_id="other", fence=7),
            lambda: store.head("r"),
            lambda: store.read("r"),
            lambda: store.claim("r", "me", 30),
        ]

    @staticmethod
    def knows_nothing(store: _Both) -> None:
        """No list, claim or size has the run."""
        assert store.heads(HeadFilter(), limit=9) == store.closed(limit=9) == []
        assert store.claim_due("me", 30, now=2**60, limit=9) == []
        assert store.next_due() is None
        assert (store.size().runs, store.size().events) == ({}, 0)
        assert [part.problem for part in store.verify() if part.problem is not None] == []
        assert not store.delete("r", 2)
        lease = Lease("r", 2, 7, 4, "me", START)
        assert store.renew(lease, 30) is None
        store.release(lease)

    # ---- arriving

    def test_it_can_move_runs(self, store: _Both) -> None:
        """It has every method of that part."""
        assert isinstance(store, Movable)

    def test_a_run_lands_as_it_was(self, store: _Both) -> None:
        """Every byte, every incarnation, its head, its fence, and the attempts of others."""
        histories = three()
        head = a_head(
            status="suspended",
            created=START - 5,
            due=START + 9,
            waiting=(Waiting("go", "go@2:1", 1, "why"),),
            tags={"a": "1"},
            blocked=Blocked("DIVERGENCE", "it", ("code",)),
        )
        bring(store, histories, head=head)
        assert store.land("r", "token")
        for number, lines in enumerate(histories):
            assert store.read("r", incarnation=number) == Tail(number, 0, lines, number < 2)
        assert head_of(store) == RunHead("r", 2, 4, 7, False, None, head)
        for where in (HeadFilter(tag=("a", "1")), HeadFilter(waiting_for="go"), HeadFilter(blocked=True)):
            assert ids_of(store.heads(where, limit=9)) == ["r"]
        assert store.size().events == 8
        assert [part.problem for part in store.verify() if part.problem is not None] == []
        again = store.append("r", None, None, [a_record("early", "resume")], attempt_id="signal-2-x")
        assert again == AlreadyCommitted(1, 2)
        assert store.create("r", [a_start()], head=a_head(), attempt_id="new") == Created()
        lease = store.claim("r", "me", 30)
        assert isinstance(lease, Lease)
        assert (lease.fence, lease.incarnation, lease.seq) == (8, 2, 4)
        assert store.append("r", 2, 4, [a_record()], attempt_id="x", fence=7) == Fenced(8)
        assert self.own(store, lease, 4) == Committed(4, 2)
        again = store.append("r", 2, 2, [a_record(1), a_record(2)], attempt_id="x", fence=6)
        assert again == AlreadyCommitted(2, 2)

    def test_a_closed_run_lands_closed(self, store: _Both) -> None:
        """It is among the closed ones, and can be opened anew."""
        histories = three()[:1]
        bring(store, histories, closed=True, fence=1, head=a_head(status="completed"))
        assert store.land("r", "token")
        assert ids_of(store.closed(limit=9)) == ["r"]
        assert self.tell(store, "out") == Conflict(2, 0, closed=True)
        lease = LeaseRequest("me", 30)
        opened = store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="b", lease=lease)
        assert isinstance(opened, Committed)
        assert opened.lease is not None
        assert opened.lease.fence == 2

    def test_what_is_staged_is_nobodys_before_it_lands(self, store: _Both) -> None:
        """The id is taken, and every call says that the run is on its way."""
        bring(store, three(), head=a_head(due=START))
        for call in self.calls(store):
            with pytest.raises(RunArrivingError, match="over there"):
                call()
        self.knows_nothing(store)
        assert store.land("r", "token")
        assert len(lines_of(store)) == 4
        assert store.next_due() == START

    def test_it_lands_once(self, store: _Both) -> None:
        """Of many who say so, one does; and not under another token."""
        bring(store, three())
        assert not store.land("r", "another")
        assert sorted(race(6, lambda _: store.land("r", "token"))) == [False] * 5 + [True]
        assert not store.land("r", "token")
        assert store.arrivals(limit=9) == []
        with pytest.raises(NotFoundError):
            store.stage("r", "token", 2, 4, seal([a_record()], session=7, offset=4))

    def test_nothing_lands_before_all_is_staged(self, store: _Both) -> None:
        """Neither without its counts, nor with a record missing."""
        histories = three()
        assert store.arrive(replace(an_arrival(histories), counts=())) is not None
        for number, lines in enumerate(histories[:2]):
            store.stage("r", "token", number, 0, lines)
        store.stage("r", "token", 2, 0, histories[2][:3])
        for counts in ((), (2, 2, 4), (2, 2), (2, 2, 3), (2, 2, 4), ()):
            assert store.arrive(replace(an_arrival(histories), counts=counts)) is not None
            with pytest.raises(StoreError, match="can't land"):
                store.land("r", "token")
        store.stage("r", "token", 2, 3, histories[2][3:])
        assert store.arrive(an_arrival(histories)) is not None
        assert store.land("r", "token")

    def test_records_are_staged_page_by_page(self, store: _Both) -> None:
        """Those at a position that is staged already take the place of what is there."""
        history = seal([a_start(), *map(a_record, range(40))], session=1, offset=0)
        other = seal([a_start("another"), *map(a_record, range(60, 120))], session=1, offset=0)
        bring(store, [other, other])
        for seq in range(0, 41, 7):
            page = history[seq : seq + 7]
            store.stage("r", "token", 0, seq, page)
            assert store.staged("r", 0, seq, limit=len(page)) == page
            assert store.staged("r", 0, max(0, seq - 3), limit=5) == history[max(0, seq - 3) :][:5]
        assert store.staged("r", 0, 41, limit=99) == other[41:]
        assert store.staged("r", 0, 61, limit=9) == store.staged("r", 2, limit=9) == store.staged("x", 0, limit=9) == []
        assert store.arrive(an_arrival([history], fence=8)) is not None
        assert store.land("r", "token")
        assert lines_of(store) == history
        assert store.read("r", incarnation=1) is None
        assert [part.problem for part in store.verify() if part.problem is not None] == []

    def test_what_is_no_record_of_its_place_is_not_staged(self, store: _Both) -> None:
        """Nor what leaves a gap, nor anything for a run that isn't arriving."""
        lines = three()[2]
        assert store.arrive(an_arrival([lines])) is not None
        wrong: list[tuple[int, int, list[bytes]]] = [
            (0, 1, lines[1:]),
            (1, 0, lines),
            (0, 0, lines[1:]),
            (0, 0, [lines[0].replace(b"triage", b"frigate")]),
        ]
        for incarnation, seq, bad in wrong:
            with pytest.raises(InvalidInputError, match="'r'"):
                store.stage("r", "token", incarnation, seq, bad)
        assert store.staged("r", 0, limit=9) == []
        for run_id, token in (("r", "another"), ("nobody", "token")):
            with pytest.raises(NotFoundError):
                store.stage(run_id, token, 0, 0, lines)

    def test_an_older_state_never_takes_the_place_of_a_newer_one(self, store: _Both) -> None:
        """Who was paused may come late; and the first token stays."""
        first = an_arrival([three()[0]], fence=2)
        newer = replace(first, run=replace(first.run, fence=3), token="second")
        assert store.arrive(first) == first
        assert store.arrive(newer) == replace(newer, token="token")
        assert store.arrive(first) == replace(newer, token="token")
        assert store.arrive(replace(newer, counts=())) == replace(newer, token="token")  # another one who begins
        assert store.arrivals(limit=9) == [replace(newer, token="token")]

    def test_a_run_that_is_here_keeps_others_of_its_id_away(self, store: _Both) -> None:
        """It was here first."""
        self.create(store)
        assert store.arrive(an_arrival(three())) is None
        assert store.arrivals(limit=9) == []
        assert lines_of(store) == seal([a_start()], session=1, offset=0, attempt_id="new")

    def test_a_run_that_is_turned_away_leaves_nothing(self, store: _Both) -> None:
        """Its id is free, and the next run of that id has none of its records."""
        arrival = bring(store, three())
        assert not store.turn_away(replace(arrival, token="another"))
        assert not store.turn_away(replace(arrival, run=replace(arrival.run, fence=6)))
        assert store.turn_away(arrival)
        assert not store.turn_away(arrival)
        self.knows_nothing(store)
        assert store.head("r") is None
        assert store.staged("r", 0, limit=9) == []
        assert self.create(store).fence == 1
        assert lines_of(store) == seal([a_start()], session=1, offset=0, attempt_id="new")
        assert store.read("r", incarnation=1) is None
        assert isinstance(self.tell(store, "signal-2-x"), Committed)

    def test_arrivals_come_in_pages(self, store: _Both) -> None:
        """By run id."""
        lines = three()[:1]
        for run_id in ODD_RUN_IDS:
            assert store.arrive(an_arrival(lines, run_id)) is not None
        found: list[str] = []
        while page := store.arrivals(after=found[-1] if found else None, limit=7):
            assert len(page) <= 7
            found += [arrival.run.run_id for arrival in page]
        assert found == sorted(ODD_RUN_IDS)
        for run_id in ODD_RUN_IDS:
            store.stage(run_id, "token", 0, 0, lines[0])
            assert store.land(run_id, "token")
        assert sorted(ids_of(store.heads(HeadFilter(), limit=99))) == sorted(ODD_RUN_IDS)

    def test_fences_of_an_id_go_on_rising(self, store: _Both) -> None:
        """An owner of a run that was deleted here never owns one that comes in under its id."""
        stale = self.create(store)
        for _ in range(9):
            self.close_run(store, stale)
            assert store.delete("r", 0)
            stale = self.create(store)
        self.close_run(store, stale)
        assert store.delete("r", 0)
        bring(store, three())
        assert store.land("r", "token")
        assert head_of(store).fence == stale.fence + 1
        assert store.append("r", 2, 4, [a_record()], attempt_id="x", fence=stale.fence) == Fenced(stale.fence + 1)

    # ---- departing

    def test_a_run_that_departed_is_told_where_it_went(self, store: _Both) -> None:
        """By every call, and nothing of it is left."""
        lease = self.create(store, due=START)
        assert store.depart(head_of(store), _MARK)
        for call in self.calls(store):
            with pytest.raises(RunMovedError, match="elsewhere") as caught:
                call()
            assert (caught.value.to, caught.value.token) == ("elsewhere", "token")
        self.knows_nothing(store)
        with pytest.raises(RunMovedError):
            self.own(store, lease, 1)
        assert store.depart(RunHead("r", 0, 1, 1, False, None, a_head()), _MARK)  # it has
        assert not store.depart(RunHead("r", 0, 1, 1, False, None, a_head()), Departure("elsewhere", "another"))
        assert not store.depart(RunHead("nobody", 0, 1, 1, False, None, a_head()), _MARK)

    def test_only_what_was_seen_departs(self, store: _Both) -> None:
        """Not after a record, a due instant, a lease, or a new incarnation."""
        lease = self.create(store)
        seen = head_of(store)
        assert isinstance(self.tell(store, "one"), Committed)
        assert not store.depart(seen, _MARK)
        seen = head_of(store)
        assert isinstance(store.append("r", None, None, [], attempt_id="two", due=START + 3), Committed)
        assert not store.depart(seen, _MARK)
        seen = head_of(store)
        store.release(lease)
        claimed = store.claim("r", "me", 30)
        assert isinstance(claimed, Lease)
        assert not store.depart(seen, _MARK)
        self.close_run(store, claimed, 2)
        seen = head_of(store)
        assert isinstance(store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="n"), Committed)
        assert not store.depart(seen, _MARK)
        assert len(lines_of(store)) == 1
        assert store.depart(head_of(store), _MARK)

    def test_a_page_may_begin_after_a_run_that_departed(self, store: _Both) -> None:
        """As after one that was deleted."""
        for age, run_id in enumerate("abc"):
            self.create(store, run_id, created=START + age)
        assert store.depart(head_of(store, "b"), _MARK)
        assert ids_of(store.heads(HeadFilter(), limit=9, after="b")) == ["a"]

    def test_of_an_owner_and_a_departure_one_wins(self, store: _Both) -> None:
        """Whoever comes second is told so, and nothing acknowledged is lost."""
        for number in range(8):
            lease = self.create(store, f"r{number}")
            seen = head_of(store, f"r{number}")

            def go(who: int, lease: Lease = lease, seen: RunHead = seen) -> object:
                try:
                    return store.depart(seen, _MARK) if who else self.own(store, lease, 1)
                except RunMovedError as error:
                    return error

            ended = race(2, go)
            left = any(one is True for one in ended)
            assert left != any(isinstance(one, Committed) for one in ended)
            assert left == any(isinstance(one, RunMovedError) for one in ended)

    def test_a_run_may_come_back(self, store: _Both) -> None:
        """With a fence that is higher than any it had."""
        self.create(store)
        history = [seal([a_start()], session=1, offset=0)]
        assert store.depart(head_of(store), _MARK)
        arrival = bring(store, history, fence=1)
        with pytest.raises(RunArrivingError):
            store.head("r")
        assert store.turn_away(arrival)
        with pytest.raises(RunMovedError):
            store.head("r")
        bring(store, history, fence=1)
        assert store.land("r", "token")
        assert head_of(store).fence == 2
        assert store.depart(head_of(store), Departure("a third place", "third"))
        with pytest.raises(RunMovedError, match="a third place"):
            store.head("r")

"""The store contract as a state machine: Hypothesis looks for an order of calls that a store gets wrong."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Exists,
    Fenced,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    Store,
    Tail,
    closed_key,
    seal,
)

from .contract_bench import START, a_head, a_record, a_start


class _Model:
    """What a run is, in plain lists."""

    def __init__(self, lines: list[bytes], fence: int, head: Head, closed: bool = False) -> None:
        self.histories = [lines]
        self.fence = fence
        self.head = head
        self.closed = closed
        self.until: int | None = None

    @property
    def lines(self) -> list[bytes]:
        return self.histories[-1]

    @property
    def incarnation(self) -> int:
        return len(self.histories) - 1


class StoreMachine(RuleBasedStateMachine):
    """Any order of calls: the store must agree with lists. Give `make_store`, `advance` and, if it can be, `reopen`."""

    run_ids = st.sampled_from(("r", "R", "orders/12"))
    values = st.one_of(st.integers(0, 9), st.text(max_size=5))
    counts = st.integers(1, 3)

    def make_store(self) -> Store:
        """Make a store, empty at the first call."""
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Move the clock of the store's leases on."""
        raise NotImplementedError

    def reopen(self, store: Store) -> Store:
        """Close `store` and open another on the same data."""
        return store

    @initialize()
    def begin(self) -> None:
        """An empty store and an empty model."""
        self.store = self.make_store()
        self.runs: dict[str, _Model] = {}
        self.buried: dict[str, int] = {}
        self.leases: list[Lease] = []
        self.told: dict[tuple[str, str], tuple[int, int]] = {}
        self.elapsed = 0
        self.attempts = 0

    def teardown(self) -> None:
        """Let go of the files."""
        if hasattr(self, "store"):
            self.store.close()

    def _attempt(self) -> str:
        self.attempts += 1
        return f"a{self.attempts}"

    def _granted(self, run_id: str, lease: Lease | None, *, may: bool) -> None:
        """A lease was asked for: it must be there just when the model says that it `may`, and rises the fence."""
        assert (lease is not None) == may
        if lease is not None:
            run = self.runs[run_id]
            assert (run_id, run.incarnation, run.fence) == (lease.run_id, lease.incarnation, lease.fence)
            run.until = self.elapsed + 30
            self.leases.append(lease)

    def _free(self, run: _Model) -> bool:
        return not run.closed and (run.until is None or run.until <= self.elapsed)

    @rule(run_id=run_ids, count=counts, leased=st.booleans(), value=values)
    def create(self, run_id: str, count: int, leased: bool, value: object) -> None:
        """Create a run, or find it there."""
        attempt = self._attempt()
        records = [a_start(), *(a_record(value) for _ in range(count - 1))]
        lease = LeaseRequest("me", 30) if leased else None
        made = self.store.create(run_id, records, head=a_head(), attempt_id=attempt, lease=lease)
        if run_id in self.runs:
            assert isinstance(made, Exists)
            return
        fence = self.buried.get(run_id, 0) + 1
        self.runs[run_id] = _Model(seal(records, session=fence, offset=0, attempt_id=attempt), fence, a_head())
        assert isinstance(made, Created)
        self._granted(run_id, made.lease, may=leased)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(0, 3), value=values, end=st.sampled_from(("go on", "release", "close")))
    def own(self, data: st.DataObject, count: int, value: object, end: str) -> None:
        """Append as an owner, perhaps a stale one, perhaps at the wrong place."""
        lease = data.draw(st.sampled_from(self.leases), label="lease")
        run = self.runs.get(lease.run_id)
        if run is None:
            return
        seq = max(0, len(run.lines) - data.draw(st.sampled_from((0, 0, 0, 1, -1)), label="behind"))
        closing = end == "close" and count > 0
        records = [a_record([lease.fence, value, i]) for i in range(count)]
        head = a_head(status="completed" if closing else "pending", updated=START + self.attempts)
        then = "closed" if closing else "open"
        lines = seal(records, session=lease.fence, offset=seq, then=then)  # type: ignore[arg-type]
        outcome = self.store.append(
            lease.run_id,
            lease.incarnation,
            seq,
            records,
            attempt_id=self._attempt(),
            head=head,
            then=then,  # type: ignore[arg-type]
            fence=lease.fence,
            release=end == "release",
        )
        known = run.histories[lease.incarnation] if lease.incarnation <= run.incarnation else []
        if lines and known[seq : seq + len(lines)] == lines:
            assert outcome == AlreadyCommitted(seq, lease.incarnation)
        elif lease.fence != run.fence:
            assert outcome == Fenced(run.fence)
        elif run.closed or lease.incarnation != run.incarnation or seq != len(run.lines):
            assert outcome == Conflict(len(run.lines), run.incarnation, run.closed)
        else:
            assert outcome == Committed(seq, run.incarnation)
            run.lines.extend(lines)
            run.head, run.closed = head, closing
            if closing or end == "release":
                run.until = None

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), count=counts, value=values, repeat=st.booleans(), leased=st.booleans())
    def tell(self, data: st.DataObject, count: int, value: object, repeat: bool, leased: bool) -> None:
        """Append from outside, or repeat an attempt that was made."""
        run_id = data.draw(st.sampled_from(sorted(self.runs)), label="run")
        run = self.runs[run_id]
        attempt = next((a for r, a in self.told if r == run_id), None) if repeat else None
        attempt = attempt or self._attempt()
        records = [a_record(value, "resume") for _ in range(count)]
        lease = LeaseRequest("me", 30) if leased and not repeat else None
        outcome = self.store.append(run_id, None, None, records, attempt_id=attempt, due=START, lease=lease)
        if (run_id, attempt) in self.told:
            seq, incarnation = self.told[run_id, attempt]
            assert outcome == AlreadyCommitted(seq, incarnation)
        elif run.closed:
            assert outcome == Conflict(len(run.lines), run.incarnation, closed=True)
        else:
            assert isinstance(outcome, Committed)
            assert (len(run.lines), run.incarnation) == (outcome.seq, outcome.incarnation)
            self.told[run_id, attempt] = (len(run.lines), run.incarnation)
            run.lines.extend(seal(records, session=run.fence, offset=len(run.lines), attempt_id=attempt))
            run.head = replace(run.head, due=START)
            may = lease is not None and self._free(run)
            run.fence += may
            self._granted(run_id, outcome.lease, may=may)

    @rule(run_id=run_ids)
    def claim(self, run_id: str) -> None:
        """Claim a run by name."""
        got = self.store.claim(run_id, "me", 30)
        run = self.runs.get(run_id)
        if run is None:
            assert got is None
            return
        may = self._free(run)
        run.fence += may
        self._granted(run_id, got if isinstance(got, Lease) else None, may=may)

    @rule(limit=st.integers(0, 3))
    def claim_due(self, limit: int) -> None:
        """Claim what is due: what was told from outside, and what was left behind."""
        due = {
            run_id: run
            for run_id, run in self.runs.items()
            if self._free(run) and (run.head.due is not None or run.until is not None)
        }
        leases = self.store.claim_due("me", 30, now=START, limit=limit)
        assert len(leases) == min(limit, len(due))
        for lease in leases:
            due[lease.run_id].fence += 1
            self._granted(lease.run_id, lease, may=True)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), renew=st.booleans())
    def renew_or_release(self, data: st.DataObject, renew: bool) -> None:
        """With any lease that ever was."""
        lease = data.draw(st.sampled_from(self.leases), label="lease")
        run = self.runs.get(lease.run_id)
        current = run is not None and run.fence == lease.fence and run.until is not None
        if renew:
            assert (self.store.renew(lease, 30) is not None) == current
        else:
            self.store.release(lease)
        if run is not None and current:
            run.until = self.elapsed + 30 if renew else None

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), leased=st.booleans())
    def open_incarnation(self, data: st.DataObject, leased: bool) -> None:
        """Open the next incarnation, if the run is closed."""
        run_id = data.draw(st.sampled_from(sorted(self.runs)), label="run")
        run, attempt = self.runs[run_id], self._attempt()
        outcome = self.store.open_incarnation(
            run_id,
            run.incarnation + 1,
            [a_start()],
            head=a_head(),
            attempt_id=attempt,
            lease=LeaseRequest("me", 30) if leased else None,
        )
        if not run.closed:
            assert outcome == Conflict(len(run.lines), run.incarnation)
            return
        run.fence += 1
        run.histories.append(seal([a_start()], session=run.fence, offset=0, attempt_id=attempt))
        run.head, run.closed, run.until = a_head(), False, None
        assert isinstance(outcome, Committed)
        assert (0, run.incarnation) == (outcome.seq, outcome.incarnation)
        self._granted(run_id, outcome.lease, may=leased)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), leased=st.booleans())
    def go_on_in_the_next(self, data: st.DataObject, leased: bool) -> None:
        """End an open incarnation with the next one as an owner, perhaps a stale one, perhaps at the wrong place."""
        lease = data.draw(st.sampled_from(self.leases), label="lease")
        run, attempt = self.runs.get(lease.run_id), self._attempt()
        if run is None:
            return
        seq = max(0, len(run.lines) - data.draw(st.sampled_from((0, 0, 0, 1, -1)), label="behind"))
        outcome = self.store.open_incarnation(
            lease.run_id,
            lease.incarnation + 1,
            [a_start()],
            head=a_head(),
            attempt_id=attempt,
            lease=LeaseRequest("me", 30) if leased else None,
            fence=lease.fence,
            expected_seq=seq,
        )
        if lease.fence != run.fence:
            assert outcome == Fenced(run.fence)
            return
        if run.closed or lease.incarnation != run.incarnation or seq != len(run.lines):
            assert outcome == Conflict(len(run.lines), run.incarnation, run.closed)
            return
        run.fence += 1
        run.histories.append(seal([a_start()], session=run.fence, offset=0, attempt_id=attempt, left=seq))
        run.head, run.until = a_head(), None
        assert isinstance(outcome, Committed)
        self._granted(lease.run_id, outcome.lease, may=leased)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a run, if it is closed."""
        run_id = data.draw(st.sampled_from(sorted(self.runs)), label="run")
        run = self.runs[run_id]
        assert self.store.delete(run_id, run.incarnation) == run.closed
        if run.closed:
            self.buried[run_id] = run.fence
            self.told = {key: value for key, value in self.told.items() if key[0] != run_id}
            del self.runs[run_id]

    @rule(seconds=st.sampled_from((10, 31)))
    def let_time_pass(self, seconds: int) -> None:
        """Leases lapse."""
        self.advance(seconds)
        self.elapsed += seconds

    @rule()
    def open_again(self) -> None:
        """Leases of a closed store may end at once, so the model lets the old ones lapse first."""
        self.let_time_pass(31)
        self.store = self.reopen(self.store)

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Heads and every byte of every history."""
        if not hasattr(self, "store"):
            return
        heads = {head.run_id: head for head in self.store.heads(HeadFilter(), limit=99)}
        assert sorted(heads) == sorted(self.runs)
        for run_id, run in self.runs.items():
            head = heads[run_id]
            held = run.until is not None and run.until > self.elapsed
            assert (run.incarnation, len(run.lines), run.fence, run.closed, run.head, held) == (
                head.incarnation,
                head.seq,
                head.fence,
                head.closed,
                head.head,
                head.lease_until is not None,
            )
            for number, lines in enumerate(run.histories):
                closed = run.closed or number < run.incarnation
                assert self.store.read(run_id, incarnation=number) == Tail(number, 0, lines, closed)
        keys = sorted(closed_key(head) for head in heads.values() if head.closed)
        assert [closed_key(head) for head in self.store.closed(limit=99)] == keys
        size = self.store.size()
        assert size.events == sum(len(lines) for run in self.runs.values() for lines in run.histories)
        assert size.runs == Counter("running" if h.lease_until is not None else h.head.status for h in heads.values())

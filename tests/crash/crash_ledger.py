"""What the world was told by a store that crashes, and the one look at it that finds every broken promise.

A record's body names the attempt that it belongs to, so that each record that is read can be traced to a call. Told is
what a call returned: an acknowledgement, a lease, a history that was shown to a reader. None of that may ever be untrue
again, whatever is killed or cut off.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from attrs import define, evolve, field, frozen

from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Draft,
    Envelope,
    Exists,
    Fenced,
    Head,
    Lease,
    LeaseRequest,
    NotApplied,
    RunHead,
    Store,
    Tail,
    Then,
    envelope,
)
from stepwell_stores.rules import earlier

__all__ = ["TTL", "Attempt", "Entry", "Facts", "Ledger", "UntypedError", "Violation"]

TTL = 30.0
EPOCH = 1_700_000_000_000_000

Kind: TypeAlias = Literal["create", "open", "own", "outside", "delete"]
State: TypeAlias = Literal["maybe", "there", "refused"]


class Violation(AssertionError):
    """The store broke a promise."""


class UntypedError(Violation):
    """The store raised what is no error of the port's."""


@frozen(kw_only=True)
class Attempt:
    """A write, with all that it takes to repeat it.

    Attributes:
        number: unlike all others; later ones are higher.
        sizes: of the padding of each of its records, in bytes.
        leased: asks for a lease.
    """

    number: int
    kind: Kind
    run_id: str
    sizes: tuple[int, ...] = ()
    incarnation: int | None = None
    seq: int | None = None
    fence: int | None = None
    then: Then = "open"
    release: bool = False
    leased: bool = False
    due: int | None = None

    @property
    def records(self) -> list[Draft]:
        return [Draft("step" if i else "start", self.body(i)) for i in range(len(self.sizes))]

    def body(self, i: int) -> bytes:
        """The body of one record."""
        first = b',"workflow":"w","version":"1"' if self.kind in ("create", "open") and not i else b""
        return b'"timestamp":"2023-11-14T22:13:20.000000Z"%b,"n":%d,"i":%d,"pad":"%b"' % (
            first,
            self.number,
            i,
            b"x" * self.sizes[i],
        )

    def send(self, store: Store, token: str) -> Any:
        """Make the call; `token` is for the lease."""
        name = f"attempt-{self.number}"
        if self.kind == "delete":
            assert self.incarnation is not None
            return store.delete(self.run_id, self.incarnation)
        lease = LeaseRequest("me", TTL, token) if self.leased else None
        status = "completed" if self.then == "closed" else "pending" if self.leased else "suspended"
        head = Head(status, "w", "1", EPOCH, EPOCH + self.number, self.due)  # type: ignore[arg-type]
        if self.kind == "create":
            return store.create(self.run_id, self.records, head=head, attempt_id=name, then=self.then, lease=lease)
        if self.kind == "open":
            assert self.incarnation is not None
            own = {} if self.fence is None else {"expected_seq": self.seq, "fence": self.fence}
            return store.open_incarnation(
                self.run_id, self.incarnation, self.records, head=head, attempt_id=name, lease=lease, **own
            )
        where = (self.run_id, self.incarnation, self.seq, self.records)
        if self.kind == "outside":
            return store.append(*where, attempt_id=name, due=self.due, lease=lease)
        return store.append(*where, attempt_id=name, head=head, then=self.then, fence=self.fence, release=self.release)


@frozen
class Entry:
    """An attempt, whether its records are there, and where, once that was told."""

    attempt: Attempt
    state: State = "maybe"
    incarnation: int = -1
    seq: int = -1


@define
class Facts:
    """What was told of one run id.

    Attributes:
        entries: all attempts by number.
        born: attempts below this number belong to a run that was deleted.
        gone: it was deleted, and no later attempt has made it again.
        deleting: number of a delete whose outcome nobody knows, or 0.
        told: the highest fence of any lease.
        leases: what was granted with an attempt: (token, fence). Who repeats it with that token may be told it again.
        shown: histories as they were read, by incarnation.
        reached: (incarnation, seq) of the tail, as far as anybody was told.
        due: when the run has to be driven at the latest, as far as that was promised.
    """

    entries: dict[int, Entry] = field(factory=dict)
    born: int = 0
    gone: bool = False
    deleting: int = 0
    told: int = 0
    leases: dict[int, tuple[str, int]] = field(factory=dict)
    shown: dict[int, tuple[bytes, ...]] = field(factory=dict)
    reached: tuple[int, int] = (-1, 0)
    due: int | None = None

    def copy(self) -> Facts:
        return evolve(self, entries=dict(self.entries), leases=dict(self.leases), shown=dict(self.shown))

    def living(self) -> list[Entry]:
        """The attempts since the run was deleted last."""
        return [entry for number, entry in self.entries.items() if number >= self.born]


@lru_cache(maxsize=4096)
def _parsed(line: bytes) -> tuple[Envelope, int, int]:
    found = envelope(line)
    match = re.search(rb'"n":(\d+),"i":(\d+)', found.body)
    if match is None:
        raise Violation(f"a record that nobody wrote: {line!r}")
    return found, int(match[1]), int(match[2])


@define
class Ledger:
    """What was told, of all runs."""

    runs: dict[str, Facts] = field(factory=dict)

    def copy(self) -> Ledger:
        return Ledger({run_id: facts.copy() for run_id, facts in self.runs.items()})

    def facts(self, run_id: str) -> Facts:
        found = self.runs.get(run_id)
        if found is None:
            found = self.runs[run_id] = Facts()
        return found

    # ---- calls

    def begin(self, attempt: Attempt) -> bool:
        """A write is about to be tried; whether it is not there yet, for certain."""
        facts = self.facts(attempt.run_id)
        if attempt.kind == "delete":
            facts.deleting = attempt.number
            return False
        known = facts.entries.get(attempt.number)
        fresh = known is None or known.state == "refused"
        if fresh and attempt.sizes:
            facts.entries[attempt.number] = Entry(attempt)
        if attempt.kind != "outside":  # which can only bring it forward
            facts.due = None
        return fresh

    def settle(self, attempt: Attempt, outcome: Any, token: str, *, fresh: bool) -> None:
        """A write was answered."""
        facts = self.facts(attempt.run_id)
        if attempt.kind == "delete":
            if outcome is True:
                self.forget(facts)
            return
        entry = facts.entries.get(attempt.number) or Entry(attempt)
        state: State = entry.state
        if isinstance(outcome, (Created, Committed, AlreadyCommitted)):
            where = (0, 0) if isinstance(outcome, Created) else (outcome.incarnation, outcome.seq)
            if fresh and isinstance(outcome, AlreadyCommitted) and attempt.sizes:
                raise Violation(f"{attempt} can't be there, and yet it is: {outcome}")
            self._acknowledged(facts, entry, outcome, where)
            if fresh and (attempt.sizes or isinstance(outcome, Committed)):
                facts.due = earlier(facts.due, attempt.due)
            if outcome.lease is not None:
                self.granted(outcome.lease, attempt, token)
            return
        if isinstance(outcome, (Conflict, Fenced, Exists)):
            if state == "there":
                raise Violation(f"{attempt} was acknowledged, and repeated it is refused: {outcome}")
            tail = outcome.head if isinstance(outcome, Exists) else outcome
            if not isinstance(tail, Fenced):
                facts.reached = _further(facts.reached, (tail.incarnation, tail.seq), tail)
            state = "refused"
        elif isinstance(outcome, NotApplied) and fresh:
            state = "refused"
        if attempt.sizes:
            facts.entries[attempt.number] = evolve(entry, state=state)

    def _acknowledged(
        self, facts: Facts, entry: Entry, outcome: Created | Committed | AlreadyCommitted, where: tuple[int, int]
    ) -> None:
        attempt = entry.attempt
        if isinstance(outcome, Committed) and attempt.fence is not None and attempt.fence < facts.told:
            raise Violation(f"{attempt} of an old session was written; the newest is {facts.told}")
        if entry.state == "there" and (entry.incarnation, entry.seq) != where:
            raise Violation(f"{attempt} was acknowledged at {(entry.incarnation, entry.seq)}, and now at {where}")
        if isinstance(outcome, Committed) and entry.state == "there":
            raise Violation(f"{attempt} was acknowledged, and repeated it is written again")
        if attempt.sizes:
            facts.entries[attempt.number] = Entry(attempt, "there", *where)
        if attempt.kind == "create":
            facts.gone = False

    def granted(self, lease: Lease, attempt: Attempt | None = None, token: str = "") -> None:
        """A lease was told to somebody."""
        facts = self.facts(lease.run_id)
        number = 0 if attempt is None else attempt.number
        if lease.fence <= facts.told and facts.leases.get(number) != (token, lease.fence):
            raise Violation(f"{lease} has a fence that is not above {facts.told}, which was told before")
        facts.told = max(facts.told, lease.fence)
        if number:
            facts.leases[number] = token, lease.fence

    def forget(self, facts: Facts) -> None:
        """The run was deleted: nothing that was attempted before may ever come back."""
        facts.born, facts.deleting, facts.gone, facts.due = facts.deleting, 0, True, None
        facts.shown.clear()
        facts.reached = (-1, 0)

    # ---- looks

    def see_all(self, heads: list[RunHead]) -> None:
        """All runs were listed.

        Raises:
            Violation: the list can't be true.
        """
        listed = {head.run_id: head for head in heads}
        for run_id, facts in self.runs.items():
            head = listed.get(run_id)
            if head is None:
                self.see(run_id, None, None, [])
                continue
            _check_not_gone(run_id, facts)
            facts.reached = _further(facts.reached, (head.incarnation, head.seq), head)

    def see(self, run_id: str, head: RunHead | None, tail: Tail | None, older: list[list[bytes]]) -> None:
        """A run was read: hold it against what was told, and keep it as shown.

        Args:
            head: None also when nobody asked for it.
            tail: the current incarnation.
            older: the histories of those before.

        Raises:
            Violation: it can't be true.
        """
        facts = self.facts(run_id)
        if tail is None:
            acknowledged = [entry.attempt for entry in facts.living() if entry.state == "there"]
            if facts.deleting:
                self.forget(facts)
            elif (acknowledged or facts.reached > (-1, 0)) and not facts.gone:
                raise Violation(f"run {run_id[:9]!r} is lost, which was told to be there: {acknowledged or 'shown'}")
            return
        _check_not_gone(run_id, facts)
        facts.deleting, facts.gone = 0, False
        histories = [*older, tail.records]
        session, closed, found = self._trace(facts, histories)
        if tail.closed != closed:
            raise Violation(f"{run_id[:9]!r} says closed={tail.closed}, and its last record {closed}")
        if head is not None:
            _check_head(head, tail, max(session, facts.told))
        for entry in facts.living():
            if entry.state == "there" and found.get(entry.attempt.number) != (entry.incarnation, entry.seq):
                raise Violation(f"{entry} was acknowledged; found at {found.get(entry.attempt.number)}")
        for number, lines in facts.shown.items():
            now = histories[number] if number < len(histories) else []
            if tuple(now[: len(lines)]) != lines:
                raise Violation(f"history {number} of {run_id[:9]!r} was shown, and now is another:\n{lines}\n{now}")
        facts.shown = {number: tuple(lines) for number, lines in enumerate(histories)}
        facts.reached = _further(facts.reached, (tail.incarnation, tail.seq), tail)

    def _trace(self, facts: Facts, histories: list[list[bytes]]) -> tuple[int, bool, dict[int, tuple[int, int]]]:
        """Follow all records: (the last session, whether it is closed, where each attempt's records begin).

        Every record must be of a whole attempt that was made once.
        """
        found: dict[int, tuple[int, int]] = {}
        session, closed = 0, False
        for incarnation, lines in enumerate(histories):
            if incarnation and not closed and _parsed(lines[0])[0].left != len(histories[incarnation - 1]):
                raise Violation(f"incarnation {incarnation - 1} is not closed, and was not left there")
            seq, closed = 0, False
            while seq < len(lines):
                number = _parsed(lines[seq])[1]
                entry = facts.entries.get(number)
                if entry is None or number < facts.born or number in found or entry.state == "refused" or closed:
                    what = "never attempted" if entry is None else f"{entry}, born {facts.born}, {found}, {closed}"
                    raise Violation(f"record {seq} of incarnation {incarnation} should not be: {what}: {lines[seq]!r}")
                found[number] = incarnation, seq
                session = _check_batch(entry.attempt, incarnation, seq, lines, session)
                seq += len(entry.attempt.sizes)
                closed = entry.attempt.then == "closed"
        return session, closed, found


def _check_not_gone(run_id: str, facts: Facts) -> None:
    if facts.gone and all(entry.attempt.kind != "create" for entry in facts.living()):
        raise Violation(f"run {run_id[:9]!r} was deleted and is back")


def _further(told: tuple[int, int], now: tuple[int, int], what: object) -> tuple[int, int]:
    """A tail never goes back."""
    if now < told:
        raise Violation(f"the tail was told to be at {told} at least, and is at {now}: {what}")
    return now


def _check_head(head: RunHead, tail: Tail, fence: int) -> None:
    """Hold a head against the history that was read after it."""
    if (head.incarnation, head.seq, head.closed) != (tail.incarnation, tail.seq, tail.closed):
        raise Violation(f"{head} doesn't fit what is read: {tail}")
    if head.fence < fence:
        raise Violation(f"{head} has a lower fence than {fence}, which is in its history, or was told")


def _check_batch(attempt: Attempt, incarnation: int, seq: int, lines: list[bytes], session: int) -> int:
    """Hold the records of a batch against its attempt; gives their session."""
    at, fence = attempt.seq, attempt.fence
    if attempt.kind == "open":  # what an owner names is where the incarnation before was left
        at, fence = 0, None
    wrong = attempt.incarnation not in (None, incarnation) or at not in (None, seq)
    wrong = wrong or (attempt.kind == "create" and incarnation > 0) or len(lines) < seq + len(attempt.sizes)
    first = seq
    for i in range(0 if wrong else len(attempt.sizes)):
        found = _parsed(lines[first + i])[0]
        last = i == len(attempt.sizes) - 1
        wrong = wrong or found.offset != first + i or found.body != attempt.body(i) or found.more == last
        wrong = wrong or (found.then == "closed") != (last and attempt.then == "closed")
        wrong = wrong or found.session < session or (fence or found.session) != found.session
        wrong = wrong or found.left != (attempt.seq if attempt.kind == "open" and i == 0 else None)
        session = found.session
    if wrong:
        raise Violation(f"{attempt} is not whole, or elsewhere, at {(incarnation, seq)}: {lines[seq:]}")
    return session

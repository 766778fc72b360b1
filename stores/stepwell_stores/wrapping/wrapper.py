"""What stands around a store and changes its records on their way in and out: the part that all such stores share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar, cast

from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreError, StoreMisconfiguredError
from stepwell.errors import StoreUnavailableError as Unavailable
from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    ClosedKey,
    Conflict,
    CreateOutcome,
    Draft,
    Durability,
    Exists,
    Fenced,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    Movable,
    NotApplied,
    RunHead,
    Store,
    StoreSize,
    Tail,
    Then,
    Verified,
    seal,
    verify_lines,
)

from ..rules import check_append, check_first, check_opening
from .lines import body_of, matched, place, remade
from .moves import METHODS, WrappedMoves

__all__ = ["Wrapper", "find"]

W = TypeVar("W")


def find(store: object, kind: type[W]) -> W | None:
    """The store of a kind among a store and those that it stands around."""
    while store is not None:
        if isinstance(store, kind):
            return store
        store = getattr(store, "inner", None)
    return None


class Wrapper:
    """A store around a store. It uses nothing but the port, so it stands around any.

    Attributes:
        inner: the store that it stands around.
    """

    MARK: ClassVar[str]
    """What it adds to the type of a record."""

    def __init__(self, store: Store) -> None:
        self.inner = store
        self._end = self.MARK.encode()
        if callable(getattr(store, "transact", None)):
            self.transact = self._transact
        if isinstance(store, Movable):
            moves = self._moves(store)
            for name in METHODS:
                setattr(self, name, getattr(moves, name))

    @property
    def path(self) -> Any:
        """Where the store around which it stands has its data, if it has a path."""
        return cast("Any", self.inner).path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    # ---- what a wrapper does with records and heads

    def _wrap(self, run_id: str, incarnation: int, seq: int, draft: Draft) -> Draft:
        """A record as the inner store gets it, for this position."""
        raise NotImplementedError

    def _unwrap(self, run_id: str, incarnation: int, seq: int, kind: bytes, body: bytes) -> bytes:
        """The body of a record that `_wrap` has changed; `kind` is its type as it was before."""
        raise NotImplementedError

    def _untouched(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes:  # noqa: ARG002 - of others
        """A record without the mark: as it is, or an error."""
        return line

    def _head_in(self, run_id: str, head: Head) -> Head:  # noqa: ARG002 - of others
        """A head as the inner store gets it."""
        return head

    def _head_out(self, run: RunHead) -> RunHead:
        """A head as the inner store gave it, changed back."""
        return run

    def _moves(self, inner: Movable) -> WrappedMoves:
        """What it does when runs come and go; only asked for around a store that can move them."""
        return WrappedMoves(self, self.MARK, inner)

    # ---- records, there and back

    def _all_in(self, run_id: str, incarnation: int, seq: int, records: Sequence[Draft]) -> list[Draft]:
        return [self._wrap(run_id, incarnation, number, draft) for number, draft in enumerate(records, seq)]

    def _all_out(self, run_id: str, tail: Tail) -> list[bytes]:
        number, seq = tail.incarnation, tail.from_seq
        if not tail.checked:
            verify_lines(tail.records, seq, lambda n: place(run_id, number, n))
        return [self._out(run_id, number, n, line) for n, line in enumerate(tail.records, seq)]

    def _out(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes:
        """A record of the inner store as the caller gets it."""
        found = matched(line)
        if found is None or not found[1].endswith(self._end):
            return self._untouched(run_id, incarnation, seq, line)
        kind = found[1][: -len(self._end)]
        body = self._unwrap(run_id, incarnation, seq, kind, body_of(found))
        return remade(found, kind, body)

    # ---- the port: writes

    def create(
        self,
        run_id: str,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        then: Then = "open",
        lease: LeaseRequest | None = None,
    ) -> CreateOutcome:
        """Create a run; see the port."""
        check_first(run_id, records, attempt_id, lease)
        try:
            inside = self._all_in(run_id, 0, 0, records)
        except Unavailable as e:
            return NotApplied(e)
        made = self.inner.create(
            run_id, inside, head=self._head_in(run_id, head), attempt_id=attempt_id, then=then, lease=lease
        )
        return Exists(self._head_out(made.head)) if isinstance(made, Exists) else made

    def open_incarnation(
        self,
        run_id: str,
        incarnation: int,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        lease: LeaseRequest | None = None,
        expected_seq: int | None = None,
        fence: int | None = None,
    ) -> AppendOutcome:
        """Open the next incarnation; see the port."""
        check_first(run_id, records, attempt_id, lease)
        check_opening(run_id, expected_seq, fence)
        try:
            inside = self._all_in(run_id, incarnation, 0, records)
        except Unavailable as e:
            return NotApplied(e)
        return self.inner.open_incarnation(
            run_id,
            incarnation,
            inside,
            head=self._head_in(run_id, head),
            attempt_id=attempt_id,
            lease=lease,
            expected_seq=expected_seq,
            fence=fence,
        )

    def append(
        self,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        *,
        attempt_id: str,
        head: Head | None = None,
        due: int | None = None,
        then: Then = "open",
        fence: int | None = None,
        release: bool = False,
        lease: LeaseRequest | None = None,
    ) -> AppendOutcome:
        """Append to a history; see the port."""
        check_append(run_id, incarnation, expected_seq, records, attempt_id, head, then, fence, release, lease)
        try:
            if fence is None:
                return self._append_outside(run_id, incarnation, expected_seq, records, attempt_id, due, lease)
            assert incarnation is not None  # check_append saw to it
            assert expected_seq is not None
            inside = self._all_in(run_id, incarnation, expected_seq, records)
        except Unavailable as e:
            return NotApplied(e)
        done = self.inner.append(
            run_id,
            incarnation,
            expected_seq,
            inside,
            attempt_id=attempt_id,
            head=None if head is None else self._head_in(run_id, head),
            due=due,
            then=then,
            fence=fence,
            release=release,
        )
        if records and isinstance(done, (Conflict, Fenced)):
            return self._made_before(done, run_id, incarnation, expected_seq, records, fence, then)
        return done

    def _made_before(
        self,
        refused: Conflict | Fenced,
        run_id: str,
        incarnation: int,
        seq: int,
        records: Sequence[Draft],
        fence: int,
        then: Then,
    ) -> AppendOutcome:
        """Whether an owner's attempt is there already: the inner store can't know what has other bytes each time."""
        count = len(records)
        if isinstance(refused, Conflict) and refused.incarnation == incarnation and refused.seq < seq + count:
            return refused
        tail = self.inner.read(run_id, seq, incarnation=incarnation, limit=count)
        if tail is None or tail.from_seq != seq or len(tail.records) < count:
            return refused
        first = matched(tail.records[0])
        if first is None or int(first[2]) != fence or first[3] is not None:  # most conflicts are with outside events
            return refused
        same = self._all_out(run_id, tail) == seal(records, session=fence, offset=seq, then=then)
        return AlreadyCommitted(seq, incarnation) if same else refused

    def _append_outside(
        self,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> AppendOutcome:
        """Append at the tail. The record depends on where it lands, so each try names a place: where the tail was."""
        append = self.inner.append
        if not records:
            return append(run_id, incarnation, expected_seq, (), attempt_id=attempt_id, due=due, lease=lease)
        if incarnation is None or expected_seq is None:
            head = self.inner.head(run_id)
            if head is None:
                raise NotFoundError(f"no run {run_id!r}")
            number, seq = head.incarnation, head.seq
        else:
            number, seq = incarnation, expected_seq
        if incarnation is not None:
            number = incarnation
        if expected_seq is not None:
            seq = expected_seq
        while True:
            inside = self._all_in(run_id, number, seq, records)
            done = append(run_id, number, seq, inside, attempt_id=attempt_id, due=due, lease=lease)
            if not isinstance(done, Conflict) or done.closed:
                return done
            moved = expected_seq is None and incarnation in (None, done.incarnation)
            if not moved or (done.incarnation, done.seq) == (number, seq):
                return done
            number, seq = done.incarnation, done.seq

    def _transact(
        self,
        run_id: str,
        incarnation: int,
        expected_seq: int,
        work: Callable[[Any], Sequence[Draft]],
        *,
        attempt_id: str,
        fence: int,
        seconds: float,
    ) -> AppendOutcome:
        """Commit a program's own rows together with records; see the port."""
        failed: list[Unavailable] = []

        def inside(connection: Any) -> list[Draft]:
            records = work(connection)
            try:
                return self._all_in(run_id, incarnation, expected_seq, records)
            except Unavailable as e:
                failed.append(e)
                raise

        transact = cast("Any", self.inner).transact
        try:
            done: AppendOutcome = transact(
                run_id, incarnation, expected_seq, inside, attempt_id=attempt_id, fence=fence, seconds=seconds
            )
        except Unavailable as e:
            if e in failed:
                return NotApplied(e)
            raise
        return done

    # ---- the port: reads

    @property
    def durability(self) -> Durability:
        """What the inner store's settings survive."""
        return self.inner.durability

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        found = self.inner.head(run_id)
        return None if found is None else self._head_out(found)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""
        return list(map(self._head_out, self.inner.heads(where, limit=limit, after=after)))

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        tail = self.inner.read(run_id, from_seq, incarnation=incarnation, limit=limit)
        if tail is None or not tail.records:
            return tail
        lines = self._all_out(run_id, tail)
        return Tail(tail.incarnation, tail.from_seq, lines, tail.closed, tail.more, checked=True)

    def verify(self) -> Iterator[Verified]:
        """Read every byte, and change every record back; see the port."""
        read = False
        for part in self.inner.verify():
            found = self._verified(part)
            if isinstance(found.problem, StoreMisconfiguredError) and part.problem is None and not read:
                raise found.problem  # as it will be for all
            read = read or bool(found.records)
            yield found

    def _verified(self, part: Verified) -> Verified:
        if part.run_id is None or part.incarnation is None or not part.records:
            return part
        lines: list[bytes] = []
        try:
            for seq, line in enumerate(part.records):
                lines.append(self._out(part.run_id, part.incarnation, seq, line))
        except CorruptHistoryError as e:
            return replace(part, records=lines, problem=part.problem or e)
        except StoreError as e:
            return replace(part, records=lines, problem=part.problem or e, unread=True)
        return replace(part, records=lines)

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        found = self.inner.closed(after=after, before=before, newest_first=newest_first, limit=limit)
        return list(map(self._head_out, found))

    # ---- the port: what is the inner store's alone

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        found = self.inner.claim(run_id, owner, ttl)
        return self._head_out(found) if isinstance(found, RunHead) else found

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port."""
        return self.inner.claim_due(owner, ttl, now=now, limit=limit, fingerprints=fingerprints)

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""
        return self.inner.next_due()

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        return self.inner.renew(lease, ttl)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        self.inner.release(lease)

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        return self.inner.delete(run_id, incarnation, fence=fence)

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        return self.inner.wait(run_id, seq, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        return self.inner.on_due(wake)

    def size(self) -> StoreSize:
        """How large it is; see the port."""
        return self.inner.size()

    def vacuum(self) -> int:
        """Give space back; see the port."""
        return self.inner.vacuum()

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

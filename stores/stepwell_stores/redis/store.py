"""The store on a Redis or Valkey server: for any number of machines.

Each operation is one script, which the server runs as a whole. Records are sealed here, so an outside writer says for
which position it has sealed, and is told the right one when the tail has moved meanwhile.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from stepwell.errors import CorruptHistoryError, InvalidInputError, NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Conflict,
    Created,
    CreateOutcome,
    Draft,
    Durability,
    Exists,
    Fenced,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Tail,
    Then,
    Verified,
    seal,
)

from ..outcomes import outcome_of
from ..rules import Clock, check_append, check_first, check_lease, check_opening, check_run_id, micros
from . import reads, scripts
from .hints import Hints
from .history import read
from .moves import RedisMoves
from .rows import head_values, lease_from, lease_values, run_head
from .server import Server, check_client
from .settings import durability
from .upkeep import RedisUpkeep, list_heads
from .verify import verify
from .where import Where, check_prefix

__all__ = ["RedisStore"]

T = TypeVar("T")


class RedisStore(RedisMoves, RedisUpkeep):
    """Keeps histories on a Redis or Valkey server; how durable, the server's settings say.

    Args:
        url: `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS, `unix:///PATH?db=0` for a socket;
            `?prefix=`, `evicts=`, `volatile=` and `timeout=` as options.
        client: in place of a URL, a `redis.Redis` (or `redis.RedisCluster`) that the program has. It is used by all
            threads and never closed; after a fork the child makes its own.
        prefix: of all keys, with a client: several stores share a database by different prefixes.
        evicts: "allow" takes a server that throws keys away when its memory is full, with a client.
        volatile: "allow" takes a server that keeps no file of what it acknowledged, with a client.
        must_exist: refuse to begin where nothing is.
        clock: gives microseconds since 1970, for leases; None is the server's clock.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        prefix: str = "stepwell",
        evicts: Literal["refuse", "allow"] = "refuse",
        volatile: Literal["refuse", "allow"] = "refuse",
        must_exist: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise InvalidInputError("RedisStore takes either a URL or a client")
        for name, told in (("evicts", evicts), ("volatile", volatile)):
            if told not in ("refuse", "allow"):
                raise InvalidInputError(f"{name} is 'refuse' or 'allow', got {told!r}")
        if client is not None:
            check_client(client)
        if url is not None:
            where = Where.of(url)
        else:
            where = Where(f"the given Redis, prefix {prefix!r}", {}, check_prefix(prefix), evicts, volatile)
        self._server = Server(where, client, must_exist=must_exist)
        self._clock = clock
        self._hints = Hints(self._server)

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock()

    @property
    def _name(self) -> str:
        return self._server.where.name

    @property
    def durability(self) -> Durability:
        """What the server's live settings survive; None where they can't be read."""
        return durability(self._server.settings(), self._server.where)

    # ---- writing

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
        common = (int(then == "closed"), *lease_values(lease), *head_values(head))

        def work() -> CreateOutcome:
            fence = 1
            while True:
                lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
                answer = self._server.run(
                    scripts.CREATE, self._now(), run_id, _mark(attempt_id), fence, *common, *lines
                )
                if answer[0] == b"made":
                    return Created(None if lease is None else lease_from(answer[1], run_id, lease.owner))
                if answer[0] == b"exists":
                    return Exists(run_head(answer[1], self._name))
                fence = int(self._moved(answer)[1])

        done = outcome_of(work)
        self._hints.ring()
        return self._hints.due.told(done, head.due)

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
        owner = "" if lease is None else lease.owner
        at = (incarnation, "" if fence is None else fence, "" if expected_seq is None else expected_seq)
        common = (*at, *lease_values(lease), *head_values(head))

        def work() -> AppendOutcome:
            new = 0 if fence is None else fence + 1
            while True:
                lines = seal(records, session=new, offset=0, attempt_id=attempt_id, left=expected_seq)
                answer = self._server.run(scripts.OPEN, self._now(), run_id, _mark(attempt_id), new, *common, *lines)
                if answer[0] == b"moved":
                    new = int(answer[1])
                elif answer[0] == b"done":
                    return Committed(0, incarnation, lease_from(answer[1], run_id, owner))
                elif answer[0] == b"again":
                    return AlreadyCommitted(0, incarnation, *self._granted(answer[1:], run_id, owner))
                else:
                    return self._refused(answer, run_id)

        done = outcome_of(work)
        self._hints.ring()
        return self._hints.due.told(done, head.due)

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
        if fence is None:
            done = outcome_of(lambda: self._tell(run_id, incarnation, expected_seq, records, attempt_id, due, lease))
            self._hints.ring()
            return self._hints.due.told(done, due)
        assert incarnation is not None  # check_append saw to it
        assert expected_seq is not None
        number, seq = incarnation, expected_seq
        lines = seal(records, session=fence, offset=seq, then=then)
        values = (number, seq, fence, int(then == "closed"), int(release), int(head is not None))
        head_too = () if head is None else head_values(head)

        def work() -> AppendOutcome:
            answer = self._server.run(scripts.APPEND, self._now(), run_id, *values, *head_too, *lines)
            if answer[0] == b"done":
                return Committed(seq, number)
            return AlreadyCommitted(seq, number) if answer[0] == b"again" else self._refused(answer, run_id)

        done = outcome_of(work)
        self._hints.ring()
        return self._hints.due.told(done, head.due if head is not None and release else None)

    def _tell(
        self,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> AppendOutcome:
        """Append from outside: sealed for where the tail was when it was last told."""
        owner = "" if lease is None else lease.owner
        wanted = (attempt_id, *("" if value is None else value for value in (incarnation, expected_seq)))
        rest = ("" if due is None else due, *lease_values(lease), len(records))
        at: tuple[Any, ...] = ("", "", "")
        lines: list[bytes] = []
        while True:
            answer = self._server.run(scripts.TELL, self._now(), run_id, *wanted, *at, *rest, *lines)
            if answer[0] == b"moved":
                at = tuple(map(int, answer[1:]))
                lines = seal(records, session=at[2], offset=at[1], attempt_id=attempt_id)
            elif answer[0] == b"done":
                return Committed(answer[1], int(answer[2]), *self._granted(answer[3:], run_id, owner))
            elif answer[0] == b"again":
                number, seq = map(int, answer[1].split())
                return AlreadyCommitted(seq, number, *self._granted(answer[2:], run_id, owner))
            else:
                return self._refused(answer, run_id)

    def _granted(self, answer: Sequence[Any], run_id: str, owner: str) -> tuple[Lease | None, int | None]:
        lease, busy = answer
        return lease_from(lease, run_id, owner), None if busy is None else int(busy)

    def _refused(self, answer: Sequence[Any], run_id: str) -> Conflict | Fenced:
        if answer[0] == b"conflict":
            return Conflict(answer[1], int(answer[2]), answer[3] == b"1")
        if answer[0] == b"fenced":
            return Fenced(int(answer[1]))
        if answer[0] == b"none":
            raise NotFoundError(f"no run {run_id!r}")
        self._moved(answer)
        raise AssertionError(answer)

    def _moved(self, answer: Sequence[Any]) -> Sequence[Any]:
        if answer[0] == b"remains":
            key = answer[1].decode()
            text = f"{self._name}, key {key}: records without the run that they belong to; they were left as they are"
            raise CorruptHistoryError(text, place=key)
        return answer

    # ---- reading

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        answer = self._server.again(reads.HEAD, self._now(), run_id)
        return None if answer[0] == b"none" else run_head(answer[1], self._name)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""
        return list_heads(self._server, self._now(), where, limit, after)

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)
        return read(self._server, self._now(), run_id, from_seq, incarnation, limit)

    # ---- leases

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        # With a token of its own, so that it may be asked again when the answer was lost.
        request = LeaseRequest(owner, ttl, secrets.token_hex(8))
        check_lease(request)
        answer = self._server.again(scripts.CLAIM, self._now(), run_id, *lease_values(request))
        if answer[0] == b"none":
            return None
        return run_head(answer[1], self._name) if answer[0] == b"busy" else lease_from(answer[1], run_id, owner)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port. If the answer is lost, they lapse after `ttl`."""
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        self._server.check_open()
        if limit < 1:
            return []
        codes = json.dumps(sorted(fingerprints))
        answer = self._server.run(scripts.CLAIM_DUE, self._now(), "", now, limit, *lease_values(request), codes)
        leases = (lease_from(found[1:], found[0].decode(), owner) for found in answer[1:])
        return [lease for lease in leases if lease is not None]

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""
        answer = self._server.again(reads.NEXT_DUE, self._now())
        return int(answer[1]) if answer[1] else None

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))
        answer = self._server.again(scripts.RENEW, self._now(), lease.run_id, lease.fence, micros(ttl))
        return None if answer[0] == b"lost" else lease_from(answer[1], lease.run_id, lease.owner)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        self._server.again(scripts.RELEASE, self._now(), lease.run_id, lease.fence)
        self._hints.due.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        check_run_id(run_id)
        token = secrets.token_hex(8)  # by which it is known when it is asked again
        values = (run_id, incarnation, "" if fence is None else fence, token)
        answer = self._server.again(scripts.DELETE, self._now(), *values)
        if answer[0] != b"done":
            return False
        if len(answer) > 1:
            self._sweep(answer[1])
        self._hints.ring()
        return True

    # ---- waiting

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        check_run_id(run_id)

        def grown() -> bool:
            answer = self._server.again(reads.TAIL, "", run_id)
            return bool(answer[0] == b"done" and answer[1] > seq)

        return self._hints.wait(run_id, grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due, in any process; see the port."""
        return self._hints.listen(wake)

    # ---- the rest

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        self._server.check_open()
        return verify(self._server)

    def close(self) -> None:
        """Close the connections that are the store's own."""
        self._server.close()
        self._hints.close()


def _mark(attempt_id: str) -> str:
    """By which the first record of an incarnation names the attempt that wrote it."""
    return f'"attemptId":"{attempt_id}",'

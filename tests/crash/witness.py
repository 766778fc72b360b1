"""What a program that is about to be killed tells its parent through a pipe, and what the parent makes of it.

A pipe outlives the process that wrote into it: each report is one small write, whole or not there. The child reports

- `ack`: the store has acknowledged a record (run, incarnation, seq, digest of what was given to it),
- `effect`: a step's function is called (run, step id, attempt, idempotency key),
- `signal`: `signal` or `resume` has returned,
- `lease`: the store has granted a lease (run, fence),
- `reopen`: a failed run is about to be retried, so what failed in it may run again,
- `end`: the run has ended,
- `operations`: how many there were before which a process could have died,
- `trouble`: the child saw something that must not be.

The parent opens the store anew after every death and asks whether all that can be true: nothing that was acknowledged
is lost or changed, nothing that was recorded when a process began was performed by it, sessions never fall, the history
replays. RELIABILITY's S1 to S6, S11 and S15.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field

from stepwell import Engine
from stepwell.loading import load
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    Draft,
    HeadFilter,
    Lease,
    Store,
    envelope,
)

__all__ = ["AckStore", "Evidence", "Witness", "digest"]


def digest(kind: str, body: bytes) -> str:
    """What stands for a record's content in a report."""
    return hashlib.blake2b(kind.encode() + b"\0" + body.rstrip(b","), digest_size=12).hexdigest()


class Witness:
    """The child's end of the pipe. Run ids without spaces only.

    Args:
        fd: where the reports go; -1 means nowhere.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._write = os.write  # not the one that a fault is put in front of

    def ack(self, run_id: str, incarnation: int, seq: int, records: Iterable[Draft]) -> None:
        """The store says that these are durable."""
        for i, record in enumerate(records):
            self._tell("ack", run_id, incarnation, seq + i, digest(record.type, record.body))

    def saw(self, run_id: str, incarnation: int, seq: int, lines: Iterable[bytes]) -> None:
        """The store has shown these, and who reads them acts on them: as good as acknowledged."""
        for i, line in enumerate(lines):
            found = envelope(line)
            self._tell("ack", run_id, incarnation, seq + i, digest(found.type, found.body))

    def effect(self, run_id: str, step_id: str, attempt: int, key: str) -> None:
        """A step is about to do what it does."""
        self._tell("effect", run_id, step_id, attempt, key)

    def signal(self, run_id: str, signal_id: str) -> None:
        """A signal was taken."""
        self._tell("signal", run_id, signal_id)

    def end(self, run_id: str, status: str) -> None:
        """A run came back to its caller."""
        self._tell("end", run_id, status)

    def lease(self, run_id: str, fence: int) -> None:
        """A lease was granted."""
        self._tell("lease", run_id, fence)

    def reopen(self, run_id: str) -> None:
        """A failed run is about to be retried."""
        self._tell("reopen", run_id)

    def trouble(self, text: str) -> None:
        """Something that must not be; a violation."""
        self._tell("trouble", " | ".join(text.splitlines()))

    def operations(self, number: int, writes: int) -> None:
        """So many operations a fault could have been put in front of, and so many writes that could be cut."""
        self._tell("operations", number, writes)

    def note(self, name: str) -> None:
        """Something of interest happened; counted."""
        self._tell("note", name.replace(" ", "_"))

    def _tell(self, *words: object) -> None:
        if self.fd >= 0:
            self._write(self.fd, (" ".join(str(word) for word in words) + "\n").encode())


class AckStore:
    """A store that tells of what it acknowledges.

    Args:
        inner: the store.
        early: the planted bug "ack before write".
    """

    def __init__(self, inner: Store, witness: Witness, *, early: bool = False) -> None:
        self.inner = inner
        self._witness = witness
        self._early = early

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create(self, run_id: str, records: Sequence[Draft], **how: Any) -> Any:
        if self._early:
            self._witness.ack(run_id, 0, 0, records)
        made = self.inner.create(run_id, records, **how)
        if isinstance(made, Created):
            self._witness.ack(run_id, 0, 0, records)
            self._granted(made.lease)
        return made

    def claim(self, run_id: str, owner: str, ttl: float) -> Any:
        claimed = self.inner.claim(run_id, owner, ttl)
        self._granted(claimed if isinstance(claimed, Lease) else None)
        return claimed

    def claim_due(self, *args: Any, **how: Any) -> Any:
        leases = self.inner.claim_due(*args, **how)
        for lease in leases:
            self._granted(lease)
        return leases

    def open_incarnation(self, run_id: str, incarnation: int, records: Sequence[Draft], **how: Any) -> Any:
        return self._told(run_id, records, self.inner.open_incarnation(run_id, incarnation, records, **how))

    def append(
        self, run_id: str, incarnation: int | None, expected_seq: int | None, records: Sequence[Draft], **how: Any
    ) -> Any:
        if self._early and incarnation is not None and expected_seq is not None:
            self._witness.ack(run_id, incarnation, expected_seq, records)
        done = self.inner.append(run_id, incarnation, expected_seq, records, **how)
        if isinstance(done, AlreadyCommitted) and how.get("fence") is None:
            return done  # a signal's id counts once, and the one that counts may be another process's, at another time
        return self._told(run_id, records, done)

    def _told(self, run_id: str, records: Sequence[Draft], done: Any) -> Any:
        if isinstance(done, (Committed, AlreadyCommitted)):
            self._witness.ack(run_id, done.incarnation, done.seq, records)
            self._granted(done.lease)
        return done

    def _granted(self, lease: Lease | None) -> None:
        if lease is not None:
            self._witness.lease(lease.run_id, lease.fence)


@define
class Evidence:
    """What one store's processes have told, all generations of them.

    Attributes:
        acks: digest of each record that was acknowledged, by (run, incarnation, seq).
        signals: those that were taken, by (run, id).
        effects: how often a step's function was called, by (run, step id, attempt).
        reopened: runs of which a retry was asked for.
        violations: what can't be true.
        counts: how often what was reported.
    """

    acks: dict[tuple[str, int, int], str] = field(factory=dict)
    signals: set[tuple[str, str]] = field(factory=set)
    effects: Counter[tuple[str, str, int]] = field(factory=Counter)
    reopened: set[str] = field(factory=set)
    violations: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    _recorded: set[tuple[str, str]] = field(factory=set)
    _failed: set[tuple[str, str]] = field(factory=set)
    _leases: set[tuple[str, int]] = field(factory=set)
    _attempts: Counter[tuple[str, str]] = field(factory=Counter)
    _keys: dict[tuple[str, str], str] = field(factory=dict)

    def take(self, told: bytes) -> None:
        """Take in what one process told; to be called with all that came before its death, then `check`."""
        granted: set[tuple[str, int]] = set()
        for line in told.decode().splitlines():
            kind, *words = line.split(" ")
            self.counts[kind if kind != "note" else words[0].replace("_", " ")] += 1
            if kind == "ack":
                self._ack((words[0], int(words[1]), int(words[2])), words[3])
            elif kind == "effect":
                self._effect(words[0], words[1], int(words[2]), words[3])
            elif kind == "signal":
                self.signals.add((words[0], words[1]))
            elif kind == "lease":
                granted.add((words[0], int(words[1])))
            elif kind == "reopen":
                self.reopened.add(words[0])
            elif kind == "trouble":
                self.violations.append(" ".join(words))
        self.violations += [f"fence {fence} of {run} was granted twice" for run, fence in granted & self._leases]
        self._leases |= granted

    def _ack(self, where: tuple[str, int, int], what: str) -> None:
        known = self.acks.setdefault(where, what)
        if known != what:
            self.violations.append(f"two different records were acknowledged at {where}")

    def _effect(self, run_id: str, step_id: str, attempt: int, key: str) -> None:
        step = (run_id, step_id)
        self.effects[run_id, step_id, attempt] += 1
        if step in self._recorded or (step in self._failed and run_id not in self.reopened):
            self.violations.append(f"step {step} ran again after it was recorded")
        if attempt != self._attempts[step] + 1 and attempt > 1:
            allowed = {self._attempts[step] + 1, self._attempts[step] + 2}  # one more may be recorded by this process
            if attempt not in allowed:
                self.violations.append(f"step {step} ran as attempt {attempt} after {self._attempts[step]} recorded")
        if self._keys.setdefault(step, key) != key:
            self.violations.append(f"step {step} ran under another idempotency key")

    def recorded(self, run_id: str) -> set[str]:
        """The steps of a run whose results the history holds, as of the last check."""
        return {step_id for run, step_id in self._recorded if run == run_id}

    def check(self, store: Store, *, engine: Engine | None = None) -> None:
        """Compare with what a store, opened anew, has; `engine` with the workflows also replays every run."""
        histories: dict[tuple[str, int], list[bytes]] = {}
        for head in store.heads(HeadFilter(), limit=10_000):
            for number in range(head.incarnation + 1):
                tail = store.read(head.run_id, incarnation=number)
                histories[head.run_id, number] = [] if tail is None else tail.records
            self._check_history(head.run_id, histories[head.run_id, head.incarnation])
            if engine is not None:
                try:
                    load(engine._parts, head.run_id).machine.close()
                except Exception as error:
                    self.violations.append(f"run {head.run_id} does not replay: {type(error).__name__}: {error}")
        for (run_id, number, seq), what in self.acks.items():
            lines = histories.get((run_id, number), [])
            if seq >= len(lines):
                self.violations.append(
                    f"record {seq} of {run_id}.{number} was acknowledged and is lost ({len(lines)} are there)"
                )
            else:
                found = envelope(lines[seq])
                if digest(found.type, found.body) != what:
                    self.violations.append(f"record {seq} of {run_id}.{number} is not what was acknowledged")

    def _check_history(self, run_id: str, lines: list[bytes]) -> None:
        """Note what is recorded, for the processes that follow; steps once, sessions never falling."""
        session, steps, signals = 0, Counter[str](), Counter[str]()
        self._recorded = {step for step in self._recorded if step[0] != run_id}
        self._failed = {step for step in self._failed if step[0] != run_id}
        for seq, line in enumerate(lines):
            found = envelope(line)
            if found.session < session:
                self.violations.append(f"record {seq} of {run_id} has session {found.session} after {session}")
            session = found.session
            if found.type == "step":
                step_id = _member(found.body, "stepId")
                steps[step_id] += 1
                (self._failed if b'"error":{' in found.body else self._recorded).add((run_id, step_id))
            elif found.type == "resume":
                signals[_member(found.body, "id")] += 1
        for step_id, times in steps.items():
            if times > 1:
                self.violations.append(f"step {step_id} of {run_id} is recorded {times} times")
        for name in {*signals, *(name for run, name in self.signals if run == run_id)}:
            if signals[name] != 1:
                self.violations.append(f"signal {name} of {run_id} was taken, and is recorded {signals[name]} times")
        for run, step_id in {(r, s) for r, s in self._keys if r == run_id}:
            self._attempts[run, step_id] = sum(
                1 for line in lines if b'"type":"attempt"' in line and f'"stepId":"{step_id}"'.encode() in line
            )
        self.counts["records checked"] += len(lines)


def _member(body: bytes, name: str) -> str:
    """A member of a record that is text without escapes."""
    return body.partition(f'"{name}":"'.encode())[2].partition(b'"')[0].decode()

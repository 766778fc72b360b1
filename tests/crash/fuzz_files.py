"""A damaged run among the files of a store that is opened fresh: every call answers truly, or tells what is wrong.

What may be wrong without a word is only what nothing on the disk tells: that records are missing at the end, when the
head that vouches for them is gone too. So this module works out what the disk still vouches for, and holds the store
against that.
"""

from __future__ import annotations

import atexit
import glob
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from attrs import define, field
from msgspec.structs import replace
from tests.crash.corpus import Recorded, make_engine
from tests.crash.damage import Damaged, damage
from tests.crash.fuzz_lines import Finding, reason_of
from tests.crash.vouched import Disk

from stepwell.errors import CorruptHistoryError, NotFoundError, StepwellError, StoreError
from stepwell.store import Committed, Draft, Exists, HeadFilter, Lease, NotApplied, RunHead, Tail
from stepwell.testing import VirtualClock
from stepwell_stores.jsonl import JsonlStore

__all__ = ["check_file"]

LATER = datetime(2026, 3, 1, tzinfo=UTC)
STORE_ERRORS = (StoreError, CorruptHistoryError)
_ATTEMPT = re.compile(rb'^.{0,80}"attemptId":"([0-9a-z-]+)",')
_PLACE = re.compile(r"^(?P<file>.*), line (?P<line>\d+), byte (?P<byte>\d+): ")


def check_file(seed: int, index: int) -> Counter[str]:
    """Damage the files of a run and live with them; half of them get right checksums.

    Raises:
        Finding: something other than a typed error, or acknowledged content that is altered or missing without a word.
    """
    rng = random.Random(f"file-{seed}-{index}")
    damaged = damage(rng, repair=index % 2 == 1)
    trial = Trial(damaged, _place(), rng)
    try:
        trial.run()
    except Finding as found:
        raise Finding(f"{found} [{damaged.run.run_id[:20]!r}: {'; '.join(damaged.notes)}]") from found
    return trial.counts


@cache
def _place() -> Path:
    """A directory for all trials of this process; in memory where there is such a place."""
    place = tempfile.mkdtemp(prefix="stepwell-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


@define
class Refused:
    """A call that raised what it may."""

    error: StepwellError


@define
class Trial:
    """One damaged directory, and what a user does with it."""

    damaged: Damaged
    place: Path
    rng: random.Random
    counts: Counter[str] = field(factory=Counter)
    clock: VirtualClock = field(factory=lambda: VirtualClock(LATER))
    refused: set[str] = field(factory=set)

    @property
    def target(self) -> Recorded:
        return self.damaged.run

    def run(self) -> None:
        """All calls, in the order in which a program makes them."""
        self.counts["repaired" if self.damaged.repaired else "not repaired"] += 1
        self.damaged.write(self.place)
        use = self.work if self.rng.random() < 0.88 else self.drive
        first: tuple[Callable[[JsonlStore], None], ...] = (self.look, use)
        second = (self.look_again, self.end) if self.rng.random() < 0.6 else (self.look_again,)
        for steps in (first, second) if self.rng.random() < 0.3 else ((*first, *second),):
            store = JsonlStore(self.place, clock=self.clock.micros, sync="off", network=True)
            try:
                for step in steps:
                    step(store)
            finally:
                store.close()
        if not self.refused:
            self.counts["nothing refused"] += 1

    def ask(self, what: str, call: Callable[..., Any], *args: Any, also: tuple[Any, ...] = (), **how: Any) -> Any:
        """One call: what it gives, or `Refused`; Finding when it raises what it must not."""
        try:
            return call(*args, **how)
        except (*STORE_ERRORS, *also) as error:
            self.check_refusal(what, error)
            return Refused(error)
        except Exception as error:
            raise Finding(f"{what} raised {error!r}") from error

    def check_refusal(self, what: str, error: StepwellError) -> None:
        """An error names its file, and line and byte where it can; nothing is refused for nothing."""
        self.counts[reason_of(error)] += 1
        self.refused.add(what)
        if isinstance(error, STORE_ERRORS) and f"{self.place}/" not in str(error):
            raise Finding(f"{what} raised an error that names no file: {error!r}")
        if isinstance(error, CorruptHistoryError) and str(self.place) not in error.place:
            raise Finding(f"{what} raised an error without a place: {error!r}")
        match = _PLACE.match(str(error))
        if match is not None and isinstance(error, CorruptHistoryError):
            lines = Path(match["file"]).read_bytes().split(b"\n")
            byte = sum(len(line) + 1 for line in lines[: int(match["line"]) - 1])
            if (byte, byte) != (int(match["byte"]), error.byte):
                raise Finding(f"line {match['line']} begins at byte {byte}, and the error says: {error}")
        if not self.happened():
            raise Finding(f"{what} refuses a run that nothing happened to: {error}")

    # ---- what users do

    def look(self, store: JsonlStore) -> None:
        """Read everything."""
        disk, run_id = Disk(self.damaged), self.target.run_id
        head, newest = self.ask("head", store.head, run_id), self.ask("read", store.read, run_id)
        tails: dict[int | None, Any] = {None: newest}
        for number in range(len(self.target.histories)):
            tails[number] = self.ask("read", store.read, run_id, incarnation=number)
        if head is None:
            disk.judge_missing(None, self.counts)
        elif isinstance(head, RunHead):
            disk.judge_head(head, self.counts)
        for asked, tail in tails.items():
            if tail is None:
                disk.judge_missing(asked, self.counts)
            elif isinstance(tail, Tail):
                disk.judge_tail(tail, self.counts)
        if isinstance(head, RunHead) and isinstance(newest, Tail) and not self.damaged.repaired:
            told, known = (head.incarnation, head.seq, head.closed), (newest.incarnation, newest.seq, newest.closed)
            if told != known:
                raise Finding(f"the head says {told}, and the history {known}")
        listed = self.ask("heads", store.heads, HeadFilter(), limit=9)
        if isinstance(listed, list) and isinstance(head, RunHead) and head not in listed:
            raise Finding(f"a run that is there is not listed: {listed}")
        if self.rng.random() < 0.3:
            answers = (head, *tails.values())
            corrupt = any(isinstance(a, Refused) and isinstance(a.error, CorruptHistoryError) for a in answers)
            self.verify(store, corrupt)
            self.bystander(store)

    def verify(self, store: JsonlStore, corrupt: bool) -> None:
        """What a look at every byte says is what reading says."""
        parts = self.ask("verify", lambda: list(store.verify()))
        if isinstance(parts, Refused):
            return
        ours = [part for part in parts if Path(part.place).name.startswith(f"{self.target.stem}.")]
        problems = [part.problem for part in ours if part.problem is not None]
        if corrupt and not problems and not self.damaged.repaired:
            raise Finding("reading the run is refused, and verify finds nothing")
        if problems and not self.happened():
            raise Finding(f"verify finds something in a run that nothing happened to: {problems}")
        self.counts["verify: problem" if problems else "verify: well"] += 1

    def happened(self) -> bool:
        """Whether anything happened to the run's files."""
        return any(self.damaged.touched(name) for name in {*self.target.files, *self.damaged.files})

    def bystander(self, store: JsonlStore) -> None:
        """A run that nothing happened to is as it was, and the damaged one doesn't stop it."""
        other = self.damaged.other
        if any(self.damaged.touched(name) for name in other.files):
            return
        for number, lines in enumerate(other.histories):
            tail = self.ask("read", store.read, other.run_id, incarnation=number)
            if not isinstance(tail, Tail) or tuple(tail.records) != lines:
                raise Finding("the run beside it was altered")
        found = self.ask("head", store.head, other.run_id)
        if not isinstance(found, RunHead) or replace(found, fence=0) != replace(other.head, fence=0):
            raise Finding(f"the run beside it has another head: {found} for {other.head}")
        self.ask("next_due", store.next_due)
        leases = self.ask("claim_due", store.claim_due, "me", 30, now=store._clock(), limit=9)
        if isinstance(leases, Refused):
            raise Finding(f"one damaged run stops the others: {leases.error}")
        for lease in leases:
            store.release(lease)

    def work(self, store: JsonlStore) -> None:
        """Take the run over and write to it."""
        run_id, given = self.target.run_id, Disk(self.damaged).fence
        kept = {path: path.read_bytes() for path in self.files() if path.is_file()}
        if self.rng.random() < 0.5 and isinstance(self.ask("head", store.head, run_id), RunHead):
            self.repeat(store)
        before = self.ask("read", store.read, run_id)
        lease = self.ask("claim", store.claim, run_id, "me", 30)
        self.check_kept(kept)
        if isinstance(lease, Lease) and not self.damaged.repaired and lease.fence <= given:
            raise Finding(f"fence {lease.fence} is given after fence {given}")
        new = [Draft("resume", b'"eventName":"more","value":1')]
        outside = self.ask("append", store.append, run_id, None, None, new, attempt_id="fuzz", also=(NotFoundError,))
        done = [outside] if isinstance(outside, Committed) else []
        if isinstance(lease, Lease) and done:
            seq, draft = outside.seq + 1, [Draft("emit", b'"at":"9","value":1'), Draft("emit", b'"at":"10","value":2')]
            self.counts["appended"] += 1
            done += self.own(store, lease, seq, draft)
        after = self.ask("read", store.read, run_id)
        if isinstance(before, Tail) and isinstance(after, Tail):
            if after.records[: len(before.records)] != before.records:
                raise Finding("what was read before a write reads otherwise after it")
            expected = len(before.records) + (len(done) and 1 + 2 * (len(done) - 1))
            if len(after.records) != expected and not self.damaged.repaired:
                raise Finding(f"{expected} records were acknowledged, and {len(after.records)} are there")
        elif isinstance(before, Tail) and not self.damaged.repaired:
            raise Finding(f"a write made a readable run unreadable: {after}")
        self.counts["appended to damaged"] += bool(done) and isinstance(before, Refused)

    def repeat(self, store: JsonlStore) -> None:
        """Write once more what is there: the attempts that began the run and that sent its signals are known."""
        run, anew = self.target, [Draft("start", b'"workflow":"x","version":"1","input":[]')]
        made = self.ask("create", store.create, run.run_id, anew, head=run.head.head, attempt_id="anew")
        if not isinstance(made, (Refused, Exists, NotApplied)):
            raise Finding(f"a run that is there can be created: {made}")
        sent = [found[1] for line in run.histories[0][1:] if (found := _ATTEMPT.search(line))]
        if sent:
            attempt, more = self.rng.choice(sent).decode(), [Draft("pause", b'"reason":"x"')]
            done = self.ask("append", store.append, run.run_id, None, None, more, attempt_id=attempt)
            if isinstance(done, Committed) and not self.damaged.repaired and not Disk(self.damaged).lacks(attempt):
                raise Finding("what was sent before is recorded again")

    def own(self, store: JsonlStore, lease: Lease, seq: int, records: list[Draft]) -> list[Committed]:
        """An owner's append, in the middle of its session."""
        how: dict[str, Any] = {"attempt_id": "own", "fence": lease.fence, "also": (NotFoundError,)}
        outcome = self.ask("append", store.append, lease.run_id, lease.incarnation, seq, records, **how)
        self.ask("release", store.release, lease)
        return [outcome] if isinstance(outcome, Committed) else []

    def drive(self, store: JsonlStore) -> None:
        """What an engine makes of it: any error of ours, and no other."""
        engine, run_id = make_engine(store, self.clock), self.target.run_id
        calls: tuple[Callable[[], Any], ...] = (
            lambda: engine.get(run_id),
            lambda: engine.query(run_id),
            lambda: engine.history(run_id),
            lambda: engine.runs(limit=9),
            lambda: engine.waiting(),
            lambda: engine.signal(run_id, "approve", {"approved": True, "reviewer": "x"}),
            lambda: engine.advance(run_id),
            lambda: engine.retry(run_id),
            lambda: engine.cancel(run_id),
            lambda: engine.run_due(),
        )
        for call in calls:
            try:
                call()
            except StepwellError as error:
                self.counts[f"engine: {reason_of(error)}"] += 1
            except Exception as error:
                raise Finding(f"the engine raised {error!r}") from error
        self.counts["driven"] += 1

    def look_again(self, store: JsonlStore) -> None:
        """A second process finds what the first has left."""
        head = self.ask("head", store.head, self.target.run_id)
        tail = self.ask("read", store.read, self.target.run_id)
        wrong = isinstance(head, RunHead) and isinstance(tail, Tail) and head.seq != tail.seq
        if wrong and not self.damaged.repaired:
            raise Finding(f"the head has {head.seq} records, and the history {tail.seq}")

    def end(self, store: JsonlStore) -> None:
        """Close the run, and delete it."""
        run_id = self.target.run_id
        lease = self.ask("claim", store.claim, run_id, "me", 30)
        if isinstance(lease, Lease):
            close = [Draft("cancelled", b'"timestamp":"2026-03-01T00:00:00.000000Z"')]
            where = (run_id, lease.incarnation, lease.seq, close)
            self.ask("append", store.append, *where, attempt_id="end", fence=lease.fence, then="closed")
        head = self.ask("head", store.head, run_id)
        if not isinstance(head, RunHead) or not head.closed:
            return
        gone = self.ask("delete", store.delete, run_id, head.incarnation)
        if gone is True:
            self.counts["deleted"] += 1
            left = [path.name for path in self.files()]
            if left != [f"{self.target.stem}.fence"] or self.ask("head", store.head, run_id) is not None:
                raise Finding(f"a deleted run has left {left}")

    def files(self) -> list[Path]:
        """The run's files, as they are now."""
        return sorted(self.place.glob(f"{glob.escape(self.target.stem)}.*"))

    def check_kept(self, files: dict[Path, bytes]) -> None:
        """Not a byte of a journal is gone: what was cut off is in the file beside."""
        for path, before in files.items():
            if path.suffix != ".jsonl":
                continue
            if not path.exists():
                if self.damaged.repaired and self.damaged.touched(f"{self.target.stem}.fence"):
                    continue  # the fence is made to say that the run was deleted
                raise Finding(f"{path.name} is removed")
            aside = path.with_name(f"{path.name}.torn")
            after, torn = path.read_bytes(), aside.read_bytes() if aside.is_file() else b""
            torn = torn[len(files.get(aside, b"")) :]
            self.counts["torn kept"] += bool(torn)
            left = before.removesuffix(torn)
            mended = left.removesuffix(b"\0") + b"\n"  # a newline has taken a zero's place
            if not after.startswith((left, mended)) or not before.endswith(torn):
                raise Finding(f"{path.name} has lost {len(before) - len(after)} bytes, and {len(torn)} are kept")

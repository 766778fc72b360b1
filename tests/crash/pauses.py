"""Workers that stop themselves past their leases, while others take their runs over: no stale write, no lost one.

An owner that died is seen at once, since the kernel ends its locks. An owner that was *stopped* keeps them, so only its
lease's end tells, and when it goes on it believes that the run is still its own. Then the fence alone stands between
it and the history. Some fields, each a store with a few runs and three workers, are worked side by side; this process
sees every stop (`WUNTRACED`), waits until the lease has lapsed and somebody else has taken the run over, and lets the
worker go on.

    python -m tests.crash.pauses --count 300 --seed 1 --store jsonl
    python -m tests.crash.pauses --soak --store sqlite
    python -m tests.crash.pauses --count 100 --store sqlite --plant "no fence"
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field
from tests.crash.places import ON_SERVERS, apart, place_of, serving
from tests.crash.planted import PLANTS, plant
from tests.crash.reports import Report
from tests.crash.stops import CHANCES, IN_THE_STORE, Board, Stops, die_with, work
from tests.crash.story import RESULT, make_order
from tests.crash.witness import Evidence, Witness

from stepwell import Engine
from stepwell.outcomes import RunCompleted
from stepwell.store import Store, envelope
from stepwell_stores import open_store

LEASE = 0.15  # seconds
PATIENCE = 0.3  # seconds after the lease's end in which somebody should have taken the run over
SIDE_BY_SIDE = 3  # fields
WORKERS = 3
RUNS = 3  # at most
STOPS = 12  # in one field, at most
STUCK = 120.0  # seconds for one field


@define
class Stop:
    """One stop of one worker. `lossy`: somebody else can take the run over meanwhile."""

    point: str
    run_id: str
    fence: int
    lossy: bool
    since: float
    lag: float


@define(eq=False)
class Worker:
    """One process: what it has told so far, and whether it is stopped."""

    pid: int
    fd: int
    told: bytearray = field(factory=bytearray)
    heard: int = 0
    stop: Stop | None = None
    known: dict[str, int] = field(factory=dict)
    ended: bool = False


class Field:
    """One store, its runs, and the workers that share it."""

    def __init__(self, number: int, slot: int, args: argparse.Namespace, board: Board) -> None:
        self.number, self.slot, self.args, self.board = number, slot, args, board
        self.folder = Path(tempfile.mkdtemp(prefix="pauses"))
        self.chance = random.Random(f"{args.seed}/{number}")
        self.runs = [
            f"r{n}" for n in range(self.chance.randint(1, RUNS))
        ]  # fewer than workers: one is free to take over
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.fences: dict[str, int] = {}
        self.grants: list[tuple[str, int, int]] = []
        self.writes: list[tuple[str, int, int]] = []
        self.begins: list[tuple[str, str, int]] = []
        self.workers: list[Worker] = []
        self.deadline = time.monotonic() + STUCK

    def begin(self) -> None:
        """Submit the runs, and fork the workers."""
        apart(self._submit)
        self.board.allow(self.slot, STOPS)
        for n in range(WORKERS):
            self.workers.append(self._fork(random.Random(f"{self.args.seed}/{self.number}/{n}")))

    def _submit(self) -> None:
        with Engine(place_of(self.args.store, self.folder), [order := make_order(Witness(-1))]) as engine:
            for run_id in self.runs:
                engine.submit(order, run_id=run_id)

    def _fork(self, chance: random.Random) -> Worker:
        out, into = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(into)
            return Worker(pid, out)
        stops = Stops(into, self.board, self.slot, chance)
        try:
            die_with(parent)
            os.close(out)
            plant(self.args.plant)
            work(open_store(place_of(self.args.store, self.folder)), stops, LEASE)
        except BaseException:
            stops.trouble(f"a worker ended: {traceback.format_exc()}")
        finally:
            os._exit(0)

    @property
    def ended(self) -> bool:
        return all(worker.ended for worker in self.workers)

    # ---- what the workers tell

    def hear(self, worker: Worker, *, to_end: bool = False) -> None:
        """Take in what is in a worker's pipe."""
        while to_end or select.select([worker.fd], [], [], 0)[0]:
            part = os.read(worker.fd, 1 << 16)
            worker.told += part
            if not part:
                break
        whole = worker.told.rfind(b"\n") + 1
        for line in worker.told[worker.heard : whole].decode().splitlines():
            self._take(worker, line.split(" "))
        worker.heard = whole

    def _take(self, worker: Worker, words: list[str]) -> None:
        kind, *rest = words
        if kind == "stop":
            point, run_id, fence, lossy = rest[0].replace("_", " "), rest[1], int(rest[2]), rest[3] == "1"
            lag = self.chance.choice([0.0, 0.0, 0.0, 0.01, 0.04])  # the next owner has read, or written, or neither
            worker.stop = Stop(point, run_id, fence, lossy, 0.0, lag)
        elif kind == "grant":
            run_id, seq, fence = rest[0], int(rest[2]), int(rest[3])
            self.grants.append((run_id, seq, fence))
            self.fences[run_id] = max(fence, self.fences.get(run_id, 0))
            self.counts["take-overs"] += sum(
                1 for w in self.workers if w.stop and w.stop.since and w.stop.run_id == run_id and w.stop.lossy
            )
        elif kind == "wrote":
            if int(rest[3]):  # a head alone moves nothing, so nobody can tell whether it came before a grant
                self.writes.append((rest[0], int(rest[2]), int(rest[4])))
        elif kind == "read":
            worker.known[rest[0]] = max(int(rest[1]), worker.known.get(rest[0], 0))
        elif kind == "begin":
            self.begins.append((rest[0], rest[1], worker.known.get(rest[0], 0)))

    # ---- stops

    def saw_stop(self, pid: int) -> None:
        """A worker has stopped; what it told before is in its pipe."""
        worker = next(w for w in self.workers if w.pid == pid)
        self.hear(worker)
        if worker.stop is None:
            self.violations.append("a worker was stopped by somebody else")
            worker.stop = Stop("?", "-", 0, False, 0.0, 0.0)
        worker.stop.since = time.monotonic()
        self.counts["pauses"] += 1
        self.counts[f"pauses, {worker.stop.point}"] += 1

    def saw_end(self, pid: int, status: int) -> None:
        """A worker has ended."""
        worker = next(w for w in self.workers if w.pid == pid)
        self.hear(worker, to_end=True)
        worker.ended = True
        if status:
            self.violations.append(f"a worker ended with status {status}")

    def go_on(self) -> None:
        """Continue the workers that were stopped for long enough."""
        now = time.monotonic()
        for worker in self.workers:
            stop = worker.stop
            if stop is None or not stop.since:
                continue
            taken = stop.lossy and self.fences.get(stop.run_id, 0) > stop.fence
            lapsed = now - stop.since - LEASE  # its last renewal was before it stopped
            if lapsed <= stop.lag or (stop.lossy and not taken and lapsed <= PATIENCE):
                continue
            self.counts["pauses in which nobody could take over"] += not stop.lossy
            self.counts["pauses in which nobody took over"] += stop.lossy and not taken
            worker.stop = None
            os.kill(worker.pid, signal.SIGCONT)
        if now > self.deadline:
            left = [worker.pid for worker in self.workers if not worker.ended]
            self.violations.append(f"field {self.number} does not end: {len(left)} workers are left")
            self.kill()

    def kill(self) -> None:
        """End what is left of the workers, stopped or not."""
        for worker in self.workers:
            if not worker.ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)
                worker.ended = True

    # ---- the end

    def check(self) -> None:
        """Compare what was told with what is there, and tidy up."""
        evidence = Evidence()
        for worker in self.workers:
            evidence.take(bytes(worker.told[: worker.heard]))
            os.close(worker.fd)
        self.counts, self.violations = apart(lambda: self._judge(evidence))
        if self.violations and self.args.plant is None:
            for worker in self.workers:
                print(f"worker {worker.pid} of field {self.number} told", worker.told.decode(), file=sys.stderr)
        shutil.rmtree(self.folder)

    def _judge(self, evidence: Evidence) -> tuple[Counter[str], list[str]]:
        """What there is to count, and what is wrong."""
        store = open_store(place_of(self.args.store, self.folder))
        with Engine(store, [make_order(Witness(-1))]) as engine:
            evidence.check(store, engine=engine)
            for run_id in self.runs:
                outcome = engine.wait(run_id, 0)
                if not isinstance(outcome, RunCompleted) or outcome.result != RESULT:
                    self.violations.append(f"run {run_id} came to {outcome}")
                self._check_run(store, run_id)
        self.counts["steps that ran twice"] += sum(times - 1 for times in evidence.effects.values())
        self.counts.update({name: evidence.counts[name] for name in _TOLD})
        return self.counts, self.violations + evidence.violations

    def _check_run(self, store: Store, run_id: str) -> None:
        tail = store.read(run_id)
        lines = [] if tail is None else [envelope(line) for line in tail.records]
        grants = [(seq, fence) for run, seq, fence in self.grants if run == run_id]
        if len({fence for _, fence in grants}) < len(grants):
            self.violations.append(f"a fence of {run_id} was granted twice: {sorted(grants)}")
        written = [(seq, line.session, "holds") for seq, line in enumerate(lines)]
        written += [(seq, fence, "was acknowledged") for run, seq, fence in self.writes if run == run_id]
        for seq, session, how in written:
            newer = [fence for at, fence in grants if fence > session and at <= seq]
            if newer:
                self.counts["stale writes"] += 1
                stale = f"stale write: record {seq} of {run_id} {how} under session {session}"
                self.violations.append(f"{stale}, after {min(newer)} was granted")
        steps = {
            line.body.partition(b'"stepId":"')[2].partition(b'"')[0].decode(): seq
            for seq, line in enumerate(lines)
            if line.type == "step"
        }
        for run, step_id, known in self.begins:
            if run == run_id and steps.get(step_id, known) < known:
                self.violations.append(f"a worker began {step_id} of {run_id}, whose record it had read")


_TOLD = (
    "ack",
    "effect",
    "appends refused as Fenced",
    "appends refused as Conflict",
    "leases lost",
    "renewed",
    "renewals refused",
    "the store was busy",
    "records checked",
)


def _reap(fields: list[Field]) -> None:
    """See which workers have stopped or ended."""
    for one in fields:
        for worker in one.workers:
            if worker.ended or (worker.stop is not None and worker.stop.since):
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                one.saw_stop(pid)
            elif pid:
                one.saw_end(pid, status)


@contextlib.contextmanager
def _killed_at_the_end(fields: list[Field]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in fields:
            one.kill()
            shutil.rmtree(one.folder, ignore_errors=True)


def harness(args: argparse.Namespace) -> int:
    """Work field after field until there were enough pauses; a planted bug ends with its first violation."""
    report = Report("pauses", args.store, f"lease {LEASE} s", args.seed, args.plant)
    board, fields, free, number = Board(), list[Field](), list(range(SIDE_BY_SIDE)), 0
    with _killed_at_the_end(fields):
        while True:
            under_way = report.counts["pauses"] + sum(one.counts["pauses"] for one in fields)
            enough = under_way >= args.count or (args.plant is not None and report.counts["violations"])
            while free and not enough:
                fields.append(Field(number, free.pop(), args, board))
                fields[-1].begin()
                number += 1
            if not fields:
                break
            pipes = {w.fd: (one, w) for one in fields for w in one.workers if not w.ended}
            for fd in select.select(list(pipes), [], [], 0.003)[0]:
                one, worker = pipes[fd]
                one.hear(worker)
            _reap(fields)
            for one in list(fields):
                if enough:
                    board.allow(one.slot, 0)
                one.go_on()
                if one.ended:
                    one.check()
                    report.add(one.counts, one.violations)
                    report.counts["fields"] += 1
                    fields.remove(one)
                    free.append(one.slot)
    if args.plant is None and args.count >= 100:
        points = [point for point in CHANCES if args.store not in ON_SERVERS or point not in IN_THE_STORE]
        wanted = ["take-overs", "leases lost", "appends refused as Fenced", *(f"pauses, {point}" for point in points)]
        report.add(Counter(), [f"it never came to {name}" for name in wanted if not report.counts[name]])
    return report.finish()


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="pauses")
    parser.add_argument("--soak", action="store_true", help="2,000 pauses")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["jsonl", "sqlite", *ON_SERVERS], default="jsonl")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to put into the workers")
    args = parser.parse_args()
    args.count = 2_000 if args.soak else args.count
    with serving(args.store):
        return harness(args)


if __name__ == "__main__":
    sys.exit(main())

"""Eight processes that start, claim, retry, resume or delete one run at the same instant: one of them wins.

The others get what the policy says: an outcome, `Running`, or an error that names the reason. Whoever won, each step is
performed once, by one process, and there is one history, with one `start`. Some rounds begin with a store that nobody
has made yet, or with one of an older version, which all eight open at once.

    python -m tests.crash.start_races --count 200 --seed 1 --store jsonl
    python -m tests.crash.start_races --soak --store sqlite
    python -m tests.crash.start_races --store sqlite --plant "existing run looked for before the transaction"
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field
from tests.crash import verdicts as v
from tests.crash.places import ON_SERVERS, place_of, serving
from tests.crash.planted import PLANTS
from tests.crash.racers import SIZE, Pool, make_workflows
from tests.crash.reports import Report
from tests.crash.witness import Evidence, Witness

from stepwell import Engine, StepwellError
from stepwell.outcomes import RunCompleted
from stepwell.store import envelope
from stepwell_stores import open_store
from stepwell_stores.sqlite import schema as sqlite_schema

POLICIES = [
    (if_open, if_closed)
    for if_open in ("join", "error", "restart")
    for if_closed in ("return", "retry_failed", "error", "restart")
]


def start_order(if_open: str = "join", if_closed: str = "return", *, workflow: str = "plain", value: str = "a") -> Any:
    """What each racer is told to start."""
    return {"do": "start", "workflow": workflow, "value": value, "if_open": if_open, "if_closed": if_closed}


@define
class Arena:
    """The store that is raced on, and what was told about it."""

    store: str
    pool: Pool
    chance: random.Random
    counts: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    folder: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="races")))
    evidence: Evidence = field(factory=Evidence)
    _engine: Engine | None = None
    _workflows: dict[str, Any] = field(factory=dict)

    @property
    def url(self) -> str:
        return place_of(self.store, self.folder)

    @property
    def engine(self) -> Engine:
        """An engine of the parent's own, to make what is raced on."""
        if self._engine is None:
            self._workflows = make_workflows(Witness(-1), self.pool.is_broken)
            self._engine = Engine(open_store(self.url), self._workflows.values())
        return self._engine

    def make(self, workflow: str, run_id: str, *, drive: bool = True) -> None:
        """Have a run there before the race."""
        begin = self.engine.start if drive else self.engine.submit
        self.pool.set_broken(True)
        begin(self._workflows[workflow], "a", run_id=run_id)
        self.pool.set_broken(False)

    def fence(self, run_id: str) -> int:
        """The newest session of a run."""
        head = self.engine.store.head(run_id)
        return 0 if head is None else head.fence

    def check_old(self) -> None:
        """See that the run that was there before is there still, and goes on."""
        head = self.engine.store.head("old")
        if head is None or head.head.blocked is None or head.head.blocked.fingerprints != ("f",):
            self.violations.append(f"an old run is not what it was: {head}")
        if not isinstance(outcome := self.engine.advance("old"), RunCompleted):
            self.violations.append(f"an old run came to {outcome}")

    def race(self, name: str, run_id: str, orders: list[dict[str, Any]], judge: v.Judge, **how: Any) -> None:
        """One round."""
        common = {"url": self.url, "run": run_id, "cold": how.get("cold", False)}
        late = self.chance.choice([0.0, 0.0, 0.001, 0.004, 0.01])  # some come when the first is halfway through
        orders = [{**common, "lag": self.chance.random() * late, **order} for order in orders]
        told = self.pool.race(orders)
        answers, effects = [], []
        for n, lines in enumerate(told):
            kept = [" ".join(words) for words in lines if words[0] in ("ack", "lease", "trouble")]
            self.evidence.take("\n".join(kept).encode())
            effects += [(n, words[2], words[4]) for words in lines if words[0] == "effect" and words[1] == run_id]
            answers.append(json.loads(" ".join(lines[-1][1:])))
        store = self.engine.store
        head, histories = store.head(run_id), []
        for number in range(0 if head is None else head.incarnation + 1):
            tail = store.read(run_id, incarnation=number)
            histories.append([] if tail is None else [envelope(line) for line in tail.records])
        seen = v.Seen(run_id, orders, answers, effects, head, histories, how.get("fence", 0))
        if head is None:  # deleted
            self.evidence.acks = {at: what for at, what in self.evidence.acks.items() if at[0] != run_id}
        self.counts.update([f"rounds, {name}", *(f"answers, {answer['name']}" for answer in answers)])
        self.violations += [f"{name}, {run_id}: {text}" for text in judge(seen)]

    def end(self) -> None:
        """Compare with all that was acknowledged, and begin with a new store."""
        self.evidence.check(self.engine.store, engine=self.engine)
        self.violations += self.evidence.violations
        self.counts["records checked"] += self.evidence.counts["records checked"]
        self.counts["stores"] += 1
        self.engine.close()
        shutil.rmtree(self.folder)
        self.folder, self.evidence = Path(tempfile.mkdtemp(prefix="races")), Evidence()
        self._engine = None


# ---- rounds


def starts(arena: Arena, name: str) -> Iterator[str]:
    """Rounds in which all start one run id; each gives its name."""
    for if_open, if_closed in POLICIES:
        run_id = f"{name}-{if_open}-{if_closed}"
        judge = v.judge_restart if "restart" in (if_open, if_closed) else v.judge_start
        arena.race(f"start {if_open}/{if_closed}", run_id, [start_order(if_open, if_closed)] * SIZE, judge)
        yield run_id
    for n in range(2):
        values = [start_order(value="ab"[(i >> n) % 2]) for i in range(SIZE)]
        arena.race("start with other input", f"{name}-input{n}", values, v.judge_other_input)
        yield f"{name}-input{n}"
    run_id = f"{name}-join-return"
    fence = arena.fence(run_id)
    arena.race("delete", run_id, [{"do": "delete"}] * SIZE, v.judge_delete)
    arena.race("start after delete", run_id, [start_order()] * SIZE, v.judge_reborn, fence=fence)
    yield run_id
    arena.end()
    arena.race("start on no store", f"{name}-fresh", [start_order()] * SIZE, v.judge_start, cold=True)
    yield f"{name}-fresh"
    if arena.store == "sqlite":
        arena.end()
        make_old(arena)
        arena.race("start on an old store", f"{name}-old", [start_order()] * SIZE, v.judge_start, cold=True)
        arena.check_old()
        yield f"{name}-old"


def others(arena: Arena, name: str) -> None:
    """Rounds about a run that is there already."""
    arena.make("plain", f"{name}-claim", drive=False)
    arena.race("claim", f"{name}-claim", [{"do": "claim"}] * SIZE, v.judge_claim)
    arena.make("plain", f"{name}-advance", drive=False)
    arena.race("advance", f"{name}-advance", [{"do": "advance"}] * SIZE, v.judge_advance)
    arena.make("plain", f"{name}-due", drive=False)
    arena.race("run_due", f"{name}-due", [{"do": "run_due"}] * SIZE, v.judge_due)
    arena.make("fails", f"{name}-retry")
    arena.race("retry", f"{name}-retry", [{"do": "retry"}] * SIZE, v.judge_retry)
    arena.make("fails", f"{name}-again")
    again = start_order(if_closed="retry_failed", workflow="fails")
    arena.race("start, retry_failed", f"{name}-again", [again] * SIZE, v.judge_retry)
    for same, run_id in ((True, f"{name}-same"), (False, f"{name}-each")):
        arena.make("asks", run_id)
        orders = [{"do": "resume", "value": f"v{n}", "id": "one" if same else f"id{n}"} for n in range(SIZE)]
        arena.race("resume, one id" if same else "resume, an id each", run_id, orders, v.judge_resume)


def make_old(arena: Arena) -> None:
    """A store with the tables of version 1, and in it a run that is blocked as version 1 had it."""
    with Engine("memory:", workflows := make_workflows(Witness(-1)).values()) as engine:
        engine.submit(next(iter(workflows)), "a", run_id="old")
        tail = engine.store.read("old")
        assert tail is not None
    db = sqlite3.connect(arena.folder / "runs.db", isolation_level=None)
    for statement in sqlite_schema._statements(sqlite_schema._MIGRATIONS[0]):
        db.execute(statement)
    db.execute("INSERT INTO stepwell_schema VALUES (1)")
    db.execute(
        """INSERT INTO stepwell_runs (run_id, incarnation, next_seq, fence, closed, status, workflow, version,
            created, updated, due, waiting, tags, blocked, blocked_by) VALUES
            ('old', 0, 1, 1, 0, 'pending', 'plain', '1', 0, 0, 0, '[]', '{}', ?, 'f')""",
        (json.dumps({"code": "DIVERGENCE", "message": "m", "fingerprint": "f"}),),
    )
    db.execute("INSERT INTO stepwell_events (run_id, incarnation, seq, body) VALUES ('old', 0, 0, ?)", tail.records)
    db.close()


def harness(args: argparse.Namespace) -> int:
    """Race until there were enough starts; a planted bug ends with its first violation."""
    report = Report("start_races", args.store, f"{SIZE} processes", args.seed, args.plant)
    pool = Pool(args.plant)
    arena = Arena(args.store, pool, random.Random(args.seed))
    try:
        for n in count():
            for _ in starts(arena, f"r{n}"):
                arena.counts["starts"] += 1
                if arena.counts["starts"] >= args.count or (args.plant and arena.violations):
                    break
            else:
                others(arena, f"r{n}")
                continue
            break
        if not (args.plant and arena.violations):
            arena.end()
    except (TimeoutError, StepwellError) as error:  # nobody comes to an end, or the store was left damaged
        arena.violations.append(f"{type(error).__name__}: {error}")
    finally:
        pool.kill()
        shutil.rmtree(arena.folder, ignore_errors=True)
    report.add(arena.counts, arena.violations)
    return report.finish()


def main() -> int:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="rounds in which one run id is started")
    parser.add_argument("--soak", action="store_true", help="2,000 of them")
    parser.add_argument("--seed", type=int, default=1, help="of when each comes; who wins, the kernel decides")
    parser.add_argument("--store", choices=["jsonl", "sqlite", *ON_SERVERS], default="jsonl")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to put into the processes")
    args = parser.parse_args()
    args.count = 2_000 if args.soak else args.count
    with serving(args.store):
        return harness(args)


if __name__ == "__main__":
    sys.exit(main())

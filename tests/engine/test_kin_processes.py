"""Parents, children, turns, charges and compensations in processes that are killed at their writes, for good."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

PROGRAM = '''
import json, os, signal, sys
from stepwell import All, Child, Compensate, ContinueAsNew, Engine, Flow, RunFailed, Spend, Step, workflow
from stepwell_stores import open_store

url, nth, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def effect(name: str) -> str:
    """Leave a mark that outlives the process."""
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\\n".encode())
    os.close(fd)
    return name

@workflow
def child(run: str, name: str) -> Flow[str]:
    yield Spend(10)
    return (yield from Step(effect, f"{run} {name}"))

@workflow
def doomed(run: str) -> Flow[str]:
    yield Compensate(effect, f"{run} undone")
    yield Step(effect, f"{run} done")
    raise ValueError("no")

@workflow
def parent(run: str, turn: int, seen: list[str]) -> Flow[list[str]]:
    seen.append((yield from Child(child, run, f"alone {turn}")))
    if turn < 2:
        yield ContinueAsNew(run, turn + 1, seen)
    seen += yield All(Child(child, run, "left"), Child(child, run, "right"))
    try:
        yield Child(doomed, run)
    except Exception:
        seen.append("failed")
    return seen

class Killing:
    """Ends the process, by SIGKILL, before or after one of its writes."""

    def __init__(self, inner):
        self.inner, self.writes = inner, 0

    def __getattr__(self, name):
        attribute = getattr(self.inner, name)
        if name not in ("create", "append", "open_incarnation", "claim", "claim_due", "release"):
            return attribute

        def call(*where, **how):
            self.writes += 1
            if self.writes == nth and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = attribute(*where, **how)
            if self.writes == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

run = f"{when}{nth}"
engine = Engine(Killing(open_store(url)), [parent, child, doomed])
if sys.argv[4] == "start":
    engine.start(parent, run, 0, [], run_id=run, budget=1000)
    print("over", flush=True)
'''

FINISH = (
    PROGRAM
    + """
found = {}
for head in engine.runs(workflow="parent", limit=1000):
    for _ in range(3):
        outcome = engine.advance(head.id)
        engine.run_due()
    found[head.id] = [outcome.unwrap(), engine.get(head.id).spent]
children = sorted([run.id, run.status] for run in engine.runs(limit=10_000) if "/" in run.id)
broken = [str(part.problem) for part in engine.store.verify() if part.problem]
print(json.dumps([found, children, broken]))
"""
)


def test_whatever_is_killed_every_child_runs_once_and_every_turn_is_taken_once(
    disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Any
) -> None:
    """Every ninth write, before and after it; the leases of killed processes have ended."""
    killed = 0
    for nth in range(1, 200, 9):
        ended = False
        for when in ("before", "after"):
            process = python(PROGRAM, disk.url, str(nth), when, "start")
            said, _ = process.communicate(timeout=60)
            assert process.returncode in (0, -signal.SIGKILL)
            killed += process.returncode != 0
            ended = "over" in said
        if ended:
            break
    assert killed > 8
    process = python(FINISH, disk.url, "0", "never", "finish")
    said, _ = process.communicate(timeout=120)
    assert 0 == process.returncode
    found, children, broken = json.loads(said)
    assert [] == broken
    marks = Counter((tmp_path / "effects").read_text().splitlines())
    for run, (seen, spent) in found.items():
        assert [f"{run} alone {turn}" for turn in range(3)] + [f"{run} left", f"{run} right", "failed"] == seen
        assert 50 == spent
        own = {name: count for name, count in marks.items() if name.startswith(f"{run} ")}
        assert 7 == len(own)
        assert sum(own.values()) <= 8  # a step whose process dies before it is recorded is performed again
    per_run = Counter(child.partition("/")[0] for child, _ in children)
    assert dict.fromkeys(found, 6) == per_run
    assert {"completed", "failed"} == {status for _, status in children}

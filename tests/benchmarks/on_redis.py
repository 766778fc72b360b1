"""What the engine does on Redis beside what the same bytes cost with no library around them, in the same run.

    python -m tests.benchmarks.on_redis                     # appendfsync always
    python -m tests.benchmarks.on_redis --appendfsync no --rounds 5

Each round measures the floor and then the engine; the median of the rounds' ratios is told.

*steps*: one run of many steps; beside one script that does RPUSH, called by EVALSHA for each record, with redis-py.
*drained*: submitted runs of 3 steps that one worker ends; beside as many of these calls by as many threads as it has,
each with a connection, divided by the durable writes of a run.
*resumed*: events of a long history that a new engine replays; beside LRANGE in one go, each decoded by msgspec.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from typing import Any

import msgspec
from tests.servers.valkey import Valkey, valkey

from stepwell import Engine, Flow, Step, Suspend, workflow
from stepwell.worker import Worker

from .flows import steps

THREADS = 16  # of a worker
WRITES = 5  # of a run of 3 steps that a worker drives: claim, three steps, the end


@workflow
def long(count: int) -> Flow[int]:
    """As `steps`, but it waits at its end."""
    for number in range(count):
        yield Step(int, number)
    yield Suspend("go")
    return count


def floor_of_steps(server: Valkey, lines: list[bytes], key: str) -> float:
    """Calls of a script that does RPUSH, a second."""
    with server.connect() as client:
        sha = client.script_load("return redis.call('RPUSH', KEYS[1], ARGV[1])")
        client.evalsha(sha, 1, key, lines[0])
        began = time.perf_counter()
        for line in lines:
            client.evalsha(sha, 1, key, line)
        return len(lines) / (time.perf_counter() - began)


def floor_of_drained(server: Valkey, lines: list[bytes], key: str) -> float:
    """The same by threads, in runs a second."""
    share = max(1, len(lines) // THREADS)
    parts = [threading.Thread(target=floor_of_steps, args=(server, lines[:share], f"{key}{n}")) for n in range(THREADS)]
    began = time.perf_counter()
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    return share * THREADS / (time.perf_counter() - began) / WRITES


def floor_of_resumed(server: Valkey, lines: list[bytes], key: str) -> float:
    """Events a second."""
    with server.connect() as client:
        client.rpush(key, *lines)
        began = time.perf_counter()
        for line in client.lrange(key, 0, -1):
            msgspec.json.decode(line)
        return len(lines) / (time.perf_counter() - began)


def measured(server: Valkey, number: int, count: int) -> dict[str, tuple[float, float]]:
    """One round: by name, what the engine reached and its floor."""
    found: dict[str, tuple[float, float]] = {}
    url = server.url(prefix=f"round-{number}")
    with Engine(url, [steps, long]) as engine:
        engine.start(steps, 10, run_id="warm").unwrap()
        tail = engine.store.read("warm")
        assert tail is not None
        lines = (tail.records * count)[:count]
        floor = floor_of_steps(server, lines, f"floor {number}")
        began = time.perf_counter()
        engine.start(steps, count, run_id="run").unwrap()
        found["steps"] = count / (time.perf_counter() - began), floor

        for _ in range(runs := max(10, count // 5)):
            engine.submit(steps, 3)
        floor = floor_of_drained(server, lines, f"drained {number}")
        began = time.perf_counter()
        Worker(engine).run(drain=True)
        found["drained"] = runs / (time.perf_counter() - began), floor
        engine.start(long, 4 * count, run_id="long")
    with Engine(url, [steps, long]) as engine:
        tail = engine.store.read("long")
        assert tail is not None
        floor = floor_of_resumed(server, tail.records, f"resumed {number}")
        began = time.perf_counter()
        engine.resume("long", "go").unwrap()
        found["resumed"] = tail.seq / (time.perf_counter() - began), floor
    return found


def main() -> int:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no"], default="always")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_000)
    args = parser.parse_args()
    with valkey(appendfsync=args.appendfsync) as server:
        rounds = [measured(server, number, args.steps) for number in range(args.rounds)]
    told: dict[str, Any] = {"appendfsync": args.appendfsync, "steps": args.steps, "rounds": args.rounds}
    for name in rounds[0]:
        told[name] = {
            "a second": round(statistics.median(one[name][0] for one in rounds)),
            "floor": round(statistics.median(one[name][1] for one in rounds)),
            "ratio": round(statistics.median(one[name][0] / one[name][1] for one in rounds), 2),
        }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())

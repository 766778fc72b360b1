"""One seed, or some, by hand.

PYTHONPATH=.:engine:stores python -m tests.dst 17 --trace
PYTHONPATH=.:engine:stores python -m tests.dst 0 --count 200
PYTHONPATH=.:engine:stores python -m tests.dst 0 --count 20 --store sqlite
PYTHONPATH=.:engine:stores python -m tests.dst 0 --count 50 --plant "no fence"
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from tests.dst.plants import PLANTS, planted
from tests.dst.simulation import simulate_seed

from stepwell_stores import open_store

URLS = {"jsonl": "file:{}/runs", "sqlite": "sqlite:///{}/runs.db"}


@contextmanager
def opener(store: str) -> Iterator[Callable[[Callable[[], int]], Any] | None]:
    """What opens a store for one simulated process; None stands for the memory store that all share."""
    with TemporaryDirectory() as folder:
        if store == "memory":
            yield None
        else:
            yield lambda clock: open_store(URLS[store].format(folder), clock=clock)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dst", description="Simulate days of workers on one store.")
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="so many seeds")
    parser.add_argument("--runs", type=int, default=10, help="how many runs are begun in a day")
    parser.add_argument("--storm", action="store_true", default=None, help="misfortunes come thick, whatever the seed")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="put a bug into the product, to see that it is found")
    parser.add_argument("--store", choices=["memory", *URLS], default="memory", help="the shipped store beneath")
    parser.add_argument("--transactions", action="store_true", help="some steps are transactions; with --store sqlite")
    parser.add_argument("--hash", action="store_true", help="print the hash of each trace")
    args = parser.parse_args()
    if args.transactions and args.store != "sqlite":
        parser.error("--transactions takes --store sqlite")
    met: Counter[str] = Counter()
    wrong = turns = 0
    began = time.process_time()
    for seed in range(args.seed, args.seed + args.count):
        with planted(args.plant), opener(args.store) as open_inner:
            result = simulate_seed(
                seed,
                open_inner,
                tracing=args.trace,
                runs=args.runs,
                storm=args.storm,
                transactions=args.transactions,
            )
        met.update(result.sometimes)
        turns += result.turns
        if result.trace is not None:
            print("\n".join(result.trace))
        if args.hash:
            print(seed, result.digest)
        for text in result.wrong:
            wrong += 1
            print(f"seed {seed}: {text}", flush=True)
    took = time.process_time() - began
    for name, times in sorted(met.items()):
        print(f"{times:9,} {name}")
    print(f"{args.count} seeds, {turns:,} turns, {took:.1f} s of CPU, {wrong} violations")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

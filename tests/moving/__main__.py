"""The long way: `python -m tests.moving` moves many runs between pairs of stores, killed and resumed, and checks it.

`--runs 1000 --kills 20 --pairs sqlite-file,file-sqlite`; each pair is killed at so many calls by SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stepwell_stores import open_store

from .killing import Fuse, Fused, kill, whereabouts
from .zoo import engine_on, fill, finish, judge, picture, refuses, same


def url_of(kind: str, folder: Path, name: str) -> str:
    """The URL of a store in a folder; what else is given is one already."""
    return {"sqlite": f"sqlite:///{folder}/{name}.db", "file": f"file:{folder}/{name}"}.get(kind, kind)


def move(source: str, target: str, at: int) -> int:
    """Move in a child that may be killed; how it ended."""
    child = os.fork()
    if not child:
        fuse = Fuse(at, kill)
        one, other = (Fused(open_store(url), fuse) for url in (source, target))
        moved = engine_on(one).migrate(other)
        os._exit(1 if moved.kept else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def soak(pair: str, runs: int, kills: int, chance: random.Random) -> None:
    """One pair."""
    kinds = pair.split("-")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [url_of(kind, folder, f"{number}") for number, kind in enumerate(kinds)]
        log = folder / "log"
        source: Any = open_store(urls[0])
        fill(source, log, runs)
        before = picture(source)
        source.close()
        began = time.monotonic()
        for _ in range(kills):
            assert move(urls[0], urls[1], chance.randrange(24 * len(before) // max(kills, 1))) in (0, -9)
        assert move(urls[0], urls[1], 10**12) == 0
        seconds = time.monotonic() - began
        source, target = (open_store(url) for url in urls)
        assert Counter(whereabouts(source, target, run_id) for run_id in before) == {"target": len(before)}
        same(before, picture(target))
        for run_id in list(before)[::100]:
            refuses(source, run_id)
        finish(target)
        judge(log, target)
        print(f"{pair}: {len(before)} runs moved in {seconds:.1f} s, killed {kills} times")
        source.close()
        target.close()


def main() -> None:
    """Read the arguments, and go."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pairs", default="sqlite-file,file-sqlite,sqlite-sqlite,file-file")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for pair in given.pairs.split(","):
        soak(pair, given.runs, given.kills, random.Random(given.seed))


if __name__ == "__main__":
    main()

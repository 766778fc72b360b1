"""The long way: `python -m tests.moving` moves many runs between pairs of stores, killed and resumed, and checks it.

`--runs 1000 --kills 20 --pairs sqlite-file,postgres-s3`; each pair is killed at so many calls by SIGKILL. A store may
be of any kind that is still there then; servers are started for it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stepwell_stores import open_store

from .killing import PROGRAM, whereabouts
from .places import CAN_BE_KILLED, SERVERS, Places, bury, serving
from .zoo import engine_on, fill, finish, judge, picture, refuses, same

_ALL = 10**12


class Moves:
    """A process that moves runs, and is killed at a call."""

    def __init__(self, urls: list[str]) -> None:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *urls],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def go(self, at: int) -> int:
        """Move, be killed at this call, and tell how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def soak(pair: str, places: Places, runs: int, kills: int, chance: random.Random) -> None:
    """One pair."""
    kinds = pair.split("-")
    urls = [places.url(kind, f"{pair}-{number}") for number, kind in enumerate(kinds)]
    log = places.folder / f"log-{pair}"
    source: Any = open_store(urls[0])
    target: Any = open_store(urls[1])
    fill(source, log, runs)
    before = picture(source)
    moves, began = Moves(urls), time.monotonic()
    for number in range(kills + 1):
        if kinds[0] in SERVERS:
            bury(source)
        calls = chance.randrange(24 * len(before) // max(kills, 1)) if number < kills else _ALL
        assert moves.go(calls) in (0, -9 if number < kills else 0)
    seconds = time.monotonic() - began
    moves.close()
    assert Counter(whereabouts(source, target, run_id) for run_id in before) == {"target": len(before)}
    same(before, picture(target))
    for run_id in list(before)[::100]:
        refuses(source, run_id)
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    finish(target)
    judge(log, target)
    print(f"{pair}: {len(before)} runs moved in {seconds:.1f} s, killed {kills} times", flush=True)
    assert engine_on(source).migrate(target).moved == 0
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
    pairs = given.pairs.split(",")
    kinds = {kind for pair in pairs for kind in pair.split("-")}
    if wrong := kinds.difference(CAN_BE_KILLED):
        parser.error(f"--pairs: of {', '.join(sorted(wrong))} nothing is left after a kill; {', '.join(CAN_BE_KILLED)}")
    with tempfile.TemporaryDirectory() as folder, serving(kinds, Path(folder)) as places:
        for pair in pairs:
            soak(pair, places, given.runs, given.kills, random.Random(given.seed))


if __name__ == "__main__":
    main()

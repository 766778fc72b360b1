"""What if the score had been another one? python what_if.py RUN_ID POINTS [--mermaid FILE]

Forks a loan's run with another score, drives the fork, and shows where the two part. The run itself stays as it is.
The steps after the score are performed by the fork: a real program gives a fork an engine whose steps do no harm.

Exit code: 0; 1 when the fork went another way; 2 when there is no such run or the score is none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loans import Score, engine

from stepwell import RunCompleted, StepwellError


def main() -> int:
    parser = argparse.ArgumentParser(description="What if a loan's score had been another one?")
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("points", metavar="POINTS", type=int, help="the score, 0 to 100")
    parser.add_argument("--mermaid", metavar="FILE", type=Path, help="where the fork is drawn to")
    options = parser.parse_args()
    with engine:
        try:
            was = engine.history(options.run_id).result_of("score", into=Score)
            other = Score(options.points, f"what if, in place of {was.points}")
            outcome = engine.fork(options.run_id, replace=("score", other), tags={"what-if": options.run_id})
            found = engine.diff(options.run_id, outcome.run_id)
        except StepwellError as error:
            print(f"{error.code}: {error.message}", file=sys.stderr)
            return 2
        print(f"{was.points} points: {engine.get(options.run_id).status}; {options.points} points: {outcome.status}")
        if isinstance(outcome, RunCompleted):
            print(outcome.result)
        print()
        print(found)
        if options.mermaid is not None:
            options.mermaid.write_text(engine.history(outcome.run_id).mermaid() + "\n", "utf-8")
    return 1 if any(row.mark != "changed" or "kind" in row.changed for row in found.rows if row.counts) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Watch an answer as it comes, in a process of its own: python chat_watch.py RUN_ID [--after 0.5]

Each word is printed when it is recorded, wherever the run is driven. When the model begins anew, after an error or in
another process after a crash, so does the line.
"""

from __future__ import annotations

import argparse
import sys

from chat import engine

from stepwell import RunCompleted, StepwellError
from stepwell.streaming import Chunk, Done, Emitted, StepChanged


def position(text: str) -> tuple[int, int]:
    incarnation, _, seq = text.partition(".")
    return int(incarnation), int(seq)


def watch(run_id: str, after: tuple[int, int] | None) -> int:
    """Print what comes; 0 when the run is completed."""
    with engine.stream(run_id, after=after) as events:
        for event in events:
            match event:
                case Emitted(value=value, topic=topic):
                    print(f"[{topic}: {value}]", flush=True)
                case Chunk(value=word, index=index, attempt=attempt):
                    if index == 0 and attempt > 1:
                        print(f"\n[attempt {attempt}]", flush=True)
                    print(word, end="", flush=True)
                case StepChanged(status="failed" | "attempt_failed", failure=failure):
                    print(f"\n[{failure}]", flush=True)
                case Done(outcome=outcome):
                    print(f"\n[{outcome.status}]", flush=True)
                    return 0 if isinstance(outcome, RunCompleted) else 1
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Watch an answer as it comes.")
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("--after", type=position, metavar="POSITION", help="go on behind this one, such as 0.5")
    options = parser.parse_args()
    with engine:
        try:
            return watch(options.run_id, options.after)
        except StepwellError as error:
            print(f"{error.code}: {error.message}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())

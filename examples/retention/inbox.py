"""Messages are handled, and forgotten after a while: python inbox.py [MESSAGE ...]

Each message is a run; its text is the run's id, so the same one is handled once, until it is forgotten. Before the new
ones, what is older than KEEP seconds goes, and what failed after three times as long.

Exit code: 0; 2 when a message was refused.
"""

from __future__ import annotations

import os
import sys

from stepwell import Engine, Flow, Step, StepwellError, workflow

KEEP = float(os.environ.get("KEEP", "86400"))  # seconds


def handle(text: str) -> str:
    if "!" in text:
        raise ValueError("no shouting")
    return text.capitalize()


@workflow(ttl=KEEP)
def message(text: str) -> Flow[str]:
    return (yield from Step(handle, text))


# Nothing is opened before the engine is used. `stepwell --app inbox:engine prune` works with it too.
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///inbox.db"), workflows=[message])


def main(texts: list[str]) -> int:
    code = 0
    with engine:
        done = engine.prune(status=("completed", "cancelled"))  # by its ttl
        failed = engine.prune(older_than=3 * KEEP, status="failed")  # to be looked at, for longer
        print(f"forgotten: {done.removed + failed.removed}")
        for text in texts:
            try:
                outcome = engine.start(message, text, run_id=text)
            except StepwellError as error:
                print(f"{error.code}: {error.message}", file=sys.stderr)
                code = 2
                continue
            print(f"{text}: {outcome.status}, session {engine.get(text).sessions}")
        size = engine.size()
        print(f"messages kept: {sum(size.runs.values())}, events: {size.events}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

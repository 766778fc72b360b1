"""Start one run for each ticket of a JSON file: python start.py [tickets.json]

A ticket's id is the id of its run, so starting the same file again repeats nothing. A ticket that is no ticket is told
of, and the others go on.

Exit code: 0; 1 when a ticket was malformed, refused or its run failed; 2 when there is no such file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from workflow import Ticket, engine, triage

from stepwell import Codec, CodecError, Outcome, RunCompleted, RunFailed, RunSuspended, StepwellError


def read_tickets(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        sys.exit(_complain(f"{path}: {error.strerror}"))
    except ValueError as error:
        sys.exit(_complain(f"{path}: not a JSON file: {error}"))
    if not isinstance(found, list):
        sys.exit(_complain(f"{path}: expected a list of tickets"))
    return found


def start(entry: Any) -> bool:
    """Start one ticket's run; whether all went well."""
    name = entry.get("id", "without an id") if isinstance(entry, dict) else entry
    try:
        ticket = Codec().decode(json.dumps(entry).encode(), Ticket)
        outcome = engine.start(triage, ticket, run_id=ticket.id, tags={"customer": ticket.customer})
    except CodecError as error:
        _complain(f"ticket {name!r} is malformed: {error.message}")
        return False
    except StepwellError as error:
        _complain(f"ticket {name!r} was refused: {error.message}")
        return False
    tell(outcome)
    return not isinstance(outcome, RunFailed)


def tell(outcome: Outcome[str]) -> None:
    match outcome:
        case RunCompleted(run_id, result):
            print(f"{run_id}: completed")
            for line in result.splitlines():
                print(f"    {line}")
        case RunSuspended(run_id, reason=reason):
            print(f"{run_id}: waits for a human ({reason}): python resume.py {run_id} --reviewer YOU")
        case RunFailed(run_id, failure):
            print(f"{run_id}: failed: {failure}")
        case _:
            print(f"{outcome.run_id}: {outcome.status}")


def _complain(text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return 2


def main() -> int:
    parser = argparse.ArgumentParser(description="Start one run for each ticket of a JSON file.")
    parser.add_argument("file", type=Path, nargs="?", default=Path(__file__).with_name("tickets.json"))
    options = parser.parse_args()
    with engine:
        went_well = [start(entry) for entry in read_tickets(options.file)]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main())

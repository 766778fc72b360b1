"""The magazine's desk, with the code of one deploy: python desk.py DEPLOY VERB ...

    subscribe READER...    start a run for each
    publish MONTH          tell every open run that the issue of a month is out, and drive it
    again                  try the blocked runs again, after a mistake that was not in the code

The same words again change nothing: nobody subscribes twice, and a month counts once.
Exit code: 0; 1 when a run is blocked or has failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from contextlib import suppress
from typing import Any

from magazine import issue
from metrics import table

from stepwell import Engine, StepwellError


def subscribe(deploy: Any, readers: list[str]) -> None:
    for reader in readers:
        deploy.engine.start(deploy.offer, reader, run_id=reader)


def publish(engine: Engine, month: str) -> None:
    for record in reversed(engine.runs(closed=False)):  # the oldest first
        engine.signal(record.id, issue, month, id=month)
    engine.run_due()  # also what a process that was killed has left; a run that does not fit the code is marked


def again(engine: Engine) -> None:
    for record in reversed(engine.runs(blocked=True)):
        with suppress(StepwellError):  # it stays blocked, and `main` tells why
            engine.advance(record.id)


def main() -> int:
    parser = argparse.ArgumentParser(description="Send a magazine to its readers.")
    parser.add_argument("deploy", choices=["1", "2", "3", "3b", "4", "5"], help="which code is at work")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("subscribe").add_argument("readers", nargs="+", metavar="READER")
    verbs.add_parser("publish").add_argument("month", metavar="MONTH")
    verbs.add_parser("again")
    options = parser.parse_args()
    deploy = importlib.import_module(f"deploy_{options.deploy}")
    with deploy.engine as engine:
        if options.verb == "subscribe":
            subscribe(deploy, options.readers)
        elif options.verb == "publish":
            publish(engine, options.month)
        else:
            again(engine)
        runs = engine.runs()
    for record in reversed(runs):
        print(f"{record.id}: version {record.version}, {record.status}")
        if record.blocked is not None:
            print(f"  blocked, {record.blocked.code}: {record.blocked.message}")
    for line in table():
        print(line)
    return 1 if any(record.blocked or record.status == "failed" for record in runs) else 0


if __name__ == "__main__":
    sys.exit(main())

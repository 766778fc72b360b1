"""Import a CSV file, or go on with its import: python run.py people.csv people.db

Exit code: 0; 1 when the import failed or was cancelled; 2 when there is no such file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from importing import bulk_import, engine

from stepwell import RunCompleted


def main() -> int:
    parser = argparse.ArgumentParser(description="Import a CSV file, or go on with its import.")
    parser.add_argument("source", type=Path)
    parser.add_argument("database", type=Path)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of work for each 50 rows")
    options = parser.parse_args()
    if not options.source.is_file():
        print(f"{options.source}: no such file", file=sys.stderr)
        return 2
    source, database = options.source.resolve(), options.database.resolve()
    with engine:
        outcome = engine.start(bulk_import, str(source), str(database), options.pause, run_id=source.name)
    print(f"{outcome.run_id}: {outcome.result if isinstance(outcome, RunCompleted) else outcome.status}")
    return 0 if isinstance(outcome, RunCompleted) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with it")

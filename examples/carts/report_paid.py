"""Report how many carts were paid, once a day at most: python report_paid.py 2026-07-31

The call is recorded under the day: the same day asked for again gives what it gave then.
"""

from __future__ import annotations

import sys

from carts import engine, report

from stepwell import durable


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python report_paid.py DAY", file=sys.stderr)
        return 2
    with engine:
        paid = len(engine.runs(workflow="cart", status="completed"))
        outcome = engine.start(durable(report), paid, run_id=f"report-{sys.argv[1]}", if_closed="return")
        print(outcome.unwrap())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Book a trip for each traveller that is named: python travel_now.py ada bert

The same call again goes on with what a killed one has left, and books nothing twice.
"""

from __future__ import annotations

import sys

from travel import engine, trip

from stepwell import RunFailed

with engine:
    for traveller in sys.argv[1:]:
        outcome = engine.start(trip, traveller, run_id=f"trip-{traveller}", budget=600)
        spent = engine.get(outcome.run_id).spent
        print(f"{outcome.run_id}: {outcome.status}, spent {spent:g}")
        if isinstance(outcome, RunFailed):
            print(f"    {outcome.failure.message}")

"""Give a waiting ticket its verdict, in a process of its own: python resume.py RUN_ID --reviewer alice [--reject]

Exit code: 0; 1 when the run failed; 2 when there is no such run, or it does not wait for a verdict.
"""

from __future__ import annotations

import argparse
import sys

from start import tell
from workflow import Verdict, engine, review

from stepwell import RunFailed, StepwellError


def main() -> int:
    parser = argparse.ArgumentParser(description="Give a waiting ticket its verdict.")
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("--reviewer", default="a human", help="who decides")
    parser.add_argument("--note", default="", help="goes into the draft")
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument("--approve", dest="approved", action="store_true", default=True, help="the default")
    decision.add_argument("--reject", dest="approved", action="store_false")
    options = parser.parse_args()
    verdict = Verdict(options.approved, options.reviewer, options.note)
    with engine:
        try:
            outcome = engine.resume(options.run_id, review, verdict)
        except StepwellError as error:
            print(f"{error.code}: {error.message}", file=sys.stderr)
            return 2
        tell(outcome)
    return 1 if isinstance(outcome, RunFailed) else 0


if __name__ == "__main__":
    sys.exit(main())

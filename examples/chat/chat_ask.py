"""Ask a question and drive its run to the end: python chat_ask.py RUN_ID QUESTION

The same run id goes on with the same question, so kill it in the middle of an answer and start it again.
"""

from __future__ import annotations

import argparse
import sys

from chat import chat, engine

from stepwell import RunFailed, StepwellError


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a question and drive its run to the end.")
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("question", metavar="QUESTION")
    options = parser.parse_args()
    with engine:
        try:
            outcome = engine.start(chat, options.question, run_id=options.run_id)
        except StepwellError as error:
            print(f"{error.code}: {error.message}", file=sys.stderr)
            return 2
    print(f"{outcome.run_id}: {outcome.status}")
    return 1 if isinstance(outcome, RunFailed) else 0


if __name__ == "__main__":
    sys.exit(main())

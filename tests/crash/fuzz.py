"""Fuzz of the JSONL journal: damaged lines and damaged files, half of them under right checksums.

What must hold: nothing but typed errors, which name file, line and byte; and no content that is altered, or missing,
without a word. One line of JSON tells how often what came of it.

    python tests/crash/fuzz.py --lines 100000 --files 5000 --seed 1
    python tests/crash/fuzz.py --seed 1 --line 4711          one line again
    python tests/crash/fuzz.py --seed 1 --file 4711          one directory again
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

if __name__ == "__main__":  # run as a script from a bare checkout
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / "engine"), str(ROOT / "stores"), str(ROOT)]

from tests.crash.corpus import corpus
from tests.crash.fuzz_files import check_file
from tests.crash.fuzz_lines import Finding, check_line
from tests.crash.fuzz_plants import PLANTS, planted
from tests.crash.reports import Report

from stepwell import StepwellWarning

__all__ = ["CHECKS", "fuzz", "main"]

CHECKS: dict[str, Callable[[int, int], Counter[str]]] = {"line": check_line, "file": check_file}

SECONDS = 10
"""Of CPU time, for one input: a thousand times what it may take, so that only what has no end is told by it."""


def fuzz(report: Report, what: str, indices: Iterable[int], *, first: bool = False) -> Report:
    """Check the inputs of these indices under the report's seed; `what` is "line" or "file".

    Args:
        first: stop at the first finding.
    """
    check, slowest = CHECKS[what], (0.0, -1)
    corpus()  # now, so that it is nobody's time
    with _quietly():
        for index in indices:
            began = time.process_time()
            counts, findings = _checked(check, report, index, what)
            slowest = max(slowest, (time.process_time() - began, index))
            report.add(Counter({f"{what}: {name}": count for name, count in counts.items()}), findings)
            report.counts[f"{what}s"] += 1
            if first and findings:
                break
    report.facts[f"slowest {what}"] = {"ms": round(slowest[0] * 1000), "index": slowest[1]}
    return report


class Hang(BaseException):
    """An input takes far too long."""


def _hang(*_: object) -> None:
    raise Hang


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what a damaged run makes the library warn and log of."""
    logger, handler = logging.getLogger("stepwell"), signal.signal(signal.SIGPROF, _hang)
    logger.addFilter(_nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepwellWarning)
        try:
            yield
        finally:
            logger.removeFilter(_nothing)
            signal.signal(signal.SIGPROF, handler)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def _checked(
    check: Callable[[int, int], Counter[str]], report: Report, index: int, what: str
) -> tuple[Counter[str], list[str]]:
    plant = "" if report.planted is None else f" --plant {shlex.quote(report.planted)}"
    again = f"python tests/crash/fuzz.py --seed {report.seed} --{what} {index}{plant}"
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return check(report.seed, index), []
    except Finding as error:
        found = str(error)
    except Hang:
        found = f"more than {SECONDS} seconds of CPU time for one input"
    except Exception as error:  # of the fuzz itself
        error.add_note(f"again: {again}")
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Counter({"found": 1}), [f"{found}; again: {again}"]


def main(arguments: list[str] | None = None) -> int:
    """Fuzz as the command line says; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Fuzz the JSONL journal.")
    parser.add_argument("--lines", type=int, default=0, help="how many damaged lines")
    parser.add_argument("--files", type=int, default=0, help="how many damaged directories")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--line", type=int, help="the line of this index only")
    parser.add_argument("--file", type=int, help="the directory of this index only")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found")
    parser.add_argument("--first", action="store_true", help="stop at the first finding")
    given = parser.parse_args(arguments)
    report = Report("fuzz", "jsonl", "sync=off", given.seed, given.plant)
    corpus()  # before the bug is there
    with planted(given.plant):
        for what, count, only in (("line", given.lines, given.line), ("file", given.files, given.file)):
            if only is not None or count:
                fuzz(report, what, range(count) if only is None else (only,), first=given.first)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

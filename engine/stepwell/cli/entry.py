"""`main`: parse, call the verb, and turn every mistake into one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from ..errors import StepwellError
from .mistakes import BROKEN_PIPE, INTERNAL, INTERRUPTED, OK, exit_code_of
from .options import parse
from .terminal import Terminal, safe

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; those of the process when None.

    Returns:
        The exit code; `stepwell --help` lists them.
    """
    try:
        try:
            options = parse(argv)
            code: int = options.call(options, Terminal(sys.stdout))
        except SystemExit as e:  # argparse, after --help or --version
            code = e.code if isinstance(e.code, int) else OK
        sys.stdout.flush()
    except BrokenPipeError:
        _give_stdout_up()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _complain("interrupted; what was recorded stays")
        return INTERRUPTED
    except StepwellError as e:
        _complain(f"{e.code}: {' '.join(e.message.split())}")
        return exit_code_of(e)
    except Exception:  # noqa: BLE001 - a bug: its traceback is shown, and the code says so
        traceback.print_exc()
        return INTERNAL
    return code


def _complain(text: str) -> None:
    """One line on stderr, after what is on stdout."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        Terminal(sys.stderr).line(f"stepwell: {safe(text)}")


def _give_stdout_up() -> None:
    """The reader is gone: let the interpreter's last flush go nowhere, so that it doesn't complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

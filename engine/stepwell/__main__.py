"""`python -m stepwell` is the command line. Floor 5."""

from __future__ import annotations

import sys


def _main() -> int:
    from .cli import main

    return main()


if __name__ == "__main__":
    sys.exit(_main())

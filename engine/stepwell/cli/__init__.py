"""The command line, `stepwell`: look at runs and move them on from a terminal or a script. Floor 5.

It is an outside program like any other: it opens an engine, calls its public methods and prints what they give. A verb
that has to run workflow code takes it from `--app module:engine`; the others need the store only.
"""

from __future__ import annotations

from .entry import main

__all__ = ["main"]

"""`stepwell rekey`: an encrypted store under its current key, in its place; and `collect`: blobs that nobody needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ..errors import StoreMisconfiguredError
from .describing import many
from .doctoring import readable_bytes
from .mistakes import OK, UsageError
from .opening import open_engine
from .progress import Progress
from .terminal import Terminal, safe

__all__ = ["collect", "rekey"]


def rekey(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell rekey`: rewrite what is under another key, then read everything with the current one alone."""
    with open_engine(options) as engine:
        call = _found(engine.store, "rekey")
        if call is None:
            raise UsageError(
                "the store is not encrypted: name it as encrypted+URL, with the keys in STEPWELL_KEYS or by --key-file"
            )
        done = None
        with Progress(sys.stderr, "rewriting records") as progress:
            for done in call():
                what = "reading once more" if done.passes > 1 and done.share != 1 else many(done.records, "record")
                progress.show(done.share, what)
    runs, rewritten, records, heads = (
        (0,) * 4 if done is None else (done.runs, done.rewritten, done.records, done.heads)
    )
    key = None if done is None else done.key
    if options.json:
        terminal.json({"key": key, "runs": runs, "rewritten": rewritten, "records": records, "heads": heads})
    elif done is None:
        terminal.line("no runs")
    else:
        counts = ", ".join(many(number, what) for number, what in ((records, "record"), (heads, "index row")))
        terminal.line(f"{counts} of {many(rewritten, 'run')} rewritten", "bold")
        terminal.line(safe(f"{many(runs, 'run')} read with key {key!r} alone: no other is needed any more"))
    return OK


def collect(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell collect`: remove blobs that no record names."""
    with open_engine(options) as engine:
        call = _found(engine.store, "collect")
        if call is None:
            raise StoreMisconfiguredError(
                "the store has no blobs: name it as offloaded+URL?blobs=PLACE, as whoever writes it does"
            )
        with Progress(sys.stderr, "looking at blobs") as progress:
            done = call(grace=options.grace, progress=progress.show)
    if options.json:
        terminal.json({"removed": done.removed, "bytes": done.bytes, "kept": done.kept, "unknown": done.unknown})
    else:
        terminal.line(f"{many(done.removed, 'blob')} removed, {readable_bytes(done.bytes)}; {done.kept:,} kept", "bold")
        if done.unknown:
            terminal.line(f"{many(done.unknown, 'file')} there that are no blobs of a store; they stay", "dim")
    return OK


def _found(store: Any, name: str) -> Callable[..., Any] | None:
    """A method of a store or of one that it stands around."""
    while store is not None:
        method = getattr(store, name, None)
        if callable(method):
            found: Callable[..., Any] = method
            return found
        store = getattr(store, "inner", None)
    return None

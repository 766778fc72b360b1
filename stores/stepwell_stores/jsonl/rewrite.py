"""Other records in place of those in a journal: a new file in place of the old one, at once.

The head beside it knows the size and the last record of the journal that it was kept for. It is spoilt before, so that
whoever comes after a crash in between makes it again from the journal, old or new.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from stepwell.store import Head

from .files import Directory
from .journal import mark
from .runs import Run, Runs, journal

__all__ = ["rewrite"]


def rewrite(
    files: Directory,
    runs: Runs,
    run: Run,
    incarnation: int,
    from_seq: int,
    old: Sequence[bytes],
    new: Sequence[bytes],
    head: tuple[Head, Head] | None,
) -> bool:
    """Put records in place of others; see `Rewritable`. The run's lock must be held."""
    if not 0 <= incarnation <= run.incarnation or len(old) != len(new):
        return False
    if head is not None and run.head != head[0]:
        return False
    changed = run if head is None else replace(run, head=head[1])
    if old:
        _, lines, _ = runs.page(run, incarnation, 0, None)
        stop = from_seq + len(old)
        if lines[from_seq:stop] != list(old):
            return False
        lines[from_seq:stop] = new
        text = b"".join(line + b"\n" for line in lines)
        if incarnation == run.incarnation:
            changed = replace(changed, size=len(text), tail=mark(lines[-1]))
            files.spoil(f"{run.stem}.head.json")
        files.publish(journal(run.stem, incarnation), text)
    if changed is not run:
        runs.keep(changed)
    return True

"""What a disk holds and what a power cut may leave of it: the model under `simfs`.

Nothing here is changed in place. A write gives a new `File`, an unlink a new `Folder`, so that a copy of a whole disk
is a copy of one small dict.

What is promised, and nothing more:

- A sync of a file makes its bytes and its size durable, not its name. A sync of a directory makes its names durable.
- Of names that were not synced any prefix survives, in the order in which they were given and taken away.
- Of bytes that were not synced any may survive: all, none, an earlier version (the kernel writes when it likes), a mix
  of two versions that is torn at any byte, an appended tail that is cut at any byte, ends in NULs, or has NULs before
  bytes that arrived.
- After a sync that failed, the bytes that it was for count as clean: the next sync says yes and leaves them where they
  are, unless they are written again.

Source: T. S. Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014); the PostgreSQL wiki on fsync errors.
"""

from __future__ import annotations

import random
from typing import TypeAlias

from attrs import define, field, frozen

__all__ = ["ROOT", "ROOT_NODE", "Disk", "File", "Folder", "Note"]

ROOT = "/simfs"
"""Paths below it are of the model."""

ROOT_NODE = 1
SECTOR = 512

Spans: TypeAlias = tuple[tuple[int, int], ...]
Note: TypeAlias = tuple[str, str, int]
"""What a cut did to a path: (path, what, how much)."""


@frozen
class File:
    """The bytes of a file.

    Attributes:
        versions: all that may be on the disk: first what is durable for certain, last what programs see.
        dirty: spans that were written since the last sync.
        lost: spans that the kernel takes for clean though they never reached the disk.
    """

    versions: tuple[bytes, ...] = (b"",)
    dirty: Spans = ()
    lost: Spans = ()

    @property
    def data(self) -> bytes:
        """What programs see."""
        return self.versions[-1]

    def written(self, at: int, data: bytes) -> File:
        """After a write at an offset."""
        old = self.versions[-1]
        new = old + data if at == len(old) else old[:at].ljust(at, b"\0") + data + old[at + len(data) :]
        span = (at, at + len(data))
        versions = self.versions if new == old else (*self.versions, new)
        return File(versions, (*self.dirty, span), _without(self.lost, span) if self.lost else ())

    def truncated(self, size: int) -> File:
        """After a change of size."""
        old = self.versions[-1]
        if size == len(old):
            return self
        new = old[:size].ljust(size, b"\0")
        return File((*self.versions, new), _below(self.dirty, size), _below(self.lost, size))

    def synced(self) -> File:
        """After a sync that went well."""
        now = self.versions[-1]
        if not self.lost:
            return File((now,))
        stale = bytearray(now)
        for start, stop in self.lost:
            stale[start:stop] = self.versions[0][start:stop].ljust(stop - start, b"\0")
        start, stop = max(self.lost)
        # What reached the disk before stays there: only the size of what was added may be lost.
        short = bytes(stale[: max(start, len(self.versions[0]))] if stop >= len(now) else stale)
        return File((short, bytes(stale), now), (), self.lost)

    def failed(self) -> File:
        """After a sync that failed."""
        return File(self.versions, (), (*self.lost, *self.dirty))

    def survivor(self, rng: random.Random) -> tuple[bytes, str]:
        """What a power cut may leave, and in a word what it did."""
        chance = rng.random()
        if chance < 0.2:
            return self.versions[0], "old"
        if chance < 0.4:
            return self.versions[-1], "new"
        j = rng.randrange(1, len(self.versions))
        i = j - 1 if chance < 0.8 else rng.randrange(j)
        old, new = self.versions[i], self.versions[j]
        if chance < 0.5:
            return new, "version"
        if new.startswith(old):
            return _cut_tail(old, new, rng)
        return _torn(old, new, rng), "torn"


def _cut_tail(old: bytes, new: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Part of an appended tail."""
    at = rng.randint(len(old), len(new))
    if rng.random() < 0.6:
        return new[:at], "torn"
    if rng.random() < 0.7:
        at = max(len(old), at // SECTOR * SECTOR)
    if rng.random() < 0.5:
        end = min(len(new), at // SECTOR * SECTOR + SECTOR)
        return new[:at] + b"\0" * (end - at) + new[end:], "hole"
    return new[:at] + b"\0" * (rng.randint(at, len(new)) - at), "nul"


def _torn(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """A mix of two versions of the same bytes, torn where it matters: within or beside what differs."""
    both = min(len(old), len(new))
    differing = [n for n in range(both) if old[n] != new[n]]
    at = min(rng.choice((*differing, both)) + rng.randrange(2), both)
    return new[:at] + old[at:] if rng.random() < 0.7 else old[:at] + new[at:]


def _without(spans: Spans, gone: tuple[int, int]) -> Spans:
    """What is left of spans when one is taken out."""
    first, last = gone
    parts = [part for start, stop in spans for part in ((start, min(stop, first)), (max(start, last), stop))]
    return tuple((start, stop) for start, stop in parts if start < stop)


def _below(spans: Spans, size: int) -> Spans:
    return tuple((start, min(stop, size)) for start, stop in spans if start < size)


@frozen
class Folder:
    """The names in a directory. A node of None in a change takes the name away."""

    names: dict[str, int] = field(factory=dict)
    durable: dict[str, int] = field(factory=dict)
    pending: tuple[tuple[tuple[str, int | None], ...], ...] = ()

    def changed(self, *change: tuple[str, int | None]) -> Folder:
        """After one change, which happens as a whole."""
        return Folder(_applied(self.names, change), self.durable, (*self.pending, change))

    def synced(self) -> Folder:
        """After a sync that went well."""
        return Folder(self.names, self.names)

    def survivor(self, kept: int) -> dict[str, int]:
        """The names after a power cut that kept so many of the pending changes."""
        names = self.durable
        for change in self.pending[:kept]:
            names = _applied(names, change)
        return names


def _applied(names: dict[str, int], change: tuple[tuple[str, int | None], ...]) -> dict[str, int]:
    names = dict(names)
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
    return names


@define
class Disk:
    """Files and directories by node number."""

    nodes: dict[int, File | Folder] = field(factory=lambda: {ROOT_NODE: Folder()})
    newest: int = ROOT_NODE

    def copy(self) -> Disk:
        """The same disk, which can go its own way."""
        return Disk(dict(self.nodes), self.newest)

    def add(self, node: File | Folder) -> int:
        """Give a node a number."""
        self.newest += 1
        self.nodes[self.newest] = node
        return self.newest

    def contents(self) -> tuple[tuple[str, bytes], ...]:
        """All files that programs see, but the short-lived locks, whose bytes nobody reads."""
        found: list[tuple[str, bytes]] = []
        todo = [("", ROOT_NODE)]
        while todo:
            path, number = todo.pop()
            node = self.nodes[number]
            if isinstance(node, File):
                found.append((path, node.versions[-1]))
            elif not path.endswith("/.locks"):
                todo += [(f"{path}/{name}", child) for name, child in node.names.items()]
        return tuple(sorted(found))

    def settled(self) -> Disk:
        """The disk when everything was synced."""
        return Disk({number: node.synced() for number, node in self.nodes.items()}, self.newest)

    def wet(self, ending: str) -> bool:
        """Whether a file whose name ends so has bytes that are not durable."""
        return any(
            name.endswith(ending) and len(getattr(self.nodes[child], "versions", ())) > 1
            for node in self.nodes.values()
            if isinstance(node, Folder)
            for name, child in node.names.items()
        )

    def cut(self, rng: random.Random, kind: str = "any") -> tuple[Disk, list[Note]]:
        """The disk after a power cut.

        Args:
            kind: "least": only what is durable; "most": everything that programs saw; "any": a random legal state.
        """
        after, notes = Disk({}, self.newest), []
        todo = [(ROOT, ROOT_NODE)]
        while todo:
            path, number = todo.pop()
            node = self.nodes[number]
            if isinstance(node, File):
                data, what = _left(node, rng, kind)
                if what:
                    notes.append((path, what, len(data)))
                after.nodes[number] = File((data,))
                continue
            kept = _kept(len(node.pending), rng, kind)
            if kept < len(node.pending):
                notes.append((path, "names", len(node.pending) - kept))
            names = node.survivor(kept)
            after.nodes[number] = Folder(names, names)
            todo += [(f"{path}/{name}", child) for name, child in names.items()]
        return after, notes


def _left(node: File, rng: random.Random, kind: str) -> tuple[bytes, str]:
    if len(node.versions) == 1:
        return node.versions[0], ""
    if kind == "any":
        return node.survivor(rng)
    return (node.versions[0], "old") if kind == "least" else (node.versions[-1], "new")


def _kept(pending: int, rng: random.Random, kind: str) -> int:
    if kind == "least" or not pending:
        return 0
    if kind == "most":
        return pending
    return rng.choice((0, pending, rng.randint(0, pending)))

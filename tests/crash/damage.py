"""What can happen to the files of a run: bytes, lines and whole files that change, go, or change places.

The files are held as a dict before they are written, so that whoever judges the store knows every byte on the disk.
"""

from __future__ import annotations

import json
import os
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from tests.crash.corpus import Recorded, corpus
from tests.crash.mutators import change_json, mutate_line, repair_line

__all__ = ["Damaged", "damage", "head_row"]

_CRC = re.compile(rb', ?"crc": ?"[0-9a-f]{8}"}\Z')


@define
class Damaged:
    """The files of two runs, one of them damaged.

    Attributes:
        run: the one.
        other: the bystander, whose files are as they were, unless something was swapped with them.
        files: bytes by name.
        kinds: what stands in the place of a file: "directory" or "link".
        notes: what was done, in words.
        repaired: whether all checksums were made right afterwards.
    """

    run: Recorded
    other: Recorded
    files: dict[str, bytes]
    repaired: bool
    kinds: dict[str, str] = field(factory=dict)
    notes: list[str] = field(factory=list)

    def touched(self, name: str) -> bool:
        """Whether a file is not what the store wrote."""
        original = self.run.files.get(name, self.other.files.get(name))
        return name in self.kinds or self.files.get(name) != original

    def write(self, place: Path) -> None:
        """Write the files into a directory, in place of those that are there."""
        for old in os.scandir(place):
            if not old.is_dir(follow_symlinks=False):
                Path(old.path).unlink()
            elif not old.name.startswith("."):
                Path(old.path).rmdir()
        for name, data in self.files.items():
            (place / name).write_bytes(data)
        for name, kind in self.kinds.items():
            if kind == "directory":
                (place / name).mkdir()
            else:
                (place / "elsewhere").write_bytes(self.run.files.get(name, b""))
                (place / name).symlink_to(place / "elsewhere")


def damage(rng: random.Random, *, repair: bool) -> Damaged:
    """Damage one run of the corpus, in one to three ways; `repair` makes all checksums right afterwards."""
    run, other = rng.sample(corpus(), 2)
    found = Damaged(run, other, {**run.files, **other.files}, repair)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3))):
        if run.files.keys().isdisjoint(found.files):
            break  # nothing is left
        how = rng.choice(_WAYS)
        what = how(found, rng)
        found.notes.append(f"{how.__name__} {what}".replace(run.stem, "run").replace(other.stem, "other"))
    if rng.random() < 0.2:
        found.files.pop(f"{run.stem}.head.json", None)
        found.notes.append("lose head")
    if repair:
        for name in list(found.files):
            if found.touched(name) and name in run.files:
                found.files[name] = _repaired(name, found.files[name])
    return found


def head_row(data: bytes | None) -> dict[str, Any] | None:
    """What a head file says; None when it is none, by its checksum."""
    text = (data or b"").rstrip()
    match = _CRC.search(text)
    if match is None or match[0][-10:-2] != b"%08x" % zlib.crc32(text[: match.start()]):
        return None
    try:
        row: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row


def _repaired(name: str, data: bytes) -> bytes:
    if ".jsonl" in name:
        return b"\n".join(repair_line(line) if line.startswith(b"{") else line for line in data.split(b"\n"))
    text = data.rstrip()
    if not name.endswith(".head.json") and not _CRC.search(text):
        return data
    return _sealed(_CRC.sub(b"", text).removesuffix(b"}"))


def _sealed(text: bytes) -> bytes:
    return b'%b, "crc": "%08x"}\n' % (text, zlib.crc32(text))


# ---- which file


def _any(found: Damaged, rng: random.Random) -> str:
    """One of the run's files that are left, rather a journal."""
    names = [name for name in found.files if name in found.run.files]
    return rng.choice((*names, _journal(found, rng)))


def _journal(found: Damaged, rng: random.Random) -> str:
    """One of the journals that are left, rather the newest; another file when there is none."""
    names = [name for name in found.files if name in found.run.files]
    names = [name for name in names if name.endswith(".jsonl")] or names
    return rng.choice((*names, names[-1]))


def _lines(found: Damaged, name: str) -> list[bytes]:
    return found.files[name].split(b"\n")[:-1]


# ---- bytes


def flip(found: Damaged, rng: random.Random) -> str:
    name = _any(found, rng)
    data = bytearray(found.files[name])
    for _ in range(rng.choice((1, 1, 3))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    found.files[name] = bytes(data)
    return name


def cut(found: Damaged, rng: random.Random) -> str:
    name = _any(found, rng)
    found.files[name] = found.files[name][: rng.randrange(len(found.files[name]) + 1)]
    return name


def cut_at_line(found: Damaged, rng: random.Random) -> str:
    name = _journal(found, rng)
    lines = _lines(found, name)
    left = rng.choice((max(len(lines) - 1, 0), rng.randrange(len(lines) + 1)))
    found.files[name] = b"".join(line + b"\n" for line in lines[:left])
    return f"{name} after {left} lines"


def cut_newline(found: Damaged, rng: random.Random) -> str:
    name = _journal(found, rng)
    found.files[name] = found.files[name][:-1]
    return name


def nul_tail(found: Damaged, rng: random.Random) -> str:
    """Blocks that were never written, in place of the last bytes or behind them."""
    name, size = _any(found, rng), rng.choice((1, 30, 512, 4096))
    data = found.files[name]
    kept = data if rng.random() < 0.5 else data[: max(0, len(data) - size)]
    found.files[name] = kept + b"\0" * size
    return name


def append(found: Damaged, rng: random.Random) -> str:
    """Rubbish, half a record, or the line of another file, behind the last byte."""
    name = _any(found, rng)
    lines = rng.choice(rng.choice(corpus()).histories)
    line, newer = rng.choice(lines), b'{"v":2,"type":"x"}\n'
    more = rng.choice((b"\n", b" ", b"junk", rng.randbytes(40), line[:30], line + b"\n", b"{}\n", newer, newer))
    found.files[name] += more
    return f"{name}: {more[:20]!r}"


# ---- lines


def change_line(found: Damaged, rng: random.Random) -> str:
    name = _journal(found, rng)
    lines = _lines(found, name)
    if not lines:
        return name
    at = rng.choice((rng.randrange(len(lines)), 0, len(lines) - 1))
    lines[at] = mutate_line(lines[at] or b"{}", rng.choice(lines) or b"{}", rng, repair=found.repaired)
    found.files[name] = b"".join(line + b"\n" for line in lines)
    return f"{name}, line {at + 1}"


def rearrange(found: Damaged, rng: random.Random) -> str:
    """Lines that come twice, change places, or go."""
    name = _journal(found, rng)
    lines = _lines(found, name)
    if len(lines) < 2:
        return name
    at, to = rng.sample(range(len(lines)), 2)
    how = rng.choice(("twice", "swapped", "deleted"))
    if how == "twice":
        lines.insert(to, lines[at])
    elif how == "swapped":
        lines[at], lines[to] = lines[to], lines[at]
    else:
        del lines[at]
    found.files[name] = b"".join(line + b"\n" for line in lines)
    return f"{name}, line {at + 1} {how}"


# ---- files


def change_row(found: Damaged, rng: random.Random) -> str:
    """Another value in the head or the fence, under the old checksum or a right one."""
    names = [name for name in found.files if name in found.run.files and name.endswith((".json", ".fence"))]
    if not names:
        return "nothing"
    name = rng.choice(names)
    text = found.files[name].rstrip()
    match = _CRC.search(text)
    if match is None and not found.repaired:
        return name  # nothing could tell
    changed = change_json(_CRC.sub(b"}", text) or b"{}", rng)
    found.files[name] = changed if match is None else changed.removesuffix(b"}") + match[0]
    return name


def lag(found: Damaged, rng: random.Random) -> str:
    """The head of an earlier moment, as a power cut may leave it: that is no damage."""
    name = f"{found.run.stem}.head.json"
    found.kinds.pop(name, None)
    found.files[name] = rng.choice(found.run.heads)
    return f"head by {len(found.run.heads) - found.run.heads.index(found.files[name])}"


def swap(found: Damaged, rng: random.Random) -> str:
    """Two files change places: of two runs, or two incarnations of one."""
    name = _any(found, rng)
    ending = name.removeprefix(found.run.stem)
    others = [f"{found.other.stem}{ending}", *(n for n in found.run.files if n.endswith(ending[-6:]) and n != name)]
    other = rng.choice([n for n in others if n in found.files] or [name])
    found.files[name], found.files[other] = found.files[other], found.files[name]
    return f"{name} and {other}"


def lose(found: Damaged, rng: random.Random) -> str:
    name = _any(found, rng)
    del found.files[name]
    return name


def empty(found: Damaged, rng: random.Random) -> str:
    name = _any(found, rng)
    found.files[name] = b""
    return name


def replace(found: Damaged, rng: random.Random) -> str:
    """A directory or a link has the name."""
    name = _any(found, rng)
    del found.files[name]
    found.kinds[name] = kind = rng.choice(("directory", "link"))
    return f"{name} by a {kind}"


_WAYS: tuple[Callable[[Damaged, random.Random], str], ...] = (
    flip,
    flip,
    flip,
    cut,
    cut,
    cut_at_line,
    cut_at_line,
    cut_newline,
    nul_tail,
    append,
    append,
    change_line,
    change_line,
    change_line,
    rearrange,
    rearrange,
    change_row,
    change_row,
    lag,
    swap,
    swap,
    lose,
    lose,
    empty,
    replace,
)

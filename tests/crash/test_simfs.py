"""The simulated file system itself: what it keeps, what it may lose, and that it leaves the real one alone."""

# The calls of os are what is tested here.
# ruff: noqa: PTH102, PTH105, PTH108, PTH208

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.simfs import Computer, Fault, Killed

NEW = os.O_RDWR | os.O_CREAT


@pytest.fixture
def computer() -> Iterator[Computer]:
    computer = Computer()
    with computer.installed():
        os.mkdir("/simfs/d")
        sync("/simfs")
        yield computer


def put(path: str, data: bytes, *, synced: bool = False, flags: int = NEW | os.O_APPEND) -> None:
    """Write to a file."""
    fd = os.open(path, flags)
    os.write(fd, data)
    if synced:
        os.fdatasync(fd)
    os.close(fd)


def sync(path: str) -> None:
    """Sync a file or a directory."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def after(computer: Computer, kind: str = "any", seed: int = 0) -> dict[str, bytes]:
    """The files that are left by a power cut."""
    return dict(computer.disk.cut(random.Random(seed), kind)[0].contents())


def possible(computer: Computer) -> set[bytes | None]:
    """What a cut may leave of the file `f`."""
    return {after(computer, seed=seed).get("/d/f") for seed in range(1000)}


def test_a_synced_file_without_its_name_is_lost(computer: Computer) -> None:
    put("/simfs/d/f", b"abc", synced=True)
    assert {} == after(computer, "least")
    assert {None, b"abc"} == possible(computer)


def test_a_synced_name_holds_what_was_synced(computer: Computer) -> None:
    put("/simfs/d/f", b"abc", synced=True)
    sync("/simfs/d")
    put("/simfs/d/f", b"def")
    assert {"/d/f": b"abc"} == after(computer, "least")
    assert {"/d/f": b"abcdef"} == after(computer, "most")


def test_a_tail_that_was_not_synced_is_cut_anywhere_or_ends_in_nuls(computer: Computer) -> None:
    """Shows S10 (P1)."""
    put("/simfs/d/f", b"a", synced=True)
    sync("/simfs/d")
    put("/simfs/d/f", b"bc")
    assert {b"a", b"ab", b"abc", b"a\0", b"a\0\0", b"ab\0"} == possible(computer)


def test_holes_are_made(computer: Computer) -> None:
    put("/simfs/d/f", b"a", synced=True)
    sync("/simfs/d")
    put("/simfs/d/f", b"b" * 1023)
    assert b"a" + b"\0" * 511 + b"b" * 512 in possible(computer)


def test_an_overwritten_file_is_old_or_new_or_torn_anywhere(computer: Computer) -> None:
    put("/simfs/d/f", b"abc", synced=True)
    sync("/simfs/d")
    put("/simfs/d/f", b"XYZ", flags=os.O_RDWR)
    assert {b"abc", b"XYZ", b"Xbc", b"XYc", b"aYZ", b"abZ"} == possible(computer)


def test_names_survive_in_their_order(computer: Computer) -> None:
    for name in "abc":
        put(f"/simfs/d/{name}", b"", synced=True)
    found = {tuple(after(computer, seed=seed)) for seed in range(100)}
    assert {(), ("/d/a",), ("/d/a", "/d/b"), ("/d/a", "/d/b", "/d/c")} == found


def test_a_rename_happens_as_a_whole(computer: Computer) -> None:
    put("/simfs/d/f", b"old", synced=True)
    put("/simfs/d/g", b"new", synced=True)
    sync("/simfs/d")
    os.replace("/simfs/d/g", "/simfs/d/f")
    found = {tuple(sorted(after(computer, seed=seed).items())) for seed in range(100)}
    assert {(("/d/f", b"new"),), (("/d/f", b"old"), ("/d/g", b"new"))} == found


def test_a_sync_after_one_that_failed_says_yes_and_does_nothing(computer: Computer) -> None:
    put("/simfs/d/f", b"a", synced=True)
    sync("/simfs/d")
    fd = os.open("/simfs/d/f", os.O_RDWR | os.O_APPEND)
    os.write(fd, b"b")
    computer.faults = {("fsync", 0): Fault("EIO")}
    with pytest.raises(OSError, match="Input/output error"):
        os.fsync(fd)
    os.fsync(fd)
    assert {"/d/f": b"a"} == after(computer, "least")
    other = os.open("/simfs/d/f", os.O_RDWR)
    os.pwrite(other, b"b", 1)
    os.fsync(other)
    assert {"/d/f": b"ab"} == after(computer, "least")


def test_a_killed_process_leaves_its_bytes_and_no_locks(computer: Computer) -> None:
    fd = os.open("/simfs/d/f", NEW)
    fcntl.flock(fd, fcntl.LOCK_EX)
    first = computer.pid
    computer.begin_process()
    other = os.open("/simfs/d/f", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second, computer.pid = computer.pid, first
    computer.faults = {("write", 0): Fault("kill", 0.5)}
    with pytest.raises(Killed):
        os.write(fd, b"abcd")
    with pytest.raises(Killed):
        os.unlink("/simfs/d/f")
    computer.pid = second
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert b"ab" == os.read(other, 9)


def test_a_short_write_takes_at_least_a_byte(computer: Computer) -> None:
    computer.faults = {("write", 0): Fault("short", 0.0)}
    fd = os.open("/simfs/d/f", NEW)
    assert 1 == os.write(fd, b"abc")


def test_real_files_are_left_alone(computer: Computer, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"real")
    os.replace(path, tmp_path / "g")
    assert ["g"] == os.listdir(tmp_path)
    assert b"real" == (tmp_path / "g").read_bytes()
    assert not Path("/simfs").is_file()


def test_a_failed_sync_of_bytes_that_were_on_the_disk_does_not_shorten_the_file(computer: Computer) -> None:
    """Written again in their place, as a store does that can't know whether they were ever synced."""
    put("/simfs/d/f", b"abc", synced=True)
    sync("/simfs/d")
    fd = os.open("/simfs/d/f", os.O_RDWR)
    os.write(fd, b"abcde")
    computer.faults = {("fsync", 0): Fault("EIO")}
    with pytest.raises(OSError, match="Input/output"):
        os.fdatasync(fd)
    os.fdatasync(fd)
    os.close(fd)
    assert all(left is not None and left.startswith(b"abc") for left in possible(computer))

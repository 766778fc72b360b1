"""Where a store may be kept: never on a network file system, unless somebody insists."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import HeadFilter
from stepwell_stores import open_store
from stepwell_stores.filesystems import is_network, kind_in, kind_of

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /home/ada/nas rw - nfs4 server:/export rw,vers=4.2
31 22 0:41 / /mnt/my\\040share rw master:1 shared:7 - cifs //server/share rw
32 22 0:42 / /data rw - ext4 /dev/sdb1 rw
33 32 0:43 / /data rw - fuse.sshfs me@host:/ rw
34 22 0:44 / /dat rw - xfs /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc/runs", "ext4"),
        ("/home/ada/runs", "ext4"),
        ("/home/ada/nas", "nfs4"),
        ("/home/ada/nas/runs", "nfs4"),
        ("/home/ada/nas2", "ext4"),
        ("/mnt/my share/x", "cifs"),
        ("/data/runs", "fuse.sshfs"),
        ("/dat/runs", "xfs"),
    ],
)
def test_the_innermost_and_newest_mount_decides(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert kind == kind_in(str(tmp_path / "mountinfo"), path)


def test_where_the_system_does_not_tell_nothing_is_refused(tmp_path: Path) -> None:
    assert kind_in(str(tmp_path / "none"), "/data") is None
    assert not is_network(None)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.s3fs", "ceph", "glusterfs"])
def test_network_and_user_space_file_systems_are_known(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "fuseblk"])
def test_local_ones_are_trusted(kind: str) -> None:
    assert not is_network(kind)


@pytest.fixture
def user_space(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system in user space."""
    missing = [what for what in ("bindfs", "umount") if shutil.which(what) is None]
    if missing or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip(f"needs root, /dev/fuse and bindfs; missing: {missing or 'root or /dev/fuse'}")
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    mount.mkdir()
    done = subprocess.run(["bindfs", source, mount], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        pytest.skip(f"bindfs can't mount here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True, timeout=30)


@pytest.mark.parametrize("url", ["file:{}/runs", "sqlite:///{}/runs.db"])
def test_a_store_there_is_refused_before_anything_is_written(user_space: Path, url: str) -> None:
    store = open_store(url.format(user_space))
    with pytest.raises(StoreMisconfiguredError, match=r"network.*network=allow"):
        store.heads(HeadFilter(), limit=1)
    store.close()
    assert [] == list(user_space.iterdir())


@pytest.mark.parametrize("url", ["file:{}/runs?network=allow", "sqlite:///{}/runs.db?network=allow"])
def test_who_insists_gets_one_whose_power_cuts_nobody_vouches_for(user_space: Path, url: str) -> None:
    store = open_store(url.format(user_space))
    assert [] == store.heads(HeadFilter(), limit=1)
    assert store.durability.power_loss is None
    assert is_network(store.durability.settings["file_system"])
    store.close()


def test_this_directory_has_a_kind(tmp_path: Path) -> None:
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("the system does not tell")
    assert kind_of(str(tmp_path))

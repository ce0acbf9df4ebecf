"""Sessions of ZFS datasets, with a program in the place of zfs(8) that takes what its manual allows: tests/pretendzfs.py."""

from __future__ import annotations

from pathlib import Path

from comparing import Batch, Case

TESTS = Path(__file__).parents[1]
CONFIGURATION = """\
[zf]
type=zfs-snapshot
zfs-dataset=tank/a
zfs-snapshot-options=-o acme:why=this
profile=minimal

[zl]
type=zfs-snapshot
zfs-dataset=tank/b
mount-options=-o noatime
location=/inner
profile=minimal
"""
POOL = '{"tank/a": "/srv/root", "tank/b": "/srv/archive"}'
INSTALL = f'import pretendzfs; pretendzfs.install("/run/zbin", "/run/zfs", {POOL})'
BATCH = Batch(
    CONFIGURATION,
    f"""
mkdir /run/zbin; PYTHONPATH={TESTS} python3 -B -c '{INSTALL}'; mount -t overlay -o lowerdir=/run/zbin:/usr/sbin z /usr/sbin
(cat /proc/filesystems; echo nodev zfs) >/run/known; mount --bind /run/known /proc/filesystems; zfs list -H
"""
    + r"""
schroot -c zf -- sh -c 'echo one >/in; cat /in; ls -d /bin/busybox /proc/self; pwd'; schroot -c zf -- ls /in
zfs list -H; grep -c @ /run/zfs/datasets
schroot -b -c zf -n s; zfs list -H; zfs get -H -o value,source acme:why tank/a@s; schroot -r -c s -- touch /new
reboot; schroot --recover-session -c s; schroot -r -c s -- ls /new
schroot -b -c zf -n t; zfs list -H; schroot -r -c t -- ls /new; schroot -e -c s -c t; zfs list -H
schroot -b -c zl -n s; schroot --location -c session:s | grep -o s/inner; schroot -e -c s; zfs list -H
schroot -c source:zf -- touch /edited; schroot -c zf -- ls /edited; zfs list -H
umount /proc/filesystems
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_is_left() -> None:
    assert BATCH.left == []

"""Sessions of images, devices and subvolumes: the same files in the same places, kept or thrown away the same."""

from __future__ import annotations

from comparing import Batch, Case

CONFIGURATION = """\
[lo]
type=loopback
file=/srv/lo.img
mount-options=-o noatime
profile=minimal

[loo]
type=loopback
file=/srv/loo.img
union-type=overlay
profile=minimal

[loi]
type=loopback
file=/srv/loi.img
location=/inner
profile=minimal

[shut]
type=loopback
file=/srv/shut.img
profile=minimal

[bd]
type=block-device
device=/dev/disk-a
mount-options=-t ext4 -o nosuid,nodev -o noatime
profile=minimal

[bdo]
type=block-device
device=/dev/disk-b
mount-options=-o noatime
union-type=overlay
location=/inner
profile=minimal

[bt]
type=btrfs-snapshot
btrfs-source-subvolume=/srv/pool/source
btrfs-snapshot-directory=/srv/pool/snapshots
profile=minimal
"""
# An image of the usual root, or of a directory that has it inside.
PREPARED = r"""
image() { truncate -s 16M /srv/$1.img && mke2fs -q -t ext4 -d "$2" /srv/$1.img 2>&1; }; for n in lo loo shut a; do image $n /srv/root; done; image loi /srv/archive; image b /srv/archive
for n in a b; do ln -s "$(losetup --find --show /srv/$n.img)" /dev/disk-$n; done
truncate -s 120M /srv/pool.img; mkfs.btrfs -q /srv/pool.img >/dev/null 2>&1; mkdir /srv/pool; mount -o loop /srv/pool.img /srv/pool
btrfs -q subvolume create /srv/pool/source; cp -a /srv/root/. /srv/pool/source; mkdir /srv/pool/snapshots
"""
LASTS = """
schroot -b -c {0} -n s; schroot -r -c s -- touch /new; reboot; {1} schroot --recover-session -c s; schroot -r -c s -- ls /new
schroot -r -c s -- sh -c 'cat /etc/debian_chroot; ls -d /proc/self /sys/block'
schroot -e -c s; schroot -l --all-sessions; schroot -c {0} -- ls /new 2>/dev/null
"""
# What the administrator has mounted is mounted again at boot; the tool takes away what is the sessions'.
BATCH = Batch(
    CONFIGURATION,
    PREPARED
    + r"""
schroot -c lo -- sh -c 'echo one >/file; cat /file; grep " / " /proc/mounts | cut -d" " -f3,4'
schroot -c lo -- cat /file /etc/debian_chroot
schroot -c lo -- sh -c 'ls /; ls -d /proc/self'; losetup -j /srv/lo.img | wc -l
schroot -c loo -- touch /mark; schroot -c loo -- ls /mark
schroot -c loo -- sh -c 'ls / | grep -v lost; cut -d: -f1 /etc/passwd | head -n 1'
schroot -c source:loo -- touch /mark; schroot -c loo -- ls /mark
schroot -c loo -c loi -- pwd
schroot -b -c loo -n s; schroot -b -c loo -n t; schroot -r -c s -- touch /one; schroot -r -c t -- ls /one; losetup -j /srv/loo.img | wc -l; schroot -e -c s -c t
losetup -j /srv/loo.img | wc -l
schroot -c loi -- sh -c 'touch /in; ls /in /bin/busybox'; schroot -c loi -- ls /in
schroot -b -c loi -n s; schroot --location -c session:s | grep -o s/inner; schroot -e -c s
schroot -c bd -- sh -c 'touch /in; grep " / " /proc/mounts | cut -d" " -f3,4'; schroot -c bd -- ls /in
schroot -c bdo -- sh -c 'touch /in; ls /in; pwd'; schroot -c bdo -- ls /in
schroot -c source:bdo -- touch /in; schroot -c bdo -- ls /in
schroot -b -c bdo -n s; schroot --location -c session:s | grep -o s/inner; schroot -e -c s
schroot -c bt -- sh -c 'touch /in; ls /in /; pwd'; schroot -c bt -- ls /in; ls /srv/pool/snapshots /srv/pool/source | grep in
schroot -c source:bt -- touch /in; schroot -c bt -- ls /in
schroot -b -c bt -n s; ls /srv/pool/snapshots; schroot -b -c bt -n t; ls /srv/pool/snapshots; schroot -e -c s -c t; ls /srv/pool/snapshots
schroot -b -c bt -n s; btrfs -q subvolume create /srv/pool/snapshots/s/nested; schroot -e -c s; ls /srv/pool/snapshots  #~ nested-subvolumes: output messages
ls -d /srv/pool/snapshots/s && btrfs -q subvolume delete /srv/pool/snapshots/s/nested /srv/pool/snapshots/s            #~ nested-subvolumes: status output messages
chmod 666 /srv/shut.img; schroot -c shut -- true                                                      #~ step-messages: messages
chmod 600 /srv/shut.img; chown nobody /srv/shut.img; schroot -c shut -- true                          #~ step-messages: messages
rm /dev/disk-a; ln -s null /dev/disk-a; schroot -c bd -- true                                         #~ step-messages: messages
"""
    + LASTS.format("lo", "")
    + LASTS.format("loo", "")
    + LASTS.format("bdo", "")
    + LASTS.format("bt", "")
    + """
umount /srv/pool; for n in a b; do losetup -d "$(losetup -j /srv/$n.img | cut -d: -f1)"; done
for n in lo loo loi shut a b pool; do losetup -j /srv/$n.img; done
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_is_left() -> None:
    assert BATCH.left == []

"""Every type of chroot on the command line: looked up, printed, and refused where it cannot be begun.

What is printed of each, and of sessions of each, is compared in full in tests/kernel/test_schroot_types.py.
"""

from __future__ import annotations

from comparing import Batch, Case

TYPES = """\
[bd]
type=block-device
device=/dev/nosuch
mount-options=-o noatime
location=/inner

[bdo]
type=block-device
device=/dev/nosuch
union-type=overlay
aliases=bda

[loop]
type=loopback
file=/srv/nosuch
union-type=overlay
source-clone=false

[lvm]
type=lvm-snapshot
device=/dev/nosuch
lvm-snapshot-options=--size 2G
aliases=lva,default
source-root-users=root

[btrfs]
type=btrfs-snapshot
btrfs-source-subvolume=/srv/nosuch
btrfs-snapshot-directory=/srv/nosuch
aliases=bta

[zfs]
type=zfs-snapshot
zfs-dataset=no/such
aliases=zfa

[own]
type=custom
profile=none
setup.fstab=
setup.copyfiles=
setup.nssdatabases=
aliases=mine
"""
# Mounts the root of a custom chroot as scripts for schroot do: nobody else makes its mount point or takes it away.
ROOT = """#!/bin/sh
[ "$CHROOT_TYPE" = custom ] || exit 0
[ ! -e /run/no-root ] || exit 0
if [ "$1" = setup-stop ]; then
    umount "$CHROOT_MOUNT_LOCATION" && rmdir "$CHROOT_MOUNT_LOCATION"
else
    mkdir -p "$CHROOT_MOUNT_LOCATION"
    mountpoint -q "$CHROOT_MOUNT_LOCATION" || mount --bind /srv/root "$CHROOT_MOUNT_LOCATION"
fi
"""

BATCH = Batch(
    TYPES,
    r"""
schroot -l
schroot -l --exclude-aliases
schroot -l --all-source-chroots
schroot -l -c source:loop
schroot -l -c source:bd
schroot -l -c source:own
schroot -l -c bda-source -c lva-source -c default-source -c bta-source -c source:zfa
schroot -l -c lvm-source
schroot -i
schroot -i --all-source-chroots
schroot --config
schroot --location
schroot --location -c bd -c lvm -c source:lvm -c own
schroot -c mine -- sh -c 'ls /; exit 7'
schroot -c own -- true; schroot -l --all-sessions
schroot -b -c own -n s1
schroot -i -c session:s1; schroot --config -c session:s1; schroot --location -c session:s1            #~ custom-keys: messages
schroot -r -c s1 -- sh -c 'cat /etc/debian_chroot; ls -d /root; pwd'                                  #~ custom-keys: messages
reboot; schroot --recover-session -c s1; schroot -r -c s1 -- ls -d /root                              #~ custom-keys: messages
schroot -e -c s1; ls /run/schroot/mount /run/chroot-sessions/mount 2>/dev/null | grep s1; schroot -l --all-sessions  #~ custom-keys: messages
touch /run/no-root; schroot -c own -- true; echo $?; rm /run/no-root                                  #~ custom-root: messages
schroot -c bd -- true                                                                                 #~ missing-source: status messages
schroot -b -c source:bda -n s2                                                                        #~ missing-source: status messages
schroot -c loop -- true                                                                               #~ missing-source: status messages
schroot -c default -- true                                                                            #~ logical-volumes: status messages
schroot -c btrfs -- true                                                                              #~ step-messages: messages
schroot -c zfs -- true                                                                                #~ kernel-modules: messages
schroot -l --all-sessions
conf '[a]\ntype=custom\ncustom-session-purgeable=true\n'; schroot -q -l -c a                          #~ custom-keys: messages
conf '[a]\ntype=custom\ncustom-session-cloneable=true\n'; schroot -q -l -c a                          #~ custom-keys: status output messages
conf '[a]\ntype=custom\ncustom-session-cloneable=false\n'; schroot -q -i -c a | grep Managed          #~ custom-keys: messages
conf '[a]\ntype=custom\ncustom-source-cloneable=true\n'; schroot --config -c a | grep ^custom         #~ custom-keys: output
conf '[a]\ndirectory=/srv\nsetup.fstab=../x\n'; schroot -q -l -c a                                    #~ setup-files: status output messages
conf '[a]\ndirectory=/srv\nprofile=../x\n'; schroot -q -l -c a                                        #~ setup-files: status output messages
conf '[a]\ndirectory=/srv\ndescription=\377\n'; schroot -q -l -c a                                    #~ not-utf: status output messages
conf '[a]\ndirectory=/srv\ndescription=a\000b\n'; schroot -q -l -c a                                  #~ not-utf: status output messages
n=$(printf %0200d 7); conf "[$n]\ndirectory=/srv/root\n"; schroot -c $n -- pwd
n=$(printf %0201d 7); conf "[$n]\ndirectory=/srv/root\n"; schroot -c $n -- pwd 2>/dev/null             #~ lengths: status output log
schroot -q -b -c own -n $(printf %0201d 7) 2>/dev/null; echo $?; schroot -q -e --all-sessions 2>/dev/null  #~ lengths: output
conf '[a]\ndirectory=/srv\n# %01100000d\n'; schroot -q -l -c a                                       #~ lengths: status output messages
conf '[a]\ndirectory=/srv\naliases=b\n[b]\ndirectory=/b\n'; schroot --location -c b                   #~ first-definition: status output messages
conf '[a]\ndirectory=/a\n' x; conf '[a]\ndirectory=/b\n' y; schroot --location -c a; rm /etc/schroot/chroot.d/*  #~ first-definition: output messages
conf '[a]\ndirectory=/srv\naliases=a,b,b\n'; schroot --config -c a 2>/dev/null | grep ^aliases        #~ taken-aliases: output
# Debian's schroot gives up after two seconds.
python3 -c 'import fcntl, os; f = open("/etc/schroot/schroot.conf", "r+"); fcntl.lockf(f, fcntl.LOCK_EX); os.system("schroot -l -c own")'  #~ configuration-locks: output messages
""",
    {"/etc/schroot/setup.d/05root": ROOT},
)  # fmt: skip


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_is_left() -> None:
    assert BATCH.left == []

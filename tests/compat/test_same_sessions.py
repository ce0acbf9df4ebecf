"""Sessions: automatic ones, and those that are begun, used, recovered and ended."""

from comparing import Batch, Case
from configurations import USUAL

BATCH = Batch(
    USUAL,
    r"""
# Automatic.
schroot -c ov -- env
schroot -c ova-source -- sh -c 'echo $SCHROOT_ALIAS_NAME $SCHROOT_CHROOT_NAME'
schroot -c source:ova -- sh -c 'echo $SCHROOT_ALIAS_NAME $SCHROOT_CHROOT_NAME'
schroot -c ov -c plain -- sh -c 'echo $SCHROOT_CHROOT_NAME; test $SCHROOT_CHROOT_NAME = ov'
schroot -c ov -c nosuch -- touch /tmp/mark
schroot -c dir -u nobody -- id
rm -rf /srv/layers; schroot -c pre -- true   #~ layer-directory: status messages log
mkdir -p /srv/layers
schroot -c pre -- sh -c 'echo $X $SCHROOT_COMMAND; ls /proc'
schroot -c tar -- ls /
schroot -c ov -d /nonexistent -- true
schroot -c ov -- nosuch
schroot -c ov -- sh -c 'kill -SEGV $$'
schroot -q -c ov -- sh -c 'kill -SEGV $$'
schroot -c ov -- sh -c 'exit 9'
schroot -c ov -c dir -- sh -c 'exit 9'
schroot -v -c ov -- true                    #~ verbose: messages
schroot -q -c ov -- true
schroot -c ov -- touch /mark; ls /srv/root
schroot -c source:ov -- touch /mark; ls /srv/root; rm /srv/root/mark
schroot -c ov -- sh -c ': >/dev/null; sleep 100 </bin/sh >/bin/x 2>&1 & exit 6'
schroot -c ov -- sh -c 'mount -t tmpfs none /tmp; exit 4'
schroot -c ov -- sh -c 'cat /etc/debian_chroot'
schroot -c ov -- cat <&-                    #~ closed-descriptors: status messages log
echo in | schroot -c ov -- cat
schroot -c ov -- echo x >/dev/full
schroot -c ov -- echo x 2>&-
schroot -c dir -- sh -c 'cat /etc/debian_chroot; cut -d: -f1 /etc/passwd | head -n 3'
schroot -l --all-sessions

# Keys of one session.
schroot -o foo.bar=2 -c ov -- true
schroot -o foo.baz=2 -c ov -- true
schroot -o nope.x=2 -c ov -- true
schroot -o nope.x=2 -q -c ov -- true
schroot -o nope -u nobody -c ov -- true
schroot -o directory=/ -c ov -- true
schroot -o =x -c plain
schroot -o foo.bar=2 -c plain -- true
schroot -o foo.bar=2 -l
schroot -o '' -c ov -- true

# Begun to last.
schroot -b -c ov -n s1 -o foo.bar=7 -o foo.bar=8 -o foo.baz
schroot -b -c ov -n s1
schroot -b -c dir -n s1
schroot -b -q -c ov -n s1
schroot -b -c source:ov -n s2
schroot -b -c tt -n tar
schroot -b -c dir
schroot -b -c ov -n ''
schroot -b -c source:tar -n s6 -u nobody pwd
schroot -bc ov -n ov
schroot -i -c session:s1 -c session:s6
schroot --config -c session:s1 -c session:s6
schroot -r -c s1 -- pwd
schroot -rc s1 pwd
schroot -r -c session:s1 -c s1 -- sh -c 'echo hi; exit 3'
schroot -r -c chroot:s1 -- pwd
schroot -r -c source:s1 -- pwd
schroot -r -c s1 -- env
schroot -r -u nobody -c s2 -- env
schroot -r -c s1 -o nope.x=1 -- pwd
schroot -r -c s1 -o foo.bar=1 -- pwd
schroot -c s1 -- pwd
schroot -c session:s1 -- pwd
schroot -b -c session:s1
schroot -v -u nobody -r -c s1 -- id -un
schroot -r -c s1; schroot -v -r -c s1
schroot -r -c s1 -- touch /kept; schroot -r -c s1 -- ls /kept; ls /srv/root
schroot -r -c s1 -- sh -c 'exit 9'
schroot -r -c s1 -- nosuch
schroot -r -c s1 -- sh -c 'kill -9 $$'
schroot -r --all-chroots -- pwd
schroot -r --all-sessions -- pwd
schroot -r --all-sessions -- sh -c 'exit 3'
schroot --recover-session -c s2 -o nope.x=1
schroot -e -c s1 -c nosuch
schroot -e -c s1 pwd
schroot -e -c s1
schroot -r -c s1 -- pwd
schroot -e -c session:s2 -o nope.x=1
schroot -e -c s2 -c session:s6
schroot -e --all-sessions
schroot -e --all-sessions
schroot -v -r --all-sessions -- pwd
schroot -l --all-sessions

# Something with a long name, and with that of another chroot.
schroot -b -c ov -n dir; schroot -r -c dir -- sh -c 'echo $SCHROOT_SESSION_ID'; schroot -e -c dir
n=$(printf %0200d 7); schroot -b -c ov -n $n; schroot -r -c $n -- pwd; schroot -e -c $n

# A layer in a directory of one's own.
schroot -b -c pre -n s1; ls /srv/layers; schroot -e -c s1; ls /srv/layers
schroot -b -c tar -n s1; ls STATE 2>/dev/null; schroot -r -c s1 -- touch /x; schroot -e -c s1; tar -tf /srv/root.tar | grep x$
schroot -c source:tar -- touch /new; schroot -c tar -- ls /new
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

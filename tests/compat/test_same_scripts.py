"""Setup scripts: which run, in which order, with what environment at every stage, and what comes of it if they fail."""

from __future__ import annotations

from comparing import Batch, Case
from configurations import USUAL

# What schroot installs, and where, is its own; the rest of the environment is as it has it.
DUMP = """\
#!/bin/sh
echo "$0 $*" | sed 's,.*/,,'
env | grep -v -e ^MOUNT_DIR= -e ^LIBEXEC_DIR= -e ^DATA_DIR= -e ^SETUP_DATA_DIR= -e ^SESSIONS_ -e ^PID= -e ^PWD= | sort
"""
CONTEXT = """\
#!/bin/sh
[ -e /run/tell ] || exit 0
pwd; umask; id -u; id -g; id -G | wc -w; ls /proc/self/fd | wc -l
"""
MISCHIEF = """\
#!/bin/sh
[ ! -e /run/mischief ] || . /run/mischief
"""
CONFIGURATION = f"""\
{USUAL}
[quiet]
type=directory
directory=/srv/root
profile=minimal
message-verbosity=quiet

[own]
type=directory
directory=/srv/root
union-type=overlay
profile=minimal
setup.fstab=default/fstab
setup.copyfiles=
my.own-key=a b=c
my.empty=
aliases=mine
"""
FILES = {"/etc/schroot/setup.d/01dump": DUMP}
NAMES = ("17a", "17-d", "17n.o-p", "_17i-j", "17_b", "17.c", "17a~", "17E", ".17f", "17g.sh", "17k-l.m", "17x.dpkg-old")

# 01dump prints its environment, which ends up on standard error; the rest is what the chroots differ in.
ENVIRONMENTS = Batch(
    CONFIGURATION,
    r"""
schroot -c plain -- true
schroot -c dir -- true
schroot -c dd -- true
schroot -c ov -- true
schroot -c ova -u nobody -- true
schroot -c source:ov -- true
schroot -c ova-source -- true
schroot -c tar -- true
schroot -c source:tar -- true
schroot -c pre -- true
schroot -c own -- true
schroot -c mine -- true
conf '[old]\ntype=directory\ndirectory=/srv/root\nscript-config=minimal/config\n'; schroot -c old -- true  #~ configuration-messages: messages
schroot -q -c dir -- true
schroot -c quiet -- true
schroot -o foo.bar=2 -o foo.baz=3 -c ov -- true
schroot -o foo.bar= -c ov -- true
SECRET=1 PATH=/x:/bin:/usr/bin schroot -p -c dir -- true

# Begun, recovered, ended: told of the call at hand.
schroot -b -c dir -n s1
schroot --recover-session -c s1
schroot -q -e -c s1
schroot -b -c ova -n s2 -u nobody -o foo.bar=2
schroot -e -c s2
schroot -b -c tar -n s3
schroot -q -e -c s3
schroot -b -c source:tar -n s4
schroot -e -c s4                            #~ source-stays-source: messages
schroot -b -c source:ov -n s5
schroot -e -c s5                            #~ source-stays-source: messages
schroot -b -c mine -n s6
schroot -e -c s6 -u nobody -o foo.bar=3
schroot -b -c ov -n s7 -o foo.bar=2
schroot -e -c s7 -u nobody -o foo.bar=3
schroot -q -b -c dir -n s8
schroot -e -c s8
schroot -e -c s6
schroot -l --all-sessions
""",
    {**FILES, "/srv/layers/.keep": ""},
)

ORDER = Batch(
    CONFIGURATION,
    r"""
schroot -c dir -- true
schroot -v -c quiet -- true 2>&1 | grep -e '[‘ ]_*17'
touch /run/tell; schroot -c quiet -- true; rm /run/tell
touch /run/tell; cd /tmp; (umask 077; schroot -c quiet -- true); rm /run/tell
touch /run/tell; schroot -c quiet -- true 7</dev/null; rm /run/tell     #~ descriptors: messages
schroot -c quiet -- sh -c 'ls /proc/self/fd | wc -l' 7</dev/null        #~ descriptors: output
echo 'read line; echo "<$line>"' >/run/mischief; echo text | schroot -c quiet -- cat; rm /run/mischief     #~ script-input: output messages
echo 'echo out; echo err >&2; echo' >/run/mischief; schroot -c quiet -- true 2>&1 | sort; rm /run/mischief
echo 'printf "one\ntwo"' >/run/mischief; schroot -c quiet -- true; rm /run/mischief                #~ last-line: messages
echo 'echo "$1 $2"; exit 3' >/run/mischief; schroot -c quiet -- true; rm /run/mischief       #~ step-messages: messages
echo 'exit 3' >/run/mischief; schroot -q -c quiet -- echo no; rm /run/mischief               #~ step-messages: messages
echo 'kill -9 $$' >/run/mischief; schroot -q -c quiet -- echo no; rm /run/mischief           #~ step-messages: messages
echo '[ $1 != setup-stop ]' >/run/mischief; schroot -q -c ov -- true; echo $?; rm /run/mischief; schroot -q -e --all-sessions  #~ step-messages: messages
echo '[ $1 != setup-stop ]' >/run/mischief; schroot -q -c ov -- sh -c 'exit 9'; echo $?; rm /run/mischief; schroot -q -e --all-sessions  #~ step-messages: messages
echo '[ $1 != setup-start ]' >/run/mischief; schroot -q -b -c ov -n s1 2>/dev/null; echo $?; rm /run/mischief; schroot -l --all-sessions; schroot -q -e --all-sessions  #~ failed-begin: output
echo '[ $1 != setup-stop ]' >/run/mischief; schroot -b -c ov -n s1; schroot -q -e -c s1 2>/dev/null; rm /run/mischief; ls /run/schroot/mount /run/chroot-sessions/mount 2>/dev/null | grep s1; schroot -q -e -c s1  #~ stop-goes-on: output
schroot -b -c ov -n s1; (cd $(schroot --location -c session:s1); schroot --recover-session -c s1 2>/dev/null; grep -c mount/s1 /proc/mounts); schroot -q -e -c s1  #~ recover-live: output
conf '[nodir]\ntype=directory\ndirectory=/nonexistent\nprofile=minimal\n'; schroot -c nodir -- true  #~ step-messages: messages
conf '[nofile]\ntype=file\nfile=/nonexistent.tar\nprofile=minimal\n'; schroot -c nofile -- true  #~ missing-source: status messages
conf '[nofile]\ntype=file\nfile=/etc\nprofile=minimal\n'; schroot -c nofile -- true              #~ step-messages: messages
conf '[noprofile]\ntype=directory\ndirectory=/srv/root\nprofile=nosuch\n'; schroot -q -c noprofile -- true  #~ step-messages: messages
conf '[nofstab]\ntype=directory\ndirectory=/srv/root\nprofile=minimal\nsetup.fstab=nosuch\n'; schroot -c nofstab -- true  #~ step-messages: messages
""",
    {
        **{f"/etc/schroot/setup.d/{name}": '#!/bin/sh\n[ "$VERBOSE" != verbose ] || echo "$1 $2"\n' for name in NAMES},
        "/etc/schroot/setup.d/16context": CONTEXT,
        "/etc/schroot/setup.d/16mischief": MISCHIEF,
    },
)

PLACES = Batch(
    CONFIGURATION,
    r"""
schroot -c quiet -- true                    #~ session-directory: messages
""",
    {
        "/etc/schroot/setup.d/01dump": "#!/bin/sh\nenv | grep -e ^MOUNT_DIR= -e DATA_DIR= -e ^LIBEXEC_DIR= -e ^SESSIONS_ | sort\n"
    },
)


@ENVIRONMENTS.each
def test_same_environments(case: Case) -> None:
    case.check()


@ORDER.each
def test_same_order(case: Case) -> None:
    case.check()


@PLACES.each
def test_places(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert [batch.left for batch in (ENVIRONMENTS, ORDER, PLACES)] == [[], [], []]

"""Setup scripts of an administrator, for every kind and stage: what they are given, what they source, what is heard."""

from comparing import Batch, Case

CONFIGURATION = """\
[dir]
type=directory
directory=/srv/root
description=A directory
profile=minimal
setup.services=
acme.some-key=a  b 'c' $d \\e
acme.other=1
user-modifiable-keys=acme.some-key
aliases=alias

[ov]
type=directory
directory=/srv/root
union-type=overlay
profile=minimal
message-verbosity=quiet

[tar]
type=file
file=/srv/root.tar
location=/inner
description=An archive
profile=minimal
setup.nssdatabases=

[empty]
type=directory
directory=/srv/root
union-type=overlay
profile=own
setup.fstab=
setup.copyfiles=
setup.nssdatabases=
"""
OLD = """\
[old]
type=directory
directory=/srv/root
union-type=overlay
script-config=minimal/config
"""
# All that a script is given, in lines of its output; where each has its own places, only that it has one. PWD is made
# by some shells, and SESSIONS_CONFIG_PATH is ours alone: profiles may lie elsewhere than in /etc/schroot.
GIVEN = r"""#!/bin/sh
echo "$0|$*|$(readlink /proc/$$/cwd)|$(umask)|$(id -u):$(id -g):$(id -G)"
tr '\0' '\n' </proc/$$/environ | sed -E 's/^(PID|DATA_DIR|LIBEXEC_DIR|SETUP_DATA_DIR)=.+/\1=.../;
    /^(SESSIONS_CONFIG_PATH)=/d' | sort
"""
GIVEN_LINES = "".join(
    f"""
schroot -c {kind} -- true
schroot -b -c {kind} -n s -u nobody
schroot --recover-session -c s{difference}
schroot -e -c s -u daemon{difference}
"""
    for kind in ("dir", "alias", "ov", "source:ov", "tar", "source:tar", "empty")
    for difference in ("    #~ source-stays-source: messages" if kind.startswith("source:") else "",)
)
ENVIRONMENT = Batch(
    CONFIGURATION,
    GIVEN_LINES
    + r"""
schroot -o acme.some-key=given -c dir -- true
schroot -o acme.some-key= -c dir -- true
schroot -q -c dir -- true
schroot -u nobody -c dir -- true
schroot -b -c dir -n s -q; schroot -e -c s
schroot -b -c ov -n s; schroot -e -q -c s
schroot -b -c dir -n s; schroot -e -c s -o acme.some-key=last
schroot -b -c dir -n s -o acme.some-key=first; schroot --recover-session -c s -o acme.some-key=; schroot -e -c s
""",
    {"/etc/schroot/setup.d/12given": GIVEN},
)

# What is heard of scripts, and the libraries that they source; FAIL says where one is to fail.
SPEAKING = r"""#!/bin/sh
set -e
. "$SETUP_DATA_DIR/common-data"
. "$SETUP_DATA_DIR/common-functions"
. "$SETUP_DATA_DIR/common-config"
info "only for those who ask"
for name in STAGE STATUS DEVTYPE VERBOSE SETUP_CONFIG SETUP_FSTAB SETUP_COPYFILES SETUP_NSSDATABASES FSTAB COPYFILES
do
    eval "echo \"$name=\$$name\""
done
printf 'a\n\n  b\tc \\n %%s\n'
"""
COMPLAINING = r"""#!/bin/sh
set -e
. "$SETUP_DATA_DIR/common-data"
. "$SETUP_DATA_DIR/common-functions"
. "$SETUP_DATA_DIR/common-config"
warn "odd"
error "wrong"
[ "$STAGE ${FAIL_AT-}" != "setup-start start" ] || fatal "the end"
"""
SHELL_FILE = 'COPYFILES=/etc/schroot/sbuild/copyfiles\nSETUP_FSTAB="sbuild/../minimal/fstab"\n'
SPOKEN = Batch(
    CONFIGURATION.replace("acme.other=1", "fail.at=none\nroot-modifiable-keys=fail.at"),
    r"""
schroot -c dir -- true
schroot -q -c dir -- true
schroot -c tar -- true
schroot -c empty -- true
mkdir /etc/schroot/own; echo 'SETUP_FSTAB=minimal/fstab' >/etc/schroot/own/config
schroot -c empty -- ls /proc/self/root
rm -r /etc/schroot/own
schroot -b -c dir -n s
schroot -e -c s
schroot -c dir -- touch /ran; ls /srv/root
schroot -o fail.at=start -c dir -- touch /never; ls /srv/root     #~ step-messages: messages
""",
    {
        "/etc/schroot/setup.d/12says": SPEAKING,
        "/etc/schroot/setup.d/13complains": COMPLAINING,
        "/etc/schroot/minimal/config": SHELL_FILE,
    },
)
# A key that is told of by every call; here it is what scripts get of it that counts.
DEPRECATED = Batch(
    OLD,
    r"""
told() { schroot "$@" 2>&1 | grep '^I: 12'; }; told -c old -- true; told -c old -v -- true | grep -v Executing
touch /etc/schroot/minimal/config; schroot -c old -- cat /etc/resolv.conf 2>/dev/null
echo 'NSSDATABASES=' >/etc/schroot/minimal/config; schroot -c old -- cat /etc/passwd 2>/dev/null
echo 'COPYFILES="$SYSCONF_DIR/own"; echo said' >/etc/schroot/minimal/config; echo /etc/hostname /etc/b >/etc/schroot/own
schroot -c old -- cat /etc/b 2>/dev/null
rm /etc/schroot/own; schroot -c old -- true 2>&1 | grep -o "copyfiles file '/etc/schroot/own' does not exist"
""",
    {"/etc/schroot/setup.d/12given": GIVEN, "/etc/schroot/setup.d/12says": SPEAKING},
)
# With -v each script is named when its turn comes, the stock ones among them; what these do, they do not say.
NAMED_ALOUD = Batch(
    CONFIGURATION.replace("acme.other=1", "fail.at=none\nroot-modifiable-keys=fail.at"),
    "".join(
        f'told() {{ schroot "$@" 2>&1 | grep Executing; }}; {line}\n'
        for line in (
            "told -v -c dir -- true",
            "told -c dir -- true",
            "told -q -c dir -- true",
            "told -v -c dir -o fail.at=start -- true",
            "told -v -b -c ov -n s; told --recover-session -c s; told -e -c s",
            "told -b -c ov -n s; told -v --recover-session -c s; told -q -e -c s",
            "told -b -c ov -n s; told -v -e -c s",
            "told -q -b -c dir -n s; told -e -c s",
        )
    ),
    {"/etc/schroot/setup.d/12fails": '#!/bin/sh\n[ "$1 ${FAIL_AT-}" != "setup-start start" ]\n'},
)
# The init system inside is a script: it says what it is asked for, and fails where FAILS says so.
INIT = """#!/bin/sh
echo "asked: $*"
case "$*" in ${FAILS:-none}) exit 3;; esac
"""
SERVICES = Batch(
    """\
[two]
type=directory
directory=/srv/root
union-type=overlay
profile=none
setup.fstab=
setup.copyfiles=
setup.nssdatabases=
setup.services=one,two@a.b:c
root-modifiable-keys=setup.services
""",
    r"""
schroot -c two -- true
schroot -b -c two -n s
schroot -e -c s
schroot -c two -o setup.services=one -- true
schroot -c two -o setup.services=,one,,two, -- true
schroot -c two -o setup.services= -- true
schroot -c two -o 'setup.services=one two' -- true                                                    #~ services: messages
schroot -c two -o setup.services=-x -- true                                                           #~ services: status messages log
sed -i 's/FAILS:-none/FAILS:-*start/' /srv/root/usr/sbin/invoke-rc.d; schroot -c two -- true              #~ services: messages
sed -i 's/FAILS:-.start/FAILS:-*stop/' /srv/root/usr/sbin/invoke-rc.d; schroot -c two -- true             #~ services: messages
mv /srv/root/usr/sbin/invoke-rc.d /srv/root/usr/sbin/service; schroot -c two -- true                      #~ services: status messages log
rm /srv/root/usr/sbin/service; schroot -c two -- true                                                 #~ step-messages: messages
schroot -l --all-sessions | grep -v s$
""",
    {"/srv/root/usr/sbin/invoke-rc.d": INIT},
)
BATCHES = (SERVICES, NAMED_ALOUD, ENVIRONMENT, SPOKEN, DEPRECATED)


@ENVIRONMENT.each
def test_what_a_script_is_given(case: Case) -> None:
    case.check()


@SPOKEN.each
def test_what_is_heard_of_them(case: Case) -> None:
    case.check()


@NAMED_ALOUD.each
def test_each_is_named_to_those_who_ask(case: Case) -> None:
    case.check()


@SERVICES.each
def test_services(case: Case) -> None:
    case.check()


@DEPRECATED.each
def test_script_config(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert [batch.left for batch in BATCHES] == [[]] * len(BATCHES)

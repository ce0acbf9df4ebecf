"""Commands and shells in chroots: statuses, directories, shells, users, environments."""

from comparing import Batch, Case
from configurations import USUAL

FILTERING = """
[filtering]
directory=/srv/root
environment-filter=^(FOO|SCHROOT_.*|HOME|SHELL)$
"""
BATCH = Batch(
    USUAL + FILTERING,
    r"""
# How it ends.
schroot -c plain -- pwd
schroot -c plain -- true
schroot -c plain -- false
schroot -c plain -- sh -c 'exit 77'
schroot -c plain -- sh -c 'exit 127'
schroot -c plain -- sh -c 'exit 255'
schroot -c plain -- sh -c 'kill -9 $$'
schroot -q -c plain -- sh -c 'kill -9 $$'
schroot -c plain -- sh -c 'kill -TERM $$'
schroot -c plain -- sh -c 'kill -HUP $$'
schroot -c plain -- sh -c 'kill -INT $$'
schroot -c plain -- sh -c 'kill -SEGV $$'
schroot -c plain -- sh -c 'kill -34 $$'
schroot -c plain -c dir -- sh -c 'kill -TERM $$'
schroot -c plain -- nosuch
schroot -q -c plain -- /bin/nosuch
schroot -c plain -- /etc/passwd
schroot -c plain -- /etc
schroot -c plain -- ./bin/true
schroot -c plain -- bin/true
schroot -d /bin -c plain -- ./true
printf x >/srv/root/x; chmod 755 /srv/root/x; schroot -c plain -- /x
printf '#!/nosuch\n' >/srv/root/x; schroot -c plain -- /x
printf '#!/bin/sh\necho hi "$0" "$@"\n' >/srv/root/x; schroot -c plain -- /x a 'b  c' ''
rm /srv/root/x
schroot -v -c bad.prefix -- true
schroot -c bad.prefix -c plain -- echo hi
schroot -c plain -c chatty -- sh -c 'test $SCHROOT_CHROOT_NAME = plain'
schroot -c plain -c chatty -- sh -c 'test $SCHROOT_CHROOT_NAME = chatty'
schroot -c plain -c gone -c chatty -- echo hi
schroot -c plain -- printf '%s|' a '' 'b c' "d'e" 'f"g' 'h\i'
schroot -c plain -- '' -c 'echo hi'
schroot -c plain ''
schroot -c plain -- true ''

# Where it is run.
schroot -c gone -- true
schroot -c gone
cd /run; schroot -c plain -- pwd
cd /tmp; schroot -c plain -- pwd
cd /srv; schroot -c plain -- pwd
cd /srv; schroot -c plain
cd /srv; schroot -q -u nobody -c plain
cd /srv; HOME=/nonexistent schroot -p -c plain
cd /srv; HOME=/tmp schroot -p -c plain
cd /srv; schroot -d / -c plain -- pwd
mkdir /srv/gone-soon; cd /srv/gone-soon; rmdir /srv/gone-soon; schroot -c plain -- pwd
schroot -d tmp -c plain -- pwd
schroot -d ../../tmp -c plain -- pwd
schroot -d /nonexistent -c plain -- pwd
schroot -d /nonexistent -c plain
schroot -q -d /nonexistent -c plain -- pwd
schroot -d /root -u nobody -c plain -- pwd
chmod 700 /srv/root/root; schroot -d /root -u nobody -c plain -- pwd
schroot -d /bin/sh -c plain -c dir -- pwd
schroot -d '' -s '' -u '' -c plain -- pwd

# Shells.
schroot -v -c plain
schroot -v -p -c plain
SHELL=/bin/nosuch schroot -v -p -c plain
SHELL=bin/sh schroot -v -p -c plain
SHELL= schroot -v -p -c plain
SHELL=/bin/nosuch schroot -v -c plain
schroot -v -s /bin/sh -c plain
schroot -v -s /bin/nosuch -c plain
schroot -v -s nosuch -c plain
schroot -s sh -c plain
schroot -s /bin/nosuch -c plain -- true
schroot -s /etc/passwd -c plain
schroot -c chatty
schroot -v -u nobody -c plain
schroot -v -u daemon -c plain
echo 'echo "$0" "$SHELL" "$HOME" "$PWD"' | schroot -c plain -s /bin/sh
echo 'echo "$0" "$SHELL" "$HOME" "$PWD"' | SHELL=/bin/sh schroot -p -c plain
echo 'echo "$0" "$SHELL" "$HOME" "$PWD"' | schroot -c chatty
echo 'echo "$0"; env' | schroot -u nobody -s /bin/sh -c plain

# As whom.
schroot -v -c plain -- echo 'a  b' c
schroot -v -u nobody -c plain -- id
schroot -v -u root -c plain -- id
schroot -u daemon -c plain -- id
schroot -u nosuch -c plain -- pwd
schroot -u 0 -c plain -- pwd
schroot -u '' -c plain -- id -un
schroot -u nobody -c plain -- sh -c 'kill -9 $$'
schroot -u nobody -c plain -- nosuch
schroot -u nobody -c plain -- /root/x
schroot -u nobody -c plain -- sh -c 'echo $SCHROOT_UID $SCHROOT_GID $SCHROOT_USER $SCHROOT_GROUP'
cat </dev/null; id -G >/run/g; schroot -c plain -- id -G | wc -w >/run/h

# With what.
schroot -c plain -- env
schroot -c pp -- env
schroot -c session:plain -- env
schroot -u nobody -c plain -- env
LD_PRELOAD= BASH_ENV=x EMPTY= FOO=1 HOME=/h USER=u schroot -p -c plain -- env | grep -v ^_=
LD_X=1 BASH_ENV=x CDPATH=x ENV=x IFS=x TERMINFO=x NLSPATH=x FOO='a=b' schroot -p -c plain -- env | grep -v ^_=
FOO=1 HOME=/h USER=u PATH=/x:/usr/bin:/bin schroot -p -u nobody -c plain -- env | grep -v ^_=
PATH=/x:/usr/bin:/bin schroot -p -c plain -- env | grep ^PATH=
FOO=1 HOME=/h schroot -q -c chatty -- env | grep -v ^_=
FOO=1 HOME=/h schroot -q -u nobody -c chatty -- env | grep -v ^_=
FOO=1 schroot -c filtering -- env
FOO=1 schroot -p -u nobody -c filtering -- env | grep -v ^_=
echo env | FOO=1 schroot -c filtering -s /bin/sh | grep -v -e ^_= -e ^SHLVL=
TERM= schroot -c plain -- env
env -u TERM schroot -c plain -- env
env -i /usr/bin/schroot -c plain -- env
env -i A=b /usr/bin/schroot -p -c plain -- env
env -u PATH /usr/bin/schroot -c plain -- env
LANG=de_DE.UTF-8 LC_ALL=C schroot -p -c plain -- env | grep -v ^_=
schroot -c chatty -q -- uname -m
schroot -c plain -- uname -m
schroot -c plain -- sh -c 'cat; echo err >&2; umask; ulimit -n'
umask 027; ulimit -n 99; echo in | schroot -c plain -- sh -c 'cat; echo err >&2; umask; ulimit -n'
nice -n 5 schroot -c plain -- sh -c 'cut -d" " -f19 /proc/self/stat; true' 2>&1
schroot -c plain -- sh -c 'echo out; echo err >&2' 2>&1
schroot -c plain -- echo out >&-            #~ closed-descriptors: status messages
schroot -c plain -- sh -c 'echo out; echo err >&2' 2>&-    #~ closed-descriptors: status
schroot -c plain -- sh -c 'ls -l /proc/self/fd' 3</dev/null
(trap '' HUP; schroot -c plain -- sh -c 'kill -HUP $$; echo still here')    #~ ignored-signals: status output messages
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

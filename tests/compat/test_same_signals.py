"""Signals: to the command, to schroot itself, while it sets up and while it ends."""

from __future__ import annotations

from comparing import Batch, Case
from configurations import USUAL

SCRIPT = """\
#!/bin/sh
[ ! -e /run/$1 ] || . /run/$1
"""
FILES = {"/etc/schroot/setup.d/16own": SCRIPT}

# A command's $PPID is schroot.
BATCH = Batch(
    USUAL,
    r"""
schroot -c ov -- sh -c 'kill -INT $$'
schroot -c ov -- sh -c 'kill -TERM $$'
schroot -c ov -- sh -c 'kill -HUP $$'
schroot -c ov -- sh -c 'kill -QUIT $$'
schroot -c ov -- sh -c 'kill -KILL $$'
schroot -c ov -- sh -c 'kill -USR1 $$'
schroot -c ov -- sh -c 'kill -PIPE $$'
schroot -c ov -- sh -c 'trap "echo got; exit 4" TERM; kill -TERM $$; sleep 5'
schroot -c ov -- sh -c 'kill -TERM $PPID; exec sleep 5'
schroot -c ov -- sh -c 'kill -HUP $PPID; exec sleep 5'
schroot -q -c ov -- sh -c 'kill -TERM $PPID; exec sleep 5'
schroot -c plain -- sh -c 'kill -TERM $PPID; exec sleep 5'
schroot -c ov -- sh -c 'trap "echo got; exit 4" TERM; kill -TERM $PPID; while :; do sleep 0.1; done'
schroot -c ov -- sh -c 'trap "echo got; exit 0" HUP; kill -HUP $PPID; while :; do sleep 0.1; done'
schroot -c ov -- sh -c 'trap "" TERM; kill -TERM $PPID; sleep 0.5; exit 7'
schroot -c plain -c plain -- sh -c 'kill -TERM $PPID; exec sleep 5'
schroot -c ov -- sh -c 'kill -INT $PPID; sleep 0.3; exit 3'
schroot -c plain -- sh -c 'kill -CHLD $PPID; sleep 0.3; exit 3'
schroot -c plain -- sh -c 'kill -WINCH $PPID; sleep 0.3; exit 3'
setsid sh -c 'trap "" TERM; schroot -c plain -- sh -c "kill -0 \$PPID"'
schroot -b -c ov -n s1
schroot -r -c s1 -- sh -c 'kill -TERM $PPID; exec sleep 5'
schroot -r -c s1 -- sh -c 'trap "exit 0" HUP; kill -HUP $PPID; sleep 5'
schroot -l --all-sessions
schroot -e -c s1
schroot -l --all-sessions
""",
    FILES,
)

# Those that leak come last: what they leave behind of schroot's is in the way of nothing.
LEAKING = Batch(
    USUAL,
    r"""
echo 'kill -TERM $PID; exec sleep 5' >/run/setup-start; schroot -q -c ov -- echo no >/dev/null 2>&1; echo $?; rm /run/setup-start; schroot -l --all-sessions
echo 'kill -TERM $PID; sleep 0.5' >/run/setup-start; schroot -b -c ov -n s1 2>/dev/null; rm /run/setup-start; schroot -l --all-sessions      #~ signals: output
echo 'kill -TERM $PID; sleep 0.5' >/run/setup-stop; schroot -c ov -- true 2>/dev/null; rm /run/setup-stop; schroot -l --all-sessions | wc -l  #~ signals: output
echo 'kill -HUP $PID; sleep 0.5' >/run/setup-stop; schroot -c ov -- true 2>/dev/null; rm /run/setup-stop; schroot -l --all-sessions | wc -l   #~ signals: output
echo 'kill -INT $PID; sleep 0.5' >/run/setup-stop; schroot -c ov -- true 2>/dev/null; rm /run/setup-stop; schroot -l --all-sessions | wc -l   #~ signals: output
schroot -c plain -- sh -c 'kill -QUIT $PPID; sleep 1; echo still here >/run/here'; echo $?; sleep 1.5; ls /run/here; rm -f /run/here        #~ signals: output messages
schroot -c ov -- sh -c 'kill -QUIT $PPID; exec sleep 1' 2>/dev/null; echo $?; schroot -l --all-sessions | wc -l                             #~ signals: output
schroot -c plain -- sh -c 'kill -KILL $PPID; sleep 0.3; echo went on >/run/went'; echo $?; sleep 1; cat /srv/root/run/went; rm /srv/root/run/went
schroot -c ov -- sh -c 'kill -KILL $PPID; sleep 0.1'; echo $?; sleep 0.5; schroot -q -e --all-sessions 2>/dev/null; schroot -l --all-sessions
schroot -b -c ov -n s9; schroot -r -c s9 -- sh -c 'kill -KILL $PPID; exec sleep 50'; echo $?; schroot -q -e -c s9 2>/dev/null; echo $?; schroot -l --all-sessions
schroot -c plain -- sh -c 'kill -USR1 $PPID; exec sleep 1' 2>/dev/null; echo $?                                                             #~ signals: output
""",
    FILES,
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


@LEAKING.each
def test_same_leaking(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert [BATCH.left, LEAKING.left] == [[], []]

"""Several at once: commands in one session, automatic sessions, two that want one name, two that end one session."""

from __future__ import annotations

from comparing import Batch, Case
from configurations import USUAL

# To end a session of this takes a moment.
SLOW = """
[slow]
type=directory
directory=/srv/root
setup.slow=0.5
"""
FILES = {"/etc/schroot/setup.d/16slow": "#!/bin/sh\n[ $1 != setup-stop ] || sleep ${SETUP_SLOW:-0}\n"}
BATCH = Batch(
    USUAL + SLOW,
    r"""
{ for i in 1 2 3 4 5 6; do (schroot -c ov -- sh -c "exit $i"; echo $?) & done; wait; } | sort
{ for i in 1 2 3 4; do schroot -c plain -- echo hi & done; wait; }
{ for i in 1 2 3 4; do schroot -b -c ov -n s$i & done; wait; } | sort; schroot -l --all-sessions
{ for i in 1 2 3 4; do (schroot -r -c s1 -- sh -c "sleep 0.2; exit $i"; echo $?) & done; wait; } | sort
{ for i in 1 2; do (schroot -q -b -c ov -n one; echo $?) & done; wait; } | sort
schroot -b -c ov -n one
schroot -e -c one
{ for i in 1 2 3 4; do schroot -e -c s$i & done; wait; }; schroot -l --all-sessions
schroot -c ov -- sh -c ': >/dev/null; sleep 100 </bin/sh & sleep 100 </bin/sh & exit 5'
schroot -b -c ov -n s1; schroot -r -c s1 -- sh -c ': >/dev/null; sleep 100 </bin/sh >/bin/x 2>&1 & exit 3'; echo $?; schroot -e -c s1
schroot -b -c ov -n s1; schroot -r -c s1 -- sh -c 'exec sleep 100' & sleep 3; schroot -q -e -c s1; wait $!; echo $?
schroot -b -c ov -n s1; schroot -r -c s1 -- sleep 100 & sleep 3; schroot -e -c s1; wait $!; echo $?   #~ end-in-use: messages
schroot -b -c ov -n s1; schroot -e -c s1 -c s1; echo $?     #~ parallel-end: output messages
schroot -b -c slow -n s1; { (schroot -q -e -c s1 2>/dev/null; echo $?) & schroot -q -e -c s1 2>/dev/null; echo $?; wait; } | sort     #~ parallel-end: output
schroot -e -c s1 2>/dev/null; true
schroot -l --all-sessions
""",
    FILES,
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

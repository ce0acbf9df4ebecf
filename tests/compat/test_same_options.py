"""The words of a command line: spellings of options, how they mix, and what is refused."""

from comparing import Batch, Case
from configurations import USUAL

BATCH = Batch(
    USUAL,
    r"""
# Long options may be shortened as far as they stay the only one.
schroot --lis
schroot --in -c plain
schroot --conf -c plain
schroot --loc --chr plain
schroot --al
schroot --al=x -q
schroot --all -l
schroot --all-c -l
schroot --all-se -l
schroot --all-so -l
schroot --ver
schroot --verb -l
schroot --ve=1
schroot --exc -l
schroot --e
schroot --en -c nosuch
schroot --be -c nosuch
schroot --rec -c nosuch
schroot --ru -c nosuch
schroot --r -c nosuch
schroot --au -c plain -- pwd
schroot --dir /tmp -c plain -- pwd
schroot --d /tmp -c plain -- pwd
schroot --sh /bin/sh -c plain
schroot --s /bin/sh -c plain
schroot --us nobody -c plain -- id -un
schroot --pres -c plain -- pwd
schroot --opt foo.bar=1 -c ov -l
schroot --ses x -l
schroot --forc -l
schroot --q -l
schroot --deb=none -l
schroot --c plain
schroot --com pwd -c plain
schroot --command=pwd -c plain
schroot --command pwd -c plain -- -P
schroot --bogus
schroot --bogus=x
schroot --Lis

# Values, attached and not.
schroot -cplain -- pwd
schroot -c plain -- pwd
schroot --chroot=plain -- pwd
schroot --chroot plain -- pwd
schroot -qc plain -- pwd
schroot -qcplain -- pwd
schroot -qlc plain
schroot -lqcplain -covai
schroot -c=plain -l
schroot -lc=plain
schroot --chroot= -l
schroot --chroot '' -l
schroot -c '' -l
schroot -c
schroot -l -c
schroot --chroot
schroot -c --list
schroot -c -l
schroot -c -x
schroot -c --
schroot -c -- plain
schroot --chroot -l
schroot --directory --list -c plain -- pwd
schroot --lis=x
schroot --list=
schroot -l=
schroot -lx
schroot -xl
schroot -x
schroot --=
schroot --=pwd -c plain
schroot ---c plain -l
schroot ---list
schroot -
schroot - -c plain
schroot -c plain - pwd
schroot -c plain --- pwd

# Options and words may be mixed.
schroot -c ov ls -l
schroot ls -c plain
schroot pwd -c plain
schroot pwd -c plain --
schroot -c plain echo a -- b -c d
schroot -c plain -- echo a -- b
schroot echo a -q b -c plain c
schroot -c plain echo -n
schroot -c plain -- echo -n x

# Once or more often.
schroot -d / -d /
schroot -l -l
schroot -q -q -l
schroot -a --all -l
schroot -v -v -l
schroot -u root -u root -l
schroot -n a -n b -b -c ov
schroot -c plain -c plain -l
schroot --debug=none --debug=none -l

# One action.
schroot -l -i
schroot -b -e -c ov
schroot -r -l
schroot --automatic-session -b -c ov
schroot --automatic-session -c plain -- pwd
schroot -l --config
schroot --location -h

# What does not fit together.
schroot -qv -l
schroot -qv -n x
schroot -q -v -c plain -- pwd
schroot -n x -l
schroot -n x -c plain
schroot -n x -r -c plain
schroot -n x -e -c plain
schroot -n x --recover-session -c plain
schroot -n '' -l
schroot -b
schroot -b -q
schroot -b -c ov -c dir
schroot -b -a
schroot -b -c ov -a -n 'x~'
schroot -b -c ov -n x~
schroot -b -c ov -n a:b
schroot -b -c ov -n a/b
schroot -b -c ov -n 'a b'
schroot -b -c ov -n .a
schroot -b -c ov -n _a
schroot -b -c ov -n a%b
schroot -b -c ov -n a+b
schroot -b -c ov -n ä
schroot -b -c ov -n x.dpkg-old
schroot -b -c ov -n -a
schroot -b -c ov -n --
schroot --debug=foo
schroot --debug=foo -l
schroot --debug=critical -l
schroot --debug=none -l
schroot --debug=
schroot -l -c plain -a
schroot -l -c plain --all-sessions
schroot -c plain --all-chroots -- pwd

# What this program says of itself.
schroot -V                                  #~ version: output
schroot -h                                  #~ version: output
schroot --help -c nosuch                    #~ version: output
schroot --version -q                        #~ version: output
schroot -r -c nosuch --isolate-network      #~ isolate-network: messages
schroot -l --isolate-network                #~ isolate-network: messages
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

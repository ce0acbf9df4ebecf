"""What --list, --info, --config and --location print."""

from comparing import Batch, Case
from configurations import USUAL

BATCH = Batch(
    USUAL,
    r"""
schroot -l
schroot -l --all
schroot -l --exclude-aliases
schroot -la --exclude-aliases
schroot -l --all-chroots
schroot -l --all-sessions
schroot -l --all-source-chroots
schroot -l --all-source-chroots --exclude-aliases
schroot -l --all-source-chroots --all-sessions
schroot -l --exclude-aliases -c pp
schroot -i
schroot -i -a
schroot -i --all-source-chroots
schroot -i --exclude-aliases --all-chroots
schroot -i -c ova-source -c session:plain -c pp
schroot -i -c plain -c plain
schroot -i -u nosuch -o a.b=c -c plain
LC_ALL=C schroot -i -c plain
LC_ALL=C schroot -l -c nosuch
schroot --config
schroot --config -a
schroot --config -c plain
schroot --config -c ova -c ov -c source:ov
schroot --config -c source:ov
schroot --config --all-source-chroots
schroot --config --all-sessions
schroot --config -v --all-sessions
schroot --config -c tar
schroot --location
schroot --location -a
schroot --location -c plain -c ov -c source:tar
schroot --location -c source:ov -c tar
schroot --location -c s1
schroot -q --location -c gone
schroot -l pwd
schroot -i -c plain pwd
setpriv --reuid=65534 --regid=65534 --clear-groups schroot -l
setpriv --reuid=65534 --regid=65534 --clear-groups schroot -i -c ov
setpriv --reuid=65534 --regid=65534 --clear-groups schroot --config -c ov
setpriv --reuid=65534 --regid=65534 --clear-groups schroot --location -c plain
schroot -l >&-
schroot -l >/dev/full                        #~ lost-output: status messages
schroot -l 2>&-
schroot -l <&-                              #~ closed-descriptors: status output messages
schroot -l | head -n 1

# Sessions.
schroot -b -c ov -n s1 -o foo.bar=7
schroot -b -c source:ova -n s2
schroot -b -c tt -n tar
schroot -b -c source:tar -n s4
schroot -b -c dd -n s5
schroot -l -a
schroot -l --all-sessions
schroot -l
schroot -l -c session:s1 -c s1
schroot -l -c session:s1 -c ov
schroot -i --all-sessions
schroot -i -c session:s1 -c ov
schroot -i -c session:s2
schroot -i -c session:s4 -c session:tar
schroot --config -c session:s1
schroot --config --all-sessions
schroot --config -a
schroot --location -c session:s1 -c session:tar -c ov
schroot --location --all-sessions
schroot --location -a
schroot --location -c s1
schroot -e --all-sessions
schroot -l --all-sessions
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

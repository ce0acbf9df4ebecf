"""Which chroots and sessions a command line is about: namespaces, aliases, defaults, and what is not found."""

from comparing import Batch, Case
from configurations import USUAL

BATCH = Batch(
    USUAL,
    r"""
# By name.
schroot -l -c ov -c chroot:ova -c source:ov -c ova-source -c :plain -c session:plain -c ov
schroot -l -c nosuch
schroot -l -c nosuch -c ov -c session:s9 -c 'a b' -c ''
schroot -l -c nosuch -c foo:ov
schroot -l -c foo:ov
schroot -l -c foo:bar:ov
schroot -l -c chroot:chroot:ov
schroot -l -c s:
schroot -l -c chroot:
schroot -l -c :
schroot -l -c source:plain
schroot -l -c source:dir
schroot -l -c source:ova -c source:tt
schroot -l -c ov-source
schroot -l -c chroot:ov-source
schroot -l -c source:ov-source
schroot -l -c source:ova-source
schroot -l -c pre-source
schroot -l -c source:pre
schroot -l -c pp-source
schroot -l -c dd -c de -c dir
schroot -l -c session:dir
schroot -l -c session:pp
schroot -l -c OV
schroot -l -c ov.
schroot -l -c .
schroot -l -c ../plain
schroot -i -c nosuch
schroot --config -c nosuch
schroot --location -c nosuch -c plain
schroot -c ov,plain -l
schroot -q -l -c nosuch
schroot -v -l -c nosuch

# All of a kind.
schroot -l -c ov -a
schroot -l --all --all-chroots
schroot -v --all-sessions -l
schroot -v --all-source-chroots -l
schroot -q --all-sessions -l
schroot --all-sessions -- pwd
schroot -v -r --all-sessions -- pwd
schroot --all-chroots -c ov -- pwd
schroot --all-source-chroots -- pwd
schroot -e --all-sessions
schroot --recover-session --all-chroots

# None at all.
schroot
schroot -- pwd
schroot pwd
schroot -q
schroot -r
schroot -r -q
schroot -e
schroot -e pwd
schroot --recover-session -q
schroot -r -- pwd
conf '[default]\ndirectory=/srv/root\n'; schroot -- pwd
conf '[default]\ndirectory=/srv/root\n'; schroot --all-sessions -- pwd
conf '[x]\ndirectory=/srv/root\naliases=default\n'; schroot -- env | grep _NAME
conf '[default]\ndirectory=/srv/root\n'; schroot -l
conf '[default]\ndirectory=/srv/root\n'; schroot -b
conf '[default]\ndirectory=/srv/root\n'; schroot -r -- pwd

# To be acted on.
schroot -c nosuch -- pwd
schroot -c nosuch -c nosuch2 -- pwd
schroot -c foo:bar -- pwd
schroot -c plain -c nosuch -- touch /tmp/mark
schroot -c plain -c foo:bar -- touch /tmp/mark
schroot -c session:ov -- pwd
schroot -c session:nosuch -- pwd
schroot -b -c nosuch
schroot -b -c session:ov
schroot -r -c nosuch -- pwd
schroot -r -c ov -- pwd
schroot -r -c chroot:ova -- pwd
schroot -r -c source:ov -- pwd
schroot -r -c plain -c source:ov -- echo hi
schroot -r -c foo:bar
schroot -e -c nosuch
schroot -e -c ov
schroot -e -c chroot:ov
schroot -e -c nosuch -c chroot:nosuch2
schroot --recover-session -c s1
schroot --recover-session -c chroot:ov
schroot -u nosuch -c nosuch -- pwd

# A plain chroot is a session of itself.
schroot -c session:plain pwd
schroot -b -c plain
schroot -b -c pp
schroot -b -c session:plain -n foo
schroot -b -c plain -n plain
schroot -b -c ov -n plain
schroot -r -c plain -- pwd
schroot -r -c pp -- pwd
schroot -r -c chroot:pp -- pwd
schroot -e -c plain
schroot -e -c plain -c chatty
schroot --recover-session -c plain
schroot -l -a -c session:plain
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

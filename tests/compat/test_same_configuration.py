"""The dialect of schroot.conf(5): what is accepted means the same, and what is refused is refused for the same reason."""

from __future__ import annotations

import re

import pytest
from comparing import Batch, Case, outcomes

# What is accepted: conf writes a file in chroot.d. What is warned of has a form of its own, and is looked at below.
BATCH = Batch(
    "",
    r"""
schroot -l
schroot -i
schroot --config
schroot -q -l
conf '[a]\ndirectory=/srv\n'; schroot -i; schroot --config
conf '[a]\ndirectory=/srv'; schroot --config
conf '[a] # x\ndirectory=/srv\n'; schroot -l --all-chroots
conf '# c\n\n[a]\n# c\ndirectory=/srv\n\n'; schroot --config
conf '[a]\ndirectory=/srv\n#[b]\n'; schroot --config
conf '[a]\ndirectory=/srv\nusers=root # me\n'; schroot --config
conf '[a]\ndirectory=/srv\nusers=a, b,,c,\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nusers=b,a,b\ngroups=\nroot-users=x\nroot-groups=y,z\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\ndescription= an old  one \n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\ndescription=a=b=c\n'; schroot --config
conf '[a]\ndirectory=/srv\ndescription=plain\ndescription[de]=deutsch\n'; LANG=de_DE.UTF-8 schroot -i
conf '[a]\ndirectory=/srv\ndescription=\303\244\342\200\223\n'; schroot -i; schroot --config
conf '[b]\ndirectory=/b\n[a]\ndirectory=/a\n'; schroot -l; schroot --config
conf '[a]\ndirectory=/a\n' one; conf '[b]\ndirectory=/b\n' two; schroot -l
conf '[a]\ndirectory=/srv\naliases=x,y\n'; schroot -l; schroot -i -c y
conf '[a]\ntype=plain\ndirectory=/srv\n'; schroot --config
conf '[a]\ndirectory=/srv\nprofile=minimal\n'; schroot --config
conf '[a]\ndirectory=/srv\nprofile=nosuch\n'; schroot --config
conf '[a]\ndirectory=/srv\nprofile=minimal\nsetup.fstab=default/fstab\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nprofile=minimal\nsetup.fstab=\n'; schroot --config
conf '[a]\ndirectory=/srv\nsetup.services=a,b\n'; schroot --config
conf '[a]\ndirectory=/srv\nfoo.bar=1\nx.y.z-1=2\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nfoo.bar=1\nuser-modifiable-keys=foo.bar,a.b,a.b\nroot-modifiable-keys=z,y\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nmessage-verbosity=quiet\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nmessage-verbosity=verbose\n'; schroot -i
conf '[a]\ndirectory=/srv\npersonality=undefined\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\npersonality=linux\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\npersonality=linux_32bit\n'; schroot --config
conf '[a]\ndirectory=/srv\npersonality=scorvr3\n'; schroot --config
conf '[a]\ndirectory=/srv\npreserve-environment=yes\n'; schroot --config
conf '[a]\ndirectory=/srv\npreserve-environment=1\n'; schroot --config
conf '[a]\ndirectory=/srv\npreserve-environment=no\n'; schroot --config
conf '[a]\ndirectory=/srv\npreserve-environment=0\n'; schroot --config
conf '[a]\ndirectory=/srv\nenvironment-filter=^(A|B.*)$\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nshell=/bin/zsh\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\ncommand-prefix=a,b c\n'; schroot --config; schroot -i
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=none\n'; schroot --config; schroot -i
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\n'; schroot --config; schroot -i; schroot -l
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nunion-mount-options=x,y\nunion-overlay-directory=/o\nunion-underlay-directory=/u\n'; schroot --config; schroot -i
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=aufs\n'; schroot --config
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nsource-clone=false\n'; schroot --config; schroot -l
conf '[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nsource-users=x\nsource-root-groups=y\n'; schroot --config; schroot -i -c a -c source:a
conf '[a]\ntype=file\nfile=/a.tar\n'; schroot --config; schroot -i; schroot -l
conf '[a]\ntype=file\nfile=/a.tar\nlocation=/in\naliases=b\n'; schroot --config; schroot -i; schroot -l; schroot --location
conf '[a]\ntype=file\nfile=/a.tar\nlocation=\n'; schroot --config
conf '[a]\ndirectory=/srv//./x/../root/\nshell=relative\n'; schroot --config; schroot --location
conf '[a]\ndirectory=/srv\nprofile=\n'; schroot --config; schroot -i
conf '[a]\ndirectory=/srv\nfoo=1\nauth.x=1\nsetup.data.dir=1\na.b-c=1\na.b.c=2\n'; schroot --config -c a 2>/dev/null; schroot -i -c a 2>/dev/null
conf '[a]\ndirectory=/srv\nscript-config=foo/config\n'; schroot --config -c a 2>/dev/null; schroot -i -c a 2>/dev/null
conf '[a]\ndirectory=/srv\nscript-config=\n'; schroot --config -c a 2>/dev/null
conf '[a]\nlocation=/srv/root\n'; schroot --config -c a 2>/dev/null; schroot -q -c a -- pwd 2>/dev/null
conf '[a]\ndirectory=/srv\npreserve-environment=TRUE\nenvironment-filter=\n'; schroot --config -c a 2>/dev/null
conf '[a]\ndirectory=/srv\nunion-type=overlay\nsource-users=x\n'; schroot --config -c a 2>/dev/null; schroot -l 2>/dev/null
conf '[a]\ndirectory=/srv/root\naliases=b\n[c]\ndirectory=/srv\naliases=b\n'; schroot -l 2>/dev/null; schroot --location -c b 2>/dev/null
conf '[a.b_c-d]\ndirectory=/srv\n'; schroot -l
conf '[0]\ndirectory=/srv\n'; schroot -l
conf '[a]\ndirectory=/srv\nactive=\n' x.bak; conf '[b]\ndirectory=/srv\n' x.conf; schroot -q -l 2>/dev/null
for f in .x x~ _x 'x y' x.dpkg-old x.dpkg-dist x.dpkg-new x.dpkg-tmp; do conf '[b]\ndirectory=/srv\n' "$f"; done; schroot -q -l
conf '[b]\ndirectory=/srv\n'; chmod 660 /etc/schroot/chroot.d/c; schroot -l
conf '[b]\ndirectory=/srv\n'; chmod 0 /etc/schroot/chroot.d/c; schroot -l
conf '[b]\ndirectory=/srv\n'; ln -s c /etc/schroot/chroot.d/d; rm /etc/schroot/chroot.d/c; echo '[b]' >/run/b; echo directory=/srv >>/run/b; ln -sf /run/b /etc/schroot/chroot.d/d; schroot -l
""",
)

# What is refused or warned of. Each is a file in chroot.d with a chroot "good" beside it in another.
TEXTS = r"""
foo\n
foo=bar\n
[a\n
[]\n
[a]]\n
[a]\ndirectory=/srv\n   \n
[a]\ndirectory=/srv\n\r\n
[a]\ndirectory=/srv\n=x\n
[a]\ndirectory=/srv\nfoo\n
[a]\ndirectory=/srv\n[a]\ndirectory=/x\n
[a]\ndirectory=/srv\ndirectory=/x\n
[good]\ndirectory=/srv\n
[a]\n
[a]\ndirectory=\n
[a]\ndirectory = /srv\n
[a]\ndirectory=srv/chroot\n
[a]\ndirectory=/srv\nlocation=/srv\n
[a]\nlocation=/srv\n
[a]\ntype=foo\n
[a]\ntype=\n
[a]\ntype=directory\n
[a]\ntype=file\n
[a]\ntype=file\nfile=a.tar\n
[a]\ntype=file\nfile=/a.tar\nlocation=x\n
[a]\ntype=file\nfile=/a.tar\nfile-repack=true\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=foo\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nunion-overlay-directory=o\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nunion-underlay-directory=u\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nunion-overlay-directory=\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=overlay\nunion-underlay-directory=\n
[a]\ntype=directory\ndirectory=/srv\nunion-type=\n
[a]\ndirectory=/srv\nmessage-verbosity=\n
[a]\ndirectory=\nlocation=/srv\n
[a]\ndirectory=/srv\nunion-type=overlay\n
[a]\ndirectory=/srv\nsource-users=x\n
[a]\ndirectory=/srv\npreserve-environment=TRUE\n
[a]\ndirectory=/srv\npreserve-environment=\n
[a]\ndirectory=/srv\nmessage-verbosity=loud\n
[a]\ndirectory=/srv\npersonality=foo\n
[a]\ndirectory=/srv\nenvironment-filter=(\n
[a]\ndirectory=/srv\nenvironment-filter=\n
[a]\ndirectory=/srv\nfoo=1\n
[a]\ndirectory=/srv\nfoo.Bar=1\n
[a]\ndirectory=/srv\nFoo.bar=1\n
[a]\ndirectory=/srv\n.foo=1\n
[a]\ndirectory=/srv\nauth.x=1\n
[a]\ndirectory=/srv\nchroot.x=1\n
[a]\ndirectory=/srv\nsetup.data.dir=1\n
[a]\ndirectory=/srv\ndescription=x\nusers[de]=y\n
[a]\ndirectory=/srv\na.b-c=1\na.b.c=2\n
[a]\ndirectory=/srv\npriority=3\n
[a]\ndirectory=/srv\npriority=1\n
[a]\ndirectory=/srv\nactive=true\n
[a]\ndirectory=/srv\nrun-setup-scripts=true\n
[a]\ndirectory=/srv\nrun-exec-scripts=true\n
[a]\ndirectory=/srv\nscript-config=foo/config\n
[a]\ndirectory=/srv\nname=x\n
[a]\ndirectory=/srv\nmount-location=/x\n
[a:b]\ndirectory=/srv\n
[a/b]\ndirectory=/srv\n
[a b]\ndirectory=/srv\n
[.a]\ndirectory=/srv\n
[_a]\ndirectory=/srv\n
[a~]\ndirectory=/srv\n
[a.dpkg-old]\ndirectory=/srv\n
[a]\ndirectory=/srv\naliases=x:y\n
[a]\ndirectory=/srv\naliases=x y\n
[a]\ndirectory=/srv\naliases=b\n[c]\ndirectory=/srv\naliases=b\n
[a]\ndirectory=/srv\naliases=good\n
""".strip().splitlines()

# Nothing of a file that schroot refuses is used by it; of ours, what is right.
BAD = Batch(
    "[good]\ndirectory=/srv/root\n",
    "".join(f"conf '{text}' d; schroot -l >/run/list; echo $?; grep -cx chroot:good /run/list\n" for text in TEXTS),
)

FILES = Batch(
    "[good]\ndirectory=/srv/root\n",
    r"""
mkdir /etc/schroot/chroot.d/dir; schroot -l; rmdir /etc/schroot/chroot.d/dir
mkfifo /etc/schroot/chroot.d/fifo; schroot -l; rm /etc/schroot/chroot.d/fifo
ln -s nowhere /etc/schroot/chroot.d/link; schroot -l; rm /etc/schroot/chroot.d/link
conf '[a]\ndirectory=/a\n'; chmod 646 /etc/schroot/chroot.d/c; schroot -l                           #~ bad-file: status output messages
conf '[a]\ndirectory=/a\n'; chown nobody /etc/schroot/chroot.d/c; schroot -l                        #~ bad-file: status output messages
conf 'foo\n'; schroot -c good -- true                                                               #~ bad-file: status messages log
conf 'foo\n'; schroot -l -c a                                                                       #~ bad-file: messages
conf '[a]\ndirectory=x\n'; schroot -c a -- true                                                     #~ configuration-messages: messages
conf '[a]\ndirectory=/a\nfoo=1\n'; schroot -l -c a                                                  #~ configuration-messages: messages
conf '\357\273\277[a]\ndirectory=/srv\n'; schroot -l -c good                                        #~ bad-file: status output messages
mv /etc/schroot/schroot.conf /run/; schroot -l; echo $?; mv /run/schroot.conf /etc/schroot/         #~ bad-file: output messages
mv /etc/schroot/chroot.d /run/; schroot -l; echo $?; mv /run/chroot.d /etc/schroot/                 #~ bad-file: output messages
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


@FILES.each
def test_same_files(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", BAD.cases, ids=TEXTS)
def test_same_reason(case: Case) -> None:
    """What schroot says of it, we say of it; what it refuses, only the chroot in question is refused by us."""
    (_status, _theirs, their_words, _), (_, ours, our_words, _) = case.pair
    missing = [reason for reason in reasons(their_words) if reason not in our_words]
    assert missing == [], f"{case.line}\n--- Debian's: {their_words}\n--- ours: {our_words}"
    assert ours == "0\n1\n"
    outcomes.append("bad-file" if "E: " in their_words else "configuration-messages")


# Where each says it in words of its own.
OTHER_WORDS = {
    "Mismatched '(' and ')' in regular expression": "'(' is not a regular expression",
    "Could not parse value ‘3’": "Obsolete key ‘priority’ used",
    "Alias ‘b’ already associated with ‘unknown’ chroot": "Alias ‘b’ already associated with ‘a’ chroot",
    "Alias ‘good’ already associated with ‘unknown’ chroot": "Alias ‘good’ already associated with ‘good’ chroot",
}
WHERE = r"(/\S+: )?(\[[^]]*\] )?(\w+: )?(line \d+)?( ?\[[^]]*\])?( [\w.\[\]-]+)?(: (?=line))?(line \d+ \[a\])?(: )?"


def reasons(messages: str) -> list[str]:
    """What is wrong, without where, as schroot says it."""
    lines = [line[3:] for line in messages.splitlines() if line[:3] in ("E: ", "W: ")]
    found = [re.sub(WHERE, "", line, count=1) for line in lines]
    return [OTHER_WORDS.get(reason, reason) for reason in found]

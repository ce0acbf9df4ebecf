"""Where the root of a session comes from: archives by their names and owners, and unions by their options."""

from __future__ import annotations

from comparing import Batch, Case

ENDINGS = (
    "tar", "tar.gz", "tgz", "tar.bz2", "tbz", "tar.xz", "txz", "tar.lzo", "tzo", "tar.lz4", "tlz4", "tar.zstd",
    "tar.zst", "tzst", "tbz2", "zip", "tar.lzop",
)  # fmt: skip
PROGRAMS = {"gz": "gzip", "bz": "bzip2", "xz": "xz", "lzo": "lzop", "zo": "lzop", "lz4": "lz4", "zst": "zstd"}
UNUSABLE = ("zip", "tar.lzop")
ADDED = ("tar.zst", "tzst", "tbz2")

CONFIGURATION = (
    "".join(f"[{ending}]\ntype=file\nfile=/srv/made.{ending}\nprofile=minimal\n\n" for ending in ENDINGS)
    + """\
[shut]
type=file
file=/srv/shut.tar
profile=minimal

[open]
type=file
file=/srv/open.tar
profile=minimal

[whole]
type=directory
directory=/srv/root
union-type=overlay
union-mount-options=lowerdir=/srv/root,upperdir=/run/upper,workdir=/run/work
profile=minimal

[added]
type=directory
directory=/srv/root
union-type=overlay
union-mount-options=noatime
profile=minimal

[aufs]
type=directory
directory=/srv/root
union-type=aufs
profile=minimal
"""
)


def _packed(ending: str) -> str:
    """The line that makes the archive."""
    program = next((program for part, program in PROGRAMS.items() if part in ending), "cat")
    return f"tar -c -C /srv/root . | {program} >/srv/made.{ending}"


def _difference(ending: str) -> str:
    if ending in ADDED:
        return "    #~ archive-endings: output messages log"
    return "    #~ step-messages: messages" if ending in UNUSABLE else ""


BATCH = Batch(
    CONFIGURATION,
    "".join(
        f"{_packed(ending)}; schroot -c {ending} -- ls /bin/busybox; rm /srv/made.{ending}{_difference(ending)}\n"
        for ending in ENDINGS
    )
    + r"""
schroot -q -e --all-sessions 2>/dev/null; rm -f /var/lib/schroot/session/*
tar -c -C /srv/root . >/srv/shut.tar; chown nobody /srv/shut.tar; schroot -c shut -- true             #~ step-messages: messages
tar -c -C /srv/root . >/srv/open.tar; chmod 666 /srv/open.tar; schroot -c open -- true                #~ step-messages: messages
schroot -b -c open -n s                                                                               #~ step-messages: messages
mkdir /run/upper /run/work; schroot -c whole -- touch /mark; ls /run/upper/mark /srv/root/mark
schroot -c added -- grep -c noatime /proc/mounts                                                      #~ union-options: status output messages log
schroot -c aufs -- true                                                                               #~ step-messages: messages
# The kernel would load a module; here it need not.
grep -v overlay /proc/filesystems >/run/known; mount --bind /run/known /proc/filesystems; schroot -c whole -- true; umount /proc/filesystems  #~ kernel-modules: messages log
schroot -l --all-sessions
""",
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []

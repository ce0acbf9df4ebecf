"""Mount options: every word goes to exactly one place, and the last of two that contradict each other counts."""

from __future__ import annotations

import functools
import operator
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import mountoptions
from sessions.linux import syscall
from sessions.mountoptions import MountOptions, parse

PAIRS = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync",
}  # fmt: skip
FLAGS = {
    "ro": (syscall.MS_RDONLY, syscall.MOUNT_ATTR_RDONLY),
    "nosuid": (syscall.MS_NOSUID, syscall.MOUNT_ATTR_NOSUID),
    "nodev": (syscall.MS_NODEV, syscall.MOUNT_ATTR_NODEV),
    "noexec": (syscall.MS_NOEXEC, syscall.MOUNT_ATTR_NOEXEC),
    "noatime": (syscall.MS_NOATIME, syscall.MOUNT_ATTR_NOATIME),
    "nosymfollow": (syscall.MS_NOSYMFOLLOW, syscall.MOUNT_ATTR_NOSYMFOLLOW),
}
SILENT = ("defaults", "auto", "noauto", "user", "nofail", "_netdev", "x-systemd.automount", "comment=x", "rprivate")
FOR_THE_PROGRAM = ("loop", "loop=/dev/loop0", "offset=4096", "helper=x", "uhelper=y", "X-mount.mkdir")
DATA = st.from_regex(r"[a-wyz]{4,8}x(=[a-z0-9:/]{1,6})?", fullmatch=True).filter(
    lambda word: word not in FLAGS and word not in PAIRS
)
WORDS = st.lists(st.one_of(st.sampled_from([*FLAGS, *PAIRS, *SILENT, "bind", "rbind", ""]), DATA), max_size=8)


@given(WORDS)
def test_every_word_goes_to_one_place(words: list[str]) -> None:
    found = parse(",".join(words))
    silent = {*FLAGS, *PAIRS, *SILENT, "bind", "rbind", ""}
    assert found.data.split(",") == [word for word in words if word not in silent] or found.data == ""
    assert (found.data == "") == all(word in silent for word in words)
    last = {word: index for index, word in enumerate(words)}
    for name, (flag, attribute) in FLAGS.items():
        opposites = [last[positive] for positive, negative in PAIRS.items() if negative == name and positive in last]
        is_set = last.get(name, -1) > max(opposites, default=-1)
        assert (bool(found.flags & flag), bool(found.attributes & attribute)) == (is_set, is_set)
    binds = [word for word in words if word in ("bind", "rbind")]
    assert (found.bind, found.recursive) == (bool(binds), bool(binds) and binds[-1] == "rbind")
    assert not found.needs_mount_program


@given(st.text(string.printable, max_size=40))
def test_any_text_can_be_parsed(text: str) -> None:
    found = parse(text)
    assert isinstance(found, MountOptions)
    known = functools.reduce(operator.or_, (attribute for _flag, attribute, _set in mountoptions._FLAGS.values()))
    assert found.attributes & ~known == 0


@given(WORDS, WORDS)
def test_what_comes_later_counts(one: list[str], other: list[str]) -> None:
    """Options that are given twice, once contradicted, are what the second time says."""
    twice = parse(",".join([*one, *other, *one]))
    once = parse(",".join([*other, *one]))
    assert (twice.flags, twice.attributes, twice.bind) == (once.flags, once.attributes, once.bind)


@pytest.mark.parametrize("word", FOR_THE_PROGRAM)
def test_what_mount_has_to_see(word: str) -> None:
    assert parse(f"ro,{word},size=1M").needs_mount_program
    assert parse("ro,size=1M,rw").needs_mount_program is False


def test_usual_lines() -> None:
    assert parse("") == parse("defaults") == parse("rw") == MountOptions()
    assert parse("rw,bind") == MountOptions(bind=True)
    assert parse("rbind,ro,nosuid") == MountOptions(
        syscall.MS_RDONLY | syscall.MS_NOSUID, syscall.MOUNT_ATTR_RDONLY | syscall.MOUNT_ATTR_NOSUID, "", True, True
    )
    assert parse("rw,newinstance,ptmxmode=666,mode=620,gid=5").data == "newinstance,ptmxmode=666,mode=620,gid=5"
    assert parse("relatime,nodiratime,lazytime,strictatime,sync,dirsync").flags == (
        syscall.MS_RELATIME | syscall.MS_NODIRATIME | syscall.MS_LAZYTIME | syscall.MS_STRICTATIME
        | syscall.MS_SYNCHRONOUS | syscall.MS_DIRSYNC
    )  # fmt: skip


def test_what_a_bind_mount_hears_of_its_original() -> None:
    """Private unless asked otherwise; a shared one hears, but tells nothing, as its unmounting would be told too."""
    assert parse("rbind,slave,ro").propagation == parse("bind,rshared").propagation == syscall.MS_SLAVE
    assert parse("rbind").propagation == parse("rbind,rslave,private").propagation == syscall.MS_PRIVATE
    assert parse("runbindable,bind").propagation == syscall.MS_UNBINDABLE

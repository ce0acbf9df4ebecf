"""The mount-options of a chroot, as words of mount(8)."""

from __future__ import annotations

import pytest

from sessions import mountwords
from sessions.errors import StepFailed
from sessions.linux import syscall


@pytest.mark.parametrize(
    ("words", "fstype", "text"),
    [
        ("", "", ""),
        ("-o noatime", "", "noatime"),
        ("-onoatime -o nodev,ro", "", "noatime,nodev,ro"),
        ("--options noatime --options=nodev", "", "noatime,nodev"),
        ("-t ext4", "ext4", ""),
        ("-text4", "ext4", ""),
        ("--types xfs -v -n", "xfs", ""),
        ("-t auto", "", ""),
        ("-r -w", "", "ro,rw"),
        ("-o subvol=@root,compress=zstd:3", "", "subvol=@root,compress=zstd:3"),
        ("-o loop,noatime", "", "noatime"),
    ],
)
def test_what_is_understood(words: str, fstype: str, text: str) -> None:
    found = mountwords.parse(words)
    assert (found.fstype, found.text) == (fstype, text)


def test_options_of_the_file_system_and_of_the_mount() -> None:
    found = mountwords.parse("-o ro,sync,nosuid,noatime,data=ordered,discard")
    assert found.is_read_only
    assert found.parameters == ("ro", "sync")
    assert found.options.attributes & syscall.MOUNT_ATTR_NOSUID
    assert found.options.data == "data=ordered,discard"
    assert not mountwords.parse("-r -o rw").is_read_only


@pytest.mark.parametrize(
    ("words", "offset", "size"),
    [("-o offset=512", 512, 0), ("-o offset=1M,sizelimit=2GiB", 1 << 20, 2 << 30), ("-o sizelimit=4K,loop", 0, 4096)],
)
def test_part_of_an_image(words: str, offset: int, size: int) -> None:
    found = mountwords.parse(words)
    assert (found.offset_bytes, found.size_bytes, found.text) == (offset, size, "")


@pytest.mark.parametrize(
    "words",
    ["noatime", "-x", "-o", "-t", "--bind", "-o bind", "-o X-mount.mkdir", "-o offset=x", "-o offset=1T", "-L x"],
)
def test_what_means_nothing(words: str) -> None:
    with pytest.raises(StepFailed) as error:
        mountwords.parse(words)
    assert error.value.hint
    assert "\n" not in str(error.value)

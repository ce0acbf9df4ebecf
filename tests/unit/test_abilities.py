"""What the kernel says it can do, in files of its own form: what is missing is named with the module that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessions.errors import StepFailed
from sessions.linux import abilities

CRYPTO = """name         : {}
driver       : {}-generic
module       : kernel

"""
XTS_NEEDS = "which the cipher aes-xts-plain64 needs; load it as root: modprobe"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the files in which the kernel tells."""
    for name in ("MISC", "MDSTAT", "CRYPTO", "MODULES", "BUILT_IN"):
        monkeypatch.setattr(abilities, name, str(tmp_path / name))
    (tmp_path / "BUILT_IN").write_text("kernel/fs/ext4/ext4.ko\n")
    return tmp_path


def says(kernel: Path, *algorithms: str, modules: str = "", built_in: str = "") -> None:
    (kernel / "CRYPTO").write_text("".join(CRYPTO.format(name, name) for name in algorithms))
    (kernel / "MODULES").write_text(f"{modules} 16384 0 - Live 0x0000\n" if modules else "")
    (kernel / "BUILT_IN").write_text(f"kernel/crypto/{built_in}.ko\n")


def test_a_cipher_that_is_in_use_is_there(kernel: Path) -> None:
    says(kernel, "xts(aes)")
    abilities.need_cipher("aes-xts-plain64")


def test_each_part_of_a_cipher_has_to_be_there(kernel: Path) -> None:
    says(kernel)
    with pytest.raises(StepFailed, match=f"this kernel has no aes, {XTS_NEEDS} aes"):
        abilities.need_cipher("aes-xts-plain64")
    says(kernel, "aes")
    with pytest.raises(StepFailed, match=f"this kernel has no xts, {XTS_NEEDS} xts"):
        abilities.need_cipher("aes-xts-plain64")
    says(kernel, "aes", modules="xts")
    with pytest.raises(StepFailed, match=f"this kernel has no ecb, {XTS_NEEDS} ecb"):
        abilities.need_cipher("aes-xts-plain64")
    says(kernel, "aes", "ecb(cipher_null)", modules="xts")
    abilities.need_cipher("aes-xts-plain64")
    says(kernel, "aes", modules="cbc")
    abilities.need_cipher("aes-cbc-essiv:sha256")


def test_what_is_built_in_is_there_before_it_is_used(kernel: Path) -> None:
    says(kernel, modules="cbc", built_in="aes_generic")
    abilities.need_cipher("aes-cbc-plain")


def test_where_nobody_says_what_is_built_in_nothing_is_refused(kernel: Path) -> None:
    says(kernel)
    (kernel / "BUILT_IN").unlink()
    abilities.need_cipher("aes-xts-plain64")
    abilities.need_cipher("capi:xts(aes)-plain64")


def test_an_array_needs_the_driver_and_its_level(kernel: Path) -> None:
    with pytest.raises(StepFailed, match=r"this kernel has no driver for arrays \(md\); .* modprobe md-mod"):
        abilities.need_raid()
    (kernel / "MDSTAT").write_text("Personalities : [raid1] \nunused devices: <none>\n")
    abilities.need_raid("raid1")
    with pytest.raises(StepFailed, match=r"no support for arrays of level raid5; .* modprobe raid456"):
        abilities.need_raid("raid5")


def test_without_a_device_mapper_nobody_opens_its_node(kernel: Path) -> None:
    """That would make the kernel load it."""
    (kernel / "MISC").write_text(" 61 loop-control\n")
    with pytest.raises(StepFailed, match="this kernel has no device mapper; load it as root: modprobe dm-mod"):
        abilities.need_targets("crypt")

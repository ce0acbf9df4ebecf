"""The ``mount-options`` of a chroot, which are words of mount(8), taken apart into what the kernel takes."""

from __future__ import annotations

from sessions import mountoptions
from sessions.data import Frozen
from sessions.errors import StepFailed
from sessions.linux import syscall
from sessions.mountoptions import MountOptions

# The same as the parameters that a file system itself takes (fsconfig(2)), rather than one mount of it.
_PARAMETERS = {
    syscall.MS_RDONLY: "ro",
    syscall.MS_SYNCHRONOUS: "sync",
    syscall.MS_DIRSYNC: "dirsync",
    syscall.MS_LAZYTIME: "lazytime",
}


class DeviceOptions(Frozen):
    """What the ``mount-options`` of a chroot ask for: words of mount(8), such as ``-t ext4 -o noatime``.

    ``fstype`` is empty where mount(8) would find out. `offset_bytes` and `size_bytes` are about the file of an image.
    """

    fstype: str
    text: str
    """The options behind -o, but for those that are about an image."""
    options: MountOptions
    offset_bytes: int = 0
    size_bytes: int = 0

    @property
    def parameters(self) -> tuple[str, ...]:
        """The flags that are for the file system itself, in words."""
        return tuple(word for flag, word in _PARAMETERS.items() if self.options.flags & flag)

    @property
    def is_read_only(self) -> bool:
        """Whether the file system is not to be written to at all."""
        return bool(self.options.flags & syscall.MS_RDONLY)


def parse(words: str) -> DeviceOptions:
    """Take the words of ``mount-options`` apart, split at blanks as schroot's shell does.

    Raises StepFailed for one that means nothing here.
    """
    try:
        return _parse(words)
    except ValueError as error:
        reason, _semicolon, remedy = str(error).rpartition("; ")
        raise StepFailed(f"mount-options {words}: {reason}", hint=remedy) from None


def _parse(words: str) -> DeviceOptions:
    fstype = ""
    found: list[str] = []
    left = words.split()
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        if name in _TAKING_VALUES and not equals:
            if not left:
                raise ValueError(f"{word} wants a value; give one behind it")
            value = left.pop(0)
        if name in ("-o", "--options"):
            found.append(value)
        elif name in ("-t", "--types"):
            fstype = value
        elif word in _WORDS:
            found.append(_WORDS[word])
        else:
            raise ValueError(f"{word} means nothing here; use -o OPTIONS, -t TYPE and -r")
    return _device_options(fstype, ",".join(found))


# Words of mount(8) as options: what it says on the way, and that it writes no mtab, is of no account.
_WORDS = {
    "-r": "ro", "--read-only": "ro", "-w": "rw", "--rw": "rw", "--read-write": "rw", "-v": "", "--verbose": "",
    "-n": "", "--no-mtab": "",
}  # fmt: skip
_TAKING_VALUES = ("-o", "--options", "-t", "--types")
_UNITS = {"": 1, "K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30}


def _device_options(fstype: str, options: str) -> DeviceOptions:
    sizes = {"offset": 0, "sizelimit": 0}
    rest = []
    for option in filter(None, options.split(",")):
        name, _equals, value = option.partition("=")
        if name in sizes:
            sizes[name] = _size_bytes(option, value)
        elif name != "loop":  # which an image gets in any case
            rest.append(option)
    text = ",".join(rest)
    parsed = mountoptions.parse(text)
    if parsed.needs_mount_program or parsed.bind:
        raise ValueError(f"{options} asks for what a root cannot be mounted with; take it out")
    return DeviceOptions("" if fstype == "auto" else fstype, text, parsed, sizes["offset"], sizes["sizelimit"])


def _size_bytes(option: str, value: str) -> int:
    digits = value.rstrip("KMGiB")
    unit = value[len(digits) :]
    if not digits.isdecimal() or unit not in _UNITS:
        raise ValueError(f"{option} is not a size; write bytes, or a number followed by K, M or G")
    return int(digits) * _UNITS[unit]

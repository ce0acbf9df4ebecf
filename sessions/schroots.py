"""schroot's own setup scripts in /etc/schroot/setup.d: they are not run, and those that were edited are told apart."""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterator

from sessions.config.raw import WARNING, Problem
from sessions.config.read import Signature, signature
from sessions.model import Places

# Size and checksum of each script as Debian ships it, from bullseye (1.6.10) to 2026 (1.6.13-8). Nobody forges a file
# of root's, and hashlib would cost every session ten milliseconds.
SHIPPED = {
    "00check": ((1765, 0xE6A4AEF5), (1768, 0x947C57C2)),
    "05btrfs": ((2399, 0xA1222C0E), (2402, 0x9E8182C9)),
    "05file": ((4653, 0xFAC47DE7), (4932, 0xE636A377)),
    "05lvm": ((2129, 0xC5F1358F), (2132, 0x021D0B34)),
    "05union": ((2638, 0xC558E567),),
    "05zfs": ((2415, 0xFE654494), (2421, 0x46741F15)),
    "10mount": ((9974, 0xB2A8D372), (10370, 0x7B693AF6), (11317, 0xF6DD9F7C), (11320, 0xED2B61B4)),
    "15binfmt": ((1537, 0x454117CA), (1542, 0x203314BD)),
    "15killprocs": ((2911, 0x033892E1), (2916, 0x183C57A7)),
    "20copyfiles": ((3025, 0xF8FE91E8), (4519, 0xAD65EEFF)),
    "20nssdatabases": ((2183, 0xFD322707), (2186, 0x24AFFB26)),
    "50chrootname": ((1068, 0x3C03D846), (1071, 0xB22306C4)),
    "70services": ((1786, 0xB82F5266), (1789, 0xFCE2D7D1)),
    "99check": ((1765, 0xE6A4AEF5), (1768, 0x947C57C2)),
}
# What dpkg knows of every package: of one that is installed, or removed but not purged, also the digests of its files
# in /etc as it came.
DPKG_STATUS = "/var/lib/dpkg/status"
_LARGEST_BYTES = 1 << 20


def is_shipped(name: str, path: str) -> bool:
    """Whether the file at `path` is schroot's script `name` as some release has it, or as this system's package has.

    It is read again only when it, or what dpkg knows, has changed since it was read last.
    """
    now = signature(path), signature(DPKG_STATUS)
    known = _JUDGED.get(path)
    if known is None or known[0] != now:
        known = now, _is_shipped(name, path)
        _JUDGED[path] = known
    return known[1]


# What each file was when it was looked at, and what came of it.
_JUDGED: dict[str, tuple[tuple[Signature, Signature], bool]] = {}


def _is_shipped(name: str, path: str) -> bool:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_BYTES)
    except OSError:
        return False
    return (len(data), binascii.crc32(data)) in SHIPPED[name] or _is_packaged(name, data)


def _is_packaged(name: str, data: bytes) -> bool:
    """Whether dpkg says that the package of this system came with exactly this: the table cannot know all releases."""
    digest = _packaged_digests().get(name)
    if digest is None:
        return False
    import hashlib  # only where something has been edited

    return hashlib.md5(data, usedforsecurity=False).hexdigest() == digest


def _packaged_digests() -> dict[str, str]:
    """The MD5 digests of schroot's setup scripts in dpkg's status file, by name; links have none."""
    try:
        with open(DPKG_STATUS, encoding="utf-8", errors="replace") as file:
            _before, _package, rest = ("\n" + file.read()).partition("\nPackage: schroot\n")
    except OSError:
        return {}
    found = {}
    for line in rest.partition("\n\n")[0].splitlines():
        words = line.split()
        if line.startswith(" /etc/schroot/setup.d/") and len(words) >= 2:
            found[os.path.basename(words[0])] = words[1]
    if "00check" in found:
        found["99check"] = found["00check"]
    return found


def problems(places: Places) -> Iterator[Problem]:
    """What an administrator has done to schroot's scripts that has no effect here, each with how to have it.

    Nothing is said of a script for whose name there is something in the native directory: that has been dealt with.
    """
    directory, own = f"{places.schroot_config_dir}/setup.d", f"{places.native_config_dir}/setup.d"
    if directory == own:
        return
    try:
        there = SHIPPED.keys() & set(os.listdir(directory))
    except OSError:
        return
    for name in sorted(SHIPPED) if there else ():
        path, instead = f"{directory}/{name}", f"{own}/{name}"
        if os.path.lexists(instead):
            continue
        if name not in there:
            reason = "has been removed, and the stock script of that name runs all the same"
            yield _problem(path, reason, f"to leave it out here too: ln -s /dev/null {instead}")
        elif not is_shipped(name, path):
            reason = "has been edited, and is not run: the stock script of that name is"
            yield _problem(path, reason, f"to run it in its place: cp {path} {instead}; to do without: rm {path}")


def _problem(path: str, reason: str, remedy: str) -> Problem:
    return Problem(path, 0, "", "", WARNING, reason, remedy)

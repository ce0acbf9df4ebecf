"""What a tar archive may hold to be unpacked by root, checked member by member before tar(1) sees it.

Two programs may read one archive differently, and a check is worth nothing if tar unpacks something else than what
was checked. So headers are read twice, by the rules of :mod:`sessions.linux.tarheader` and by tarfile, and an archive
is refused where the two differ. The plainest headers, which can be read in one way only, are spared the second
reading: it takes longer than all the rest.
"""

from __future__ import annotations

import re
import tarfile
from itertools import chain

from sessions.linux.tarheader import (
    BLOCK,
    BLOCK_BYTES,
    CHARACTER,
    DIRECTORY,
    LINK,
    REGULAR,
    SYMLINK,
    Ended,
    Header,
    Refused,
    Source,
    padded,
    read_header,
)

# The nodes that debootstrap and mmdebstrap make; every program in a chroot may count on them.
_DEVICES = {
    "dev/null": (1, 3),
    "dev/zero": (1, 5),
    "dev/full": (1, 7),
    "dev/random": (1, 8),
    "dev/urandom": (1, 9),
    "dev/tty": (5, 0),
    "dev/console": (5, 1),
    "dev/ptmx": (5, 2),
}
_MOST_LINKS = 40

_PLAIN = (b"0", LINK, SYMLINK, DIRECTORY)
# Mode, owner, group, size, time and checksum as every tar writes them if they have room.
_PLAIN_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}(?:[0-7]{11}[\0 ]){2}[0-7]{6}\0 ")
_PLAIN_DEVICE = re.compile(rb"(?:[0-7]{7}[\0 ]|\0{8}){2}")


def check(source: Source) -> None:
    """Read an archive to its end, passing on what is right. Raises Refused at the first thing that is not."""
    tree = _Tree()
    is_empty = True
    while (header := read_header(source)) is not None:
        try:
            if not _is_plain(source, header):
                _ask_tarfile(source, header)
            tree.admit(header)
        except Refused as refusal:
            refusal.member = header.name
            raise
        source.skip(header.length + padded(header.size))
        is_empty = False
    if is_empty:
        raise Refused("it holds no members")
    tree.check_links()
    mark = source.peek(0, 2 * BLOCK_BYTES)
    if len(mark) < 2 * BLOCK_BYTES:
        raise Ended("it ends within the mark of its end")
    # Nobody reads on once tar has seen the mark; padding up to the size of a tape's record is usual.
    source.skip(len(mark))
    for piece in chain([mark], source.rest()):
        if piece.count(0) != len(piece):
            raise Refused("something follows its end")


def _is_plain(source: Source, header: Header) -> bool:
    """Whether a header is one block of a plain type, with plain numbers, no prefix and the right checksum."""
    if header.length != BLOCK_BYTES or header.kind not in _PLAIN:
        return False
    block = source.peek(0, BLOCK_BYTES)
    return (
        _PLAIN_NUMBERS.fullmatch(block, 100, 156) is not None
        and _PLAIN_DEVICE.fullmatch(block, 329, 345) is not None
        and not block[345]
        and sum(block) - sum(block[148:156]) + 8 * ord(" ") == int(block[148:154], 8)
    )


class _Window:
    """What tarfile reads: the headers of one member, as if they were the beginning of a file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.at = 0

    def read(self, size: int, /) -> bytes:
        """As a file."""
        data = self._source.peek(self.at, size)
        self.at += len(data)
        return data

    def tell(self) -> int:
        """As a file."""
        return self.at

    def seek(self, at: int, /) -> int:
        """As a file."""
        self.at = at
        return at

    def write(self, data: bytes, /) -> int:
        """Nothing is written."""
        raise OSError("this file is read only")

    def close(self) -> None:
        """Nothing is held."""


def _ask_tarfile(source: Source, header: Header) -> None:
    """Have tarfile read the member too; Refused if it sees anything wrong or anything else than we do."""
    window = _Window(source)
    member: tarfile.TarInfo | None
    try:
        if header.length == BLOCK_BYTES:
            member = tarfile.TarInfo.frombuf(window.read(BLOCK_BYTES), "utf-8", "surrogateescape")
        else:
            member = tarfile.TarFile(fileobj=window, mode="r", encoding="utf-8", errors="surrogateescape").next()
    except (tarfile.TarError, ValueError, LookupError, ArithmeticError) as error:
        raise Refused(f"has a header that cannot be read: {error}") from None
    same = (
        member is not None
        and member.type == header.kind
        and member.name.rstrip("/") == header.name.rstrip("/")
        and (header.kind not in (LINK, SYMLINK) or member.linkname == header.linkname)
        and (member.issparse() or header.kind not in REGULAR or member.size == header.size)
        and window.at == header.length + header.map_size
    )
    if not same:
        raise Refused("is read differently by different programs")


class _Tree:
    """What the members so far make, as far as it matters where the next one goes: the symbolic links."""

    def __init__(self) -> None:
        self._links: dict[str, str] = {}
        # Where the directories of names lead, as far as that is known and no new link can have changed it.
        self._directories: dict[str, str] = {}

    def admit(self, header: Header) -> None:
        """Take a member in, or raise Refused."""
        place = self._place(header.name, "its name")
        if place == "" and header.kind != DIRECTORY:
            raise Refused("takes the place of the root directory")
        if header.kind == SYMLINK:
            self._check_target(place, header.linkname)
            self._add_link(place, header.linkname)
            return
        if place in self._links:
            raise Refused(f"takes the place of a symbolic link to {self._links[place]!r}")
        if header.kind == LINK:
            target = self._links.get(self._place(header.linkname, "the name it links to"))
            if target is not None:
                self._check_target(place, target)
                self._add_link(place, target)
        elif header.kind == BLOCK or (header.kind == CHARACTER and _DEVICES.get(place) != header.device):
            kind = "block" if header.kind == BLOCK else "character"
            raise Refused(f"is the {kind} device {header.device[0]}:{header.device[1]}")

    def _add_link(self, place: str, target: str) -> None:
        self._links[place] = target
        self._directories.clear()

    def check_links(self) -> None:
        """Check all symbolic links again, now that it is known what lies on their way."""
        for place, target in self._links.items():
            try:
                self._check_target(place, target)
            except Refused as refusal:
                refusal.member = place
                raise

    def _place(self, name: str, what: str) -> str:
        """Where a name leads, without links on the way and with no slash in front; "" for the root directory."""
        above, _slash, last = name.rstrip("/").rpartition("/")
        if last in ("", ".", "..") or "\0" in last or name[0] == "/":
            return self._odd_place(name, what)
        try:
            return self._directories[above] + last
        except KeyError:
            place = self._odd_place(name, what)
            self._directories[above] = place[: -len(last)]
            return place

    def _odd_place(self, name: str, what: str) -> str:
        """As :meth:`_place`, for a name in a directory that is new, or in no usual form."""
        if not name:
            raise Refused(f"is not right: {what} is empty")
        if "\0" in name:
            raise Refused(f"is not right: {what} holds a NUL")
        if name[0] == "/":
            raise Refused(f"is not right: {what} is absolute")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused(f"is not right: {what} holds '..'")
        if not parts:
            return ""
        return "/".join([*self._follow([], parts[:-1], enter_absolute=False), parts[-1]])

    def _check_target(self, place: str, target: str) -> None:
        """Refuse a relative target that leads above the root; an absolute one is taken to be inside the chroot."""
        if not target or "\0" in target:
            raise Refused("is a symbolic link to an empty name or to one with a NUL")
        if target[0] != "/":
            self._follow(place.split("/")[:-1], target.split("/"), enter_absolute=True)

    def _follow(self, base: list[str], parts: list[str], *, enter_absolute: bool) -> list[str]:
        """Walk from a directory along `parts` and the links so far, as the kernel would; Refused above the root."""
        at = list(base)
        left = parts[::-1]
        hops = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise Refused("leads out of the tree, above its root")
                at.pop()
                continue
            at.append(part)
            target = self._links.get("/".join(at))
            if target is None:
                continue
            hops += 1
            if not enter_absolute and (target[0] == "/" or hops > _MOST_LINKS):
                raise Refused(f"goes through the symbolic link {'/'.join(at)!r}, which leads to {target!r}")
            if hops > _MOST_LINKS:
                return []
            at = [] if target[0] == "/" else at[:-1]
            left += target.split("/")[::-1]
        return at

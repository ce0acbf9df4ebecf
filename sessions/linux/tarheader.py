"""The headers of one member of a tar archive, read by the plain rules of GNU tar.

Whatever one program could take for something else than another is refused: what is said twice, sizes that do not fit
or mean nothing, headers that are not needed by anything in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple, Protocol

BLOCK_BYTES = 512
_ZEROS = bytes(BLOCK_BYTES)
_POSIX_MAGIC = b"ustar\0"
_GNU_MAGIC = b"ustar  \0"

OLD_SPARSE = b"S"
REGULAR = (b"0", b"\0", b"7", OLD_SPARSE)
LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (b"1", b"2", b"3", b"4", b"5", b"6")
_MEMBERS = (*REGULAR, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO)
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = (b"x", b"g", b"L", b"K")
_EXTENSIONS = (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK)

_DIGITS = re.compile(rb"[0-9]{1,18}")
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*|\0+")
# What a header for all the members that follow may say: nothing that moves a member or its data.
_GLOBAL_KEYWORDS = {b"comment", b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"}
_SPARSE_KEYWORDS = {b"GNU.sparse." + word for word in (b"major", b"minor", b"name", b"realsize")}


class Refused(Exception):
    """Why an archive is not to be unpacked; `member` is the name of the one at fault, if it is one."""

    def __init__(self, reason: str, member: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.member = member

    def __str__(self) -> str:
        return self.reason if self.member is None else f"member {self.member!r} {self.reason}"


class Ended(Refused):
    """The archive is over before it should be."""


class Source(Protocol):
    """The bytes of an archive, uncompressed, of which those are passed on to tar that have been checked."""

    def peek(self, start: int, size: int) -> bytes:
        """The `size` bytes that begin `start` after what was passed on; fewer if the archive ends before."""

    def skip(self, size: int) -> None:
        """Pass `size` bytes on to tar; raises Ended if there are fewer."""

    def rest(self) -> Iterator[bytes]:
        """All that follows, piece by piece; it is not passed on."""


class Header(NamedTuple):
    """A member as GNU tar understands it.

    `length` is that of its headers, `size` that of the data behind them, which begin with `map_size` bytes that say
    where the rest goes if the file is sparse and the header does not say so.
    """

    name: str
    linkname: str
    kind: bytes
    size: int
    length: int
    device: tuple[int, int]
    map_size: int


def read_header(source: Source) -> Header | None:
    """The next member, None at a block of zeros, which marks the end; raises Refused where tar might stumble."""
    if source.peek(0, BLOCK_BYTES) == _ZEROS:
        return None
    block, length, said, records = _read_blocks(source)
    kind = block[156:157]
    name, linkname = _names(block, said, records)
    try:
        if kind not in _MEMBERS:
            raise Refused(f"is of the unknown type {kind!r}")
        if kind in REGULAR and name.endswith(b"/"):
            if kind != b"\0":
                raise Refused("is a file with the name of a directory")
            kind = DIRECTORY
        size = 0 if kind == LINK else _number(block[124:136], "size")
        if b"size" in records:
            if not _DIGITS.fullmatch(records[b"size"]):
                raise Refused(f"has the size {records[b'size']!r}")
            size = int(records[b"size"])
        if size and kind not in REGULAR:
            raise Refused("has data, which its type does not have")
        map_size = 0
        if records and any(keyword.startswith(b"GNU.sparse.") for keyword in records):
            map_size = _check_sparse(source, kind, size, length, records)
        elif kind == OLD_SPARSE:
            length += _check_old_sparse(source, block, size, length, records)
        device = (0, 0)
        if kind in (CHARACTER, BLOCK):
            device = (_number(block[329:337], "device number"), _number(block[337:345], "device number"))
    except Refused as refusal:
        refusal.member = _text(name)
        raise
    return Header(_text(name), _text(linkname), kind, size, length, device, map_size)


def _read_blocks(source: Source) -> tuple[bytes, int, dict[bytes, bytes], dict[bytes, bytes]]:
    """A member's own header, the length of it and what is before it, the long names and the pax records there."""
    said: dict[bytes, bytes] = {}
    records: dict[bytes, bytes] = {}
    length = 0
    while True:
        block = _headers(source, length, BLOCK_BYTES)
        length += BLOCK_BYTES
        if not block.startswith((_POSIX_MAGIC, _GNU_MAGIC), 257):
            raise Refused("it is damaged or no tar archive: there is no header where one should be")
        kind = block[156:157]
        if kind not in _EXTENSIONS:
            return block, length, said, records
        size = _number(block[124:136], "size")
        payload = _headers(source, length, padded(size))
        length += len(payload)
        if kind in said or (kind == _PAX_GLOBAL and said):
            raise Refused("a member has two headers of one kind, or they are in the wrong order")
        if kind == _PAX_GLOBAL and not _records(payload, size).keys() <= _GLOBAL_KEYWORDS:
            raise Refused("a header for all members says more than times and owners")
        if kind == _PAX:
            records = _records(payload, size)
        said[kind] = payload.partition(b"\0")[0]


def _names(block: bytes, said: dict[bytes, bytes], records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The name and the link name: of the pax header, else of the long name's header, else of the block itself."""
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if prefix and block.startswith(_POSIX_MAGIC, 257):
        name = prefix + b"/" + name
    name = said.get(_LONG_NAME, name)
    name = records.get(b"GNU.sparse.name", records.get(b"path", name))
    linkname = said.get(_LONG_LINK, block[157:257].partition(b"\0")[0])
    return name, records.get(b"linkpath", linkname)


def _headers(source: Source, start: int, size: int) -> bytes:
    found = source.peek(start, size)
    if len(found) < size:
        raise Ended("it ends within a header" if start or found else "it ends without the mark of its end")
    return found


def _check_old_sparse(source: Source, block: bytes, size: int, start: int, records: dict[bytes, bytes]) -> int:
    """How many bytes of map follow the header of a sparse file in tar's own format; the map has to fit the size."""
    regions = []
    table, more = block[386:482], block[482]
    length = 0
    while True:
        entries = [table[at : at + 24] for at in range(0, len(table), 24)]
        used = list(takewhile(lambda entry: entry[12], entries))
        regions += [(_number(entry[:12], "start of a region"), _number(entry[12:], "size of one")) for entry in used]
        if more and len(used) < len(entries):
            raise Refused("is a sparse file whose map goes on after its end")
        if not more:
            break
        extension = _headers(source, start + length, BLOCK_BYTES)
        table, more = extension[:504], extension[504]
        length += BLOCK_BYTES
    real_size = _number(block[483:495], "size")
    if records or not block.startswith(_GNU_MAGIC, 257):
        raise Refused("is a sparse file of two formats")
    if not _fits(regions, real_size, padded(size)):
        raise Refused("is a sparse file whose map does not fit its size")
    return length


def _check_sparse(source: Source, kind: bytes, size: int, start: int, records: dict[bytes, bytes]) -> int:
    """How many bytes of map the data of a sparse file in the pax format begin with; the map has to fit the size."""
    said = {keyword: value for keyword, value in records.items() if keyword.startswith(b"GNU.sparse.")}
    if said.keys() != _SPARSE_KEYWORDS or said[b"GNU.sparse.major"] != b"1" or said[b"GNU.sparse.minor"] != b"0":
        raise Refused("is a sparse file in a format other than 1.0")
    if kind != b"0" or b"size" in records:
        raise Refused("is a sparse file whose map does not fit its size")
    lines: list[bytes] = [b""]
    wanted, length = 1, 0
    while len(lines) <= wanted:
        pieces = _headers(source, start + length, BLOCK_BYTES).split(b"\n")
        length += BLOCK_BYTES
        lines[-1] += pieces[0]
        lines += pieces[1:]
        if len(lines) > 1 and _DIGITS.fullmatch(lines[0]):
            wanted = 1 + 2 * int(lines[0])
    if not all(map(_DIGITS.fullmatch, [*lines[:wanted], said[b"GNU.sparse.realsize"]])):
        raise Refused("is a sparse file whose map is no list of numbers")
    numbers = [int(line) for line in lines[1:wanted]]
    regions = list(zip(numbers[::2], numbers[1::2], strict=True))
    if not _fits(regions, int(said[b"GNU.sparse.realsize"]), padded(size) - length):
        raise Refused("is a sparse file whose map does not fit its size")
    return length


def _fits(regions: list[tuple[int, int]], real_size: int, stored: int) -> bool:
    """Whether the regions of a sparse file follow one another, lie within it, and are what is stored of it."""
    at = 0
    for start, size in regions:
        if start < at or start + size > real_size:
            return False
        at = start + size
    return sum(padded(size) for _start, size in regions) == stored


def _records(payload: bytes, size: int) -> dict[bytes, bytes]:
    """The keywords and values of a pax header, "LENGTH KEYWORD=VALUE\\n" each, if nothing is odd about them."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < size:
        digits = payload[at : at + 20].partition(b" ")[0]
        end = at + int(digits) if re.fullmatch(rb"[1-9][0-9]*", digits) else 0
        keyword, equals, value = payload[at + len(digits) + 1 : end - 1].partition(b"=")
        if not at < end <= size or payload[end - 1 : end] != b"\n" or not keyword or not equals:
            raise Refused(f"a pax header is malformed: {payload[at : at + 40]!r}")
        if keyword in records and keyword != b"comment":
            raise Refused(f"a pax header has {_text(keyword)!r} twice")
        if keyword.startswith(b"GNU.") and not keyword.startswith(b"GNU.sparse."):
            raise Refused(f"a pax header has {_text(keyword)!r}, which belongs to another kind of archive")
        records[keyword] = value
        at = end
    if payload[size:].strip(b"\0"):
        raise Refused("something follows a pax header")
    return records


def _number(field: bytes, what: str) -> int:
    """A number of a header: octal, or behind a byte 0x80 binary, as far as an off_t goes."""
    if field[0] == 0x80 and int.from_bytes(field[1:], "big") < 1 << 63:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise Refused(f"has the {what} {field!r} in a header")
    return int(match[1] or b"0", 8)


def padded(size: int) -> int:
    """A size rounded up to whole blocks."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

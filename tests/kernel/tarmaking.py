"""Archives for tests, honest and hostile, put together block by block."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

END = bytes(1024)
GNU, PAX, USTAR = tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT
FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, SPARSE = (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"S")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(
    name: str,
    kind: bytes = FILE,
    data: bytes = b"",
    *,
    link: str = "",
    form: int = GNU,
    pax: dict[str, str] | None = None,
    **fields: object,
) -> bytes:
    """The headers and the data of one member, as tarfile writes them."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.pax_headers = kind, len(data), link, pax or {}
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(PAX if pax else form) + padded(data)  # type: ignore[arg-type]


def edited(headers: bytes, *changes: tuple[int, bytes]) -> bytes:
    """The last header of a member, changed at offsets, with its checksum put right."""
    before, block = headers[:-512], bytearray(headers[-512:])
    for at, value in changes:
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return before + bytes(block)


def extension(kind: bytes, payload: bytes) -> bytes:
    """A header that says something of the next member, or of all: long names, pax records."""
    return edited(member("extension", form=USTAR), (156, kind), (124, b"%011o\0" % len(payload))) + padded(payload)


def record(keyword: str, value: str) -> bytes:
    """A record of a pax header."""
    body = f" {keyword}={value}\n".encode(errors="surrogateescape")
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax_header(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    return extension(kind, b"".join(record(*pair) for pair in records))


def sparse_member(name: str, regions: list[tuple[int, int]], data: bytes, size: int, **said: str) -> bytes:
    """A sparse file as GNU tar writes it in pax archives; `said` replaces what its pax header says."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    stored = padded("".join(f"{number}\n" for number in numbers).encode()) + data
    words = {"major": "1", "minor": "0", "name": name, "realsize": str(size), **said}
    return pax_header(*((f"GNU.sparse.{word}", value) for word, value in words.items() if value)) + member(
        f"GNUSparseFile.0/{name}", data=stored, form=USTAR
    )


def old_sparse_member(name: str, regions: list[tuple[int, int]], data: bytes, size: int, *, more: bytes = b"") -> bytes:
    """A sparse file of up to four regions in GNU tar's own format."""
    table = b"".join(b"%011o\0%011o\0" % region for region in regions)
    changes = [(156, SPARSE), (124, b"%011o\0" % len(data)), (386, table), (483, b"%011o\0" % size)]
    return edited(member(name), *changes, (482, b"\1" if more else b"\0")) + more + padded(data)


def write(path: Path, *pieces: bytes) -> str:
    path.write_bytes(b"".join(pieces))
    path.chmod(0o644)
    return str(path)


def tree_of(directory: Path | str) -> dict[str, tuple[object, ...]]:
    """All that an archive keeps of a tree: types, modes, owners, times, links, contents and extended attributes."""
    found: dict[str, tuple[object, ...]] = {}
    first_names: dict[int, str] = {}
    top = os.fsencode(directory)
    for path, directories, files in os.walk(top):
        for name in [b".", *sorted(directories + files)]:
            full = os.path.normpath(os.path.join(path, name))
            inside = os.fsdecode(os.path.relpath(full, top))
            status = os.lstat(full)
            content: object = None
            if os.path.islink(full):
                content = os.readlink(full)
            elif os.path.isfile(full):
                content = Path(os.fsdecode(full)).read_bytes()
            attributes = {
                key: os.getxattr(full, key, follow_symlinks=False) for key in os.listxattr(full, follow_symlinks=False)
            }
            first = first_names.setdefault(status.st_ino, inside)
            found[inside] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
                *(content, sorted(attributes.items()), first if not os.path.isdir(full) else None),
            )
    return found

"""What an archive is known by: path, size, inode and times, and a digest of its contents where these leave a doubt."""

from __future__ import annotations

import binascii
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from sessions import archivecache
from sessions.config.read import UNSETTLED_NS
from sessions.data import replace
from sessions.errors import BadArchive
from sessions.linux import files
from sessions.model import CachedTree, Places

# File systems whose times are whole seconds, or two.
_COARSE_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000
_PIECE_BYTES = 1 << 20


def find(places: Places, archive: str) -> CachedTree:
    """Where in the cache the tree of an archive is or will be; changes nothing.

    Two contents never get the same place. What stat(2) says of the file is enough to know them apart, unless it was
    changed so lately that a change at this very moment would not show in its times. That doubt, and that a file has
    been touched which looks the same otherwise, is settled by a digest of its contents. Raises BadArchive if there is
    no such file.
    """
    now_ns = time.time_ns()  # before the look
    try:
        status = os.stat(archive)
    except OSError as error:
        raise BadArchive(f"{archive}: Failed to stat file: {error.strerror}") from None
    top = places.archive_dir
    is_settled = _is_settled(status.st_ctime_ns, now_ns)
    alike, seen = _alike(archive, status), identity(status)
    usual = f"{top}/{_usual(archive, status)}"
    if is_settled and (known := archivecache.leading_to(usual)):
        return CachedTree(known, seen)
    others = _with_digests(f"{top}/{name}" for name in files.names_in(top) if name.startswith(alike))
    if is_settled and not others:
        return CachedTree(usual, seen)
    with _opened_archive(archive) as fd:
        digest = digest_of(fd)
    alias = usual if is_settled else ""
    if digest in others:
        return CachedTree(others[digest], seen, digest, alias)
    return CachedTree(usual if is_settled else f"{top}/{alike}{digest[:32]}", seen, digest)


def _with_digests(paths: Iterable[str]) -> dict[str, str]:
    """Those trees whose digest is known, by that."""
    known = {path: archivecache.read_record(path) for path in paths if not os.path.islink(path)}
    return {record.digest: path for path, record in known.items() if record and record.digest}


def may_be_of(path: str, record: archivecache.Record) -> bool:
    """Whether a tree may be of its archive as that is now; raises OSError for one that cannot be looked at."""
    status, name = os.stat(record.archive), os.path.basename(path)
    return name.startswith(_alike(record.archive, status)) if record.digest else name == _usual(record.archive, status)


def complete_record(path: str, record: archivecache.Record) -> None:
    """Work out the digest that a tree will be known by, if its archive's times should change, while they have not."""
    with _opened_archive(record.archive) as fd:
        before, now_ns = os.fstat(fd), time.time_ns()
        if os.path.basename(path) != _usual(record.archive, before) or not _is_settled(before.st_ctime_ns, now_ns):
            return
        digest = digest_of(fd)
        if identity(os.fstat(fd)) == identity(before):
            archivecache.write_record(path, replace(record, digest=digest))


def _usual(archive: str, status: os.stat_result) -> str:
    """The name of the tree of an archive about which there is no doubt."""
    return f"{_alike(archive, status)}{status.st_ino:x}-{_hex(status.st_ctime_ns)}"


def _alike(archive: str, status: os.stat_result) -> str:
    """What the names of all begin with that a look at the archive's path, size and time cannot tell from it."""
    return f"{binascii.crc32(os.fsencode(archive)):08x}-{status.st_size:x}-{_hex(status.st_mtime_ns)}-"


def identity(status: os.stat_result) -> str:
    """What tells a file and its contents from all others and from what it was before."""
    return f"{status.st_size:x}-{_hex(status.st_mtime_ns)}-{status.st_ino:x}-{_hex(status.st_ctime_ns)}"


def digest_of(fd: int, go_on: Callable[[], bool] = lambda: True) -> str:
    """The digest of an open file's contents, whose offset is left alone; cut short when `go_on` says no."""
    import hashlib

    digest, at = hashlib.sha256(), 0
    while go_on() and (piece := os.pread(fd, _PIECE_BYTES, at)):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _opened_archive(archive: str) -> AbstractContextManager[int]:
    """As :func:`sessions.linux.archive.opened`, which nobody needs whose tree is there."""
    from sessions.linux.archive import opened

    return opened(archive)


def _hex(time_ns: int) -> str:
    """A time as part of a name; those before 1970 are negative."""
    return f"{time_ns & 0xFFFFFFFFFFFFFFFF:x}"


def _is_settled(changed_ns: int, now_ns: int) -> bool:
    """Whether a change of the file from now on would show in its times.

    A time in the future, after the clock was set back, shows it too: the next change gets another one.
    """
    granularity_ns = UNSETTLED_NS if changed_ns % _SECOND_NS else _COARSE_NS
    return abs(now_ns - changed_ns) > granularity_ns

"""Archives of whole chroots: unpacked by tar(1) in one pass and under check, and packed again at once or not at all.

Both directions are one flow, with the check of :mod:`sessions.linux.tarcheck` in the middle: decompressor, check, tar;
and tar, check, compressor, so that no archive replaces a good one that would be refused the next time.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from io import FileIO

from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import BadArchive, SessionsError
from sessions.linux import files, mountinfo, trace

if TYPE_CHECKING:
    from typing import TypeAlias

_PIPE_BYTES = 1 << 20

# What a chroot's files may carry. Not "trusted", which holds our own stamps and those of overlayfs, nor a label of
# selinux(8), which is the host's to give. POSIX ACLs travel as what they are stored in: --acls costs a quarter more.
_ATTRIBUTES = (
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--xattrs-include=system.posix_acl_*",
    "--xattrs-exclude=user.overlay.*",
)
_UNPACK = (
    "--extract",
    "--file=-",
    "--blocking-factor=128",
    "--numeric-owner",
    "--same-owner",
    "--preserve-permissions",
    *_ATTRIBUTES,
)
_PACK = (
    "--create",
    "--file=-",
    "--format=posix",
    # The times of the last access and change are nothing to keep; with them every member takes a kilobyte more.
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--one-file-system",
    "--numeric-owner",
    "--sparse",
    "--warning=no-file-ignored",
    *_ATTRIBUTES,
)


class Compression(Frozen):
    """The commands that take a compression off and put it on, from standard input to standard output.

    Both are empty for an archive that is not compressed; `package` is the Debian package of the program.
    """

    decompress: tuple[str, ...] = ()
    compress: tuple[str, ...] = ()
    package: str = ""


_GZIP = Compression(("gzip", "-dc"), ("gzip", "-c"), "gzip")
_BZIP2 = Compression(("bzip2", "-dc"), ("bzip2", "-c"), "bzip2")
_XZ = Compression(("xz", "-dc", "-T0"), ("xz", "-c", "-T0"), "xz-utils")
_LZOP = Compression(("lzop", "-dc"), ("lzop", "-c"), "lzop")
_LZ4 = Compression(("lz4", "-dcq"), ("lz4", "-zcq"), "lz4")
_ZSTD = Compression(("zstd", "-dcq", "-T0"), ("zstd", "-cq", "-T0"), "zstd")

_BY_ENDING = {
    ".tar": Compression(),
    ".tar.gz": _GZIP,
    ".tgz": _GZIP,
    ".tar.bz2": _BZIP2,
    ".tbz": _BZIP2,
    ".tbz2": _BZIP2,
    ".tar.xz": _XZ,
    ".txz": _XZ,
    ".tar.lzo": _LZOP,
    ".tzo": _LZOP,
    ".tar.lz4": _LZ4,
    ".tlz4": _LZ4,
    ".tar.zstd": _ZSTD,
    ".tar.zst": _ZSTD,
    ".tzst": _ZSTD,
}


def compression_of(path: str) -> Compression:
    """How an archive is compressed, by the ending of its name; BadArchive if that is none we know."""
    for ending, compression in _BY_ENDING.items():
        if path.endswith(ending):
            return compression
    raise BadArchive(f"{path}: Unsupported filetype", hint=f"the name has to end in one of {' '.join(_BY_ENDING)}")


# Takes an archive and its size, and gives what is told, from time to time, how many bytes of it have been read.
Progress: TypeAlias = "Callable[[str, int], AbstractContextManager[Callable[[int], None]]]"


def unpack(
    archive: str,
    directory: str,
    *,
    progress: Progress | None = None,
    watching: Callable[[int], AbstractContextManager[None]] | None = None,
) -> int:
    """Unpack an archive into an empty directory, with owners, modes, links, capabilities and other attributes.

    Returns how many bytes it is without its compression. `watching` is given the archive's descriptor, whose offset it
    leaves alone, and is left when all of it has been read. Raises BadArchive if the archive is damaged, could reach
    outside the directory, or cannot be unpacked wholly; what is in the directory then is left to the caller.
    """
    from sessions.linux.tarflow import Failed, Tool, flow
    from sessions.linux.tarheader import Refused

    compression = compression_of(archive)
    with ExitStack() as stack:
        archive_fd = stack.enter_context(opened(archive))
        if os.listdir(directory):
            raise SessionsError(f"{directory} is not empty", hint="give an empty directory to unpack into")
        trace.point("unpack", archive)
        source_fd, reader = archive_fd, None
        if compression.decompress:
            source, into = _pipe(stack)
            reader = stack.enter_context(Tool(compression.decompress, compression.package, archive_fd, into.fileno()))
            into.close()
            source_fd = source.fileno()
        out, sink = _pipe(stack)
        tar = stack.enter_context(Tool(("tar", *_UNPACK, f"--directory={directory}"), "tar", out.fileno(), None))
        out.close()
        trace.point("unpacking", archive)
        tick = stack.enter_context(_telling(progress, archive, archive_fd)) if progress else None
        try:
            # Only now, since no thread of it should be there while programs are started.
            with watching(archive_fd) if watching else nullcontext():
                size_bytes = flow(source_fd, sink, reader, tar, tick)
        except Refused as refusal:
            raise BadArchive(f"{archive}: {refusal}", hint="do not trust it; make it anew") from None
        except Failed as failure:
            raise BadArchive(f"{archive}: {failure}") from None
        trace.point("unpacked", archive)
        return size_bytes


@contextmanager
def _telling(progress: Progress, archive: str, fd: int) -> Iterator[Callable[[], None]]:
    """What tells how far an archive has been read: its descriptor and that of the program that reads it are one."""
    with progress(archive, os.fstat(fd).st_size) as tell:
        yield lambda: tell(os.lseek(fd, 0, os.SEEK_CUR))


def repack(directory: str, archive: str, *, temporary: str) -> None:
    """Put an archive of a directory's tree in the place of `archive`, at once, with the same owner and mode.

    `temporary`, beside it, is where it is written first; a file there, which a repack that was killed has left, is
    replaced. Raises SessionsError on any failure; the archive is then as it was and nothing is at `temporary`.
    """
    from sessions.linux.tarflow import Failed
    from sessions.linux.tarheader import Refused

    compression = compression_of(archive)
    _refuse_mounts(directory)
    with opened(archive) as fd:
        old = os.fstat(fd)
    target = os.path.realpath(archive)
    try:
        _unlink_if_there(temporary)
        trace.point("write", temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with FileIO(fd, "wb") as file:
            _pack(directory, file, compression)
            os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.fsync(fd)
        trace.point("wrote", temporary)
        trace.point("rename", temporary)
        os.rename(temporary, target)
        trace.point("renamed", temporary)
    except BaseException as error:
        _unlink_if_there(temporary)
        if isinstance(error, (Refused, Failed, OSError)):
            reason = error.strerror if isinstance(error, OSError) else error
            raise SessionsError(
                f"{archive} cannot be made anew from {directory}: {reason}", hint="the old archive is as it was"
            ) from None
        raise
    files.sync_directory(os.path.dirname(target))


def _pack(directory: str, file: FileIO, compression: Compression) -> None:
    """Write the tree into a file; raises Refused or Failed."""
    from sessions.linux.tarflow import Tool, flow

    with ExitStack() as stack:
        source, into = _pipe(stack)
        tar = stack.enter_context(Tool(("tar", *_PACK, f"--directory={directory}", "."), "tar", None, into.fileno()))
        into.close()
        trace.point("packing", directory)
        if not compression.compress:
            flow(source.fileno(), file, tar, None)
            return
        out, sink = _pipe(stack)
        writer = stack.enter_context(Tool(compression.compress, compression.package, out.fileno(), file.fileno()))
        out.close()
        flow(source.fileno(), sink, tar, writer)


@contextmanager
def opened(archive: str) -> Iterator[int]:
    """A descriptor of an archive that only root can have written; BadArchive, in schroot's words, if it is none."""
    try:
        # Without O_NONBLOCK a FIFO of that name would keep us waiting.
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadArchive(f"{archive}: Failed to stat file: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadArchive(f"{archive}: File is not a regular file")
        if found.st_uid != 0:
            raise BadArchive(f"{archive}: File is not owned by user root", hint=f"chown root {archive}")
        if found.st_mode & stat.S_IWOTH:
            raise BadArchive(f"{archive}: File has write permissions for others", hint=f"chmod o-w {archive}")
        yield fd
    finally:
        os.close(fd)


def _refuse_mounts(directory: str) -> None:
    place = os.path.realpath(directory)
    for mount in mountinfo.below(mountinfo.read(), place):
        if mount.target != place:
            raise SessionsError(f"something is mounted on {mount.target}", hint=f"unmount it: umount {mount.target}")


def _unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    """Both ends of a pipe; a large one, where that is allowed, so that fewer turns have to be taken."""
    read_fd, write_fd = os.pipe()
    ends = (stack.enter_context(FileIO(read_fd, "rb")), stack.enter_context(FileIO(write_fd, "wb")))
    with suppress(OSError):
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends

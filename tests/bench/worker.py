"""A contender in a process and a private mount namespace of its own, asked for one measurement at a time."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn, Protocol

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
LIBC.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)

_DISK_BYTES = 1 << 30
_ANSWER_TIMEOUT_S = 60
_END_TIMEOUT_S = 10

# What one measurement gave, by the name of the case, in microseconds.
Times = dict[str, float]


class Contender(Protocol):
    """Something that can be measured; it is made inside the worker, where mounting harms nobody."""

    def measure(self, profile: str) -> Times:
        """One go with the chroot of that profile."""


class NotMeasured(Exception):
    """The message says why."""


def check(result: int, about: str) -> None:
    """Raise the OSError that errno stands for if a system call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    check(LIBC.mount(source.encode(), target.encode(), fstype.encode(), flags, data.encode() or None), target)


def leave_namespace() -> None:
    """A mount namespace of our own, out of which nothing propagates."""
    check(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def cover(path: str, by: str, scratch: str) -> None:
    """Mount the directory `by` (a new tmpfs if empty) over `path`.

    Where the host has no such directory, its parent gets it in an overlay, so that the host itself stays as it is.
    """
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        layer = tempfile.mkdtemp(dir=scratch)
        os.mkdir(f"{layer}/upper", 0o755)
        os.mkdir(f"{layer}/work")
        mount("bench", parent, "overlay", 0, f"lowerdir={parent},upperdir={layer}/upper,workdir={layer}/work")
        os.mkdir(path)
    if by:
        mount(by, path, "", MS_BIND)
    else:
        mount("bench", path, "tmpfs", 0, "mode=755")


def make_disk(work: str, size_bytes: int = _DISK_BYTES) -> str:
    """Mount a new ext4 on `work`, from an image in it; in words, what the disk is, with the reason if it is not that.

    On the host's own file system creating a file may take longer the more were removed in the last minutes, by
    whomever (ext4 without a journal: recently_deleted), so that the first and the last round could not be compared.
    """
    image = f"{work}/disk"
    try:
        with open(image, "wb") as file:
            file.truncate(size_bytes)
        for argv in (["mkfs.ext4", "-q", "-F", image], ["mount", "-t", "ext4", "-o", "loop", image, work]):
            subprocess.run(argv, check=True, capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    except OSError as error:
        return f"the host's own, since {error}"
    except subprocess.CalledProcessError as error:
        return f"the host's own, since {error.cmd[0]} said: {error.stderr.decode(errors='replace').strip()}"
    os.chmod(work, 0o755)
    return f"a new ext4 in an image in {os.path.dirname(work)}"


class Worker:
    """The process: it dies with us, and its mounts with it."""

    def __init__(self, make: Callable[[], Contender], *, answer_timeout_s: float = _ANSWER_TIMEOUT_S) -> None:
        self._answer_timeout_s = answer_timeout_s
        read_request, write_request = os.pipe()
        read_answer, write_answer = os.pipe()
        # Only the worker's own ends stay open in it, or the end of another's pipe would never be seen.
        _OURS.update((write_request, read_answer))
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for fd in _OURS:
                os.close(fd)
            _serve(make, read_request, write_answer)
        os.close(read_request)
        os.close(write_answer)
        self._requests = write_request
        self._answers = os.fdopen(read_answer, "rb", buffering=0)
        self._poll = select.poll()
        self._poll.register(read_answer, select.POLLIN)

    def measure(self, profile: str) -> Times:
        """Ask for one go; raises NotMeasured."""
        try:
            os.write(self._requests, profile.encode() + b"\n")
        except BrokenPipeError:
            raise NotMeasured("its process has ended") from None
        line = bytearray()
        while not line.endswith(b"\n"):
            if not self._poll.poll(self._answer_timeout_s * 1000):
                raise NotMeasured(f"no answer within {self._answer_timeout_s:g} seconds")
            piece = self._answers.read(65536)
            if not piece:
                raise NotMeasured("its process has ended")
            line += piece
        answer: dict[str, float | str] = json.loads(line)
        if "error" in answer:
            raise NotMeasured(str(answer["error"]))
        return {name: float(value) for name, value in answer.items()}

    def close(self) -> None:
        """Let it end, by force if need be."""
        pidfd = os.pidfd_open(self.pid)
        _OURS.difference_update((self._requests, self._answers.fileno()))
        os.close(self._requests)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_END_TIMEOUT_S * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(pidfd)
        self._answers.close()


_OURS: set[int] = set()


def _serve(make: Callable[[], Contender], requests_fd: int, answers_fd: int) -> NoReturn:
    status = 1
    try:
        # A group of its own: ^C reaches the one who asks, and through it us, between two measurements.
        os.setpgid(0, 0)
        _arrange_descriptors()
        leave_namespace()
        os.chdir("/")
        contender: Contender | None = None
        with os.fdopen(requests_fd) as requests:
            for request in requests:
                answer: dict[str, float | str]
                try:
                    contender = contender or make()
                    answer = dict(contender.measure(request.strip()))
                except Exception as error:
                    if os.environ.get("BENCH_TRACEBACK"):
                        traceback.print_exc()
                    answer = {"error": f"{type(error).__name__}: {error}"}
                os.write(answers_fd, json.dumps(answer).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _arrange_descriptors() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)

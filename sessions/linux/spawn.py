"""Starting a program in another root as the user that we are, without copying ourselves first.

fork(2) of a Python process costs a page fault for every page that either side touches afterwards: more than all of a
short session else. Here a thread of ours takes a root, a directory and descriptors of its own (unshare(2)), goes into
the other root, and spawns from there: the child shares our memory until it executes.
"""

from __future__ import annotations

import _locale
import _thread
import errno
import fcntl
import gc
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence

from sessions.data import Frozen
from sessions.linux import syscall


class Failure(Frozen):
    """Why nothing was started: at which stage ("directory", "execute" ...), and the errno."""

    stage: str
    errno: int


def is_possible(uid: int, gid: int, groups: Sequence[int]) -> bool:
    """Whether a program can be started this way for that user: we are root, and it is exactly us.

    A user's own thread in root's memory could be signalled by that user. And with message catalogues in use, the words
    of an error would be looked for inside the other root.
    """
    return (
        uid == 0 == os.geteuid() == os.getuid()
        and gid == os.getegid() == os.getgid()
        and set(groups) == set(os.getgroups())
        and _locale.setlocale(_locale.LC_MESSAGES) in ("C", "POSIX")
    )


def spawn(
    root_fd: int,
    directory: str,
    descriptors: Sequence[int],
    candidates: Sequence[bytes],
    words: tuple[bytes, ...],
    environment: Mapping[bytes, bytes],
    change: Callable[[int], None],
) -> int | Failure:
    """Execute the first of `candidates` that can be, in the root `root_fd` and the directory; its pid, or the failure.

    `descriptors` become its standard input, output and error; it gets no other. `change` is what changes the root:
    :func:`change_root`, or another one that does more.
    """
    outcome: list[int | Failure] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        stage, is_apart = "thread", False
        try:
            syscall.unshare(syscall.CLONE_FS | syscall.CLONE_FILES)
            is_apart, stage = True, "descriptors"
            (own_root_fd,) = arrange_descriptors(descriptors, (root_fd,))
            stage = "chroot"
            change(own_root_fd)
            stage = "directory"
            os.chdir(directory)
            stage = "execute"
            outcome.append(first_executable(candidates, lambda path: _posix_spawn(path, words, environment)))
        except OSError as error:
            outcome.append(Failure(stage, error.errno or 0))
        finally:
            if is_apart:
                # Or a lock, or the end of a pipe, would be held until the thread is gone.
                syscall.close_from(0)
            done.release()

    with _no_collection:
        try:
            _thread.start_new_thread(work, ())
        except RuntimeError:  # there can be no more threads; a process may do
            return Failure("thread", errno.EAGAIN)
        done.acquire()
    return outcome[0] if outcome else Failure("thread", errno.EAGAIN)


class _NoCollection:
    """Keeps the garbage collector still: a finalizer that it runs in our thread would close descriptors there only.

    And it would find the paths of the other root. Several may ask for it at once.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._depth = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._was_enabled:
                gc.enable()


_no_collection = _NoCollection()


def _posix_spawn(path: bytes, words: tuple[bytes, ...], environment: Mapping[bytes, bytes]) -> int:
    # What Python has changed of the dispositions, and nothing else: what our caller ignores stays ignored.
    changed = (signal.SIGPIPE, signal.SIGXFSZ)
    return os.posix_spawn(path, words, environment, setsigmask=(), setsigdef=changed)


def change_root(root_fd: int) -> None:
    """Make the directory behind `root_fd`, which is closed, our root and our working directory."""
    os.fchdir(root_fd)
    os.close(root_fd)
    os.chroot(".")
    os.chdir("/")


def arrange_descriptors(descriptors: Sequence[int], ours: Sequence[int]) -> tuple[int, ...]:
    """Put the three at 0, 1 and 2, ours above, whose new numbers are returned; close the rest, inherited ones too."""
    # Copies high enough not to be overwritten, whatever numbers the originals have.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (*descriptors, *ours)]
    for number, copy in enumerate(copies):
        os.dup2(copy, number, inheritable=number < len(descriptors))
    syscall.close_from(len(copies))
    return tuple(range(len(descriptors), len(copies)))


def first_executable(candidates: Sequence[bytes], execute: Callable[[bytes], int]) -> int:
    """What `execute` returns for the first candidate that is a file that can be executed; else the best error."""
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in candidates:
        try:
            if len(candidates) > 1 and not stat.S_ISREG(os.stat(path).st_mode):
                continue
            return execute(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if len(candidates) == 1:
                raise
            if error.errno == errno.EACCES:
                failure = error
    raise failure

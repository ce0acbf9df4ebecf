"""The lock of a session: one at a time, whoever dies, and no file is left."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.errors import SessionsError
from sessions.locks import is_locked, session_lock


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def count_up(lock_dir: str, counter: Path, times: int) -> None:
    """Read, then write: two at a time would lose counts."""
    for _time in range(times):
        with session_lock(lock_dir, "one"):
            number = int(counter.read_text())
            assert is_locked(lock_dir, "one")
            counter.write_text(str(number + 1))


def test_eight_processes_count_together(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [fork(lambda: count_up(f"{tmp_path}/locks", counter, 100)) for _number in range(8)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    assert counter.read_text() == "800"
    assert os.listdir(tmp_path / "locks") == []


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    threads = [threading.Thread(target=count_up, args=(f"{tmp_path}/locks", counter, 50)) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "200"
    assert os.listdir(tmp_path / "locks") == []


def test_sessions_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with session_lock(str(tmp_path), "one"), session_lock(str(tmp_path), "two"):
        assert is_locked(str(tmp_path), "one")
        assert is_locked(str(tmp_path), "two")
        assert not is_locked(str(tmp_path), "three")
    assert os.listdir(tmp_path) == []


def test_one_who_is_killed_holds_it_no_more(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def hold() -> None:
        with session_lock(str(tmp_path), "one"):
            os.write(writer, b"held")
            signal.pause()

    child = fork(hold)
    assert os.read(reader, 4) == b"held"
    assert is_locked(str(tmp_path), "one")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for fd in (reader, writer):
        os.close(fd)
    assert not is_locked(str(tmp_path), "one")
    with session_lock(str(tmp_path), "one"):
        assert is_locked(str(tmp_path), "one")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_one_who_is_ended_leaves_no_file(tmp_path: Path, signum: signal.Signals) -> None:
    """The signal takes its course after the lock has been given up."""

    def hold() -> None:
        with session_lock(str(tmp_path), "one", signals_wait=True):
            os.kill(os.getpid(), signum)

    child = fork(hold)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signum
    assert os.listdir(tmp_path) == []


def test_an_error_inside_gives_it_up(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), session_lock(str(tmp_path), "one"):
        _ = 1 / 0
    assert os.listdir(tmp_path) == []


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with session_lock(f"{tmp_path}/new/locks", "one"):
            assert stat.S_IMODE((tmp_path / "new/locks").stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / "new/locks/one").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir(mode=0o700)
    (tmp_path / "locks/one").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(SessionsError, match=r"locks/one: .*symbolic links; make"),
        session_lock(f"{tmp_path}/locks", "one"),
    ):
        pass
    assert not is_locked(f"{tmp_path}/locks", "one")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    """The directory was emptied while the first one held its lock, and the name is another one's now."""
    with session_lock(f"{tmp_path}/locks", "one"):
        (tmp_path / "locks/one").unlink()
        (tmp_path / "locks/one").touch()
    assert os.listdir(tmp_path / "locks") == ["one"]

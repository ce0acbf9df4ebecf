"""Sessions from begin to end, through the Python API: what is inside, what stays outside, who may end what and when."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from helpers import Fork, World, fork, mounts, output, python, shell, snapshot

import sessions
from sessions import lifecycle
from sessions.api import CommandFailed, OpenSession
from sessions.data import replace
from sessions.engine import Settings
from sessions.errors import CannotEnter, InUse, NotFound, SessionExists, SessionNotUsable, Stuck

pytestmark = pytest.mark.usefixtures("read_only_host")
KINDS = {
    "directory": {"union_type": "none"},
    "disk": {"union_overlay_storage": "disk"},
    "tmpfs": {},
}


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_begin_run_end(world: World, kind: str, persistent: bool) -> None:
    world.define("tiny", **KINDS[kind])
    before = snapshot(world.root), mounts()
    session = world.begin("tiny", persistent=persistent)
    assert session.id.startswith("tiny-")
    assert session.location == f"{world.base}/run/mount/{session.id}"
    assert os.path.samefile(f"{session.location}/bin/busybox", world.root / "bin/busybox") == (kind == "directory")
    assert shell(session, "cat /etc/debian_chroot; pwd; id -u") == "tiny\n/\n0\n"
    assert shell(session, "echo new >/var/tmp/new; rm -f /bin/tail; cat /var/tmp/new") == "new\n"
    assert Path(session.location, "var/tmp/new").read_text() == "new\n"
    session.end()
    assert not os.path.exists(session.location)
    assert mounts() == before[1]
    if kind == "directory":
        assert (world.root / "var/tmp/new").read_text() == "new\n"
        assert not (world.root / "bin/tail").exists()
    else:
        assert snapshot(world.root) == before[0]


def test_as_a_context_manager_it_ends_also_when_the_block_fails(world: World) -> None:
    world.define("tiny")
    with pytest.raises(ValueError, match="x"), world.begin("tiny") as session:
        raise ValueError("x")
    for ask in (session.end, lambda: session.run(["true"])):
        with pytest.raises(NotFound):
            ask()


def test_a_layer_on_a_tmpfs_holds_no_more_than_its_size(world: World) -> None:
    world.define("tiny", union_overlay_size="2M")
    with world.begin("tiny") as session:
        result = session.run(["sh", "-c", "dd if=/bin/busybox of=/var/tmp/1 bs=1000k count=1"], capture=True)
        assert result.status == 0
        result = session.run(["sh", "-c", "cat /bin/busybox /bin/busybox >/var/tmp/2"], capture=True)
        assert result.status != 0
        assert os.strerror(errno.ENOSPC).encode() in result.stderr


def test_lower_directories_lie_above_the_source_the_first_on_top(world: World) -> None:
    for name, files in {"top": "a", "middle": "ab", "tiny": "abc"}.items():
        for file in files:
            world.write(f"{name}/var/{file}", name)
    world.define("tiny", union_lower_directories=[f"{world.base}/top", f"{world.base}/middle"])
    with world.begin("tiny") as session:
        assert shell(session, "cat /var/a /var/b /var/c") == "topmiddletiny"
        shell(session, "echo changed >/var/a; rm /var/b")
    assert (world.base / "top/var/a").read_text() == "top"
    assert (world.base / "middle/var/b").read_text() == "middle"


def test_directories_with_the_characters_that_overlay_splits_at(world: World) -> None:
    strange = world.base / "a:b,c\\d e"
    os.rename(world.root, strange)
    world.write("x:y,z\\:/var/more", "more")
    world.define("tiny", directory=str(strange), union_lower_directories=[f"{world.base}/x:y,z\\:"])
    with world.begin("tiny") as session:
        assert shell(session, "cat /etc/debian_chroot /var/more") == "tiny\nmore"


@pytest.mark.parametrize("kind", KINDS)
def test_the_root_has_mode_and_owner_of_the_source(world: World, kind: str) -> None:
    os.chown(world.root, 1234, 1235)
    world.root.chmod(0o2751)
    world.define("tiny", **KINDS[kind])
    with world.begin("tiny") as session:
        found = Path(session.location).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o2751, 1234, 1235)


@pytest.mark.parametrize("storage", ["disk", "tmpfs"])
def test_sessions_at_once_do_not_see_each_other(world: World, storage: str) -> None:
    world.define("tiny", union_overlay_storage=storage)
    with world.begin("tiny", name="one") as one, world.begin("tiny", name="two") as two:
        shell(one, "echo one >/var/tmp/here")
        shell(two, "echo two >/var/tmp/here")
        assert shell(one, "cat /var/tmp/here; echo $SCHROOT_SESSION_ID") == "one\none\n"
        assert shell(two, "cat /var/tmp/here") == "two\n"
        assert [session.id for session in sessions.list_sessions(places=world.places)] == ["one", "two"]
        one.end()
        assert shell(two, "cat /var/tmp/here") == "two\n"
        with world.begin("tiny", name="one") as one:
            assert shell(one, "ls /var/tmp") == ""


def test_threads_begin_run_and_end_at_once(world: World) -> None:
    world.define("tiny")
    failures: list[BaseException] = []
    together = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            together.wait()
            for turn in range(5):
                with world.begin("tiny", name=f"t{number}-{turn}") as session:
                    assert shell(session, f"echo {number} >/var/tmp/x; cat /var/tmp/*") == f"{number}\n"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(failure) for failure in failures] == []


def test_threads_keep_the_umask(world: World) -> None:
    """It belongs to the whole process: nothing that one thread begins may change what another's command gets."""
    world.define("tiny", union_overlay_storage="disk", profile=world.profile(fstab="tmpfs /a/b/c tmpfs defaults\n"))
    before = os.umask(0o027)
    over = threading.Event()

    failures: list[BaseException] = []

    def begin_and_end() -> None:
        try:
            while not over.is_set():
                with world.begin("tiny"):
                    pass
        except BaseException as error:
            failures.append(error)

    beginners = [threading.Thread(target=begin_and_end) for _number in range(2)]
    try:
        with world.begin("tiny") as session:
            for beginner in beginners:
                beginner.start()
            assert {shell(session, "umask; stat -c %a /a/b") for _turn in range(40)} == {"0027\n755\n"}
            over.set()
            for beginner in beginners:
                beginner.join()
    finally:
        over.set()
        assert os.umask(before) == 0o027
    assert failures == []


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_the_umask_changes_nothing_of_a_session(world: World, umask: int) -> None:
    profile = world.profile(fstab="tmpfs /a/b/c tmpfs mode=711\n", copyfiles="/etc/passwd /x/y/passwd\n")
    world.define("tiny", union_overlay_storage="disk", profile=profile)
    (world.base / "run").mkdir()
    (world.base / "state").mkdir()
    before = os.umask(umask)
    try:
        with world.begin("tiny") as session:
            assert shell(session, "stat -c %a / /a /a/b/c /x/y /x/y/passwd /etc/debian_chroot").split() == [
                "755", "755", "711", "755", "644", "644",
            ]  # fmt: skip
            found = [Path(path).stat().st_mode & 0o777 for path in (f"{world.base}/run/mount", session.location)]
            assert found == [0o755, 0o755]
    finally:
        os.umask(before)


def test_threads_and_processes_run_in_one_session_at_once(world: World) -> None:
    world.define("tiny")
    with world.begin("tiny") as session:
        results: list[str] = []

        def work() -> None:
            results.extend(shell(session, "echo $$ >>/var/tmp/all; echo done") for _turn in range(5))

        threads = [threading.Thread(target=work) for _number in range(4)]
        others = [python(world, f"s = sessions.open_session({session.id!r}, places=places)\n"
                                "for turn in range(5): s.run(['sh', '-c', 'echo $$ >>/var/tmp/all'], check=True)")
                  for _number in range(4)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [other.wait() for other in others] == [0, 0, 0, 0]
        assert results == ["done\n"] * 20
        assert shell(session, "wc -l </var/tmp/all") == "40\n"


def test_a_persistent_session_is_begun_run_and_ended_by_different_processes(world: World) -> None:
    world.define("tiny", union_overlay_storage="disk")
    code = "sessions.begin('tiny', name='lasting', persistent=True, places=places)"
    assert python(world, code).wait() == 0
    session = sessions.open_session("lasting", places=world.places)
    assert session.session.owner is None
    assert shell(session, "echo kept >/var/tmp/kept; cat /etc/debian_chroot") == "tiny\n"
    assert shell(sessions.open_session("lasting", places=world.places), "cat /var/tmp/kept") == "kept\n"
    assert python(world, "sessions.open_session('lasting', places=places).end()").wait() == 0
    assert list(sessions.list_sessions(places=world.places)) == []


def _running_in_another_process(session: OpenSession, *argv: str) -> Fork:
    """A command that another process runs; it says when the command has been started."""

    def work(it: Fork) -> None:
        os.dup2(it.writer, 1)
        result = session.run(["sh", "-c", 'echo up; exec "$@"', "sh", *argv])
        it.tell(f"ended {result.status}")

    return fork(work)


@pytest.mark.parametrize("kind", KINDS)
def test_end_refuses_while_another_process_runs_a_command(world: World, kind: str) -> None:
    world.define("tiny", **KINDS[kind])
    session = world.begin("tiny", name="used")
    other = _running_in_another_process(session, "sleep", "4321")
    assert other.ask() == "up"
    with pytest.raises(InUse, match=r"used is in use: \d+ \(.*sleep 4321\); .*sessions end --force used") as error:
        session.end()
    pid = int(str(error.value).split("in use: ")[1].split()[0])
    assert Path(f"/proc/{pid}/root").readlink() == Path(session.location)
    assert output(session, "echo", "still usable") == "still usable\n"
    session.end(force=True)
    assert other.ask() == f"ended {128 + signal.SIGTERM}"
    assert other.wait() == 0


def test_end_works_as_soon_as_the_command_is_over(world: World) -> None:
    world.define("tiny")
    session = world.begin("tiny")
    other = _running_in_another_process(session, "sh", "-c", "while ! test -e /var/tmp/go; do :; done")
    assert other.ask() == "up"
    with pytest.raises(InUse):
        session.end()
    Path(session.location, "var/tmp/go").touch()
    assert other.ask() == "ended 0"
    session.end()
    assert other.wait() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_daemons_that_a_command_leaves_behind_are_ended(world: World, kind: str) -> None:
    world.define("tiny", **KINDS[kind])
    session = world.begin("tiny")
    script = "setsid sleep 4321 >/dev/null 2>&1 & setsid sh -c 'cd /var; exec sleep 4321' >/var/tmp/1 2>&1 & echo $!"
    daemon = int(shell(session, script))
    assert Path(f"/proc/{daemon}").exists()
    session.end()


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_older_than_the_session_is_ended_too(world: World, kind: str) -> None:
    """It has changed its root by itself, and holds a device node that is mounted inside."""
    world.define("tiny", profile="own", **KINDS[kind])
    world.profile(fstab="/dev/null /dev/null none rw,bind 0 0\n")

    def enter(it: Fork) -> None:
        os.chroot(it.ask())
        os.chdir("/")
        held = os.open("/dev/null", os.O_RDWR)
        it.tell("inside")
        it.ask()
        os.close(held)

    old = fork(enter)
    session = world.begin("tiny")
    old.tell(session.location)
    assert old.ask() == "inside"
    session.end()
    assert old.wait() == -signal.SIGTERM


def test_daemons_that_ignore_term_and_fork_on_are_ended(world: World) -> None:
    world.define("tiny")
    session = world.begin("tiny")
    shell(session, "sh -c 'trap \"\" TERM; while :; do sleep 0.01 & wait; done' >/var/tmp/log 2>&1 &")
    session.end()


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_of_the_host_that_stands_inside_keeps_the_session(world: World, kind: str) -> None:
    world.define("tiny", **KINDS[kind])
    session = world.begin("tiny", name="held")
    inside = f"{session.location}/var"
    stander = subprocess.Popen(["sleep", "4321"], cwd=inside)
    with pytest.raises(Stuck, match=rf"held by {stander.pid} \(sleep 4321\)") as error:
        session.end()
    assert "cd elsewhere" in str(error.value)
    assert stander.poll() is None
    with pytest.raises(SessionNotUsable, match="sessions end held"):
        session.run(["true"])
    stander.kill()
    stander.wait()
    session.end()


def test_force_ends_a_process_of_the_host_that_stands_inside(world: World) -> None:
    world.define("tiny")
    session = world.begin("tiny")
    with subprocess.Popen(["sleep", "4321"], cwd=session.location) as stander:
        session.end(force=True)
        assert stander.wait() == -signal.SIGTERM


def test_force_detaches_what_we_ourselves_stand_in(world: World) -> None:
    world.define("tiny")
    session = world.begin("tiny")
    os.chdir(session.location)
    session.end(force=True)
    os.chdir("/")


def test_mounts_that_root_made_inside_are_unmounted(world: World) -> None:
    world.define("tiny")
    with world.begin("tiny") as session:
        shell(session, "mount -t tmpfs none /var && mkdir /var/tmp && mount -o bind /etc /var/tmp")
        shell(session, "mount -t proc proc /proc; mount -t tmpfs again /var")


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_mounted_over_itself_from_inside_is_unmounted(world: World, kind: str) -> None:
    world.define("tiny", **KINDS[kind])
    session = world.begin("tiny")
    shell(session, "mount -o bind / / && mount -o bind / /")
    session.end()


def test_a_name_that_is_taken(world: World) -> None:
    world.define("tiny")
    with world.begin("tiny", name="one") as session:
        shell(session, "echo mine >/var/tmp/mine")
        with pytest.raises(SessionExists, match=r"session one exists already; .* sessions end one"):
            world.begin("tiny", name="one")
        assert shell(session, "cat /var/tmp/mine") == "mine\n"


def test_many_processes_ask_for_one_name_and_one_gets_it(world: World) -> None:
    world.define("tiny")
    code = "try: sessions.begin('tiny', name='one', persistent=True, places=places)\n"
    code += "except sessions.SessionsError as error: print(type(error).__name__)"
    asking = [python(world, code, stdout=subprocess.PIPE) for _number in range(6)]
    said = sorted(process.communicate()[0].decode() for process in asking)
    assert said == ["", *["SessionExists\n"] * 5]
    sessions.open_session("one", places=world.places).end()


def test_what_is_asked_for_and_is_not_there(world: World) -> None:
    world.define("tiny")
    with pytest.raises(NotFound, match="nosuch: Chroot not found"):
        world.begin("nosuch")
    with pytest.raises(NotFound, match="session:tiny is a session, not a chroot"):
        world.begin("session:tiny")
    with pytest.raises(NotFound, match="nosuch: no such session; see: sessions list"):
        sessions.open_session("nosuch", places=world.places)
    with world.begin("tiny", name="one") as session:
        with pytest.raises(CannotEnter, match="‘/nosuch’: No such file or directory"):
            session.run(["true"], cwd="/nosuch")
        with pytest.raises(CommandFailed, match="false ended with status 1 in session one"):
            session.run(["false"], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_recover_of_a_live_session_is_harmless(world: World, kind: str) -> None:
    world.define("tiny", profile=world.profile(fstab="proc /proc proc defaults\n"), **KINDS[kind])
    with world.begin("tiny", name="live") as session:
        shell(session, "echo kept >/var/tmp/kept")
        before = mounts()
        for _turn in range(2):
            lifecycle.recover(world.places, "live", Settings())
        assert mounts() == before
        assert shell(session, "cat /var/tmp/kept /proc/self/comm") == "kept\ncat\n"


def test_recover_mounts_again_what_is_gone(world: World) -> None:
    world.define("tiny", union_overlay_storage="disk", profile=world.profile(fstab="tmpfs /var/tmp tmpfs size=1M\n"))
    with world.begin("tiny", name="mended") as session:
        shell(session, "echo kept >/home/kept; echo lost >/var/tmp/lost")
        before = mounts()
        subprocess.run(["umount", f"{session.location}/var/tmp", session.location], check=True)
        with pytest.raises(CannotEnter, match="sessions recover mended"):
            session.run(["true"])
        lifecycle.recover(world.places, "mended", Settings())
        assert mounts() == before
        assert shell(session, "cat /home/kept; ls /var/tmp") == "kept\n"


def test_a_source_session_changes_the_original(world: World) -> None:
    world.define("tiny", source_root_users=["root"])
    with world.begin("source:tiny") as session:
        shell(session, "echo updated >/var/tmp/updated; exec ls >/dev/null")
    with world.begin("tiny") as session:
        assert shell(session, "cat /var/tmp/updated") == "updated\n"


def test_the_runtime_directory_may_be_reached_through_a_link(world: World) -> None:
    world.define("tiny", profile=world.profile(fstab="tmpfs /var/tmp tmpfs size=1M\n/etc /mnt/etc none bind\n"))
    (world.base / "link").symlink_to(world.base)
    places = replace(world.places, runtime_dir=f"{world.base}/link/run")
    session = sessions.begin("tiny", places=places)
    shell(session, "setsid sleep 4321 </dev/null >/var/log 2>&1 & mount -t tmpfs none /home; mount -o bind / /")
    session.end()

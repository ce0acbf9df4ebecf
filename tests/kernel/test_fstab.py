"""The lines of a profile's fstab: mounted as they say, and taken away as if they had never been."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import (
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    Fork,
    World,
    busy_loop_devices,
    enter_private_namespace,
    ext4,
    fork,
    mount,
    mounts,
    shell,
    snapshot,
)

from sessions import OpenSession
from sessions.errors import Stuck
from sessions.linux import mountinfo, trace

pytestmark = pytest.mark.usefixtures("read_only_host")
KINDS = {"directory": {"union_type": "none"}, "overlay": {}}


def mounted(session: OpenSession, target: str) -> mountinfo.Mount:
    return next(mount for mount in mountinfo.read() if mount.target == session.location + target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("bind", set()),
        ("rw,bind,ro", {"ro"}),
        ("bind,ro,nosuid,nodev,noexec", {"ro", "nosuid", "nodev", "noexec"}),
        ("bind,noatime", {"noatime"}),
        ("bind,ro,relatime", {"ro", "relatime"}),
        ("rbind,ro,nodiratime", {"ro", "nodiratime"}),
    ],
)
def test_options_of_a_bind(world: World, options: str, expected: set[str], kind: str) -> None:
    world.write("data/file", "of the host")
    world.define("tiny", profile=world.profile(fstab=f"{world.base}/data /data none {options}\n"), **KINDS[kind])
    with world.begin("tiny") as session:
        assert shell(session, "cat /data/file") == "of the host"
        assert expected <= set(mounted(session, "/data").options.split(","))
        is_written = session.run(["touch", "/data/new"], capture=True).status == 0
        assert is_written == ("ro" not in expected)
        assert "shared" not in mounted(session, "/data").propagation
    assert (world.base / "data/new").exists() == is_written


def test_a_recursive_bind_brings_what_is_mounted_below_and_a_plain_one_does_not(world: World) -> None:
    (world.base / "data/below").mkdir(parents=True)
    lines = f"{world.base}/data /plain none bind\n{world.base}/data /whole none rbind,ro\n"
    world.define("tiny", profile=world.profile(fstab=lines))
    with ext4(world.base, world.base / "data/below"):
        (world.base / "data/below/file").touch()
        with world.begin("tiny") as session:
            assert shell(session, "ls /plain/below; ls /whole/below") == "file\nlost+found\n"
            assert session.run(["touch", "/whole/below/new"], capture=True).status != 0
            assert session.run(["touch", "/whole/new"], capture=True).status != 0
        assert (world.base / "data/below/file").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_made_and_taken_away(world: World, kind: str) -> None:
    world.write("data/file", "of the host")
    lines = f"tmpfs /a/b/c tmpfs size=1M\n{world.base}/data/file /a/file none bind,ro\n"
    lines += f"{world.base}/data /a/b/d none bind\n"
    world.define("tiny", profile=world.profile(fstab=lines), **KINDS[kind])
    before = snapshot(world.root / "var"), sorted(os.listdir(world.root))
    with world.begin("tiny") as session:
        assert shell(session, "cat /a/file; stat -c '%a %F' /a/b; ls /a/b/d") == "of the host755 directory\nfile\n"
        shell(session, "touch /a/b/c/in-memory")
    assert (snapshot(world.root / "var"), sorted(os.listdir(world.root))) == before
    assert (world.base / "data/file").read_text() == "of the host"


def test_what_somebody_uses_meanwhile_stays(world: World) -> None:
    world.define("tiny", profile=world.profile(fstab="tmpfs /a/b/c tmpfs size=1M\n"), union_type="none")
    with world.begin("tiny") as session:
        shell(session, "touch /a/used")
    assert sorted(str(path.relative_to(world.root)) for path in (world.root / "a").rglob("*")) == ["a/used"]


@pytest.fixture
def no_union(world: World) -> World:
    """Its sessions share one tree, in which there is nothing yet to mount on."""
    world.write("data/file", "of the host")
    lines = f"tmpfs /a/b/c tmpfs size=1M\n{world.base}/data/file /a/file none bind,ro\n"
    world.define("tiny", profile=world.profile(fstab=lines), union_type="none")
    return world


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_one_has_made_and_others_use_goes_with_the_last(no_union: World, order: tuple[int, ...]) -> None:
    before = sorted(os.listdir(no_union.root))
    opened = [no_union.begin("tiny") for _number in order]
    for number in order[:-1]:
        opened[number].end()
        assert shell(opened[order[-1]], "cat /a/file; ls /a/b") == "of the hostc\n"
    opened[order[-1]].end()
    assert sorted(os.listdir(no_union.root)) == before


@pytest.mark.parametrize("comes", [True, False], ids=["one comes", "one goes"])
@pytest.mark.parametrize("ends", [True, False], ids=["while one ends", "while one begins"])
def test_another_makes_or_removes_it_at_any_moment(
    no_union: World, monkeypatch: pytest.MonkeyPatch, ends: bool, comes: bool
) -> None:
    """Wherever a begin or an end has come to, another session of the same tree may come or go."""
    before = sorted(os.listdir(no_union.root))
    for moment in itertools.count():
        others = [] if comes else [no_union.begin("tiny")]
        points = itertools.count()
        # Under the lock that is held while the place of all mounts is made private they cannot meet.
        seen = ["made private", "mark"] if ends else []

        def meet(
            where: str,
            points: Iterator[int] = points,
            others: list[OpenSession] = others,
            seen: list[str] = seen,
            moment: int = moment,
        ) -> None:
            if len(seen) < 2 and where.startswith(("made private", "mark")[len(seen)]):
                seen.append(where)
            if len(seen) == 2 and next(points) == moment:
                if comes:
                    others.append(no_union.begin("tiny"))
                else:
                    others.pop().end()

        session = no_union.begin("tiny") if ends else None
        monkeypatch.setattr(trace, "hook", meet)
        if session:
            session.end()
        else:
            others.append(no_union.begin("tiny"))
        monkeypatch.setattr(trace, "hook", None)
        is_over = next(points) <= moment
        for left in others:
            assert shell(left, "cat /a/file; ls /a/b") == "of the hostc\n"
            left.end()
        assert sorted(os.listdir(no_union.root)) == before, moment
        if is_over:
            break
    assert moment > 20


@pytest.mark.parametrize("options", ["loop,ro", "ro"])
def test_a_file_system_that_mount_has_to_see(world: World, options: str) -> None:
    """A loop device is taken for it, and given back."""
    image = world.base / "image"
    image.write_bytes(b"")
    os.truncate(image, 4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    world.define("tiny", profile=world.profile(fstab=f"{image} /image ext4 {options}\n"))
    with world.begin("tiny") as session:
        assert shell(session, "ls /image") == "lost+found\n"
        assert len(busy_loop_devices(world.base)) == 1
    assert busy_loop_devices(world.base) == []


def test_one_who_holds_a_file_that_is_bound_is_named(world: World) -> None:
    world.write("data/file", "of the host")
    world.define("tiny", profile=world.profile(fstab=f"{world.base}/data/file /file none bind\n"))
    session = world.begin("tiny")
    with open(f"{session.location}/file") as held, subprocess.Popen(["sleep", "4321"], stdin=held) as holder:
        held.close()
        with pytest.raises(Stuck, match=rf"/file cannot be unmounted: held by {holder.pid} \(sleep 4321\)"):
            session.end()
        holder.kill()
    session.end()


def test_targets_are_mounted_in_the_order_of_the_lines(world: World) -> None:
    lines = "tmpfs /a tmpfs size=1M\ntmpfs /a/b tmpfs size=2M\ntmpfs /a tmpfs size=3M\n"
    world.define("tiny", profile=world.profile(fstab=lines))
    with world.begin("tiny") as session:
        targets = [mount.target.removeprefix(session.location) for mount in mountinfo.read()]
        assert [target for target in targets if target in ("/a", "/a/b")] == ["/a", "/a/b", "/a"]


def test_the_name_of_a_copy_may_be_as_long_as_names_are(world: World) -> None:
    names = ("x" * 255, "ü" * 127, "\N{SNOWMAN}" * 85)
    lines = "".join(f"/etc/passwd /etc/{name}\n" for name in names)
    world.define("tiny", profile=world.profile(copyfiles=lines))
    with world.begin("tiny") as session:
        assert {*names} <= {*os.listdir(f"{session.location}/etc")}


def test_where_everything_is_shared_nothing_gets_to_other_namespaces(world: World) -> None:
    """S21, as under systemd: neither does what others mount get in, nor does our unmounting take theirs away."""
    mount("none", "/", flags=MS_REC | MS_SHARED)
    (world.base / "data/below").mkdir(parents=True)
    lines = f"{world.base}/data /data none rbind\ntmpfs /var/tmp tmpfs size=1M\n"
    world.define("tiny", profile=world.profile(fstab=lines), union_type="none")

    def elsewhere(it: Fork) -> None:
        enter_private_namespace(MS_SHARED)
        it.tell("apart")
        while it.ask() == "look":
            it.tell(" ".join(target for target, _fstype, _root in mounts() if "/run/mount/" in target) or "nothing")

    other = fork(elsewhere)
    try:
        assert other.ask() == "apart"
        with ext4(world.base, world.base / "data/below"):
            with world.begin("tiny") as session:
                other.tell("look")
                assert other.ask() == "nothing"
                shell(session, "mount -t tmpfs none /home")
                other.tell("look")
                assert other.ask() == "nothing"
            assert Path(world.base / "data/below/lost+found").exists()
        assert not [target for target, _fstype, _root in mounts() if "/run/mount" in target]
        other.tell("look")
        assert other.ask() == "nothing"
    finally:
        other.tell("end")
        assert other.wait() == 0
        mount("none", "/", flags=MS_REC | MS_PRIVATE)

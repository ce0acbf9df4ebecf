"""Sessions of logical volumes, each in a snapshot of its own: classic ones, which have a size, and thin ones."""

from __future__ import annotations

import os

from helpers import World, shell
from mapperlvm import Group, both, define


@both
def test_begin_write_run_end(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    before = group.volumes()
    with world.begin("volume", name="one") as session:
        assert group.volumes() == {**before, "one": f"chroot-sessions-{session.session.stamp}"}
        assert os.stat(session.location).st_dev == os.stat(group.path("one")).st_rdev
        said = shell(session, "echo new >/var/tmp/new; rm /bin/tail; cat /var/tmp/new /etc/debian_chroot")
        assert said == "new\nvolume\n"
    assert group.volumes() == before
    with world.begin("volume") as session:
        assert shell(session, "ls /var/tmp; ls /bin/tail") == "/bin/tail\n"


@both
def test_two_at_once_and_the_original(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    with world.begin("volume", name="one") as one, world.begin("volume", name="two") as two:
        shell(one, "echo one >/var/tmp/here")
        shell(two, "echo two >/var/tmp/here")
        assert shell(one, "cat /var/tmp/here") == "one\n"
        assert shell(two, "cat /var/tmp/here") == "two\n"
    with world.begin("source:volume") as source:
        assert shell(source, "ls /var/tmp") == ""
        shell(source, "echo edited >/root/edited")
    try:
        with world.begin("volume") as session:
            assert shell(session, "cat /root/edited") == "edited\n"
    finally:
        with world.begin("source:volume") as source:
            shell(source, "rm /root/edited")

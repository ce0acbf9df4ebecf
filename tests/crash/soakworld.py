"""What the soak is about: its chroots, the names of its sessions, and the log of all that may end a command inside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crashkinds import HEAD
from world import World, make_chroot

# Sessions that were begun to last, and those of a process that may be killed.
LASTING = tuple(f"lasting{number}" for number in range(5))
AUTOMATIC = tuple(f"automatic{number}" for number in range(3))
# Each chroot by how often it is taken; "source:" twins in the same way.
CHROOTS = {"disk": 4, "ram": 3, "unpacked": 2, "covering": 1, "scripted": 3, "direct": 2, "free": 2}
TWINS = {"source:disk": 2, "source:ram": 1, "source:unpacked": 1}
SHARED = "free"
"""The chroot whose source is never locked, so that nobody can be made to wait for ever."""

# Each chroot has a tree of its own: the lock of a source is that of a name, and a layer's original is not to change.
CONFIGURATION = """
[chroot.disk]
type = "directory"
directory = "{base}/trees/disk"
union-type = "overlay"
profile = "minimal"

[chroot.ram]
type = "directory"
directory = "{base}/trees/ram"
union-type = "overlay"
union-overlay-storage = "tmpfs"
profile = "minimal"

[chroot.scripted]
type = "directory"
directory = "{base}/trees/scripted"
union-type = "overlay"
profile = "default"

[chroot.free]
type = "directory"
directory = "{base}/trees/free"
union-type = "overlay"
profile = "minimal"
source-lock = "shared"

[chroot.direct]
type = "directory"
directory = "{base}/trees/direct"
profile = "minimal"

[chroot.unpacked]
type = "file"
file = "{base}/archive/chroot.tar.gz"
profile = "minimal"

[chroot.covering]
type = "file"
file = "{base}/archive/chroot.tar.gz"
union-type = "overlay"
profile = "minimal"
"""

# Does something outside and something inside, and takes both away again; only for one of the chroots.
SCRIPT = (
    HEAD
    + """
[ "$CHROOT_NAME" = scripted ] || exit 0
if [ "$1" = setup-stop ]; then
    if mountpoint -q "$CHROOT_PATH/mnt"; then
        umount "$CHROOT_PATH/mnt"
    fi
    rm -f "@BASE@/outside/$SESSION_ID"
else
    echo "$SESSION_ID" >"@BASE@/outside/$SESSION_ID"
    mountpoint -q "$CHROOT_PATH/mnt" || mount -t tmpfs script "$CHROOT_PATH/mnt"
fi
"""
)


def lay_out(world: World) -> None:
    """Define the chroots, and make a tree for each that is a directory."""
    chroots = world.base / "etc/chroot.d"
    chroots.mkdir()
    (chroots / "soak.toml").write_text(CONFIGURATION.format(base=world.base))
    for name in ("disk", "ram", "scripted", "free", "direct"):
        make_chroot(world.base / "trees" / name)


@dataclass(frozen=True)
class Command:
    """A command inside: the pid of its runner, its own, if that was seen, and what cut it short, if anything.

    `session` is empty for one in a session of its own, which nobody else knows by name.
    """

    session: str
    what: str
    began_s: float
    ended_s: float
    runner: int
    itself: int | None
    cut: str


@dataclass(frozen=True)
class Kill:
    """A process that is killed in a moment, and its parent, by their pids."""

    victim: int
    parent: int
    at_s: float
    what: str


@dataclass(frozen=True)
class Licence:
    """A time in which the commands of a session may be ended: by force, or because the session's owner ends."""

    session: str
    why: str
    from_s: float
    to_s: float


Event = Command | Kill | Licence


class Log:
    """Lines that all processes write to, in memory."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("log", os.MFD_CLOEXEC)

    def add(self, event: Event) -> None:
        """Add an event; what is written in one call stays together."""
        os.write(self.fd, json.dumps([type(event).__name__, asdict(event)]).encode() + b"\n")

    def events(self) -> Iterator[Event]:
        """All of them."""
        for line in Path(f"/proc/self/fd/{self.fd}").read_text().splitlines():
            kind, values = json.loads(line)
            yield {"Kill": Kill, "Command": Command, "Licence": Licence}[kind](**values)


def unjustified(events: list[Event]) -> list[str]:
    """Every command that was cut short although nothing says that it may be, in words."""
    kills = [event for event in events if isinstance(event, Kill)]
    licences = [event for event in events if isinstance(event, Licence)]
    return [
        f"{event.what} in {event.session or 'its own session'} was cut short: {event.cut}"
        for event in events
        if isinstance(event, Command) and event.cut and not _is_justified(event, kills, licences)
    ]


def _is_justified(command: Command, kills: list[Kill], licences: list[Licence]) -> bool:
    """Whether the command, or its runner, was killed, or somebody had the right to end the session meanwhile.

    A killed runner is the same as an end: the command is nobody's then, and whoever comes along may end it.
    """
    for kill in kills:
        is_ours = kill.victim in (command.runner, command.itself) or kill.parent == command.runner
        if is_ours and command.began_s <= kill.at_s <= command.ended_s:
            return True
    return any(
        licence.session == command.session != ""
        and licence.from_s <= command.ended_s
        and command.began_s <= licence.to_s
        for licence in licences
    )

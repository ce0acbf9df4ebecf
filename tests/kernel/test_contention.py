"""Many who want one source at once: they get in as they came, nobody is passed over, and waiting costs nothing."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Fork, World, fork

from sessions import OpenSession, store, waiters

pytestmark = pytest.mark.usefixtures("read_only_host")

CROWD = 50
MOST_CPU_S = 1.0


def cpu_s(pid: int) -> float:
    """How long a process has been running on a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def until_in(asked: Fork) -> None:
    while (line := asked.ask()) != "in":
        assert line.startswith("waiting for chroot tiny: "), line


def leave(crowd: list[Fork]) -> None:
    for asked in crowd:
        asked.tell("leave")
        assert asked.wait() == 0


def waiting(world: World) -> list[str]:
    return [str(waiter.kind) for waiter in waiters.listed(world.places)]


def test_fifty_sessions_and_one_who_changes_the_source(
    world: World, asker: Callable[..., Fork], tell: Callable[[str], None]
) -> None:
    """Half of them come before the one who wants the source alone, and half after."""
    world.define("tiny")
    first = asker("source:tiny")
    assert first.ask() == "in"
    early = [asker("tiny") for _number in range(CROWD // 2)]
    for asked in early:
        assert asked.ask().startswith("waiting for chroot tiny: ")
    changer = asker("source:tiny")
    assert changer.ask().startswith("waiting for chroot tiny: ")
    before_s = cpu_s(changer.pid)
    late = [asker("tiny") for _number in range(CROWD // 2)]
    for asked in late:
        assert asked.ask().startswith("waiting for chroot tiny: ")
    assert waiting(world) == ["session"] * len(early) + ["source"] + ["session"] * len(late)
    waited_s = [cpu_s(asked.pid) for asked in late]

    leave([first])
    for asked in early:
        until_in(asked)
    assert waiting(world) == ["source"] + ["session"] * len(late)
    # Who comes now could share with those who are in, and comes last all the same.
    last = asker("tiny")
    assert last.ask().startswith("waiting for chroot tiny: ")
    leave(early)
    until_in(changer)
    cost_s = cpu_s(changer.pid) - before_s
    assert waiting(world) == ["session"] * (len(late) + 1)

    leave([changer])
    for asked in [*late, last]:
        until_in(asked)
    costs_s = [cpu_s(asked.pid) - waited for asked, waited in zip(late, waited_s, strict=True)]
    leave([*late, last])
    assert waiting(world) == []
    tell(
        f"the wait of one who changes a source, {CROWD} sessions around it: {cost_s * 1000:.0f} ms of processor time; "
        f"of a session behind it: at most {max(costs_s) * 1000:.0f} ms"
    )
    assert cost_s < MOST_CPU_S


def looks_of(world: World, act: Callable[[], OpenSession]) -> Counter[str]:
    """What a process of its own opens and lists, as Python itself tells, while it begins, uses and ends a session."""

    def tell_looks(it: Fork) -> None:
        seen: list[str] = []

        def hear(event: str, arguments: tuple[object, ...]) -> None:
            if event in ("open", "os.listdir") and isinstance(arguments[0], str):
                seen.append(f"{event} {arguments[0]}")

        # It cannot be taken away again, and goes with this process.
        sys.addaudithook(hear)
        session = act()
        session.run(["true"])
        before_end = len(seen)
        session.end()
        # If somebody looks at the root in that moment, as those do who look at all processes, it is busy.
        seen[before_end:] = [look for look in seen[before_end:] if "mountinfo" not in look]
        it.tell("\t".join(look.replace(session.id, "ID") for look in seen))

    looker = fork(tell_looks)
    looks = looker.ask().split("\t")
    assert looker.wait() == 0, looks
    # Of a journal's name, the session's; not the directory itself, which is opened to publish in it.
    found = [re.sub(f"{world.places.journal_dir}(/[^,]*)?.*", r"JOURNALS\1", look) for look in looks]
    return Counter(look for look in found if "mountinfo" in look or re.search("open JOURNALS/|listdir JOURNALS", look))


def test_what_is_open_already_is_not_looked_at(world: World, asker: Callable[..., Fork]) -> None:
    """A session among many opens no journal but its own, and does not read the table of mounts.

    It lists them twice: for what it may sweep, and for the lock of its source.
    """
    world.define("tiny")
    alone = looks_of(world, lambda: world.begin("tiny"))
    assert alone["os.listdir JOURNALS"] == 2
    assert not any("mountinfo" in look for look in alone)
    opened = [world.begin("tiny", persistent=number % 2 == 0) for number in range(40)]
    assert looks_of(world, lambda: world.begin("tiny")) == alone
    # Of one whose owner is dead, the journal is read, and no other.
    dead = asker("tiny", name="dead")
    assert dead.ask() == "in"
    os.kill(dead.pid, signal.SIGKILL)
    assert dead.wait() == -signal.SIGKILL
    while store.exists(world.places, "dead"):  # some are looked at each time, each time others
        looks = looks_of(world, lambda: world.begin("tiny"))
        others = looks - alone
        assert {look for look in others if look.startswith("open JOURNALS")} <= {"open JOURNALS/dead"}
    for session in opened:
        session.end()

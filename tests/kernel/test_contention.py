"""Many who want one source at once: they get in as they came, nobody is passed over, and waiting costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Fork, World

from sessions import waiters

pytestmark = pytest.mark.usefixtures("read_only_host")

CROWD = 50
MOST_CPU_S = 0.2


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

"""What is tried: one kill, two kills, torn journals, reboots. Each share of a job is done by a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import crasherrnos as errnos
import crashtorn as torn
from crashdriver import MARK, OTHER, Driver, Outcome, in_child, must
from crashkinds import PLACES_DOWN, PLACES_UP
from world import forget_reboots, reboot

T = TypeVar("T")
Share = tuple[int, int]
WAYS = ("up", "down", "command")
# How many schedules of a share are ended in a fresh interpreter, and begun again under the same name.
OWN_INTERPRETER = 3
AGAIN = 12


def shared_out(everything: Sequence[T], share: Share, driver: Driver, sample: int = 0) -> list[T]:
    """Our share of everything, or of a sample of it."""
    if sample and sample < len(everything):
        everything = driver.rng.sample(everything, sample)
    number, of = share
    return list(everything[number::of])


def kill(driver: Driver, way: str, at: int) -> Outcome:
    """Bring a session on its way, up to the point where what does so is killed; 0 is never."""
    if way == "up":
        return in_child(driver.begin, at)
    driver.up()
    return in_child(driver.end if way == "down" else driver.run_true, at)


def points(driver: Driver, way: str) -> int:
    """How many points there are on a way."""
    outcome = must(kill(driver, way, 0))
    if way != "down":
        must(in_child(driver.end))
    driver.start_again()
    return len(outcome.points)


def every_kill(driver: Driver, ways: Iterable[str] = WAYS) -> list[tuple[str, int]]:
    return [(way, at) for way in ways for at in range(1, points(driver, way) + 1)]


def one_kill(driver: Driver, share: Share, sample: int = 0) -> None:
    """Killed at every point; then ended, or every other time swept first."""
    schedules = shared_out(every_kill(driver), share, driver, sample)
    elsewhere = set(driver.rng.sample(schedules, min(OWN_INTERPRETER, len(schedules))))
    again = set(driver.rng.sample(schedules, min(AGAIN, len(schedules))))
    for way, at in schedules:
        killed = kill(driver, way, at)
        driver.settle(
            f"killed on the way {way}, point {at}, {killed.killed_at or 'not reached'}",
            with_mark=way != "up",
            own_interpreter=(way, at) in elsewhere,
            again=(way, at) in again,
            swept=at % 2 == 0,
        )
    if share[0] == 0:
        killed_while_a_command_runs(driver)
    if driver.kind.scripts and share[0] == 0:
        killed_by_script(driver)
    if driver.kind.beside:
        must(in_child(lambda: driver.run_true(OTHER)))


def killed_while_a_command_runs(driver: Driver) -> None:
    """The command lives on, and is ended with the session; it was started as ourselves, or by way of a fork."""
    for user in ("root", "nobody"):
        driver.up()
        died = in_child(lambda user=user: driver.die_running(user))  # type: ignore[misc]
        problems = [] if "ended with -9" in died.error else [f"the runner: {died.error or 'was not killed'}"]
        driver.settle(f"killed while a command of {user} runs", problems, with_mark=True)


def killed_by_script(driver: Driver) -> None:
    """Killed while the script runs, at places of its own."""
    for place in PLACES_UP + PLACES_DOWN:
        on_the_way_up = place in PLACES_UP
        if not on_the_way_up:
            driver.up()
        flag = driver.world.base / f"kill-at-{place}"
        flag.touch()
        in_child(driver.begin if on_the_way_up else driver.end)
        problems = ["the script did not kill it"] if flag.exists() else []
        driver.settle(f"killed by the script at its place {place}", problems, with_mark=not on_the_way_up)


def two_kills(driver: Driver, share: Share, sample: int = 0) -> None:
    """Killed at a point, killed again in the end that follows, then ended; every pair, or a sample."""
    for way, at in shared_out(every_kill(driver, ("up", "down")), share, driver, sample):
        kill(driver, way, at)
        following = must(in_child(driver.end)).points if driver.exists else []
        driver.start_again()
        numbers: Sequence[int] = range(1, len(following) + 1)
        for number in [driver.rng.choice(numbers)] if sample and following else numbers:
            killed = kill(driver, way, at)
            driver.settle(
                f"killed on the way {way}, point {at}, {killed.killed_at}", with_mark=way != "up", kill_at=number
            )


@dataclass(frozen=True)
class Restart:
    """The machine is restarted while the session is up, or after a kill on a `way`; then what the rest says."""

    way: str = ""
    at: int = 0
    recovery_killed_at: int = 0
    again: bool = False
    """Whether the machine is restarted once more."""
    recovered: bool = False
    """Whether the session is recovered, before it is ended in any case."""


def reboots(driver: Driver, share: Share, sample: int = 0) -> None:
    """Restarted while it is up, or after a kill: it can be recovered where it lasts, and ended always."""
    restarts = [Restart(), Restart(recovered=True)]
    for at in range(1, points_of_recovery(driver) + 1):
        restarts += [
            Restart(recovery_killed_at=at),
            Restart(recovery_killed_at=at, recovered=True),
            Restart(recovery_killed_at=at, again=True, recovered=True),
        ]
    restarts += [Restart(way, at) for way, at in every_kill(driver, ("up", "down"))]
    for restart in shared_out(restarts, share, driver, sample):
        do_restart(driver, restart)


def points_of_recovery(driver: Driver) -> int:
    driver.up()
    reboot(driver.world)
    recovered = must(in_child(driver.recover))
    driver.settle("recovered", with_mark=True)
    forget_reboots()
    return len(recovered.points)


def do_restart(driver: Driver, restart: Restart) -> None:
    if restart.way:
        killed = kill(driver, restart.way, restart.at)
    else:
        driver.up()
    reboot(driver.world)
    if restart.recovery_killed_at:
        killed = in_child(driver.recover, restart.recovery_killed_at)
    if restart.again:
        reboot(driver.world)
    where = f", {killed.killed_at}" if restart.way or restart.recovery_killed_at else ""
    problems = recover(driver) if restart.recovered and driver.exists else []
    try:
        driver.settle(f"{restart}{where}", problems, with_mark=restart.way != "up")
    finally:
        forget_reboots()


def rests(driver: Driver, share: Share, sample: int = 0) -> None:
    """Killed at every point while it is laid to rest; then recovered, laid to rest again, or neither, and ended."""
    driver.up()
    rested = must(in_child(driver.rest))
    driver.settle("laid to rest", with_mark=True)
    schedules = [(at, then) for at in range(1, len(rested.points) + 1) for then in ("recover", "rest", "end")]
    for at, then in shared_out(schedules, share, driver, sample):
        driver.up()
        killed = in_child(driver.rest, at)
        problems = []
        if then == "recover" and driver.exists and driver.kind.lasts:
            problems = recover(driver)
        elif then == "rest" and driver.exists:
            problems = [f"rest: {error}" for error in [in_child(driver.rest).error] if error]
            problems += mounts_left(driver)
        what = f"killed while laid to rest, point {at}, {killed.killed_at}, then {then}"
        driver.settle(what, problems, with_mark=True)


def mounts_left(driver: Driver) -> list[str]:
    """What is mounted of a session that is at rest, or gone."""
    left = driver.world.snapshot().mounts - driver.before.mounts
    return [f"at rest, but mounted: {mount}" for mount in left]


def recover(driver: Driver) -> list[str]:
    """Recover; the session has to be up and what was in it there, or gone and the reason said."""
    recovered = in_child(driver.recover)
    if recovered.error:
        return [f"recover: {recovered.error}"]
    if not driver.kind.lasts:
        why = [line for line in recovered.said if "cannot be recovered and is ended" in line]
        return [] if why and not driver.exists else [f"not ended with a reason: {recovered.said}"]
    problems = []
    if not driver.kind.changes_original and not (driver.root / MARK).is_file():
        problems.append("what was in it is gone")
    for action in (driver.run_true, driver.recover, driver.run_true):
        problems += [f"{action.__name__} after recover: {error}" for error in [in_child(action).error] if error]
    return problems


JOBS: dict[str, Callable[..., None]] = {
    "one_kill": one_kill,
    "two_kills": two_kills,
    "reboots": reboots,
    "rests": rests,
    "torn": torn.torn,
    "lost_marks": torn.lost_marks,
    "errnos": errnos.errnos,
}

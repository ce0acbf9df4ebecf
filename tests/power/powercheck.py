"""What has to be there after a boot, and what must not; and that nothing is left when all sessions are ended."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import powersecret
from powerguest import BASE, LOCKED, NOTES, NOTES_TEXT, Machine, data_of
from powerkinds import LOST_AT_BOOT
from powervolumes import Volumes
from snapshot import differences

from sessions import api, lifecycle, waiters
from sessions.engine import Settings
from sessions.errors import SessionsError
from sessions.journal import State

AT_BOOT = ("sessions-recover.service", "sessions-gc.service")
# Where a session has what is its own, or the host's.
OWN_PLACES = ("etc", "mnt", "data", "proc", "sys", "dev", "home", "tmp")

Known = dict[str, dict[str, Any]]


def after_boot(machine: Machine) -> tuple[list[str], list[str]]:
    """Boot as the units have it: the problems that are found after that, and the sessions that are up."""
    known: Known = dict(machine.job["sessions"])
    for session_id in machine.job["ends_first"]:
        machine.line.say("ending", session_id)
        machine.sessions("end", session_id)
        machine.line.say("ended", session_id)
        del known[session_id]
    machine.line.say("sweeping")
    problems, said = machine.units(*AT_BOOT)
    live = []
    for item in lifecycle.listed(machine.world.places):
        if isinstance(item, SessionsError):
            problems.append(f"a journal is left that cannot be read: {item}")
            continue
        session_id = item.journal.session.id
        live.append(session_id)
        if session_id not in known:
            problems.append(f"{session_id} is {item.state}, and was never begun, or has been ended")
        elif item.state is not State.UP:
            problems.append(f"{session_id} ({known[session_id]['kind']}) is {item.state}")
        else:
            kind = known[session_id]["kind"]
            problems += [f"{session_id} ({kind}): {what}" for what in wrong_in(machine, session_id)]
    problems += missing(known, live, said)
    problems += [f"a trace is left: {path}" for path in traces(machine, live)]
    problems += wrong_lock(machine)
    if problems:
        problems.append(f"the boot said: {said}")
    return problems, live


def missing(known: Known, live: list[str], said: str) -> Iterator[str]:
    """The sessions that have to be there and are not, or are gone and nobody has said why."""
    for session_id, what in known.items():
        if what["kind"] in LOST_AT_BOOT:
            told = f"session {session_id} cannot be recovered and is ended: its layer was on a tmpfs"
            if what["must"] and told not in said:
                yield f"{session_id} ({what['kind']}) was ended without a word"
        elif what["must"] and session_id not in live:
            yield f"{session_id} ({what['kind']}), whose begin had returned, is gone"


def wrong_in(machine: Machine, session_id: str) -> Iterator[str]:
    """What is not as it should be in a session that is up."""
    root = Path(machine.world.places.mount_dir, session_id)
    for path in sorted(machine.world.chroot.rglob("*")):
        name = path.relative_to(machine.world.chroot)
        if name.parts[0] not in OWN_PLACES and str(name) != NOTES and not is_same(path, root / name):
            yield f"/{name} is not that of the chroot"
    notes = (root / NOTES).read_bytes() if (root / NOTES).is_file() else b""
    if not notes.startswith(NOTES_TEXT.encode()):
        yield f"/{NOTES} has lost what the chroot has there: {notes[:80]!r}"
    for name in machine.job["sessions"][session_id]["data"]:
        data = data_of(session_id, name)
        if name.startswith("note"):
            if data not in notes:
                yield f"{name} is not in /{NOTES}, and was synced"
        elif not (root / "data" / name).is_file():
            yield f"/data/{name} is gone, and was synced"
        elif (root / "data" / name).read_bytes() != data:
            yield f"/data/{name} is not what was synced"
    kind = machine.job["sessions"][session_id]["kind"]
    result = api.open_session(session_id, places=machine.places(kind)).run(["/bin/true"], capture=True)
    if result.status != 0:
        yield f"no command can be run: {result}"


def is_same(original: Path, other: Path) -> bool:
    if original.is_symlink() or other.is_symlink():
        return other.is_symlink() and os.readlink(original) == os.readlink(other)
    if original.is_dir():
        return other.is_dir()
    return other.is_file() and filecmp.cmp(original, other, shallow=False)


def traces(machine: Machine, live: list[str]) -> Iterator[str]:
    """What lies where only sessions put something, and is of none of them."""
    places = machine.world.places
    for top in (places.overlay_dir, places.unpack_dir, places.underlay_dir, places.mount_dir, BASE / "outside"):
        yield from (f"{top}/{name}" for name in listed(top) if name not in live)
    yield from (f"{places.archive_dir}/{name}" for name in listed(places.archive_dir) if name.startswith("."))
    yield from machine.world.broken_trees()
    yield from (f"elsewhere/{name}" for name in listed(BASE / "elsewhere") if name not in (*live, "lost+found"))
    yield from (f"volume {name}" for name, tags in volumes(machine).items() if tags and name not in live)
    journals = [name for name in listed(places.journal_dir) if name.partition(",")[0] not in live]
    yield from (f"{places.journal_dir}/{name}" for name in journals)
    kinds = {machine.job["sessions"][name]["kind"] for name in live if name in machine.job["sessions"]}
    if powersecret.is_open() and powersecret.KIND not in kinds:
        yield "the encrypted volume is open"
    for top in (places.lock_dir, places.waiting_dir):
        yield from (f"{top}/{name}" for name in listed(top))
    yield from (f"{places.maintenance_dir}/{name}" for name in listed(places.maintenance_dir) if name != LOCKED)


def volumes(machine: Machine) -> dict[str, str]:
    """The logical volumes, each with its tags."""
    backing = machine.world.backing
    return backing.group.volumes() if isinstance(backing, Volumes) else {}


def listed(path: str | Path) -> list[str]:
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def wrong_lock(machine: Machine) -> Iterator[str]:
    """A source that was locked for maintenance is so still, and it is known why; one that was unlocked is not."""
    found = waiters.maintenance(machine.world.places, LOCKED)
    if machine.job["lock"] == "locked" and (found is None or found.reason != "a reason"):
        yield f"{LOCKED} was locked for a reason, and is {found}"
    if machine.job["lock"] == "" and found is not None:
        yield f"{LOCKED} is locked, and was not"


def end_all(machine: Machine, live: list[str]) -> list[str]:
    """End what is up, and tell what is not as it was on a new disk."""
    for session_id in live:
        machine.line.say("ending", session_id)
        lifecycle.end(machine.world.places, session_id, Settings())
        machine.line.say("ended", session_id)
    machine.line.say("unlocking")
    waiters.unlock(machine.world.places, LOCKED)
    machine.line.say("unlocked")
    found, said = machine.units("sessions-gc.service")
    found += differences(machine.before, machine.snapshot(), permanent=machine.world.permanent)
    found += [f"a trace is left: {path}" for path in traces(machine, [])]
    return [f"with all ended, and after {said!r}: {what}" for what in found]

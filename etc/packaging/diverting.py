"""Taking the place of Debian's schroot, and giving it back.

dpkg keeps the package's command under another name (dpkg-divert(1)), through upgrades too, and a link to ours stands in
its place. Sessions are not carried over: each command knows its own, so a switch while some are open is refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from layout import CHECKOUT, Layout, Refused

COMMAND = "/usr/bin/schroot"
DISTRIBUTIONS = "/usr/bin/schroot.distrib"
DISTRIBUTIONS_SESSIONS = "/var/lib/schroot/session"
_NEW = "/usr/bin/.schroot.chroot-sessions-new"


def divert(layout: Layout, keep_sessions: bool) -> None:
    """Put our command in the place of the distribution's; what was done half way is finished."""
    ours = _check(layout)
    if not os.access(ours, os.X_OK):
        raise Refused(f"{ours} is not there: first make install")
    if os.path.realpath(COMMAND) == os.path.realpath(ours):
        print(f"{COMMAND} is ours already")
        return
    names = _sessions_of_distributions()
    if names:
        where = DISTRIBUTIONS if keep_sessions else COMMAND
        _tell_open(f"sessions of {COMMAND}, which ours does not know", names, f"{where} -e -c session:", keep_sessions)
    _run("dpkg-divert", "--local", "--rename", "--divert", DISTRIBUTIONS, "--add", COMMAND)
    if os.path.lexists(_NEW):
        os.unlink(_NEW)
    os.symlink(ours, _NEW)
    os.rename(_NEW, COMMAND)
    print(f"{COMMAND} leads to {ours}; the distribution's is {DISTRIBUTIONS}")
    print("next: systemctl enable --now sessions-recover.service sessions-gc.timer")


def undivert(layout: Layout, keep_sessions: bool) -> None:
    """Give the distribution's command its place back."""
    ours = _check(layout)
    if os.path.lexists(COMMAND) and not is_diverted_to(layout):
        raise Refused(f"{COMMAND} does not lead to {ours}: nothing to undo")
    names = open_sessions()
    if names:
        _tell_open(f"sessions of ours, which {DISTRIBUTIONS} does not know", names, "sessions end ", keep_sessions)
    if os.path.lexists(COMMAND):
        os.unlink(COMMAND)
    _run("dpkg-divert", "--local", "--rename", "--divert", DISTRIBUTIONS, "--remove", COMMAND)
    print(f"{COMMAND} is the distribution's again")
    print("next: systemctl disable --now sessions-recover.service sessions-gc.timer; systemctl start schroot.service")


def is_diverted_to(layout: Layout) -> bool:
    """Whether the link in the place of the distribution's command leads to ours."""
    ours = f"{layout.bin_dir}/schroot"
    return ours != COMMAND and os.path.islink(COMMAND) and os.readlink(COMMAND) == ours


def open_sessions() -> list[str]:
    """The names of the sessions of ours that there are."""
    sys.path.insert(0, CHECKOUT)
    from sessions import store
    from sessions.model import Places

    return [entry.id for entry in store.entries(Places())]


def _sessions_of_distributions() -> list[str]:
    try:
        return sorted(name for name in os.listdir(DISTRIBUTIONS_SESSIONS) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _check(layout: Layout) -> str:
    """Our command; raises Refused where there is nothing to divert."""
    ours = f"{layout.bin_dir}/schroot"
    if layout.root:
        raise Refused("DESTDIR is for packages, which divert when they are installed: leave it out")
    if ours == COMMAND:
        raise Refused(f"PREFIX={layout.prefix} puts our command at {COMMAND} itself: leave it out, or name another")
    if not shutil.which("dpkg-divert"):
        raise Refused(f"there is no dpkg-divert: remove the distribution's package, or link {COMMAND} to {ours}")
    if os.geteuid() != 0:
        raise Refused("this is for root")
    return ours


def _tell_open(what: str, names: list[str], command: str, keep_sessions: bool) -> None:
    lines = "".join(f"\n  {command}{name}" for name in names)
    if not keep_sessions:
        raise Refused(f"{what}, are open. End them, or keep them for later with KEEP_SESSIONS=1:{lines}")
    print(f"warning: {what}, are open; to end them later:{lines}", file=sys.stderr)


def _run(*argv: str) -> None:
    outcome = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise Refused(f"{' '.join(argv)}: {(outcome.stderr or outcome.stdout).strip()}")

"""The environments we make: for setup scripts (schroot-setup(5)) and for commands inside a session."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sessions import keys, keytypes, sources
from sessions.keys import Key, Part
from sessions.keytypes import show
from sessions.linux.run import SYSTEM_PATH
from sessions.model import Chroot, Host, Identity, LvmSnapshot, Session

_START = "setup-start"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"

# Where schroot has its helper programs; there are none here.
LIBEXEC_DIR = "/usr/lib/chroot-sessions"


def for_scripts(session: Session, stage: str) -> dict[str, str]:
    """The whole environment of a setup script; variables without a value are left out."""
    chroot, places = session.chroot, session.places
    # What schroot's session files say, which is all it knows at a later call.
    is_loaded = stage != _START and session.owner is None
    user, caller = session.user, session.caller
    variables = {
        "AUTH_USER": user.name,
        "AUTH_UID": str(user.uid),
        "AUTH_GID": str(user.gid),
        "AUTH_HOME": user.home,
        "AUTH_SHELL": user.shell,
        "AUTH_RUSER": caller.name,
        "AUTH_RGROUP": caller.group,
        "AUTH_RUID": str(caller.uid),
        "AUTH_RGID": str(caller.gid),
        "SESSION_ID": session.id,
        "CHROOT_NAME": chroot.name,
        "CHROOT_ALIAS": session.selected_name,
        "CHROOT_DESCRIPTION": f"{described(chroot)} (session chroot)",
        "CHROOT_MOUNT_LOCATION": session.location,
        "CHROOT_PATH": session.path,
        "CHROOT_SESSION_CREATE": "false",
        "CHROOT_SESSION_CLONE": "false",
        # The tree of an archive's twin goes too, once it has been packed again.
        "CHROOT_SESSION_PURGE": show(is_purged(session) or bool(session.unpack_directory)),
        "CHROOT_SESSION_SOURCE": show(chroot.is_source),
        "VERBOSE": session.verbosity,
        "PID": str(os.getpid()),
        "PLATFORM": "linux",
        "MOUNT_DIR": places.mount_dir,
        "LIBEXEC_DIR": LIBEXEC_DIR,
        "SYSCONF_DIR": places.schroot_config_dir,
        "DATA_DIR": os.path.dirname(places.stock_setup_dir),
        "SETUP_DATA_DIR": f"{places.stock_setup_dir}/common",
        # Ours alone: a profile's files may lie elsewhere than in schroot's directory.
        "SESSIONS_CONFIG_PATH": ":".join(places.config_path),
        "PATH": SYSTEM_PATH,
    }
    for key in keys.KEYS:
        if key.variable and key.variable not in variables and _has_variable(key, chroot, is_loaded=is_loaded):
            variables[key.variable] = show(keys.value_of(chroot, key, session))
    if isinstance(chroot.source, LvmSnapshot):
        variables["CHROOT_LVM_SNAPSHOT_NAME"] = os.path.basename(session.snapshot)
    if chroot.script_config:
        variables["CHROOT_SCRIPT_CONFIG"] = f"{places.schroot_config_dir}/{chroot.script_config}"
    if chroot.profile:
        variables["CHROOT_PROFILE_DIR"] = f"{places.schroot_config_dir}/{chroot.profile}"
    if chroot.union.is_used:
        variables["CHROOT_UNION_OVERLAY_DIRECTORY"] = session.overlay_directory
        variables["CHROOT_UNION_UNDERLAY_DIRECTORY"] = session.underlay_directory
    if session.unpack_directory:
        variables["CHROOT_FILE_UNPACK_DIR"] = places.unpack_dir
    for name, value in chroot.custom:
        variables.setdefault(keys.custom_variable(name), value)
    return {name: value for name, value in sorted(variables.items()) if value}


def described(chroot: Chroot) -> str:
    """The description; schroot has one for every source twin."""
    return chroot.description or (" (source chroot)" if chroot.is_source else "")


def is_purged(session: Session) -> bool:
    """Whether the session's tree is a copy that goes with it; not, if it is the original itself."""
    return sources.is_purged(session.chroot)


def _has_variable(key: Key, chroot: Chroot, *, is_loaded: bool) -> bool:
    """Whether schroot would tell scripts of this kind of chroot, at this time, the value of `key`."""
    if not keys.is_legal(key, type(chroot.source)):
        return False
    if key.part is Part.UNION and not chroot.union.is_used:
        # Of those that have none, schroot says so; but not of a twin, until it has forgotten that it is one.
        return not isinstance(chroot.source, (*keys.NATIVELY_UNIONABLE, Host)) and (is_loaded or not chroot.is_source)
    if key.configured_only:
        return not is_loaded and not (chroot.is_source and key.name == "zfs-snapshot-options")
    return True


def for_commands(
    session: Session, caller: Identity, user: Identity, given: Mapping[str, str], *, preserve: bool, command: str
) -> dict[str, str]:
    """The environment of a command inside: a minimal one, or with `preserve` the caller's (`given`) over it.

    What environment-filter finds, whoever it comes from, and variables without a value are dropped; root's PATH is
    always the system's.
    """
    minimal = {
        "HOME": user.home,
        "LOGNAME": user.name,
        "USER": user.name,
        "SHELL": user.shell,
        "PATH": SYSTEM_PATH if user.uid == 0 else USER_PATH,
        "TERM": given.get("TERM", ""),
    }
    variables = dict(minimal)
    if preserve:
        variables.update(given)
        if user.uid == 0:
            variables["PATH"] = SYSTEM_PATH
    variables.update(
        SCHROOT_COMMAND=command,
        SCHROOT_USER=caller.name,
        SCHROOT_GROUP=caller.group,
        SCHROOT_UID=str(caller.uid),
        SCHROOT_GID=str(caller.gid),
        SCHROOT_CHROOT_NAME=session.chroot.name,
        SCHROOT_ALIAS_NAME=session.selected_name,
        SCHROOT_SESSION_ID=session.id,
    )
    unwanted = keytypes.compile_regex(session.chroot.environment_filter) if session.chroot.environment_filter else None
    kept = {name: value for name, value in variables.items() if value and not (unwanted and unwanted.search(name))}
    return dict(sorted(kept.items()))

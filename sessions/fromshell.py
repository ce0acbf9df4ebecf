"""The session that a stock setup script is run for by hand, made from the environment that schroot gives scripts."""

from __future__ import annotations

from collections.abc import Mapping

from sessions import keys, names, store, users
from sessions.config import profile
from sessions.data import TYPE_CHECKING
from sessions.errors import SessionsError
from sessions.keys import Part
from sessions.linux import proc
from sessions.model import Chroot, Places, Session, Source, Union

if TYPE_CHECKING:
    from typing import Any


def session(environment: Mapping[str, str]) -> Session:
    """The session with the id SESSION_ID if there is one; else one made from the other variables.

    Raises SessionsError, naming the variable, if one that is needed is missing.
    """
    session_id = names.check(_needed(environment, "SESSION_ID"), "session name")
    places = _places(environment)
    if store.exists(places, session_id):
        with store.open_session(places, session_id, for_marks=False) as journal:
            return journal.session
    chroot = _chroot(environment)
    caller = users.caller()
    boot_id = proc.boot_id()
    location = _needed(environment, "CHROOT_MOUNT_LOCATION")
    base = environment.get("CHROOT_FILE_UNPACK_DIR", "")
    return Session(
        id=session_id,
        stamp=f"by-hand-{session_id}",
        chroot=chroot,
        selected_name=environment.get("CHROOT_ALIAS", chroot.name),
        caller=caller,
        user=caller,
        owner=None,
        created_ns=0,
        boot_id=boot_id,
        mount_namespace=proc.mount_namespace() or 0,
        places=places,
        location=location,
        path=environment.get("CHROOT_PATH", location),
        overlay_directory=chroot.union.overlay_directory,
        underlay_directory=chroot.union.underlay_directory,
        unpack_directory=f"{base}/{session_id}" if base else "",
        **_storage(environment, chroot.source),
        fstab=profile.fstab(chroot, places),
        copyfiles=profile.copyfiles(chroot, places),
        nssdatabases=profile.nssdatabases(chroot, places),
        verbosity=environment.get("VERBOSE", "normal"),
    )


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SessionsError(
            f"the variable {name} is not set", hint="give the script the environment of schroot-setup(5)"
        )
    return value


def _places(environment: Mapping[str, str]) -> Places:
    from sessions import where

    usual = where.usual_places()
    mount_dir = environment.get("MOUNT_DIR", "")
    config = environment.get("SYSCONF_DIR", "")
    return where.changed(
        usual,
        config_dir=config if config != usual.schroot_config_dir else "",
        runtime_dir=mount_dir.removesuffix("/mount") if mount_dir.endswith("/mount") else "",
    )


def _chroot(environment: Mapping[str, str]) -> Chroot:
    custom = {
        name: environment.get(name.upper().replace(".", "_"), "")
        for name in ("setup.config", "setup.copyfiles", "setup.fstab", "setup.nssdatabases")
    }
    return Chroot(
        name=environment.get("CHROOT_NAME", _needed(environment, "SESSION_ID")),
        source=_source(environment),
        union=Union(
            type=environment.get("CHROOT_UNION_TYPE", "none"),
            mount_options=environment.get("CHROOT_UNION_MOUNT_OPTIONS", ""),
            overlay_directory=environment.get("CHROOT_UNION_OVERLAY_DIRECTORY", ""),
            underlay_directory=environment.get("CHROOT_UNION_UNDERLAY_DIRECTORY", ""),
        ),
        profile=environment.get("CHROOT_PROFILE", ""),
        custom=tuple(sorted((name, value) for name, value in custom.items() if value)),
        is_source=environment.get("CHROOT_SESSION_SOURCE") == "true",
    )


def _source(environment: Mapping[str, str]) -> Source:
    kind = _needed(environment, "CHROOT_TYPE")
    cls = keys.TYPES.get(kind)
    if cls is None:
        raise SessionsError(f"CHROOT_TYPE {kind!r} is not one that this script knows")
    values: dict[str, Any] = {}
    for key in keys.KEYS:
        if key.part is Part.SOURCE and key.variable and keys.is_legal(key, cls):
            # What says only how a session is made is not told of one that there is.
            is_needed = key.required and not key.configured_only
            text = _needed(environment, key.variable) if is_needed else environment.get(key.variable, "")
            if text:
                values[key.field] = key.value_type.parse(text)
    return cls(**values)


def _storage(environment: Mapping[str, str], source: Source) -> dict[str, Any]:
    """What the session's storage is made of, by the fields of Session."""
    found = {
        key.field: environment.get(key.variable, "")
        for key in keys.KEYS
        if key.part is Part.SESSION and key.variable and keys.is_legal(key, type(source))
    }
    return {field: value for field, value in found.items() if value}

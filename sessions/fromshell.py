"""The session that a stock setup script is run for by hand, made from the environment that schroot gives scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sessions import keys, names, store, users
from sessions.errors import SessionsError
from sessions.keys import Part
from sessions.linux import proc
from sessions.model import Chroot, Custom, Places, Session, Source, Union
from sessions.newsession import with_setup_files

Environment = Mapping[str, str]
_HINT = "give the script the environment of schroot-setup(5)"
# What names the setup files and services of a session: the custom keys that stock scripts read.
_SETUP_KEYS = (*keys.PROFILE_FILES, "setup.services")


def session(environment: Environment) -> Session:
    """The session with the id SESSION_ID if there is one; else one made from the other variables.

    Raises SessionsError, naming the variable, if one that is needed is missing or makes no sense.
    """
    session_id = names.check(_needed(environment, "SESSION_ID"), "session name")
    places = _places(environment)
    if store.exists(places, session_id):
        with store.open_session(places, session_id, for_marks=False) as journal:
            return journal.session
    chroot = _chroot(environment, places)
    caller = users.caller()
    location = _needed(environment, "CHROOT_MOUNT_LOCATION")
    base = environment.get("CHROOT_FILE_UNPACK_DIR", "")
    made = Session(
        id=session_id,
        stamp=f"by-hand-{session_id}",
        chroot=chroot,
        selected_name=environment.get("CHROOT_ALIAS", chroot.name),
        caller=caller,
        user=users.find(environment["AUTH_USER"]) if "AUTH_USER" in environment else caller,
        owner=None,
        created_ns=0,
        boot_id=proc.boot_id(),
        mount_namespace=proc.mount_namespace() or 0,
        places=places,
        location=location,
        path=environment.get("CHROOT_PATH", location),
        overlay_directory=chroot.union.overlay_directory,
        underlay_directory=chroot.union.underlay_directory,
        unpack_directory=f"{base}/{session_id}" if base else "",
        verbosity=environment.get("VERBOSE", "normal"),
        **_values(Part.SESSION, type(chroot.source), environment),
    )
    return with_setup_files(made)


def _needed(environment: Environment, name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SessionsError(f"the variable {name} is not set", hint=_HINT)
    return value


def _places(environment: Environment) -> Places:
    from sessions import where

    usual = where.usual_places()
    mount_dir = environment.get("MOUNT_DIR", "")
    config = environment.get("SYSCONF_DIR", "")
    return where.changed(
        usual,
        config_dir=config if config != usual.schroot_config_dir else "",
        runtime_dir=mount_dir.removesuffix("/mount") if mount_dir.endswith("/mount") else "",
    )


def _chroot(environment: Environment, places: Places) -> Chroot:
    source_type = keys.TYPES.get(_needed(environment, "CHROOT_TYPE"))
    if source_type is None:
        raise SessionsError(f"CHROOT_TYPE {environment['CHROOT_TYPE']!r} is not one that this script knows")
    source: Source = source_type(**_values(Part.SOURCE, source_type, environment))
    if isinstance(source, Custom):
        source = replace(source, session_purgeable=environment.get("CHROOT_SESSION_PURGE") == "true")
    custom = {key: environment.get(keys.custom_variable(key), "") for key in _SETUP_KEYS}
    return Chroot(
        name=environment.get("CHROOT_NAME", _needed(environment, "SESSION_ID")),
        source=source,
        union=Union(**_values(Part.UNION, source_type, environment)),
        profile=environment.get("CHROOT_PROFILE", ""),
        script_config=environment.get("CHROOT_SCRIPT_CONFIG", "").removeprefix(f"{places.schroot_config_dir}/"),
        custom=tuple(sorted((key, value) for key, value in custom.items() if value)),
        is_source=environment.get("CHROOT_SESSION_SOURCE") == "true",
    )


def _values(part: Part, source_type: type[Source], environment: Environment) -> dict[str, Any]:
    """What the variables say of one part of a chroot, or of its session: field to value, by the table of keys."""
    found: dict[str, Any] = {}
    for key in keys.KEYS:
        if key.part is not part or not key.variable or not keys.is_legal(key, source_type):
            continue
        if key.required and not key.configured_only:
            _needed(environment, key.variable)
        if key.variable in environment:
            try:
                found[key.field] = key.value_type.parse(environment[key.variable])
            except ValueError as error:
                raise SessionsError(f"{key.variable}: {error}", hint=_HINT) from None
    return found

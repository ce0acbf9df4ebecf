"""Custom keys: those an administrator makes up for scripts, and the setup.* keys that a profile sets."""

from __future__ import annotations

from sessions import keys
from sessions.data import TYPE_CHECKING
from sessions.keytypes import TEXT, Value

if TYPE_CHECKING:
    from sessions.config.build import Report


def check_value(name: str, value: object) -> str:
    """The value of the custom key `name`; raises ValueError, "REASON; REMEDY", if it may not have it."""
    text = str(TEXT.accept(value))
    if name.startswith("setup."):
        check_inside(text)
    return text


def check_inside(path: str) -> None:
    """Raise ValueError if `path`, which is relative to a configuration directory, climbs out of it."""
    if ".." in path.split("/"):
        raise ValueError(f"{path!r} leaves the configuration directory; write it without ..")


def merge(settings: dict[str, Value], given: dict[str, str], report: Report) -> tuple[tuple[str, str], ...]:
    """The custom keys of a chroot in name order: those of its profile, overridden by those given."""
    if "script-config" in settings:
        try:
            check_inside(str(settings["script-config"]))
        except ValueError as error:
            report.refuse("script-config", error)
        return _distinct(_without_profile(given, report), report)
    profile = str(settings.get("profile", keys.BY_NAME["profile"].default))
    if not _is_profile_allowed(profile, report):
        return ()
    files = {name: f"{profile}/{file}" for name, file in keys.PROFILE_FILES.items()}
    # An empty profile is none in TOML; to schroot it is the configuration directory itself.
    return _distinct({**files, **given} if profile or not report.is_native else given, report)


def _without_profile(given: dict[str, str], report: Report) -> dict[str, str]:
    """The keys given but for those of a profile, whose place script-config takes even when it is empty."""
    for name in keys.PROFILE_FILES:
        if name in given:
            reason = f"Configuration key ‘{name}’ is ambiguous"
            report.warn(name, reason, "it has no effect beside script-config: remove one of the two")
    return {name: value for name, value in given.items() if name not in keys.PROFILE_FILES}


def _is_profile_allowed(profile: str, report: Report) -> bool:
    is_strict = report.is_native and ("/" in profile or profile.startswith("."))
    if is_strict or ".." in profile.split("/"):
        remedy = "name a directory below the configuration directory, such as minimal"
        report.error("profile", f"‘{profile}’ is not the name of a profile", remedy)
        return False
    return True


def _distinct(pairs: dict[str, str], report: Report) -> tuple[tuple[str, str], ...]:
    """The pairs in name order, without those whose script variable an earlier one sets."""
    kept: dict[str, tuple[str, str]] = {}
    for name, value in sorted(pairs.items()):
        variable = keys.custom_variable(name)
        if variable in kept:
            remedy = (
                f"More than one configuration key would set the ‘{variable}’ environment variable: "
                f"‘{kept[variable][0]}’ does, and this one is ignored; rename one of the two"
            )
            report.warn(name, f"Configuration key ‘{name}’ is ambiguous", remedy)
        else:
            kept[variable] = (name, value)
    return tuple(kept.values())

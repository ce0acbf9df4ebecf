"""The shell file that setup.config, or before it script-config, names: an administrator's way to choose setup files.

schroot's scripts read it each for itself. Ours are no shell: where there is such a file, and only there, sh reads it
once, when a session is planned, through the very library that other scripts use, and tells what it has set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sessions import keys
from sessions.config import profile
from sessions.config.read import Untrusted, read_trusted
from sessions.errors import ConfigError
from sessions.linux import run
from sessions.model import Chroot, Places

TIMEOUT_S = 30.0
# What it may set that concerns our own scripts.
_TOLD = ("setup.copyfiles", "setup.fstab", "setup.nssdatabases", "setup.services")
_VARIABLES = tuple(keys.custom_variable(key) for key in _TOLD)
# What the file itself prints goes to the complaints.
_ASK = (
    'exec 3>&1 >&2; for library in data functions config; do . "$SETUP_DATA_DIR/common-$library"; done; '
    + "printf '%s\\0' "
    + " ".join(f'"${{{variable}-}}"' for variable in _VARIABLES)
    + " >&3"
)


def is_named(chroot: Chroot, places: Places) -> bool:
    """Whether this chroot names such a file, and it is there."""
    return any(_files(chroot, places))


def told(chroot: Chroot, places: Places, environment: Mapping[str, str]) -> profile.Told:
    """What the file sets: for each setup key the absolute path, or the value. `environment` is that of setup scripts.

    Raises ConfigError if the file cannot be trusted or fails.
    """
    files = [path for path in _files(chroot, places) if path]
    for path in files:
        try:
            read_trusted(path)
        except (Untrusted, FileNotFoundError) as error:
            reason, remedy = (error.reason, error.remedy) if isinstance(error, Untrusted) else (str(error), "")
            raise ConfigError(f"{path}: {reason}", hint=remedy) from None
    outcome = run.call(
        ["sh", "-e", "-c", _ASK, "setup.config", "setup-start", "ok"],
        package="dash",
        environment=environment,
        timeout_s=TIMEOUT_S,
    )
    values = os.fsdecode(outcome.output).split("\0")
    if outcome.status != 0 or len(values) != len(_TOLD) + 1:
        reason = outcome.reason() if outcome.status else "it closes descriptor 3"
        raise ConfigError(f"{files[-1]}: sh cannot read it: {reason}", hint="mend it, or name another file")
    return dict(zip(_TOLD, values, strict=False))


def _files(chroot: Chroot, places: Places) -> tuple[str, str]:
    """The file of setup.config and that of script-config, in the order in which they are read; empty for none."""
    paths = profile.candidates(chroot.custom_value("setup.config"), "setup.config", places)
    config = next((path for path in paths if os.path.isfile(path)), "")
    old = f"{places.schroot_config_dir}/{chroot.script_config}" if chroot.script_config else ""
    return config, old if os.path.isfile(old) else ""

"""Writing configuration files and loading them, for the tests of configuration."""

from __future__ import annotations

from pathlib import Path

from sessions.config.load import Configuration, load
from sessions.model import Chroot, Directory, Places, Union

PLAIN = "[{}]\ndirectory=/srv/{}\n"
A = "[a]\ndirectory=/srv\n"
OV = "[a]\ntype=directory\nunion-type=overlay\ndirectory=/srv\n"
NOT_PERMITTED = "Configuration key name ‘{}’ is not a permitted name."
REPOSITORY = Path(__file__).parents[2]


def places_in(directory: Path) -> Places:
    return Places(
        native_config_dir=str(directory / "native"),
        schroot_config_dir=str(directory / "schroot"),
        state_dir="/state",
        runtime_dir="/run/test",
        stock_setup_dir="/stock/setup.d",
        stock_etc_dir=str(directory / "stock"),
    )


def write(directory: str, name: str, text: str | bytes) -> Path:
    path = Path(directory) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o644)
    return path


def load_schroot(places: Places, text: str | bytes) -> Configuration:
    write(places.schroot_config_dir, "schroot.conf", text)
    return load(places)


def load_toml(places: Places, text: str | bytes) -> Configuration:
    write(places.native_config_dir, "sessions.toml", text)
    return load(places)


def summary(configuration: Configuration) -> list[tuple[str, int, str, str, str]]:
    return [
        (problem.severity, problem.line, problem.section, problem.key, problem.reason)
        for problem in configuration.problems
    ]


FOUR = ("config", "copyfiles", "fstab", "nssdatabases")


def four(profile: str) -> dict[str, str]:
    return {f"setup.{name}": f"{profile}/{name}" for name in FOUR}


SCHROOT_ALL = """\
[a]
type=directory
description=One
directory=/srv
union-type=overlay
union-mount-options=index=on
source-lock=exclusive
union-overlay-directory=/o
union-underlay-directory=/u
aliases=b,c
users=u1,u2
groups=g1
root-users=r1
root-groups=r2
source-clone=yes
source-users=s1
source-groups=s2
source-root-users=s3
source-root-groups=s4
profile=minimal
command-prefix=eatmydata,-x
message-verbosity=verbose
personality=linux32
preserve-environment=true
environment-filter=^X$
shell=/bin/sh
user-modifiable-keys=acme.x
root-modifiable-keys=acme.y
acme.x=1
"""
TOML_ALL = """\
[chroot.a]
type = "directory"
description = "One"
directory = "/srv"
union-type = "overlay"
union-mount-options = "index=on"
source-lock = "exclusive"
union-overlay-directory = "/o"
union-underlay-directory = "/u"
aliases = ["b", "c"]
users = ["u1", "u2"]
groups = ["g1"]
root-users = ["r1"]
root-groups = ["r2"]
source-clone = true
source-users = ["s1"]
source-groups = ["s2"]
source-root-users = ["s3"]
source-root-groups = ["s4"]
profile = "minimal"
command-prefix = ["eatmydata", "-x"]
message-verbosity = "verbose"
personality = "linux32"
preserve-environment = true
environment-filter = "^X$"
shell = "/bin/sh"
user-modifiable-keys = ["acme.x"]
root-modifiable-keys = ["acme.y"]
"acme.x" = "1"
"""
ALL = Chroot(
    name="a",
    source=Directory("/srv"),
    union=Union("overlay", "index=on", "/o", "/u"),
    description="One",
    source_lock="exclusive",
    aliases=("b", "c"),
    users=("u1", "u2"),
    groups=("g1",),
    root_users=("r1",),
    root_groups=("r2",),
    source_clone=True,
    source_users=("s1",),
    source_groups=("s2",),
    source_root_users=("s3",),
    source_root_groups=("s4",),
    profile="minimal",
    command_prefix=("eatmydata", "-x"),
    message_verbosity="verbose",
    personality="linux32",
    preserve_environment=True,
    environment_filter="^X$",
    shell="/bin/sh",
    user_modifiable_keys=("acme.x",),
    root_modifiable_keys=("acme.y",),
    custom=(("acme.x", "1"), *four("minimal").items()),
)

"""What a stock setup script is written with: the session, the steps it may plan, and ``main`` for use from a shell.

Steps of rare storage are loaded as they are imported from here, which a script does in the case that plans them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from sessions import steps
from sessions.data import TYPE_CHECKING, impossible
from sessions.environ import is_purged
from sessions.errors import SessionNotUsable, SessionsError, StepFailed
from sessions.model import (
    BlockDevice,
    BtrfsSnapshot,
    Custom,
    Directory,
    File,
    Host,
    HostMount,
    Image,
    Loopback,
    LvmSnapshot,
    Plain,
    Session,
    ZfsSnapshot,
)
from sessions.steps import Stage, Step
from sessions.steps.files import CopyDatabases, CopyFile, MakeLink, MountPoint, OwnedTree, Warn, WriteFile
from sessions.steps.foreign import ForeignMountPoint, ForeignRoot, RootIsMounted
from sessions.steps.interpreter import BindInterpreter
from sessions.steps.mounts import Bind, FileSystem, PrivateDirectory
from sessions.steps.overlay import Overlay
from sessions.steps.processes import EndProcesses
from sessions.steps.services import Service

if TYPE_CHECKING:
    from sessions.steps.btrfs import SubvolumeSnapshot
    from sessions.steps.cached import CachedArchive
    from sessions.steps.checking import CheckedFileSystem
    from sessions.steps.devices import MountedDevice, RootInside
    from sessions.steps.stack import AwaitDevice, OpenVolume
    from sessions.steps.storage import UnpackedArchive
    from sessions.steps.volumes import LogicalSnapshot
    from sessions.steps.zfs import DatasetClone, DatasetSnapshot, MountedDataset

__all__ = [
    "AwaitDevice",
    "Bind",
    "BindInterpreter",
    "BlockDevice",
    "BtrfsSnapshot",
    "CachedArchive",
    "CheckedFileSystem",
    "CopyDatabases",
    "CopyFile",
    "Custom",
    "DatasetClone",
    "DatasetSnapshot",
    "Directory",
    "EndProcesses",
    "File",
    "FileSystem",
    "ForeignMountPoint",
    "ForeignRoot",
    "Host",
    "HostMount",
    "Image",
    "LogicalSnapshot",
    "Loopback",
    "LvmSnapshot",
    "MakeLink",
    "MountPoint",
    "MountedDataset",
    "MountedDevice",
    "OpenVolume",
    "Overlay",
    "OwnedTree",
    "Plain",
    "PrivateDirectory",
    "RootInside",
    "RootIsMounted",
    "Service",
    "Session",
    "SessionNotUsable",
    "Step",
    "StepFailed",
    "SubvolumeSnapshot",
    "UnpackedArchive",
    "Warn",
    "WriteFile",
    "ZfsSnapshot",
    "impossible",
    "is_purged",
    "main",
    "private_mounts",
]

Plan = Callable[[Session], Iterator[Step]]


def __getattr__(name: str) -> type[Step]:
    """A step of rare storage."""
    try:
        return steps.rare(name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def private_mounts(session: Session) -> PrivateDirectory:
    """The step that has to come before the first mount below the runtime directory."""
    return PrivateDirectory(session.places.mount_dir)


def main(plan: Plan) -> None:
    """Run a stock script as an executable: ``SCRIPT STAGE ok|fail`` with schroot's environment, or ``SCRIPT plan``."""
    from sessions import engine, fromshell

    name = os.path.basename(sys.argv[0])
    word, status = [*sys.argv[1:], "", ""][:2]
    try:
        if word != "plan" and word not in tuple(Stage):
            raise SessionsError(f"usage: {name} plan | setup-start|setup-recover|setup-stop ok|fail")
        session = fromshell.session(os.environ)
        planned = list(plan(session))
        if word == "plan":
            for step in planned:
                print(step.describe())
        else:
            engine.perform(session, planned, Stage(word), engine.Settings(_say), succeeded=status != "fail")
    except SessionsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _say(letter: str, line: str) -> None:
    print(line, file=sys.stdout if letter == "I" else sys.stderr)

"""Every kind of step there is, by the name under which journals record it.

Those of rare storage are loaded when a plan or a journal names them: what a session of a directory does not need costs
it nothing.
"""

from __future__ import annotations

from sessions import records
from sessions.steps.base import Context, Note, Stage, Step
from sessions.steps.files import CopyDatabases, CopyFile, MakeLink, MountPoint, OwnedTree, Warn, WriteFile
from sessions.steps.foreign import ForeignMountPoint, ForeignRoot, RootIsMounted, RunScript
from sessions.steps.interpreter import BindInterpreter
from sessions.steps.mounts import Bind, FileSystem, PrivateDirectory
from sessions.steps.overlay import Overlay
from sessions.steps.processes import EndProcesses
from sessions.steps.services import Service

__all__ = ["KINDS", "RARE", "Context", "Note", "Stage", "Step", "decode", "rare"]

KINDS: dict[str, type[Step]] = {
    step.kind: step
    for step in (
        PrivateDirectory,
        MountPoint,
        OwnedTree,
        Overlay,
        Bind,
        FileSystem,
        BindInterpreter,
        EndProcesses,
        WriteFile,
        Warn,
        MakeLink,
        CopyFile,
        CopyDatabases,
        RunScript,
        Service,
        ForeignRoot,
        ForeignMountPoint,
        RootIsMounted,
    )
}


# Kind -> the module below sessions.steps that has it, and the name of its class there.
RARE = {
    "archive": ("storage", "UnpackedArchive"),
    "await-device": ("stack", "AwaitDevice"),
    "btrfs-snapshot": ("btrfs", "SubvolumeSnapshot"),
    "cached-archive": ("cached", "CachedArchive"),
    "checked": ("checking", "CheckedFileSystem"),
    "device": ("devices", "MountedDevice"),
    "open-volume": ("stack", "OpenVolume"),
    "root-inside": ("devices", "RootInside"),
    "lvm-snapshot": ("volumes", "LogicalSnapshot"),
    "zfs": ("zfs", "MountedDataset"),
    "zfs-clone": ("zfs", "DatasetClone"),
    "zfs-snapshot": ("zfs", "DatasetSnapshot"),
}
_RARE_CLASSES = {class_name: kind for kind, (_module, class_name) in RARE.items()}


def rare(class_name: str) -> type[Step]:
    """The class of a step of rare storage; raises KeyError if there is none of that name."""
    return _load(_RARE_CLASSES[class_name])


def _load(kind: str) -> type[Step]:
    module_name, class_name = RARE[kind]
    module = __import__(f"sessions.steps.{module_name}", fromlist=[class_name])
    found: type[Step] = getattr(module, class_name)
    return found


def decode(record: object) -> Step:
    """The step a journal recorded; raises ValueError if it is none that we know."""
    kind = record.get("kind") if isinstance(record, dict) else None
    if isinstance(kind, str) and kind in KINDS:
        return records.decode(KINDS[kind], record)
    if isinstance(kind, str) and kind in RARE:
        return records.decode(_load(kind), record)
    raise ValueError(f"unknown kind of step {kind!r}")

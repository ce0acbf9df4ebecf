"""Every kind of step there is, by the name under which journals record it."""

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
from sessions.steps.storage import UnpackedArchive

__all__ = ["KINDS", "Context", "Note", "Stage", "Step", "decode"]

KINDS: dict[str, type[Step]] = {
    step.kind: step
    for step in (
        PrivateDirectory,
        MountPoint,
        OwnedTree,
        UnpackedArchive,
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


def decode(record: object) -> Step:
    """The step a journal recorded; raises ValueError if it is none that we know."""
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind of step {kind!r}")
    return records.decode(KINDS[kind], record)

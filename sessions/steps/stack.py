"""Steps that open the volumes a block device is stacked on: encrypted ones, arrays, logical volumes.

What is open already is used, and stays if it is somebody else's; what a session of ours has opened is closed with the
last one that uses it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from sessions.data import TYPE_CHECKING, impossible
from sessions.errors import SessionsError, StepFailed
from sessions.linux import abilities, activation, arrays, crypt, devices, holders, lasting, terminal, trace
from sessions.model import Luks, LvmVolume, Places, Raid, Volume
from sessions.steps.base import Context, Note, Step
from sessions.steps.sharing import Shared, all_shared

if TYPE_CHECKING:
    from typing import ClassVar

MOST_ATTEMPTS = 3
# The node of a volume that was opened may come a moment later, where udev makes it.
_NODE_TIMEOUT_S = 10


def shared(places: Places, volume: Volume) -> Shared:
    """What is written down of a volume."""
    path = volume.opens.removeprefix("/dev/").replace("/", ",")
    return Shared(places, f"{volume.kind},{path}")


def kernel_name(volume: Volume) -> str:
    """What the kernel calls the volume that is open, or half open; empty if it is not."""
    match volume:
        case Luks(name=name):
            return devices.mapped(name)
        case Raid(device=device, members=members):
            return arrays.found(device, members)
        case LvmVolume(volume_group=group, logical_volume=name):
            return devices.mapped(activation.mapped_name(group, name))
        case unknown:
            raise impossible(unknown)


def is_open(volume: Volume) -> bool:
    """Whether it is open, by whomever."""
    name = kernel_name(volume)
    return bool(name) and devices.is_complete(name)


def close_if_ours(known: Shared, volume: Volume) -> None:
    """Close a volume that one of ours has opened, whole or half; the caller has it locked. Raises StepFailed."""
    made = known.made()
    if not made:
        return
    name = kernel_name(volume)
    if name and made.sequence and devices.sequence(name) not in (0, made.sequence):
        known.disown()  # ours was closed, and this one opened, by somebody else
        return
    trace.point("close", volume.opens)
    try:
        _close(volume, known.record)
    except SessionsError as error:
        held = f": {holders.of_device(f'/dev/{name}')}" if name else ""
        raise StepFailed(f"{error.text}{held}", hint=error.hint or "let it go, then end the session again") from error
    trace.point("closed", volume.opens)
    known.disown()


def _close(volume: Volume, record: lasting.Record) -> None:
    match volume:
        case Luks(device=device, name=name):
            crypt.close_volume(device, name, record)
        case Raid(device=device, members=members):
            arrays.stop(device, members, record)
        case LvmVolume(volume_group=group, logical_volume=name):
            activation.deactivate(f"{group}/{name}", activation.mapped_name(group, name), record)
        case unknown:
            raise impossible(unknown)


class OpenVolume(Step):
    """A volume that is open for as long as sessions use it."""

    kind: ClassVar[str] = "open-volume"
    volume: Volume
    timeout_s: int = 0

    @property
    def remedy(self) -> str:
        """Somebody has asked for it."""
        return "look at volumes in the chroot's configuration"

    def check(self, context: Context) -> Note:
        """The kernel has to be able to, and a key file has to be there, for root alone."""
        match self.volume:
            case Luks(key_file=key_file):
                abilities.need_targets("crypt")
                if key_file:
                    _check_key_file(key_file)
            case Raid():
                abilities.need_raid()
            case LvmVolume():
                abilities.need_targets()
            case unknown:
                raise impossible(unknown)
        return {}

    def do(self, context: Context) -> None:
        """Open it, unless it is open; the devices that it lies on may come later, and a password be wrong at first."""
        known = shared(context.session.places, self.volume)
        present = self._wait(context)
        match self.volume:
            case Luks(device=device, key_file=""):
                self._open_by_password(device, known, context)
            case _:
                self._open_or_use(known, context, present, None)
        # Links to it may be made by others.
        if devices.wait_for([self.volume.opens], max(self.timeout_s, _NODE_TIMEOUT_S), lambda missing: None):
            raise StepFailed(f"{self.volume.opens} does not come, although the volume is open")

    def _open_by_password(self, device: str, known: Shared, context: Context) -> None:
        """Ask for it where it is needed, with the volume not locked: others need not wait for who types."""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            if is_open(self.volume):
                break
            chroot = context.session.chroot.full_name
            try:
                with terminal.password(f"Password of {device} for chroot {chroot}", what_for=device) as password:
                    self._open_or_use(known, context, [device], password)
                return
            except terminal.NoTerminal as error:
                raise StepFailed(error.text, hint="call it from a terminal, or name a key-file") from None
            except crypt.WrongKey as error:
                if attempt == MOST_ATTEMPTS:
                    raise StepFailed(f"{error.text}: given up after {attempt} attempts") from None
                context.say("W", f"{error.text}; try again")
        self._open_or_use(known, context, [device], None)

    def _wait(self, context: Context) -> list[str]:
        """Wait for what it lies on; those devices that are there. Raises StepFailed unless that is enough."""
        volume = self.volume
        ways = [*volume.made_of, volume.opens]
        missing = devices.wait_until(self._missing, ways, self.timeout_s, lambda names: say_waiting(context, names))
        present = [path for path in volume.made_of if path not in missing]
        if missing and not (isinstance(volume, Raid) and volume.degraded and present):
            raise absence(missing, self.timeout_s)
        if missing:
            context.say("W", f"array {volume.opens} is started without {', '.join(missing)}")
        if not is_open(volume):
            _check_kernel_has(volume, present)
        return present

    def _missing(self) -> list[str]:
        volume = self.volume
        if is_open(volume):
            return []
        if isinstance(volume, LvmVolume):
            name = f"{volume.volume_group}/{volume.logical_volume}"
            return [] if activation.is_whole(name) else [f"logical volume {name}"]
        return [path for path in volume.made_of if not devices.is_ready(path)]

    def _open_or_use(
        self, known: Shared, context: Context, present: Sequence[str], password: memoryview | None
    ) -> None:
        with known.locked(may_be_stopped=True):
            known.use(context.session.id)
            name = kernel_name(self.volume)
            if name and devices.is_complete(name):
                self._use(name, known, context)
                return
            if name and not known.made():
                raise StepFailed(
                    f"{self.volume.opens} is there, but not whole, and none of ours",
                    hint="see who is about to open it, or close it",
                )
            known.begin_making(self.volume)
            _close(self.volume, known.record)  # what somebody has left half open
            try:
                self._open(present, password, known.record)
            except SessionsError:
                self._close_again(known, context)
                raise
            known.end_making(devices.sequence(kernel_name(self.volume)))

    def _close_again(self, known: Shared, context: Context) -> None:
        """What could not be opened as it should be is not left half open for others, or for a moment."""
        try:
            close_if_ours(known, self.volume)
        except SessionsError as error:
            context.say("W", str(error))  # undo tries again

    def _use(self, name: str, known: Shared, context: Context) -> None:
        """Use what is open; know whether it is ours, and see that it is what was asked for."""
        made, sequence = known.made(), devices.sequence(name)
        if made and made.sequence in (0, sequence):
            if isinstance(self.volume, Raid):
                arrays.let_write(self.volume.device, name, known.record)
            known.end_making(sequence)
            return
        wanted = {devices.kernel_name(path) for path in self.volume.made_of} - {""}
        if wanted and not wanted & devices.all_parts_of(name):
            raise StepFailed(
                f"{self.volume.opens} is open already, and is not made of {', '.join(self.volume.made_of)}",
                hint="close it, or give the volume another name",
            )
        known.disown()
        if _lies_on_ours(context.session.places, name):
            # It cannot have been there before: udev activates what it finds on a volume as soon as that is open.
            known.begin_making(self.volume)
            known.end_making(sequence)

    def _open(self, present: Sequence[str], password: memoryview | None, record: lasting.Record) -> None:
        trace.point("open", self.volume.opens)
        match self.volume:
            case Luks(device=device, name=name, key_file=key_file):
                if not key_file and password is None:
                    raise StepFailed(f"{device} was closed by somebody at this moment", hint="try again")
                crypt.open_volume(device, name, key_file, password, record)
            case Raid(device=device, degraded=degraded):
                arrays.start(device, present, degraded=degraded, record=record)
            case LvmVolume(volume_group=group, logical_volume=name):
                activation.activate(f"{group}/{name}", record)
            case unknown:
                raise impossible(unknown)
        trace.point("opened", self.volume.opens)

    def undo(self, context: Context) -> None:
        """Close it, if one of ours has opened it and no other session uses it."""
        known, session_id = shared(context.session.places, self.volume), context.session.id
        if not known.exists():
            return
        with known.locked(may_be_stopped=False):
            if not set(known.users()) - {session_id}:
                close_if_ours(known, self.volume)
            known.leave(session_id)
            known.forget()

    def is_present(self, context: Context) -> bool:
        """Whether it is open, and this session has said that it uses it."""
        return is_open(self.volume) and shared(context.session.places, self.volume).is_used_by(context.session.id)

    def describe(self) -> str:
        """One line."""
        match self.volume:
            case Luks(device=device, key_file=key_file):
                return f"open the encrypted volume {device} as {self.volume.opens} by {key_file or 'a password'}"
            case Raid(device=device, members=members, degraded=degraded):
                without = ", even if it lacks some" if degraded else ""
                return f"start the array {device} of {', '.join(members)}{without}"
            case LvmVolume(volume_group=group, logical_volume=name):
                return f"activate the logical volume {group}/{name}"
            case unknown:
                raise impossible(unknown)


def say_waiting(context: Context, names: Sequence[str]) -> None:
    """Tell that devices are waited for."""
    context.say("I", f"waiting for {', '.join(names)}")


def absence(missing: Sequence[str], timeout_s: int) -> StepFailed:
    """The error for devices that are not there."""
    waited = f", also after {timeout_s} seconds" if timeout_s else ""
    verb = "is" if len(missing) == 1 else "are"
    hint = "attach it, or mend its name" if timeout_s else "attach it, or wait for it: device-timeout"
    return StepFailed(f"{', '.join(missing)} {verb} not there, or no block device{waited}", hint=hint)


def _check_kernel_has(volume: Volume, present: Sequence[str]) -> None:
    match volume:
        case Luks(device=device):
            crypt.need(device)
        case Raid():
            arrays.need(present)
        case LvmVolume(volume_group=group, logical_volume=name):
            activation.need(f"{group}/{name}")
        case unknown:
            raise impossible(unknown)


def _check_key_file(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise StepFailed(f"key file {path}: {error.strerror}", hint="mend key-file in the configuration") from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise StepFailed(f"key file {path} is neither a file nor a device", hint="mend key-file in the configuration")
    if status.st_uid != 0 or status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise StepFailed(f"key file {path} is not for root alone", hint=f"chown root {path}; chmod o= {path}")


def _lies_on_ours(places: Places, name: str) -> bool:
    parts = {devices.sequence(part) for part in devices.all_parts_of(name)} - {0}
    ours = (one.made() for one in all_shared(places))
    return any(made and made.sequence in parts for made in ours)


class AwaitDevice(Step):
    """A block device that may come late."""

    kind: ClassVar[str] = "await-device"
    device: str
    timeout_s: int = 0

    @property
    def is_marked(self) -> bool:
        """It changes nothing."""
        return False

    def do(self, context: Context) -> None:
        """Wait for it; raises StepFailed when the time is over."""
        if missing := devices.wait_for([self.device], self.timeout_s, lambda names: say_waiting(context, names)):
            raise absence(missing, self.timeout_s)

    def is_present(self, context: Context) -> bool:
        """Whether it is there."""
        return devices.is_ready(self.device)

    def describe(self) -> str:
        """One line."""
        return f"wait for {self.device}, up to {self.timeout_s} seconds" if self.timeout_s else f"see {self.device}"

"""The step that starts a service inside a session, and stops it again."""

from __future__ import annotations

from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import files, proc
from sessions.steps.base import Context, Note, Stage
from sessions.steps.programs import Command, ProgramStep

if TYPE_CHECKING:
    from typing import ClassVar

# What starts services inside, in the order in which it is looked for, and the words before SERVICE ACTION. invoke-rc.d
# would ask policy-rc.d, which is for packages that are installed inside and mostly says no.
_STARTERS = (("/usr/sbin/invoke-rc.d", ("--force",)), ("/usr/sbin/service", ()))
_NAME = "70services"
# What systemd(1) gives a service to stop. One that will not is ended a moment later, with all that runs inside.
STOP_TIMEOUT_S = 90.0


class Service(ProgramStep):
    """A service that runs inside for as long as the session is up."""

    kind: ClassVar[str] = "service"
    root: str
    service: str

    @property
    def remedy(self) -> str:
        """What is wrong is wrong inside."""
        return f"see what it says inside, or take {self.service} out of setup.services"

    def check(self, context: Context) -> Note:
        """There has to be something inside that starts services."""
        with files.directory(self.root) as root_fd:
            self._command(root_fd, "start")
        return {}

    def _command(self, root_fd: int, action: str) -> Command:
        for path, words in _STARTERS:
            if files.exists_in_root(root_fd, path):
                return Command(_NAME, path, (*words, self.service, action), root_fd)
        wanted = " or ".join(path for path, _words in _STARTERS)
        raise StepFailed(
            f"nothing inside can start {self.service}: there is no {wanted}",
            hint="install init-system-helpers inside, or take setup.services out of the configuration",
        )

    def _advice(self, command: Command) -> str:
        return self.remedy

    def do(self, context: Context) -> None:
        """Start it."""
        with files.directory(self.root) as root_fd:
            self._run(self._command(root_fd, "start"), context, may_be_stopped=True)

    def undo(self, context: Context) -> None:
        """Stop it; if it will not, it is ended with all other processes inside. After a reboot it does not run."""
        self._end_earlier_run(context)
        if context.note.get("boot_id", proc.boot_id()) != proc.boot_id():
            return
        try:
            with files.directory(self.root) as root_fd:
                self._run(self._command(root_fd, "stop"), context, may_be_stopped=False, usual_timeout_s=STOP_TIMEOUT_S)
        except (StepFailed, OSError) as error:
            context.say("W", f"{_NAME}: {self.service} could not be stopped: {error}")

    def is_present(self, context: Context) -> bool:
        """It is asked to start each time: whether it runs is for the init system inside to know."""
        return context.stage is not Stage.RECOVER

    def describe(self) -> str:
        """One line."""
        return f"start the service {self.service} inside"

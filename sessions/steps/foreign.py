"""The step that runs an administrator's own setup script, as schroot does."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar

from sessions import environ
from sessions.errors import Interrupted, StepFailed
from sessions.linux import proc, run
from sessions.linux.signals import STOPPING, pending
from sessions.steps.base import Context, Stage, Step


@dataclass(frozen=True)
class RunScript(Step):
    """An executable of a setup.d directory, called with the stage and ``ok`` or ``fail``.

    Its setup-stop is run even if it never started, as schroot does.
    """

    kind: ClassVar[str] = "script"
    always_undone: ClassVar[bool] = True
    path: str

    @property
    def name(self) -> str:
        """Its name without the directory."""
        return os.path.basename(self.path)

    @property
    def remedy(self) -> str:
        """It is the administrator's own."""
        return f"mend {self.path}, or mask it with a link to /dev/null"

    def do(self, context: Context) -> None:
        """Run it for the stage at hand."""
        self._run(context, STOPPING)

    def undo(self, context: Context) -> None:
        """End a run of it that outlived its engine, then run setup-stop; a script that is gone counts as undone."""
        if not context.is_done and context.note.get("boot_id") == proc.boot_id():
            proc.kill_script(context.note["pid"], context.note["start_ticks"])
        if not os.path.lexists(self.path):
            context.say("W", f"{self.path} is gone: what it set up is left as it is")
            return
        try:
            self._run(context, ())
        except (StepFailed, OSError) as error:
            if not context.force:
                raise
            context.say("W", f"{error}: given up, as --force asks")

    def _run(self, context: Context, stop_signals: tuple[signal.Signals, ...]) -> None:
        status = "ok" if context.succeeded else "fail"
        environment = environ.for_scripts(context.session, context.stage)
        script = run.start_script(
            self.path, (context.stage.value, status), environment, lambda pid: self._record(pid, context)
        )

        def say(letter: str, line: str) -> None:
            context.say(letter, f"{self.name}: {line}")

        ended = run.finish_script(script, say, stop_signals, context.script_timeout_s)
        if ended is None:
            started = context.note["start_ticks"]
            proc.kill_script(script.pid, started)
            os.waitpid(script.pid, 0)
            signum = pending(stop_signals)
            if signum is not None:
                raise Interrupted(signum, f"{self.name} was ended by {signal.Signals(signum).name}")
            raise StepFailed(f"{self.name} took longer than {context.script_timeout_s:g} seconds and was ended")
        if ended != 0:
            raise StepFailed(f"{self.name} {run.ending(ended)}", hint=f"see what it said, or run {self.path} by hand")

    def _record(self, pid: int, context: Context) -> None:
        context.remember({"pid": pid, "start_ticks": proc.start_ticks(pid) or 0, "boot_id": proc.boot_id()})

    def is_present(self, context: Context) -> bool:
        """It is asked to recover each time."""
        return context.stage is not Stage.RECOVER

    def describe(self) -> str:
        """One line."""
        return f"run {self.path}"

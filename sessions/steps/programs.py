"""What steps that run a program have in common: it is recorded before it executes, heard, and ended if need be."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from sessions import environ
from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import Interrupted, StepFailed
from sessions.linux import proc, run
from sessions.linux.signals import STOPPING, pending
from sessions.steps.base import Context, Step

if TYPE_CHECKING:
    from typing import ClassVar


class Command(Frozen):
    """A program, its arguments, and the name that stands before each line of what it says.

    ``root_fd`` is the root it is executed in, -1 for ours.
    """

    name: str
    path: str
    arguments: Sequence[str]
    root_fd: int = -1


class ProgramStep(Step):
    """A step that runs a program with the environment of setup scripts, in a session (setsid(2)) of its own."""

    asks_whether_done: ClassVar[bool] = True

    def _end_earlier_run(self, context: Context) -> None:
        """End a run that outlived its engine."""
        if not context.is_done and context.note.get("boot_id") == proc.boot_id():
            proc.kill_script(context.note["pid"], context.note["start_ticks"], _variable(context))

    def _run(
        self, command: Command, context: Context, *, may_be_stopped: bool, usual_timeout_s: float | None = None
    ) -> None:
        """Run it to its end; raises StepFailed if it fails, and Interrupted for a signal that asks us to stop.

        It may take `usual_timeout_s` where nobody has said how long scripts may take.
        """
        timeout_s = context.script_timeout_s if context.script_timeout_s is not None else usual_timeout_s
        stop_signals = STOPPING if may_be_stopped else ()
        environment = environ.for_scripts(context.seen or context.session, context.stage)
        script = run.start_script(
            command.path,
            command.arguments,
            environment,
            lambda pid: self._record(pid, context),
            root_fd=command.root_fd,
        )

        def say(letter: str, line: str) -> None:
            context.say(letter, f"{command.name}: {line}")

        ended = run.finish_script(script, say, stop_signals, timeout_s)
        if ended is None:
            proc.kill_script(script.pid, context.note["start_ticks"], _variable(context))
            os.waitpid(script.pid, 0)
            signum = pending(stop_signals)
            if signum is not None:
                raise Interrupted(signum, f"{command.name} was ended by {signal.Signals(signum).name}")
            raise StepFailed(f"{command.name} {context.stage} took longer than {timeout_s:g} seconds and was ended")
        if ended != 0:
            raise StepFailed(f"{command.name} {run.ending(ended)}", hint=self._advice(command))

    def _advice(self, command: Command) -> str:
        """What to do when the program fails."""
        return f"see what it said, or run {command.path} by hand"

    def _record(self, pid: int, context: Context) -> None:
        context.remember({"pid": pid, "start_ticks": proc.start_ticks(pid) or 0, "boot_id": proc.boot_id()})


def _variable(context: Context) -> str:
    """What every program of a session is given, and hands on to those it starts (environ.for_scripts)."""
    return f"SESSION_ID={context.session.id}"

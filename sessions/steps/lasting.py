"""What steps share that call programs which must not be cut short: who they are is in the journal."""

from __future__ import annotations

from sessions.linux import lasting, proc
from sessions.steps.base import Context


def recorder(context: Context) -> lasting.Record:
    """Writes down which program was started for the step at hand, before it executes anything."""

    def record(pid: int) -> None:
        context.remember({"pid": pid, "start_ticks": proc.start_ticks(pid) or 0, "boot_id": proc.boot_id()})

    return record


def wait_for_earlier(context: Context, timeout_s: float) -> None:
    """Wait for the program that was started last for the step at hand, by whoever is dead by now."""
    note = context.note
    if note.get("boot_id") == proc.boot_id():
        lasting.wait_for_earlier(note["pid"], note["start_ticks"], timeout_s)

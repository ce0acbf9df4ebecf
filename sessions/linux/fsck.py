"""Checking file systems: fsck(8), which finds the program for each type."""

from __future__ import annotations

from sessions.errors import StepFailed
from sessions.linux import lasting, run
from sessions.linux.run import Outcome

# fsck(8), EXIT STATUS: a sum of these; what is not named here is worse.
_CORRECTED, _SHOULD_REBOOT = 1, 2
_LONGEST_WORDS = 500
# A file system may be large, and a disk slow.
_LONGEST_S = 7 * 24 * 3600.0


def check(device: str, record: lasting.Record) -> str:
    """Check and repair what can be repaired without asking; what came of it, in a line.

    The caller has the signals that ask us to stop blocked: one of them ends it, with Interrupted, for it may take long.
    Raises StepFailed, with fsck's words, if errors are left or it could not be checked.
    """
    # -T: no title; -a: the repairs that are safe, without questions, by every type's program.
    outcome = lasting.call(
        ["fsck", "-T", "-a", device],
        record,
        package="util-linux",
        environment=run.PLAIN_ENVIRONMENT,
        timeout_s=_LONGEST_S,
        may_be_stopped=True,
    )
    words = _words(outcome)
    if outcome.status == 0:
        return words[-1] if words else f"{device} is clean"
    if outcome.status > 0 and not outcome.status & ~(_CORRECTED | _SHOULD_REBOOT):
        return f"errors on {device} were corrected: {words[-1] if words else 'it does not say which'}"
    said = "; ".join(words)[-_LONGEST_WORDS:] or outcome.reason()
    raise StepFailed(f"fsck of {device}: {said}", hint=f"repair it by hand: fsck {device}")


def _words(outcome: Outcome) -> list[str]:
    """What it said, a line each."""
    text = f"{outcome.output.decode(errors='replace')}\n{outcome.complaint}"
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]

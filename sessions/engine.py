"""The engine: walks a plan up, down, or up again after a reboot, and is the only caller of do and undo.

It runs under the session's lock, marks in the journal that an effect is about to be brought about, and on the way down
never stops early: what cannot be undone is marked stuck and named, and the rest goes on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence

from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import Interrupted, SessionsError, StepFailed
from sessions.journal import Journal, StepState
from sessions.linux import signals
from sessions.model import Session
from sessions.steps import Context, Note, Stage, Step

if TYPE_CHECKING:
    from sessions.linux.archive import Progress


class Settings(Frozen):
    """How a walk is made: who hears of it, whether force is used, and how long a foreign script may take.

    `seen` is the session as foreign scripts are told of it: by whom, for whom and how talkative this call of ours is.
    """

    say: Callable[[str, str], None] = lambda letter, line: None
    force: bool = False
    script_timeout_s: float | None = None
    lock_timeout_s: float | None = None
    """How long to wait for somebody else who acts on the session; None is for ever."""
    seen: Callable[[Session], Session] = lambda session: session
    progress: Progress | None = None
    """Shows a person how far the unpacking of an archive has come."""


def _context(journal: Journal, stage: Stage, settings: Settings, *, succeeded: bool) -> Context:
    return Context(
        journal.session,
        stage,
        settings.say,
        succeeded=succeeded,
        force=settings.force,
        script_timeout_s=settings.script_timeout_s,
        progress=settings.progress,
        seen=settings.seen(journal.session),
    )


def _walk(journal: Journal, context: Context) -> Iterator[tuple[int, Step]]:
    """Every step with its number, in reverse for setup-stop; whoever wants to hear all hears of each script before."""
    order = -1 if context.stage is Stage.STOP else 1
    plan = journal.plan
    spans, first = [], 0
    for script in journal.session.scripts:
        spans.append((script.name, range(first, first + script.steps)))
        first += script.steps
    spans.append(("", range(first, len(plan))))
    is_verbose = (context.seen or context.session).verbosity == "verbose"
    for name, indexes in spans[::order]:
        if name and is_verbose:
            context.say("I", f"Executing ‘{name} {context.stage} {context.status}’")
        for index in indexes[::order]:
            yield index, plan[index]


def up(journal: Journal, settings: Settings) -> None:
    """Do every step. Raises StepFailed or Interrupted at the first that fails; what was done until then stays done."""
    context = _context(journal, Stage.START, settings, succeeded=True)
    with context.held:
        for index, step in _walk(journal, context):
            _stop_if_asked(journal)
            _do(journal, index, step, context)
        journal.up()


def _stop_if_asked(journal: Journal) -> None:
    signum = signals.pending()
    if signum is not None:
        name = signal.Signals(signum).name
        raise Interrupted(signum, f"{name} came while session {journal.session.id} was being set up")


def _do(journal: Journal, index: int, step: Step, context: Context) -> None:
    try:
        note = {**journal.notes.get(index, {}), **step.check(context)}
        _aim(context, journal, index, note)
        if step.is_marked:
            wants_sync = step.wants_sync(context)
            if wants_sync and not journal.has_synced_name:
                journal.sync()
            journal.begin(index, note)
            if wants_sync and not step.always_undone:
                journal.sync()
        step.do(context)
        if step.asks_whether_done:
            journal.done(index)
    except Interrupted:
        raise
    except StepFailed as error:
        error.hint = error.hint or step.remedy
        raise
    except SessionsError as error:
        raise StepFailed(f"cannot {step.describe()}: {error.text}", hint=error.hint or step.remedy) from error
    except Exception as error:  # whatever it is, as where a disk fails while a module is loaded
        raise StepFailed(f"cannot {step.describe()}: {_words(error)}", hint=step.remedy) from error


def _aim(context: Context, journal: Journal, index: int, note: Note) -> None:
    """Turn the context to one step."""

    def remember(more: Note) -> None:
        context.note.update(more)
        if context.stage is Stage.STOP:
            _try_to_mark(lambda: journal.remember(index, more))
        else:
            journal.remember(index, more)

    context.note = dict(note)
    context.remember = remember


def _words(error: Exception) -> str:
    """Any failure, in words."""
    if isinstance(error, OSError):
        return reason(error)
    return str(error) if isinstance(error, SessionsError) else f"{type(error).__name__}: {error}"


def reason(error: OSError) -> str:
    """What the kernel says, and of which file; the number of a descriptor of ours tells nobody anything."""
    words = error.strerror or str(error)
    is_path = isinstance(error.filename, str | bytes)
    is_told = is_path and error.filename and not os.fsdecode(error.filename).startswith("/proc/self/fd/")
    return f"{words}: {error.filename}" if is_told else words


def down(journal: Journal, settings: Settings, *, has_begun: bool = True) -> list[str]:
    """Undo in reverse whatever was begun, and remove the journal if all of it is undone.

    `has_begun` is false for a begin that failed at the very last, when nobody can have changed anything. Returns what
    is stuck, a line each; the session then stays, broken, and down may be called again.
    """
    succeeded = has_begun and journal.was_up and not journal.is_damaged
    context = _context(journal, Stage.STOP, settings, succeeded=succeeded)
    _try_to_mark(lambda: _mark_as_going_down(journal))
    stuck, undone = [], []
    with context.held:
        for index, step in _walk(journal, context):
            if _has_to_be_undone(journal, index, step):
                reason = _undo(journal, index, step, context)
                if reason:
                    context.is_stuck = True
                    stuck.append(reason)
                elif not step.is_shared:
                    undone.append(index)
    if stuck:
        _try_to_mark(lambda: journal.undone(*undone))
    else:
        try:
            journal.remove()
        except OSError as error:
            stuck.append(f"remove the journal {journal.path}: {error.strerror}")
    return stuck


def _mark_as_going_down(journal: Journal) -> None:
    """After a power cut, one that has lasted until now must not be recovered with half of its data."""
    journal.down()
    if journal.was_up and journal.session.owner is None:
        os.fdatasync(journal.fd)


def rest(journal: Journal, settings: Settings) -> list[str]:
    """Undo in reverse what a restart of the machine would take away, so that nothing keeps it from that.

    :func:`recover` brings it back. Returns what is stuck, a line each.
    """
    context = _context(journal, Stage.STOP, settings, succeeded=True)
    _try_to_mark(journal.rest)
    with context.held:
        reasons = [
            _undo(journal, index, step, context)
            for index, step in _walk(journal, context)
            if not (step.survives_reboot or step.is_left_at_rest) and _has_to_be_undone(journal, index, step)
        ]
    return [reason for reason in reasons if reason]


def _has_to_be_undone(journal: Journal, index: int, step: Step) -> bool:
    state = journal.states[index]
    if not step.is_marked or state is StepState.UNDONE:
        return False
    return state is not StepState.NEW or step.always_undone or journal.is_damaged


def _undo(journal: Journal, index: int, step: Step, context: Context) -> str:
    """Undo one step; the reason, in words, if it is stuck."""
    _aim(context, journal, index, journal.notes.get(index, {}))
    context.is_done = journal.states[index] is StepState.DONE
    context.is_begun = journal.states[index] is not StepState.NEW or journal.is_damaged
    try:
        step.undo(context)
    except Exception as error:  # whatever it is, the rest goes on
        words = _words(error)
        _try_to_mark(lambda: journal.stuck(index, words))
        return f"{step.describe()}: {words}"
    if not step.is_shared and (step.asks_whether_done or context.note):
        # What a note names may be somebody else's if it is looked for again, and a program is not to run again. The
        # rest bears our own names, and is undone once more if we do not come to the end.
        _try_to_mark(lambda: journal.undone(index))
    return ""


def _try_to_mark(mark: Callable[[], None]) -> None:
    """On the way down a mark that cannot be written is no reason to stop: undo may be repeated."""
    try:
        mark()
    except OSError:
        pass


def recover(journal: Journal, settings: Settings, *, boot_id: str, mount_namespace: int, pid_namespace: int) -> None:
    """Bring a session that was up back up: verify what lasts over a reboot, do the rest again where it is missing.

    Raises StepFailed or Interrupted; the session then is as it was, and recover or down may be called.
    """
    context = _context(journal, Stage.RECOVER, settings, succeeded=True)
    with context.held:
        journal.recover(boot_id, mount_namespace, pid_namespace)
        for index, step in _walk(journal, context):
            _stop_if_asked(journal)
            _aim(context, journal, index, journal.notes.get(index, {}))
            if step.survives_reboot:
                step.verify(context)
            elif not step.is_present(context):
                _do(journal, index, step, context)
        journal.up()


def perform(session: Session, plan: Sequence[Step], stage: Stage, settings: Settings, *, succeeded: bool) -> None:
    """Do or undo a plan without a journal, for a setup script that is run by hand.

    Raises StepFailed at the first step that cannot be done, or, for setup-stop, after the last if any was stuck.
    """
    context = Context(session, stage, settings.say, succeeded=succeeded, force=settings.force)
    context.remember = lambda more: context.note.update(more)
    with context.held:
        if stage is not Stage.STOP:
            for step in plan:
                context.note = step.check(context)
                step.do(context)
            return
        stuck = []
        for step in reversed(plan):
            context.note = {}
            try:
                step.undo(context)
            except Exception as error:
                stuck.append(f"{step.describe()}: {_words(error)}")
        if stuck:
            raise StepFailed("; ".join(stuck))

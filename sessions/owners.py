"""Owners: processes whose end can be proven, so that what they held may be taken from them.

A pid alone proves nothing. What stands in a file name is short: pid, start time, and a checksum of the boot and the
namespaces in which those two mean something; the whole record stands inside the file.
"""

from __future__ import annotations

import binascii
import os
import time
from functools import lru_cache

from sessions.linux import proc
from sessions.model import Owner


def this_process() -> Owner:
    """The process that we are."""
    return Owner(*_pid_and_start(), proc.boot_id(), *proc.pid_and_time_namespaces())


@lru_cache(maxsize=1)
def _pid_and_start() -> tuple[int, int]:
    pid = os.getpid()
    return pid, proc.start_ticks(pid) or 0


os.register_at_fork(after_in_child=_pid_and_start.cache_clear)


def is_gone(owner: Owner) -> bool:
    """Whether the process has proven to have ended: another boot, no such process, or one that started at another time.

    False where nothing can be proven, as in another pid namespace. A zombie has ended.
    """
    if owner.boot_id != proc.boot_id():
        return True
    if (owner.pid_namespace, owner.time_namespace) != proc.pid_and_time_namespaces():
        return False
    return proc.start_ticks(owner.pid) != owner.start_ticks


def mark(owner: Owner) -> str:
    """The owner in a file name: ``PID.TICKS.REALM``."""
    realm = _realm(owner.boot_id, owner.pid_namespace, owner.time_namespace)
    return f"{owner.pid}.{owner.start_ticks}.{realm}"


def realm() -> str:
    """The last part of the marks of processes that can be looked at from here."""
    return _realm(proc.boot_id(), *proc.pid_and_time_namespaces())


def _realm(boot_id: str, pid_namespace: int, time_namespace: int) -> str:
    return f"{binascii.crc32(f'{boot_id}.{pid_namespace}.{time_namespace}'.encode()):08x}"


def pid_of(marked: str, our_realm: str) -> int | None:
    """The pid of a mark if it is a live process that can be looked at from here."""
    pid, ticks, its_realm = _parts(marked)
    return pid if its_realm == our_realm and proc.start_ticks(pid) == ticks else None


def pidfd_of(marked: str, our_realm: str) -> int | None:
    """A descriptor that tells of the end of a mark's process; None if it has ended, or cannot be seen from here."""
    pid = pid_of(marked, our_realm)
    if pid is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # A pid that was used again in between is not the one that was meant.
    if pid_of(marked, our_realm) is None:
        os.close(pidfd)
        return None
    return pidfd


def may_be_gone(marked: str, our_realm: str) -> bool:
    """Whether the process of a mark may have ended; only its whole record proves that."""
    return pid_of(marked, our_realm) is None


def _parts(marked: str) -> tuple[int, int, str]:
    pid, _dot, rest = marked.partition(".")
    ticks, _dot, its_realm = rest.partition(".")
    return (int(pid), int(ticks), its_realm) if pid.isdecimal() and ticks.isdecimal() else (0, 0, "")


def since(since_ns: int) -> str:
    """Since when somebody holds or waits for something, as the end of a sentence; empty if that is not known."""
    return f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since_ns / 1e9))}" if since_ns else ""

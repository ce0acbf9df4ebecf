"""Who may use a chroot, as whom, and with which keys: schroot's rules as pure functions (schroot.conf(5)).

Nothing is looked up here. The caller's groups are those its process has, and the groups that a chroot names come with
their ids (``group_ids``; one that the host does not know is left out, and has no members).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum
from typing import NamedTuple

from sessions.data import Frozen
from sessions.model import Chroot, Identity, Session

ROOT_UID = 0


class Verdict(IntEnum):
    """What comes of a request; the greater, the stricter."""

    ALLOW = 0
    PASSWORD = 1
    """Allowed to who knows the password of the user that the command is to run as."""
    DENY = 2


class Rule(Enum):
    """The rule that decided, in words for a log."""

    AS_ONESELF = "whoever may use the chroot may use it as oneself"
    ROOT_MEMBER = "members of root-users and root-groups may become root"
    ROOT_CALLER = "root needs no leave"
    MEMBER = "members of users and groups may become others with their password"
    NOT_A_MEMBER = "nobody else may use the chroot"
    NOT_AS_OTHERS = "members of root-users and root-groups alone may become nobody but root"


class Decision(NamedTuple):
    """A verdict, and the rule it rests on."""

    verdict: Verdict
    rule: Rule


class _Lists(Frozen):
    """The four lists that give rights: who may use a chroot, and who may become root in it without a password."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    root_users: tuple[str, ...] = ()
    root_groups: tuple[str, ...] = ()


def groups_of(chroot: Chroot) -> tuple[str, ...]:
    """Every group whose id is needed to decide about a chroot or a session of it."""
    return (*chroot.groups, *chroot.root_groups)


def decide(chroot: Chroot, caller: Identity, target: Identity, group_ids: Mapping[str, int]) -> Decision:
    """Whether `caller` may begin a session of a chroot, or use a plain one, as `target`.

    A ``source:`` twin has the source-* lists of its chroot as its own.
    """
    return _decide(_lists_of(chroot), caller, target, group_ids)


def decide_for_session(session: Session, caller: Identity, target: Identity, group_ids: Mapping[str, int]) -> Decision:
    """Whether `caller` may use or end a session as `target`: it belongs to who began it, as the chroot's lists had him.

    `group_ids` are those of the groups in the chroot's lists.
    """
    if is_root_member(session.chroot, session.caller, group_ids):
        return _decide(_Lists(root_users=(session.caller.name,)), caller, target, group_ids)
    return _decide(_Lists(users=(session.caller.name,)), caller, target, group_ids)


def is_root_member(chroot: Chroot, caller: Identity, group_ids: Mapping[str, int]) -> bool:
    """Whether root-users or root-groups name the caller."""
    return _is_in(chroot.root_users, chroot.root_groups, caller, group_ids)


def _lists_of(chroot: Chroot) -> _Lists:
    return _Lists(chroot.users, chroot.groups, chroot.root_users, chroot.root_groups)


def _decide(lists: _Lists, caller: Identity, target: Identity, group_ids: Mapping[str, int]) -> Decision:
    is_member = _is_in(lists.users, lists.groups, caller, group_ids)
    is_root_member = _is_in(lists.root_users, lists.root_groups, caller, group_ids)
    if (is_member or is_root_member) and caller.uid == target.uid:
        return Decision(Verdict.ALLOW, Rule.AS_ONESELF)
    if is_root_member and target.uid == ROOT_UID:
        return Decision(Verdict.ALLOW, Rule.ROOT_MEMBER)
    if caller.uid == ROOT_UID:  # whom schroot asks PAM about, where pam_rootok lets it pass
        return Decision(Verdict.ALLOW, Rule.ROOT_CALLER)
    if is_member:
        return Decision(Verdict.PASSWORD, Rule.MEMBER)
    return Decision(Verdict.DENY, Rule.NOT_AS_OTHERS if is_root_member else Rule.NOT_A_MEMBER)


def strictest(decisions: Iterable[Decision]) -> Decision:
    """What counts for a request about several chroots: the strictest of at least one decision, the first of equals."""
    return max(decisions, key=lambda decision: decision.verdict)


def _is_in(users: tuple[str, ...], groups: tuple[str, ...], caller: Identity, group_ids: Mapping[str, int]) -> bool:
    """Whether one of the users, or of the groups that the process has, is the caller's."""
    if caller.name in users:
        return True
    has = {caller.gid, *caller.groups}
    return any(group_ids.get(name) in has for name in groups)


class ModifiableKeys(NamedTuple):
    """The keys that may be set for a session, and the names of the lists they stand in."""

    keys: frozenset[str]
    lists: tuple[str, ...]


def modifiable_keys(chroot: Chroot, caller: Identity, target: Identity) -> ModifiableKeys:
    """Which keys ``--option`` may set: user-modifiable-keys, and root-modifiable-keys too if one of the two is root."""
    if ROOT_UID in (caller.uid, target.uid):
        both = frozenset((*chroot.user_modifiable_keys, *chroot.root_modifiable_keys))
        return ModifiableKeys(both, ("user-modifiable-keys", "root-modifiable-keys"))
    return ModifiableKeys(frozenset(chroot.user_modifiable_keys), ("user-modifiable-keys",))

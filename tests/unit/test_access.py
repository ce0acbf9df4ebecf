"""Who may do what: every combination of lists, caller and target against the rules of schroot, written out again."""

from __future__ import annotations

from itertools import chain, combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import access
from sessions.access import Decision, Rule, Verdict
from sessions.config.configuration import source_twin
from sessions.data import replace
from sessions.model import Chroot, Directory, Identity, Places, Session, Union

ALLOW, PASSWORD, DENY = Verdict.ALLOW, Verdict.PASSWORD, Verdict.DENY
# Groups of the host: the caller's own, one of its others, and one that it is not in.
GROUP_IDS = {"own": 1000, "other": 2000, "strangers": 3000}


def identity(name: str, uid: int, gid: int = 5000, groups: tuple[int, ...] = ()) -> Identity:
    return Identity(uid, gid, name, "g", groups, "/", "/bin/sh")


USER = identity("builder", 1000, GROUP_IDS["own"], (GROUP_IDS["other"],))
ROOT = identity("root", 0, 0, (0,))
STRANGER = identity("stranger", 1001)
CHROOT = Chroot("c", Directory(directory="/srv"))

# Ways to stand in a list, of users or of groups, and one way not to.
IN_USERS = (("builder",), ("x", "builder"), ("root", "builder"))
IN_GROUPS = (("own",), ("other",), ("strangers", "other"), ("unknown", "own"))
NOT_IN_USERS = ((), ("x",), ("Builder",), (" builder",))
NOT_IN_GROUPS = ((), ("strangers",), ("unknown",), ("builder",))


def memberships(is_in: bool) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every (users, groups) that has the caller, by one or by both; or every one that has not."""
    without = list(product(NOT_IN_USERS, NOT_IN_GROUPS))
    if not is_in:
        return without
    return list(chain(product(IN_USERS, NOT_IN_GROUPS), product(NOT_IN_USERS, IN_GROUPS), product(IN_USERS, IN_GROUPS)))


# Whether the caller is in users or groups, in root-users or root-groups; the target; and what comes of it.
FOR_USERS = [
    (True, True, "self", ALLOW, Rule.AS_ONESELF),
    (True, True, "root", ALLOW, Rule.ROOT_MEMBER),
    (True, True, "third", PASSWORD, Rule.MEMBER),
    (True, False, "self", ALLOW, Rule.AS_ONESELF),
    (True, False, "root", PASSWORD, Rule.MEMBER),
    (True, False, "third", PASSWORD, Rule.MEMBER),
    (False, True, "self", ALLOW, Rule.AS_ONESELF),
    (False, True, "root", ALLOW, Rule.ROOT_MEMBER),
    (False, True, "third", DENY, Rule.NOT_AS_OTHERS),
    (False, False, "self", DENY, Rule.NOT_A_MEMBER),
    (False, False, "root", DENY, Rule.NOT_A_MEMBER),
    (False, False, "third", DENY, Rule.NOT_A_MEMBER),
]
TARGETS = {"self": USER, "root": ROOT, "third": STRANGER}


@pytest.mark.parametrize(("member", "root_member", "target", "verdict", "rule"), FOR_USERS)
def test_users(member: bool, root_member: bool, target: str, verdict: Verdict, rule: Rule) -> None:
    for (users, groups), (root_users, root_groups) in product(memberships(member), memberships(root_member)):
        chroot = replace(CHROOT, users=users, groups=groups, root_users=root_users, root_groups=root_groups)
        assert access.decide(chroot, USER, TARGETS[target], GROUP_IDS) == (verdict, rule), chroot


FOR_ROOT = [
    (True, True, "root", Rule.AS_ONESELF),
    (True, True, "third", Rule.ROOT_CALLER),
    (True, False, "root", Rule.AS_ONESELF),
    (True, False, "third", Rule.ROOT_CALLER),
    (False, True, "root", Rule.AS_ONESELF),
    (False, True, "third", Rule.ROOT_CALLER),
    (False, False, "root", Rule.ROOT_CALLER),
    (False, False, "third", Rule.ROOT_CALLER),
]


@pytest.mark.parametrize(("member", "root_member", "target", "rule"), FOR_ROOT)
def test_root_may_do_everything(member: bool, root_member: bool, target: str, rule: Rule) -> None:
    names = {True: ("root",), False: ()}
    chroot = replace(CHROOT, users=names[member], root_users=names[root_member])
    assert access.decide(chroot, ROOT, TARGETS[target], {}) == (ALLOW, rule)


def test_who_shares_the_uid_is_oneself() -> None:
    chroot = replace(CHROOT, users=("builder",))
    assert access.decide(chroot, USER, replace(STRANGER, uid=USER.uid), {}).rule is Rule.AS_ONESELF


def test_a_name_like_root_s_is_not_root() -> None:
    assert access.decide(CHROOT, identity("root", 1234), ROOT, {}).verdict is DENY


@pytest.mark.parametrize("asked", [USER, ROOT, STRANGER], ids=lambda who: who.name)
@pytest.mark.parametrize(("users", "root_users"), list(product(((), ("builder",)), repeat=2)))
def test_a_twin_goes_by_its_own_lists(asked: Identity, users: tuple[str, ...], root_users: tuple[str, ...]) -> None:
    everybody = ("builder", "root", "stranger")
    chroot = replace(CHROOT, users=everybody, root_users=everybody, union=Union(type="overlay"))
    chroot = replace(chroot, source_users=users, source_root_users=root_users)
    plain = replace(CHROOT, users=users, root_users=root_users)
    assert access.decide(source_twin(chroot), USER, asked, {}) == access.decide(plain, USER, asked, {})


def session_of(caller: Identity, **lists: tuple[str, ...]) -> Session:
    chroot = replace(CHROOT, **lists)  # type: ignore[arg-type]
    return Session("s", "", chroot, "c", caller, caller, None, 0, "", 0, Places(), "/l", "/l")


# How whoever began the session stood in the chroot's lists, who asks now, as whom, and what comes of it.
SESSIONS = [
    ({"users": ("builder", "stranger")}, USER, USER, ALLOW),
    ({"users": ("builder", "stranger")}, USER, ROOT, PASSWORD),
    ({"users": ("builder", "stranger")}, USER, STRANGER, PASSWORD),
    ({"users": ("builder", "stranger")}, STRANGER, STRANGER, DENY),
    ({"root_users": ("builder", "stranger")}, USER, USER, ALLOW),
    ({"root_users": ("builder", "stranger")}, USER, ROOT, ALLOW),
    ({"root_users": ("builder", "stranger")}, USER, STRANGER, DENY),
    ({"root_users": ("builder", "stranger")}, STRANGER, ROOT, DENY),
    ({"users": ("builder",), "root_groups": ("other",)}, USER, ROOT, ALLOW),
    # A member of both is in root-users of the session, and in nothing else.
    ({"users": ("builder",), "root_groups": ("other",)}, USER, STRANGER, DENY),
    ({"groups": ("own", "strangers")}, USER, USER, ALLOW),
    ({"users": ("builder",)}, ROOT, ROOT, ALLOW),
    ({"users": ("builder",)}, ROOT, USER, ALLOW),
    ({}, USER, USER, ALLOW),
]


@pytest.mark.parametrize(("lists", "caller", "target", "verdict"), SESSIONS)
def test_a_session_is_its_beginner_s(
    lists: dict[str, tuple[str, ...]], caller: Identity, target: Identity, verdict: Verdict
) -> None:
    session = session_of(USER, **lists)
    assert access.decide_for_session(session, caller, target, GROUP_IDS).verdict is verdict


def test_the_strictest_counts() -> None:
    allow = Decision(ALLOW, Rule.AS_ONESELF)
    also_allow = Decision(ALLOW, Rule.ROOT_MEMBER)
    password = Decision(PASSWORD, Rule.MEMBER)
    deny = Decision(DENY, Rule.NOT_A_MEMBER)
    for several in chain.from_iterable(combinations((allow, password, deny), size) for size in (1, 2, 3)):
        expected = deny if deny in several else password if password in several else allow
        assert access.strictest(several) == access.strictest(reversed(several)) == expected
    assert access.strictest([allow, also_allow]) == allow


def test_the_groups_to_look_up() -> None:
    chroot = replace(CHROOT, groups=("own", "other"), root_groups=("strangers",), source_groups=("x",))
    assert access.groups_of(chroot) == ("own", "other", "strangers")
    assert access.groups_of(source_twin(chroot)) == ("x",)


@pytest.mark.parametrize(
    ("caller", "target", "keys"),
    [
        (USER, USER, {"a.user"}),
        (USER, STRANGER, {"a.user"}),
        (USER, ROOT, {"a.user", "a.root"}),
        (ROOT, ROOT, {"a.user", "a.root"}),
        (ROOT, USER, {"a.user", "a.root"}),
    ],
)
def test_modifiable_keys(caller: Identity, target: Identity, keys: set[str]) -> None:
    chroot = replace(CHROOT, user_modifiable_keys=("a.user",), root_modifiable_keys=("a.root",))
    found = access.modifiable_keys(chroot, caller, target)
    lists = ("user-modifiable-keys", "root-modifiable-keys")
    assert found == (frozenset(keys), lists[: len(keys)])


names = st.lists(st.sampled_from(["builder", "root", "stranger", "own", "other", "strangers"])).map(tuple)


@given(names, names, names, names, st.sampled_from([USER, STRANGER]))
def test_more_rights_never_make_it_stricter(
    users: tuple[str, ...],
    groups: tuple[str, ...],
    root_users: tuple[str, ...],
    root_groups: tuple[str, ...],
    caller: Identity,
) -> None:
    chroot = replace(CHROOT, users=users, groups=groups, root_users=root_users, root_groups=root_groups)
    for target in (USER, ROOT, STRANGER):
        decided = access.decide(chroot, caller, target, GROUP_IDS).verdict
        for more in ({"users": (*users, caller.name)}, {"root_users": (*root_users, caller.name)}):
            assert access.decide(replace(chroot, **more), caller, target, GROUP_IDS).verdict <= decided

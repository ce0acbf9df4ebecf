"""Names: what may be one, and that nothing else gets near a file (S1)."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessions import lifecycle, names, store, users
from sessions.config.configuration import Configuration
from sessions.engine import Settings
from sessions.errors import InvalidName, NoSuchNamespace, NotFound, SessionsError
from sessions.model import Chroot, Directory, Places
from sessions.names import Qualified
from sessions.newsession import Wish

GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
LEFTOVERS = ("dpkg-old", "dpkg-dist", "dpkg-new", "dpkg-tmp")
VALID = st.from_regex(GRAMMAR, fullmatch=True).filter(lambda name: not name.endswith(LEFTOVERS))
LIKELY = st.text(string.ascii_letters + string.digits + "_.-/:%\n\0 ~ü٣", max_size=220)
HOSTILE = (
    "", ".", "..", ".x", "-x", "_x", "a/b", "../x", "/etc/passwd", "a\n", "a\nb", "a b", "a\0", "%s", "a%", "x~", "ä",
    "x,1", "a,00000000,1.2.3", "٣", "a٣", "x" * 201, "x" * 300, "x.dpkg-new", "dpkg-old", "a\u2028", "a;b", "$(x)",
)  # fmt: skip


def is_in_grammar(name: str) -> bool:
    return bool(GRAMMAR.fullmatch(name)) and not name.endswith(LEFTOVERS)


@given(st.one_of(st.text(), LIKELY, VALID))
@example("a\n")
@example("x" * 200)
@example("x" * 201)
def test_a_name_is_what_the_grammar_says_and_nothing_else(name: str) -> None:
    assert names.is_valid(name) == is_in_grammar(name)
    if is_in_grammar(name):
        assert names.check(name, "session name") == name
    else:
        with pytest.raises(InvalidName, match=r"session name .* is not valid; a name is a letter or digit, then"):
            names.check(name, "session name")


@given(VALID, st.sampled_from(names.NAMESPACES))
def test_a_namespace_comes_before_a_colon(name: str, namespace: str) -> None:
    assert names.split(name, names.CHROOT) == Qualified(names.CHROOT, name)
    assert names.split(name, names.SESSION) == Qualified(names.SESSION, name)
    qualified = names.split(f"{namespace}:{name}", names.CHROOT)
    assert qualified == Qualified(namespace, name)
    assert str(qualified) == f"{namespace}:{name}"


@given(st.one_of(st.text(), LIKELY))
def test_a_word_gives_a_valid_name_or_an_error(word: str) -> None:
    try:
        qualified = names.split(word, names.CHROOT)
    except NoSuchNamespace:
        assert word.rpartition(":")[0] not in ("", *names.NAMESPACES) or word.startswith(":")
    except InvalidName:
        assert not is_in_grammar(word)
    else:
        assert is_in_grammar(qualified.name)
        assert qualified.namespace in names.NAMESPACES


@pytest.mark.parametrize("name", HOSTILE)
def test_no_other_name_gets_near_a_file(name: str, tmp_path: Path) -> None:
    """From -n, from -c and from whoever calls the library: refused, or not found, before anything is made."""
    places = Places(
        native_config_dir=f"{tmp_path}/etc", schroot_config_dir=f"{tmp_path}/etc", state_dir=f"{tmp_path}/state",
        runtime_dir=f"{tmp_path}/run",
    )  # fmt: skip
    assert not names.is_valid(name)
    root = users.find("root")
    chroot = Chroot(name="tiny", source=Directory("/nosuch"), profile="")
    if name:
        with pytest.raises(InvalidName):
            lifecycle.plan(places, chroot, "tiny", Wish(root, root, name))
    with pytest.raises(InvalidName):
        lifecycle.find_chroot(Configuration(), name, with_host=True)
    for ask in (lambda: store.find(places, name), lambda: lifecycle.end(places, name, Settings())):
        with pytest.raises(SessionsError) as error:
            ask()
        assert isinstance(error.value, NotFound | InvalidName)
    assert list(tmp_path.iterdir()) == []

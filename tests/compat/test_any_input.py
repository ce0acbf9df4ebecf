"""Whatever the words of a command line or the text of a configuration file are: schroot's answer, or a refusal.

Examples are drawn by hypothesis and run many at a time: always the same ones, or with SESSIONS_EXAMPLES=N new ones,
N times as many.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from comparing import Call, run_calls
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

CONFIGURATION = """\
[plain]
directory=/srv/root
root-users=root
aliases=pp
foo.bar=1
root-modifiable-keys=foo.bar

[default]
directory=/srv/root
command-prefix=echo

[dir]
type=directory
directory=/srv/root
profile=minimal
"""
FILE = "/etc/schroot/chroot.d/c"
TOML = "/etc/chroot-sessions/sessions.toml"

# What a mistake of ours would say.
MISTAKE = re.compile("Traceback|unexpected|please report")

examples: Callable[..., Callable[..., None]] = settings(
    max_examples=int(os.environ.get("SESSIONS_EXAMPLES", "2")),
    derandomize="SESSIONS_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

LONG = """
list info config location quiet verbose chroot all all-chroots all-sessions all-source-chroots exclude-aliases
directory shell user preserve-environment option automatic-session begin-session recover-session run-session
end-session session-name force
""".split()  # noqa: SIM905
# Without -h, -V and --debug, which say things of their own on purpose; -f and -e are both there, on nothing.
flags = st.sampled_from(["-" + letter for letter in "liqvapbrefcdsuon"])
longs = st.sampled_from(LONG).flatmap(lambda name: st.integers(2, len(name)).map(lambda length: f"--{name[:length]}"))
names = st.one_of(
    st.sampled_from(
        ["plain", "pp", "default", "dir", "nosuch", "chroot:plain", "session:plain", "source:dir", "session:x"]
    ),
    st.sampled_from(
        ["", ":", "::", "a:b:c", "session:", ".", "..", "/", "-", "--", "=", "plain ", "PLAIN", "a/b", "ä"]
    ),
    st.text("abc.:-_/~ =ä\n", max_size=6),
)
values = st.one_of(
    names, st.sampled_from(["foo.bar=2", "foo.bar", "foo.bar=", "/tmp", "/", "root", "nobody", "/bin/sh"])
)
attached = st.builds(lambda option, value: f"{option}={value}", st.one_of(longs, flags), values)
glued = st.builds(lambda option, value: option + value, flags, values)
chosen = st.builds(
    lambda option, value: [option, value], st.sampled_from(["-c", "--chroot", "-n", "-o", "-u", "-d"]), values
)
words = st.lists(
    st.one_of(chosen, *(one.map(lambda word: [word]) for one in (flags, longs, attached, glued, values))), max_size=5
)
# "." and "..", taken for a command, is what no-local-command is about.
command_lines = words.map(lambda found: [word for group in found for word in group]).filter(
    lambda found: not {".", ".."} & set(found)
)


def check_no_mistake(calls: list[Call]) -> None:
    for call in calls:
        assert not MISTAKE.search(call.ours[2]), str(call)
        assert call.ours[0] not in ("99", "-11"), str(call)


def check_same(calls: list[Call]) -> None:
    check_no_mistake(calls)
    different = [call for call in calls if call.theirs != call.ours]
    assert not different, f"{len(different)} of {len(calls)}\n" + "\n".join(map(str, different[:20]))


@examples
@given(st.lists(command_lines, min_size=80, max_size=80))
def test_any_command_line(found: list[list[str]]) -> None:
    calls, _left = run_calls(CONFIGURATION, [(words, {}) for words in found])
    check_same(calls)


# Files whose lines are right, or nearly.
KEYS = """
type description directory location users groups root-users aliases profile shell personality message-verbosity
command-prefix preserve-environment union-type union-overlay-directory source-clone source-users file foo.bar
foo.bar-baz setup.fstab user-modifiable-keys environment-filter
""".split()  # noqa: SIM905
TEXTS = [
    "",
    "/srv/root",
    "srv",
    "true",
    "false",
    "maybe",
    "plain",
    "directory",
    "file",
    "overlay",
    "none",
    "a,b",
    " a, b ",
    "x=y",
    "normal",
    "linux32",
    "minimal",
    "root",
    "/a.tar",
    "b",
]
headings = st.sampled_from(
    ["[a]", "[b]", "[c.d-e_f]", "[a] # x", "[a", "[]", "[a]]", "[a:b]", "[x y]", " [a]", "[good]"]
)
items = st.builds(
    "{}={}".format, st.sampled_from([*KEYS, "nosuch", "directory ", "", "description[de]"]), st.sampled_from(TEXTS)
)
odd = st.one_of(
    st.sampled_from(["", "", "#", "# x", " ", "foo", "=", "[", "a=b=c"]), st.text("ab[]=#, .-é", max_size=8)
)
sections = st.builds(
    lambda heading, needed, lines: [heading, *needed, *lines],
    headings,
    st.sampled_from([["directory=/srv/root"], ["type=directory", "directory=/srv/root"], []]),
    st.lists(st.one_of(items, items, items, odd), max_size=5),
)
texts = st.builds(
    lambda first, found, end: "\n".join([*first, *(line for section in found for line in section)]) + end,
    st.lists(odd, max_size=1),
    st.lists(sections, max_size=3),
    st.sampled_from(["\n", ""]),
)


@examples
@given(st.lists(texts, min_size=80, max_size=80))
def test_any_file_in_schroots_dialect(found: list[str]) -> None:
    """What schroot takes, we take for the same; what it refuses is refused, or warned of and left out."""
    calls, left = run_calls("[good]\ndirectory=/srv/root\n", [(["--config"], {FILE: text}) for text in found])
    check_no_mistake(calls)
    taken = [call for call in calls if call.theirs[0] == "0" and call.theirs[1] != call.ours[1]]
    assert not taken, f"{len(taken)} of {len(calls)}\n" + "\n".join(map(str, taken[:20]))
    assert left == []


@examples
@given(st.lists(texts, min_size=60, max_size=60))
def test_what_schroot_refuses_is_told(found: list[str]) -> None:
    calls, left = run_calls("[good]\ndirectory=/srv/root\n", [(["-l"], {FILE: text}) for text in found])
    check_no_mistake(calls)
    silent = [call for call in calls if call.theirs[2] and not call.ours[2]]
    assert not silent, f"{len(silent)} of {len(calls)}\n" + "\n".join(map(str, silent[:20]))
    assert all(call.ours[0] == "0" and "chroot:good\n" in call.ours[1] for call in calls)
    assert left == []


# Anything at all, of which only our own answer is looked at.
anything = st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape"))
toml = st.one_of(
    anything,
    texts,
    st.builds(
        "[chroot.{}]\n{} = {}\n".format,
        st.sampled_from(["a", '"a b"', "a.b", "plain"]),
        st.sampled_from([*KEYS, "union", "nosuch"]),
        st.sampled_from(
            ["1", "true", "[1]", '"x"', '["a", "b"]', "{}", "1979-05-27", "nan", "[", '"\\u0000"', "'/srv'"]
        ),
    ),
)


@pytest.mark.parametrize("path", [FILE, TOML])
@examples
@given(
    found=st.lists(
        st.tuples(st.one_of(toml, anything), st.sampled_from(["-l", "-i", "--config", "--location"])),
        min_size=100,
        max_size=100,
    )
)
def test_any_text_at_all_is_taken_or_refused(path: str, found: list[tuple[str, str]]) -> None:
    calls, left = run_calls(CONFIGURATION, [([word], {path: text}) for text, word in found])
    check_no_mistake(calls)
    assert all(call.ours[0] == "0" for call in calls)
    assert left == []

"""Whatever the words of a command line or the text of a configuration file are: schroot's answer, or a refusal.

Examples are drawn from seeds and run many at a time: always the same ones, whatever else is imported or installed, or
with SESSIONS_EXAMPLES=FIRST-LAST those of other seeds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

import pytest
from comparing import Call, run_calls

T = TypeVar("T")
Draw = Callable[[Random], T]

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

FIRST, _, LAST = os.environ.get("SESSIONS_EXAMPLES", "0-1").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
seeds = pytest.mark.parametrize("seed", SEEDS)


def draw_many(seed: int, count: int, draw: Draw[T]) -> list[T]:
    random = Random(seed)
    return [draw(random) for _number in range(count)]


def up_to(random: Random, most: int, draw: Draw[T]) -> list[T]:
    return [draw(random) for _number in range(random.randint(0, most))]


def text(random: Random, alphabet: Sequence[str], most: int) -> str:
    return "".join(up_to(random, most, lambda random: random.choice(alphabet)))


LONG = """
list info config location quiet verbose chroot all all-chroots all-sessions all-source-chroots exclude-aliases
directory shell user preserve-environment option automatic-session begin-session recover-session run-session
end-session session-name force
""".split()  # noqa: SIM905
# Without -h, -V and --debug, which say things of their own on purpose; -f and -e are both there, on nothing.
FLAGS = ["-" + letter for letter in "liqvapbrefcdsuon"]
NAMES = ["plain", "pp", "default", "dir", "nosuch", "chroot:plain", "session:plain", "source:dir", "session:x"]
ODD_NAMES = ["", ":", "::", "a:b:c", "session:", ".", "..", "/", "-", "--", "=", "plain ", "PLAIN", "a/b", "ä"]
VALUES = ["foo.bar=2", "foo.bar", "foo.bar=", "/tmp", "/", "root", "nobody", "/bin/sh"]


def flag(random: Random) -> str:
    return random.choice(FLAGS)


def long(random: Random) -> str:
    """An option, or an abbreviation of one or of several."""
    name = random.choice(LONG)
    return f"--{name[: random.randint(2, len(name))]}"


def value(random: Random) -> str:
    kinds = (NAMES, NAMES, ODD_NAMES, VALUES, VALUES, None)
    kind = random.choice(kinds)
    return random.choice(kind) if kind else text(random, "abc.:-_/~ =ä\n", 6)


def words(random: Random) -> list[str]:
    """An option with what belongs to it, or a word alone."""
    kinds: tuple[Callable[[], list[str]], ...] = (
        lambda: [random.choice(["-c", "--chroot", "-n", "-o", "-u", "-d"]), value(random)],
        lambda: [flag(random)],
        lambda: [long(random)],
        lambda: [f"{random.choice((flag, long))(random)}={value(random)}"],
        lambda: [flag(random) + value(random)],
        lambda: [value(random)],
    )
    return random.choice(kinds)()


def command_line(random: Random) -> list[str]:
    """Without "." and "..": what happens if they are taken for a command is what no-local-command is about."""
    found = [word for group in up_to(random, 5, words) for word in group]
    return [word for word in found if word not in (".", "..")]


def check_no_mistake(calls: list[Call]) -> None:
    for call in calls:
        assert not MISTAKE.search(call.ours[2]), str(call)
        assert call.ours[0] not in ("99", "-11"), str(call)


def check_same(calls: list[Call]) -> None:
    check_no_mistake(calls)
    different = [call for call in calls if call.theirs != call.ours]
    assert not different, f"{len(different)} of {len(calls)}\n" + "\n".join(map(str, different[:20]))


@seeds
def test_any_command_line(seed: int) -> None:
    calls, _left = run_calls(CONFIGURATION, [(words, {}) for words in draw_many(seed, 80, command_line)])
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
HEADINGS = ["[a]", "[b]", "[c.d-e_f]", "[a] # x", "[a", "[]", "[a]]", "[a:b]", "[x y]", " [a]", "[good]"]
NEEDED: list[list[str]] = [["directory=/srv/root"], ["type=directory", "directory=/srv/root"], []]
ODD_KEYS = ["nosuch", "directory ", "", "description[de]"]
ODD_LINES = ["", "", "#", "# x", " ", "foo", "=", "[", "a=b=c"]


def item(random: Random) -> str:
    return f"{random.choice([*KEYS, *ODD_KEYS])}={random.choice(TEXTS)}"


def odd_line(random: Random) -> str:
    return random.choice(ODD_LINES) if random.random() < 0.5 else text(random, "ab[]=#, .-é", 8)


def section(random: Random) -> list[str]:
    lines = up_to(random, 5, lambda random: random.choice((item, item, item, odd_line))(random))
    return [random.choice(HEADINGS), *random.choice(NEEDED), *lines]


def file(random: Random) -> str:
    lines = up_to(random, 1, odd_line) + [line for found in up_to(random, 3, section) for line in found]
    return "\n".join(lines) + random.choice(["\n", ""])


@seeds
def test_any_file_in_schroots_dialect(seed: int) -> None:
    """What schroot takes, we take for the same; what it refuses is refused, or warned of and left out."""
    texts = draw_many(seed, 80, file)
    calls, left = run_calls("[good]\ndirectory=/srv/root\n", [(["--config"], {FILE: text}) for text in texts])
    check_no_mistake(calls)
    taken = [call for call in calls if call.theirs[0] == "0" and call.theirs[1] != call.ours[1]]
    assert not taken, f"{len(taken)} of {len(calls)}\n" + "\n".join(map(str, taken[:20]))
    assert left == []


@seeds
def test_what_schroot_refuses_is_told(seed: int) -> None:
    texts = draw_many(seed, 60, file)
    calls, left = run_calls("[good]\ndirectory=/srv/root\n", [(["-l"], {FILE: text}) for text in texts])
    check_no_mistake(calls)
    silent = [call for call in calls if call.theirs[2] and not call.ours[2]]
    assert not silent, f"{len(silent)} of {len(calls)}\n" + "\n".join(map(str, silent[:20]))
    assert all(call.ours[0] == "0" and "chroot:good\n" in call.ours[1] for call in calls)
    assert left == []


# Anything at all, of which only our own answer is looked at.
TOML_HEADINGS = ["a", '"a b"', "a.b", "plain"]
TOML_VALUES = ["1", "true", "[1]", '"x"', '["a", "b"]', "{}", "1979-05-27", "nan", "[", '"\\u0000"', "'/srv'"]


def anything(random: Random) -> str:
    return random.randbytes(random.randint(0, 60)).decode("utf-8", "surrogateescape")


def toml(random: Random) -> str:
    key, heading = random.choice([*KEYS, "union", "nosuch"]), random.choice(TOML_HEADINGS)
    return f"[chroot.{heading}]\n{key} = {random.choice(TOML_VALUES)}\n"


def any_call(random: Random) -> tuple[str, str]:
    """What a file holds, and what is asked then."""
    found = random.choice((anything, anything, file, toml))(random)
    return found, random.choice(["-l", "-i", "--config", "--location"])


@pytest.mark.parametrize("path", [FILE, TOML])
@seeds
def test_any_text_at_all_is_taken_or_refused(path: str, seed: int) -> None:
    drawn = draw_many(seed, 100, any_call)
    calls, left = run_calls(CONFIGURATION, [([word], {path: text}) for text, word in drawn])
    check_no_mistake(calls)
    assert all(call.ours[0] == "0" for call in calls)
    assert left == []

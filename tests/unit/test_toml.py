"""The native dialect: sections from TOML, and the lines its parser does not give."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.config.raw import Dialect, RawFile
from sessions.config.toml import parse

FILE = "/etc/chroot-sessions/sessions.toml"


def problems(raw: RawFile) -> list[tuple[int, str, str, str]]:
    found = [*raw.problems, *(problem for section in raw.sections for problem in section.problems)]
    return [(problem.line, problem.section, problem.key, problem.reason) for problem in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("[chroot.a]\n", {"a": (1, {})}, id="empty table"),
        pytest.param(
            '# x\n[chroot.a]\ntype = "plain"\nusers = ["x"]\n',
            {"a": (2, {"type": ("plain", 3), "users": (["x"], 4)})},
            id="values of every type stay as they are",
        ),
        pytest.param(
            '[chroot.a]\n"setup.fstab" = "x"\n', {"a": (1, {"setup.fstab": ("x", 2)})}, id="custom key in quotes"
        ),
        pytest.param("[chroot.a]\nsetup.fstab = ''\n", {"a": (1, {"setup.fstab": ("", 2)})}, id="dotted custom key"),
        pytest.param(
            '[chroot.a.setup]\nfstab = ""\n[chroot.a]\nusers = []\n',
            {"a": (1, {"setup.fstab": ("", 2), "users": ([], 4)})},
            id="nested table",
        ),
        pytest.param(
            '[chroot.a.acme.mirror]\nurl = "u"\n', {"a": (1, {"acme.mirror.url": ("u", 2)})}, id="nested deeper"
        ),
        pytest.param(
            '[chroot]\na.type = "plain"\nb = {type = "file"}\n',
            {"a": (2, {"type": ("plain", 2)}), "b": (3, {"type": ("file", 3)})},
            id="dotted and inline: the key's line, else the section's",
        ),
        pytest.param('chroot.a.type = "x"\n', {"a": (1, {"type": ("x", 1)})}, id="all dotted"),
        pytest.param('[ chroot . "a" ]\n "type"  = "x"\n', {"a": (1, {"type": ("x", 2)})}, id="blanks and quotes"),
        pytest.param(
            '[chroot.a]\nusers = [\n  "x",\n  "type = 1",\n]\ntype = "y"\n',
            {"a": (1, {"users": (["x", "type = 1"], 2), "type": ("y", 6)})},
            id="a list of many lines",
        ),
        pytest.param(
            '[chroot.a]\ndescription = """\ntype = 1\n[chroot.b]\n"""\ntype = "y"\n',
            {"a": (1, {"description": ("type = 1\n[chroot.b]\n", 2), "type": ("y", 6)})},
            id="a string of many lines",
        ),
        pytest.param(
            '[chroot.a]\ndirectory.x = "y"\n',
            {"a": (1, {"directory": ({"x": "y"}, 2)})},
            id="a known key is not taken apart",
        ),
        pytest.param('[chroot.a]\r\ntype = "x"\r\n', {"a": (1, {"type": ("x", 2)})}, id="DOS line ends"),
    ],
)
def test_what_is_read(text: str, expected: dict[str, tuple[int, dict[str, tuple[object, int]]]]) -> None:
    raw = parse(text, FILE)
    assert {section.name: (section.line, section.values) for section in raw.sections} == expected
    assert (problems(raw), raw.dialect, raw.file) == ([], Dialect.TOML, FILE)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        pytest.param("[chroot.a]\nx\n[chroot.b]\n", 2, "Expected '='", id="no value"),
        pytest.param("[chroot.a]\nx = 'y\n", 2, "not TOML", id="string not closed"),
        pytest.param("[chroot.a]\n\n\nx", 4, "not TOML", id="at the end of the file"),
        pytest.param("[chroot.a]\n[chroot.a]\n", 2, "twice", id="the same table twice"),
        pytest.param("[chroot.a]\nx = 1\nx = 2\n", 3, "not TOML", id="the same key twice"),
        pytest.param("[chroot.a]\nx = " + "9" * 5000, 0, "not TOML", id="a number beyond all bounds"),
        pytest.param("x = " + "[" * 100_000, 0, "nested too deeply", id="nested too deeply"),
        pytest.param("[chroot.a]\nx = '\udcff'\n", 2, "not UTF-8", id="not UTF-8"),
        pytest.param("\ufeff", 1, "not TOML", id="byte order mark"),
    ],
)
def test_a_file_that_is_not_toml_gives_its_one_problem(text: str, line: int, reason: str) -> None:
    raw = parse(text, FILE)
    (problem,) = raw.problems
    assert raw.sections == ()
    assert (problem.line, problem.section, problem.severity) == (line, "", "error")
    assert reason in problem.reason
    assert "nothing in this file is used" in problem.remedy


@pytest.mark.parametrize(
    ("text", "expected", "usable"),
    [
        pytest.param(
            "[chroots.a]\n[chroot.b]\n", [(1, "", "chroots", "unknown table or key ‘chroots’")], ["b"], id="table"
        ),
        pytest.param(
            'x = 1\n[chroot.b]\ntype = "plain"\n',
            [(1, "", "x", "unknown table or key ‘x’")],
            ["b"],
            id="key at the top",
        ),
        pytest.param("chroot = 1\n", [(1, "", "chroot", "‘chroot’ wants tables, not a number")], [], id="no tables"),
        pytest.param(
            '[chroot]\ntype = "plain"\n[chroot.b]\n',
            [(2, "type", "", "‘type’ wants a table, not a string")],
            ["b"],
            id="a key where a name belongs",
        ),
        pytest.param(
            "[[chroot.a]]\n[chroot.b]\n",
            [(1, "a", "", "‘a’ wants a table, not a list")],
            ["b"],
            id="an array of tables",
        ),
        pytest.param(
            '[chroot.a]\n"setup.fstab" = "x"\n[chroot.a.setup]\nfstab = "y"\n[chroot.b]\n',
            [(2, "a", "setup.fstab", "Duplicate key ‘setup.fstab’: the first is in line 2")],
            ["b"],
            id="one key in two ways of writing",
        ),
    ],
)
def test_a_mistake_costs_its_section_and_no_other(
    text: str, expected: list[tuple[int, str, str, str]], usable: list[str]
) -> None:
    raw = parse(text, FILE)
    assert problems(raw) == expected
    assert [section.name for section in raw.sections if not section.problems] == usable


def test_the_remedy_says_how_the_table_is_called() -> None:
    (problem,) = parse("[chroots.a]\n", FILE).problems
    assert problem.remedy == "only tables [chroot.NAME] are known; write [chroot.NAME] for [chroots.NAME]"


def test_a_table_of_absurd_depth_is_read_without_harm() -> None:
    (section,) = parse("[chroot.a]\n" + "b." * 300 + "b = 1\n", FILE).sections
    ((key, (value, line)),) = section.values.items()
    assert (len(key) < 250, isinstance(value, dict), line) == (True, True, 1)


def test_the_parser_is_imported_only_for_a_file() -> None:
    program = "import sys, sessions.config.toml; sys.exit('tomli' in sys.modules or 'difflib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@given(st.text())
def test_any_text_gives_sections_or_problems(text: str) -> None:
    raw = parse(text, FILE)
    for line, _section, _key, reason in problems(raw):
        assert 0 <= line <= text.count("\n") + 1
        assert reason


_WORDS = st.sampled_from(["chroot", "a", "type", '"setup.fstab"', "setup", "fstab", "'x y'"])
_PATHS = st.lists(_WORDS, min_size=1, max_size=4).map(".".join)
_LINES = st.one_of(
    _PATHS.map("[{}]".format),
    _PATHS.map("[[{}]]".format),
    st.tuples(_PATHS, st.sampled_from(['"x"', "1", "[]", "{}", "{a = 1}", "2020-01-01", "inf", "true", '"""']))
    .map(" = ".join),
)  # fmt: skip


@given(st.lists(_LINES, max_size=8).map("\n".join))
def test_any_toml_gives_sections_or_problems(text: str) -> None:
    raw = parse(text, FILE)
    lines = text.split("\n")
    for section in raw.sections:
        for key, (_value, line) in section.values.items():
            assert key.split(".")[-1] in lines[line - 1] or line == section.line

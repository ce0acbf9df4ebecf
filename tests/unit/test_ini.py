"""schroot's dialect: what is a group, an item and a mistake, and which lines a mistake costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.config.ini import parse
from sessions.config.raw import Dialect, RawFile

FILE = "/etc/schroot/schroot.conf"


def values(raw: RawFile) -> dict[str, dict[str, object]]:
    return {section.name: {key: value for key, (value, _) in section.values.items()} for section in raw.sections}


def problems(raw: RawFile) -> list[tuple[int, str, str, str]]:
    found = [*raw.problems, *(problem for section in raw.sections for problem in section.problems)]
    return [(problem.line, problem.section, problem.key, problem.reason) for problem in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("\n\n# only this\n", {}, id="comments and empty lines"),
        pytest.param("[a]\nb=c\n", {"a": {"b": "c"}}, id="plain"),
        pytest.param("[a]\nb=c", {"a": {"b": "c"}}, id="no newline at the end"),
        pytest.param("[a]\n[b]\n", {"a": {}, "b": {}}, id="empty groups"),
        pytest.param("[a] # x\nb=c\n", {"a": {"b": "c"}}, id="text behind a group"),
        pytest.param("[a]\r\nb=c\r\n", {"a": {"b": "c\r"}}, id="a carriage return stays in the value"),
        pytest.param("[a]\nusers=root # me\n", {"a": {"users": "root # me"}}, id="no comment behind a value"),
        pytest.param("[a]\nb = c\n", {"a": {"b ": " c"}}, id="nothing is trimmed"),
        pytest.param("[a]\nb=\n", {"a": {"b": ""}}, id="empty value"),
        pytest.param("[a]\nb=c=d\n", {"a": {"b": "c=d"}}, id="split at the first equals sign"),
        pytest.param("[a]\n #b=c\n", {"a": {" #b": "c"}}, id="a comment begins at the first byte"),
        pytest.param("[a b:/]\nc=d\n", {"a b:/": {"c": "d"}}, id="any name is read"),
        pytest.param("[a]\nb=x\x0by\u2028z\n", {"a": {"b": "x\x0by\u2028z"}}, id="only a newline ends a line"),
        pytest.param("[a]\ndescription=Größe\n", {"a": {"description": "Größe"}}, id="UTF-8"),
    ],
)
def test_what_is_read(text: str, expected: dict[str, dict[str, str]]) -> None:
    raw = parse(text, FILE)
    assert (values(raw), problems(raw)) == (expected, [])
    assert (raw.file, raw.dialect) == (FILE, Dialect.SCHROOT)


@pytest.mark.parametrize(
    ("text", "expected", "usable"),
    [
        pytest.param("foo\n[a]\n", [(1, "", "", "Invalid line: “foo”")], ["a"], id="1: no item"),
        pytest.param("foo=bar\n[a]\n", [(1, "", "", "No group specified: “foo=bar”")], ["a"], id="2: no group"),
        pytest.param("[a\n[b]\n", [(1, "", "", "Invalid group: “[a”")], ["b"], id="3: not closed"),
        pytest.param("[]\n[b]\n", [(1, "", "", "Invalid group: “[]”")], ["b"], id="3: no name"),
        pytest.param("[a]]\n[b]\n", [(1, "", "", "Invalid group: “[a]]”")], ["b"], id="3: two brackets"),
        pytest.param("[a]\n  \n[b]\n", [(2, "a", "", "Invalid line: “  ”")], ["b"], id="6: blanks"),
        pytest.param("[a]\n=x\n[b]\n", [(2, "a", "", "No key specified: “=x”")], ["b"], id="no key"),
        pytest.param("[a]\n=\n[b]\n", [(2, "a", "", "No key specified: “=”")], ["b"], id="nothing but equals"),
        pytest.param(
            "[a]\nk=1\nk=2\n[b]\n",
            [(3, "a", "", "Duplicate key ‘k’")],
            ["b"],
            id="7: the same key twice",
        ),
        pytest.param(
            "[a]\nk=1\n[b]\n[a]\nl=1\n",
            [(4, "", "", "Duplicate group ‘a’")],
            ["a", "b"],
            id="7: the same group twice",
        ),
        pytest.param("\ufeff[a]\n[b]\n", [(1, "", "", "Invalid line: “\ufeff[a]”")], ["b"], id="byte order mark"),
        pytest.param("[a]\n\r\n[b]\n", [(2, "a", "", "Invalid line: “\r”")], ["b"], id="empty DOS line"),
        pytest.param("[a]\nk=\udcff\n[b]\n", [(2, "a", "", "the line is not UTF-8")], ["b"], id="value not UTF-8"),
        pytest.param("[\udcff]\nk=1\n[b]\n", [(1, "", "", "the line is not UTF-8")], ["b"], id="group not UTF-8"),
        pytest.param("[a]\n#\udcff\n", [(2, "a", "", "the comment is not UTF-8")], ["a"], id="comment not UTF-8"),
        pytest.param("x" * 99, [(1, "", "", f"Invalid line: “{'x' * 60}…”")], [], id="long lines are cut"),
    ],
)
def test_a_mistake_costs_its_section_and_no_other(
    text: str, expected: list[tuple[int, str, str, str]], usable: list[str]
) -> None:
    raw = parse(text, FILE)
    assert problems(raw) == expected
    assert [section.name for section in raw.sections if not section.problems] == usable


def test_items_below_a_bad_group_do_not_fall_to_the_group_above() -> None:
    raw = parse("[a]\nusers=joe\n[b\nroot-users=eve\nno item\n[c]\nd=e\n", FILE)
    assert values(raw) == {"a": {"users": "joe"}, "c": {"d": "e"}}
    assert [line for line, *_ in problems(raw)] == [3]


def test_items_of_a_duplicate_group_are_not_added_to_the_first() -> None:
    raw = parse("[a]\nusers=joe\n[a]\nusers=eve\nroot-users=eve\n", FILE)
    assert values(raw) == {"a": {"users": "joe"}}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("\ufeff# x", "byte order mark"),
        ("\r", "Unix line ends"),
        (" \t", "empty the line"),
        ("users joe", "correct or remove the line"),
    ],
)
def test_the_remedy_fits_what_cannot_be_seen(line: str, remedy: str) -> None:
    (problem,) = parse(line, FILE).problems
    assert remedy in problem.remedy


def test_lines_are_counted_from_one_and_kept_for_each_value() -> None:
    (section,) = parse("# one\n\n[a]\nb=c\n", FILE).sections
    assert (section.line, section.values["b"]) == (3, ("c", 4))


def test_nothing_in_a_message_moves_the_terminal() -> None:
    (problem,) = parse("\x1b[2Jx", FILE).problems
    assert str(problem) == (
        f"{FILE}: line 1: Invalid line: “\\x1b[2Jx”; "
        "correct or remove the line; until then nothing in its section is used"
    )


@given(st.text())
def test_any_text_gives_sections_or_problems(text: str) -> None:
    raw = parse(text, FILE)
    for line, _section, _key, reason in problems(raw):
        assert 1 <= line <= text.count("\n") + 1
        assert reason


@given(st.lists(st.sampled_from(["[a]", "[b]", "[c", "[]", "k=v", "l=", "=", "x", " ", "", "#", "\r"]), max_size=12))
def test_every_item_is_used_reported_or_below_a_reported_group(lines: list[str]) -> None:
    raw = parse("\n".join(lines), FILE)
    blamed = {line for line, *_ in problems(raw)}
    used = {line for section in raw.sections for _, line in section.values.values()}
    lost = False
    for number, line in enumerate(lines, 1):
        if line.startswith("["):
            lost = number in blamed
        elif line and not line.startswith("#"):
            assert (number in used) + (number in blamed) + lost == 1

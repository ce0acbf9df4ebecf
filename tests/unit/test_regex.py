"""environment-filter holds a POSIX extended regular expression: what differs from Python's is translated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.keys import DEFAULT_ENVIRONMENT_FILTER
from sessions.keytypes import compile_regex


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        pytest.param(DEFAULT_ENVIRONMENT_FILTER, ["LD_PRELOAD", "IFS"], ["PATH", "XLD_A", "IFSX"], id="the default"),
        pytest.param("^[[:alpha:]_]+$", ["A_b"], ["A1", "a:"], id="class"),
        pytest.param("[[:digit:]x-z]", ["7", "y"], ["a", "-", ":"], id="class and range"),
        pytest.param("[[:punct:]]", ["-", "[", "]", "\\", "^", "~", "!"], ["a", "0", " "], id="punct"),
        pytest.param(r"^[\d]$", ["\\", "d"], ["7"], id="a backslash in brackets is itself"),
        pytest.param("^[]a]$", ["]", "a"], ["[", "b"], id="a closing bracket first"),
        pytest.param("^[^]a]$", ["b"], ["]", "a"], id="negated"),
        pytest.param("^[[]$", ["["], ["]"], id="an opening bracket"),
        pytest.param("^[a-]$", ["a", "-"], ["b"], id="a dash last"),
        pytest.param("^[--/]$", ["-", ".", "/"], ["0"], id="a range from the dash"),
        pytest.param("^[a&&b||~~]$", ["&", "|", "~"], ["c"], id="no set operations"),
        pytest.param(r"\<FOO\>", ["FOO", "a FOO"], ["FOOD", "AFOO"], id="word ends"),
        pytest.param(r"^a\.b{2}(c|d)?$", ["a.bb", "a.bbc"], ["axbb", "a.b"], id="what is the same"),
    ],
)
def test_what_is_found(pattern: str, found: list[str], not_found: list[str]) -> None:
    regex = compile_regex(pattern)
    assert [text for text in found + not_found if regex.search(text)] == found


@pytest.mark.parametrize("pattern", ["(", "[", "[[", "[[:foo:]]", "*", "[z-a]", "\\", "a{99999999999}", "(" * 5000])
def test_what_is_none(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not a regular expression: .*; see regex\(7\)$"):
        compile_regex(pattern)


@given(st.text(alphabet="[]()^$.*+?{}|\\-:a0&~,alph", max_size=20))
def test_any_text_is_one_or_none(pattern: str) -> None:
    try:
        compile_regex(pattern)
    except ValueError as error:
        assert str(error).endswith("; see regex(7)")

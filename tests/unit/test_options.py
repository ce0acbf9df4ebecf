"""The words of a schroot command line: every spelling, every refusal, in the texts of schroot 1.6.13."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.cli import options as cli
from sessions.errors import UsageError

HINT = "Run “schroot --help” to list usage example and all available options"


def parse(*words: str) -> cli.Options:
    return cli.parse(words)


def refusal(*words: str) -> tuple[str, str]:
    """Text and hint of the error that these words give, from the parser or from the checks after it."""
    with pytest.raises(UsageError) as caught:
        parse(*words).check(lambda letter, line: None)
    return caught.value.text, caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "ov", "-q"),
        ("-cov", "-q"),
        ("-qc", "ov"),
        ("-qcov",),
        ("-q", "--chroot", "ov"),
        ("--chroot=ov", "--quiet"),
        ("--chr=ov", "--qui"),
        ("--chr", "ov", "--q"),
        ("---c", "ov", "---q"),
    ],
)
def test_spellings_of_a_value(words: tuple[str, ...]) -> None:
    options = parse(*words)
    assert (options.chroots, options.is_quiet, options.command) == (["ov"], True, [])


@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("-h", cli.HELP),
        ("--he", cli.HELP),
        ("-V", cli.VERSION),
        ("--vers", cli.VERSION),
        ("-l", cli.LIST),
        ("--lis", cli.LIST),
        ("-i", cli.INFO),
        ("--i", cli.INFO),
        ("--config", cli.CONFIG),
        ("--conf", cli.CONFIG),
        ("--location", cli.LOCATION),
        ("--lo", cli.LOCATION),
        ("--automatic-session", cli.AUTOMATIC),
        ("--au", cli.AUTOMATIC),
        ("-b", cli.BEGIN),
        ("--b", cli.BEGIN),
        ("--recover-session", cli.RECOVER),
        ("--rec", cli.RECOVER),
        ("-r", cli.RUN),
        ("--ru", cli.RUN),
        ("-e", cli.END),
        ("--end", cli.END),
        ("ls", cli.AUTOMATIC),
    ],
)
def test_actions(word: str, action: str) -> None:
    assert parse(word).action == action


def test_every_option_has_its_place() -> None:
    words = (
        "-u builder -d /build -s /bin/sh -p -o a.b=1 -o c.d -v -n name -f --exclude-aliases --debug notice "
        "--config-dir /c --state-dir=/s --runtime-dir /r -a"
    )
    options = parse(*words.split())
    assert (options.user, options.directory, options.shell) == ("builder", "/build", "/bin/sh")
    assert (options.settings, options.session_name) == (["a.b=1", "c.d"], "name")
    assert options.preserve_environment and options.is_verbose and options.force and not options.with_aliases
    assert (options.config_dir, options.state_dir, options.runtime_dir) == ("/c", "/s", "/r")
    assert options.all_chroots and options.all_sessions and options.all_sources


@pytest.mark.parametrize(
    ("word", "selected"),
    [
        ("--all", (True, True, True)),
        ("--all-chroots", (True, False, False)),
        ("--all-sessions", (False, True, False)),
        ("--all-source-chroots", (False, False, True)),
        ("-q", (False, False, False)),
    ],
)
def test_selection_by_kind(word: str, selected: tuple[bool, bool, bool]) -> None:
    options = parse(word)
    assert (options.all_chroots, options.all_sessions, options.all_sources) == selected
    assert options.selects_all == any(selected)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("-c", "x", "--", "ls", "-l"), ["ls", "-l"]),
        (("ls", "-c", "x", "src"), ["ls", "src"]),
        (("-c", "x", "--", "--", "-c"), ["--", "-c"]),
        (("--", "-c", "y"), ["-c", "y"]),
        (("-c", "x", "-"), ["-"]),
        (("", "-c", "x"), [""]),
        (("--=word",), ["word"]),
        (("--command", "ls", "src"), ["ls", "src"]),
        (("--command=ls", "--", "-l"), ["ls", "-l"]),
    ],
)
def test_words_of_the_command(words: tuple[str, ...], command: list[str]) -> None:
    assert parse(*words).command == command


def test_options_among_the_words_are_ours() -> None:
    options = parse("-c", "ov", "ls", "-l")
    assert (options.action, options.command) == (cli.LIST, ["ls"])


@pytest.mark.parametrize("value", ["--list", "--", "-", "-x", "-lq", "=ov", ""])
def test_values_that_look_like_options(value: str) -> None:
    assert parse("-c", value).chroots == [value]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--bogus",), "unrecognised option '--bogus'"),
        (("--bogus=x",), "unrecognised option '--bogus=x'"),
        (("-x",), "unrecognised option '-x'"),
        (("-lqx",), "unrecognised option '-lqx'"),
        (("-l=3",), "unrecognised option '-l=3'"),
        (("-l-",), "unrecognised option '-l-'"),
        (("-é",), "unrecognised option '-é'"),
        (("---list",), "unrecognised option '---list'"),
        (("---",), "unrecognised option '---'"),
        (("--LIST",), "unrecognised option '--LIST'"),
        (("--config-di", "/c"), "unrecognised option '--config-di'"),
        (("--runtime",), "unrecognised option '--runtime'"),
        (
            ("--al",),
            "option '--al' is ambiguous and matches '--all', '--all-chroots', '--all-sessions', and "
            "'--all-source-chroots'",
        ),
        (
            ("--al=x",),
            "option '--al=x' is ambiguous and matches '--all', '--all-chroots', '--all-sessions', and "
            "'--all-source-chroots'",
        ),
        (("--ver",), "option '--ver' is ambiguous and matches '--verbose', and '--version'"),
        (("--c",), "option '--c' is ambiguous and matches '--chroot', '--command', and '--config'"),
        (("--r",), "option '--r' is ambiguous and matches '--recover-session', and '--run-session'"),
        (("--s",), "option '--s' is ambiguous and matches '--session-name', and '--shell'"),
        (("--d", "/"), "option '--d' is ambiguous and matches '--debug', and '--directory'"),
        (("-c",), "the required argument for option '--chroot' is missing"),
        (("-qc",), "the required argument for option '--chroot' is missing"),
        (("-c", "-l"), "the required argument for option '--chroot' is missing"),
        (("--chr", "-b"), "the required argument for option '--chroot' is missing"),
        (("--session",), "the required argument for option '--session-name' is missing"),
        (("--chroot=",), "the argument for option '--chroot' should follow immediately after the equal sign"),
        (("--bogus=",), "the argument for option '--bogus' should follow immediately after the equal sign"),
        (("--=",), "the argument for option should follow immediately after the equal sign"),
        (("--list=x",), "option '--list' does not take any arguments"),
        (("--lis=x",), "option '--list' does not take any arguments"),
        (("-l", "--list"), "option '--list' cannot be specified more than once"),
        (("-d", "/", "-d", "/"), "option '--directory' cannot be specified more than once"),
        (("-b", "--begin-session"), "option '--begin-session' cannot be specified more than once"),
        (("-l", "-l", "-x"), "unrecognised option '-x'"),
    ],
)
def test_refusals_of_the_parser(words: tuple[str, ...], text: str) -> None:
    assert refusal(*words) == (text, "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-l -i", "Only one action may be specified"),
        ("-h -V", "Only one action may be specified"),
        ("--automatic-session -b", "Only one action may be specified"),
        ("-n x -l -i", "Only one action may be specified"),
        ("-l -i --debug foo", "Invalid debug level"),
        ("-n x", "--session-name is not permitted for the specified action"),
        ("-n x -l", "--session-name is not permitted for the specified action"),
        ("-n x -V", "--session-name is not permitted for the specified action"),
        (
            "-n x -r -c x",
            "--session-name is not permitted for the specified action; did you mean to use --chroot?",
        ),
        (
            "-n x -e",
            "--session-name is not permitted for the specified action; did you mean to use --chroot?",
        ),
        (
            "-n x --recover-session",
            "--session-name is not permitted for the specified action; did you mean to use --chroot?",
        ),
        ("-b", "Exactly one chroot must be specified when beginning a session"),
        ("-b -c a -c b", "Exactly one chroot must be specified when beginning a session"),
        ("-b -a", "Exactly one chroot must be specified when beginning a session"),
        ("-b -n x~", "Exactly one chroot must be specified when beginning a session"),
        ("-b -c a -n x~", "Invalid session name"),
        ("-b -c a -n a/b", "Invalid session name"),
        ("-b -c a -n a:b", "Invalid session name"),
        ("-b -c a -n .a", "Invalid session name"),
        ("-b -c a -n é", "Invalid session name"),
    ],
)
def test_refusals_of_the_checks(words: str, text: str) -> None:
    assert refusal(*words.split()) == (text, HINT)


def test_the_hint_names_the_program() -> None:
    with pytest.raises(UsageError) as caught:
        cli.parse(["-l", "-i"], "unschroot")
    assert "“unschroot --help”" in caught.value.hint


def said(*words: str) -> tuple[list[tuple[str, str]], cli.Options]:
    lines: list[tuple[str, str]] = []
    options = parse(*words)
    options.check(lambda letter, line: lines.append((letter, line)))
    return lines, options


def test_quiet_and_verbose() -> None:
    lines, options = said("-l", "-qv")
    assert lines == [
        ("W", "--quiet and --verbose may not be used at the same time"),
        ("I", "Using verbose output"),
    ]
    assert options.verbosity == "quiet"  # as schroot has it, whatever it says
    assert (parse("-q").verbosity, parse("-v").verbosity, parse().verbosity) == ("quiet", "verbose", "")


def test_chroot_and_all() -> None:
    lines, options = said("-b", "-a", "-c", "x")
    assert lines == [("W", "--chroot and --all may not be used at the same time"), ("I", "Using --chroots only")]
    assert not options.selects_all


def test_an_empty_session_name_is_none() -> None:
    assert said("-b", "-c", "x", "-n", "")[1].session_name == ""
    assert said("-n", "", "ls")[1].command == ["ls"]


WORDS = st.lists(
    st.one_of(
        st.sampled_from(["-c", "-qc", "-l", "--all", "--", "-", "", "--ch", "--chroot=x", "x", "-n", "---c"]),
        st.text(max_size=6),
    ),
    max_size=8,
)


@given(WORDS)
def test_any_words_are_taken_or_refused(words: list[str]) -> None:
    try:
        options = parse(*words)
        options.check(lambda letter, line: None)
    except UsageError as error:
        assert error.text
    else:
        assert options.action in cli.ACTIONS


@given(WORDS)
def test_what_follows_the_two_dashes_is_left_alone(words: list[str]) -> None:
    assert parse("-c", "x", "--", *words).command == words

"""The journal: complete or absent, and whatever becomes of its bytes, an error of its own kind at worst."""

from __future__ import annotations

import binascii
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions import journal as journals
from sessions import users
from sessions.data import replace
from sessions.errors import JournalError, SessionExists, TornJournal
from sessions.journal import Journal, State, StepState
from sessions.model import Chroot, Directory, FstabLine, Owner, Places, Session, Union
from sessions.script import Bind, EndProcesses, MountPoint, Overlay, OwnedTree, Step
from sessions.steps.foreign import RunScript

BOOT = "11111111-2222-3333-4444-555555555555"
PLAN: tuple[Step, ...] = (
    MountPoint("/M/place"),
    OwnedTree("/layer-M", shared_parent=True),
    Overlay("", "/M/place", "tiny", ("/lower", "/other"), "/layer"),
    Bind("/M/place", "/proc", "/proc", "ro"),
    EndProcesses("/M/place"),
    RunScript("/etc/setup.d/30-own"),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)
unhurried = settings(max_examples=200)


TINY = Chroot("tiny", Directory("/tiny"), Union("overlay"))


def session(**changes: Any) -> Session:
    root = users.find("root")
    made = Session(
        id="one", stamp="00112233445566778899aabb", chroot=TINY,
        selected_name="tiny", caller=root, user=root, owner=Owner(1234, 5678, BOOT, 9, 10), created_ns=1, boot_id=BOOT,
        mount_namespace=4711, places=Places(), location="/M/place", path="/M/place",
        fstab=(FstabLine("/proc", "/proc", "none", "bind,ro"),),
    )  # fmt: skip
    return replace(made, **changes)


def written(directory: Path) -> Path:
    """A journal with marks of every kind."""
    with journals.create(str(directory), session(), PLAN) as journal:
        for index in range(len(PLAN)):
            journal.begin(index, {"made": ["/M", "/M-M"]} if index == 3 else {})
            journal.done(index)
        journal.remember(5, {"pid": 4242, "start_ticks": 1})
        journal.up()
        journal.recover(BOOT, 4711, 4712)
        journal.up()
        journal.down()
        journal.undone(5)
        journal.stuck(4, "M: somebody stands in it\nand \ud800 that")
        return Path(journal.path)


def facts(journal: Journal) -> tuple[object, ...]:
    return (
        journal.session, journal.plan, journal.states, journal.notes, journal.reasons, journal.is_up, journal.was_up,
        journal.is_going_down, journal.is_damaged, journal.boot_id, journal.mount_namespace, journal.pid_namespace,
    )  # fmt: skip


def read(path: Path, *, for_marks: bool = False) -> Journal:
    with journals.open_existing(str(path), for_marks=for_marks) as journal:
        assert journal.plan is not None
        return journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_all_that_was_written_is_read(path: Path) -> None:
    found = read(path)
    assert (found.session, found.plan) == (session(), PLAN)
    assert found.states == [StepState.DONE] * 4 + [StepState.STUCK, StepState.UNDONE]
    assert found.notes[3] == {"made": ["/M", "/M-M"]}
    assert found.notes[5] == {"pid": 4242, "start_ticks": 1}
    assert found.reasons == {4: "M: somebody stands in it\nand \ud800 that"}
    assert (found.is_up, found.was_up, found.is_going_down, found.is_damaged) == (True, True, True, False)
    assert path.name == journals.file_name("one", TINY, Owner(1234, 5678, BOOT, 9, 10)) != "one"
    assert oct(path.stat().st_mode) == "0o100600"
    assert os.listdir(path.parent) == [path.name]


def test_what_is_marked_is_known_at_once(tmp_path: Path) -> None:
    """The object and the file always say the same."""
    with journals.create(str(tmp_path), session(owner=None), PLAN) as journal:
        marks: list[Callable[[], None]] = [
            lambda: journal.begin(0, {"a": 1}), lambda: journal.remember(0, {"b": 2}), lambda: journal.done(0),
            lambda: journal.begin(1, {}), journal.up, journal.down, lambda: journal.stuck(0, "x" * 1000),
            lambda: journal.undone(1), lambda: journal.recover("boot", 7, 8),
        ]  # fmt: skip
        for mark in marks:
            mark()
            assert facts(read(Path(journal.path))) == facts(journal)
        journal.remove()
        journal.remove()
    assert os.listdir(tmp_path) == []


def test_states(tmp_path: Path) -> None:
    with journals.create(str(tmp_path), session(), PLAN) as journal:
        assert journal.state(boot_id=BOOT, is_locked=True) is State.STARTING
        assert journal.state(boot_id=BOOT, is_locked=False) is State.BROKEN
        journal.up()
        assert journal.state(boot_id=BOOT, is_locked=False) is State.UP
        assert journal.state(boot_id="other", is_locked=False) is State.DOWN
        assert journal.state(boot_id="other", is_locked=True) is State.STARTING
        journal.recover("other", 1, 2)
        assert journal.state(boot_id="other", is_locked=False) is State.DOWN
        journal.up()
        assert journal.state(boot_id="other", is_locked=False) is State.UP
        journal.down()
        assert journal.state(boot_id="other", is_locked=True) is State.STOPPING
        assert journal.state(boot_id="other", is_locked=False) is State.BROKEN


def test_a_name_is_taken_once(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(SessionExists):
        journals.create(str(path.parent), session(), PLAN)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_every_byte_may_be_another(path: Path) -> None:
    """One changed byte is found; where a mark is lost, the rest is known, and all of the plan counts as begun."""
    data = path.read_bytes()
    original = facts(read(path))
    header = data.index(b"\n") + 1
    last = data.rindex(b"\n", 0, -1) + 1
    for offset in range(len(data)):
        # Any of its bits, and in the marks also what makes it the end of a line.
        ends = (data[offset] ^ 0x0A, data[offset] ^ 0x0D) if offset >= header else ()
        for flip in filter(None, (1 << offset % 8, *ends)):
            path.write_bytes(data[:offset] + bytes([data[offset] ^ flip]) + data[offset + 1 :])
            try:
                found = read(path, for_marks=bool(flip & 1))
            except JournalError as error:
                assert offset < header, error
            else:
                assert offset >= header
                assert (found.session, found.plan) == original[:2]
                assert found.is_damaged or (offset == len(data) - 1 and path.read_bytes()[:last] == data[:last])


@unhurried
@given(st.data())
def test_any_bytes_may_be_lost_doubled_or_others(path: Path, data: st.DataObject) -> None:
    if not path.exists():
        written(path.parent)
    content = path.read_bytes()
    garbled = content
    for _change in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(garbled)))
        end = data.draw(st.integers(start, min(len(garbled), start + 300)))
        garbled = garbled[:start] + data.draw(st.binary(max_size=20)) + garbled[end:]
    path.write_bytes(garbled)
    try:
        journal = read(path, for_marks=data.draw(st.booleans()))
        assert journal.session == session()
    except JournalError as error:
        assert str(path) in str(error)
        assert isinstance(error, TornJournal) if b"\n" not in garbled else "remove the file" in error.hint
    finally:
        path.write_bytes(content)


@unhurried
@given(st.integers(0, 10_000))
@example(0)
def test_a_torn_tail_is_cut_before_more_is_written(path: Path, length: int) -> None:
    content = path.read_bytes()
    torn = content[: min(length, len(content))]
    path.write_bytes(torn)
    try:
        with journals.open_existing(str(path), for_marks=True) as journal:
            assert not journal.is_damaged
            journal.up()
            assert facts(read(path)) == facts(journal)
        whole = torn[: torn.rindex(b"\n") + 1]
        assert path.read_bytes().startswith(whole)
        assert path.read_bytes().count(b"\n") == whole.count(b"\n") + 1
    except TornJournal as error:
        assert b"\n" not in torn
        assert (error.session_id, error.hint) == ("one", "sessions end one; if it is mounted, look at the file")
    finally:
        path.write_bytes(content)


def checksummed(value: object) -> bytes:
    text = json.dumps(value).encode()
    return b"%08x %s\n" % (binascii.crc32(text), text)


@unhurried
@given(st.data())
def test_a_first_line_that_says_something_else(path: Path, data: st.DataObject) -> None:
    """With a checksum that is right: as another version might write it, or another program."""
    content = path.read_bytes()
    header = json.loads(content.split(b"\n")[0].partition(b" ")[2])
    holder: Any = header
    while True:
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.integers(0, 3)) == 0:
            break
        holder = holder[key]
    holder[key] = data.draw(JSON)
    path.write_bytes(checksummed(header))
    try:
        read(path)
    except JournalError as error:
        assert "\n" not in error.text
    finally:
        path.write_bytes(content)


@unhurried
@given(JSON, st.sampled_from(["begin", "done", "note", "recover", "stuck", "undone", "up", "down", "x"]), st.data())
@example(float("inf"), "recover", None)
def test_a_mark_that_says_something_else(path: Path, value: object, kind: str, data: st.DataObject | None) -> None:
    content = path.read_bytes()
    mark: dict[str, Any] = {"mark": kind, "step": 0, "note": {}, "boot_id": BOOT, "mount_namespace": 1, "reason": "r"}
    mark[data.draw(st.sampled_from(sorted(mark))) if data else "mount_namespace"] = value
    for line in (checksummed(mark), checksummed(value)):
        path.write_bytes(content + line + checksummed({"mark": "undone", "step": 1}))
        assert read(path).states[1] is StepState.UNDONE
    path.write_bytes(content)


def test_nesting_without_end_is_an_error_of_ours(path: Path) -> None:
    content = path.read_bytes()
    deep = b"[" * 100_000 + b"]" * 100_000
    line = b"%08x %s\n" % (binascii.crc32(deep), deep)
    path.write_bytes(line + content)
    with pytest.raises(JournalError):
        read(path)
    path.write_bytes(content + line)
    assert read(path).is_damaged


def test_another_format_is_named(path: Path) -> None:
    path.write_bytes(checksummed({"format": 99, "session": {}, "plan": []}))
    with pytest.raises(JournalError, match=r"its format is 99, and this version reads 1; .*remove the file"):
        read(path)


def test_only_a_file_of_ours_is_read(path: Path) -> None:
    def spoiled(spoil: Callable[[], object], match: str = "is not a regular file that only its owner") -> None:
        content = path.read_bytes()
        spoil()
        with pytest.raises(JournalError, match=match):
            read(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
        read(path)

    spoiled(lambda: path.chmod(0o666))
    spoiled(lambda: path.chmod(0o620))
    spoiled(lambda: os.chown(path, 1234, 0))
    aside = path.parent / "aside"
    spoiled(lambda: [path.rename(aside), os.mkfifo(path)])  # type: ignore[func-returns-value]
    spoiled(lambda: [path.rename(aside), path.mkdir()])  # type: ignore[func-returns-value]
    spoiled(lambda: [path.rename(aside), path.symlink_to(aside)], "cannot be opened")  # type: ignore[func-returns-value]
    spoiled(lambda: os.truncate(path, 17 << 20), "is longer than 16777216 bytes")
    for name in ("two,00000000", path.name + "x", f"two{path.name.removeprefix('one')}"):
        other = path.with_name(name)
        shutil.copy(path, other)
        with pytest.raises(JournalError, match="its name is not that of the session in it"):
            read(other)
    with pytest.raises(FileNotFoundError):
        read(path.with_name("nosuch"))


@pytest.mark.parametrize("name", ["..,00000000", ",00000000", "a b,00000000"])
def test_what_is_torn_has_no_session_if_its_name_is_none_of_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch(0o600)
    with pytest.raises(JournalError, match=r"cannot be used: it is cut short; .*remove the file") as raised:
        read(path)
    assert not isinstance(raised.value, TornJournal)

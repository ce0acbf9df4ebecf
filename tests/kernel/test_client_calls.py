"""The calls that clients make, word for word, in the environments they make them in; what each parses is there.

Where two streams are read as one by a client, they are one here too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import World
from schrootcalls import CODE, Schroot

# sbuild calls with two to six variables, mostly without PATH, and sometimes with nothing but these.
BARE = {"LC_ALL": "C.UTF-8", "LANGUAGE": "C.UTF-8"}


class Client:
    """A client that finds `schroot` at a path; what it calls it with is not known to it as ours."""

    def __init__(self, world: World) -> None:
        call = Schroot(world)
        world.profile(fstab="proc /proc proc defaults 0 0\n")
        self.world = world
        self.command = world.base / "bin/schroot"
        self.command.parent.mkdir()
        code = CODE.removesuffix("main()") + f"main([*{call.options!r}, *sys.argv[1:]])"
        self.command.write_text(f"#!{sys.executable} -IS\n{code}\n".replace("; ", "\n"))
        self.command.chmod(0o755)

    def merged(self, *words: str, environment: Mapping[str, str] = BARE, status: int = 0) -> str:
        """Both streams in one, as piuparts and shell scripts with 2>&1 read them."""
        done = subprocess.run(
            [self.command, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd="/", env=environment,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout

    def sh(self, script: str, **more: str) -> str:
        """What a shell script of a client prints that has to succeed; it finds the command by PATH."""
        environment = {"PATH": f"{self.command.parent}:/usr/sbin:/usr/bin:/sbin:/bin", **more}
        words = ["sh", "-euc", script]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", env=environment)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def client(world: World) -> Client:
    return Client(world)


@pytest.fixture
def location(world: World) -> str:
    return world.places.mount_dir


def information(text: str) -> list[dict[str, str]]:
    """What sbuild makes of --info: blocks with a heading, which gives the namespace, and lines of words and a value."""
    blocks = []
    for block in text.split("\n\n"):
        heading, *lines = block.strip("\n").split("\n")
        kind = re.fullmatch(r"\s*(?:───|---) (Chroot|Session|Source) (?:───|---)", heading)
        assert kind, heading
        found = {"": kind[1]}
        for line in lines:
            key, value = re.fullmatch(r"\s*(.*?)(?:  \s*(.*))?", line).groups()  # type: ignore[union-attr]
            found[key] = value or ""
        blocks.append(found)
    return blocks


@pytest.mark.parametrize("environment", [{}, BARE, {"PATH": "/usr/bin:/bin", "HOME": "/root"}])
def test_sbuild(client: Client, location: str, environment: dict[str, str]) -> None:
    def call(*words: str, status: int = 0) -> str:
        return client.merged(*words, environment=environment, status=status)

    chroots = {f"{block['']}:{block['Name']}": block for block in information(call("--info"))}
    assert {"Chroot:ov", "Source:ov", "Chroot:dir", "Chroot:plain"} <= chroots.keys()
    assert chroots["Chroot:ov"]["Aliases"] == "other" and chroots["Chroot:dir"]["Aliases"] == ""
    assert chroots["Chroot:ov"]["Session Purged"] == "false" and "Location" not in chroots["Chroot:ov"]
    session = call("-c", "chroot:ov", "--begin-session").removesuffix("\n")
    assert session.startswith("ov-")
    (shown,) = information(call("--info", "--chroot", f"session:{session}"))
    assert (shown[""], shown["Name"], shown["Session Purged"]) == ("Session", session, "true")
    assert shown["Path"] == shown["Mount Location"] == f"{location}/{session}"
    os.mkdir(f"{shown['Path']}/build")
    run = ("-c", session, "--run-session", "-q")
    assert call("-d", "/", *run, "-u", "root", "-p", "--", "pwd") == "/\n"
    assert call("-d", "/build", *run, "-u", "nobody", "-p", "--", "pwd") == "/build\n"
    assert call("-d", "/", *run, "-u", "root", "-p", "--", "sh", "-c", "exit 3", status=3) == ""
    variables = set(call("-d", "/", *run, "-u", "root", "--", "env").splitlines())
    assert {"HOME=/root", "USER=root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} <= variables
    assert call("-c", session, "--end-session") == ""
    assert not os.path.exists(f"{location}/{session}")


def test_sbuild_reads_the_first_block_only(client: Client) -> None:
    """And closes the pipe then; nobody complains of that."""
    words = [client.command, "--info"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/") as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_sbuild_createchroot(client: Client) -> None:
    assert client.merged("-l", "--all-source-chroots", environment={}).splitlines() == ["source:other", "source:ov"]


def test_autopkgtest(client: Client, location: str) -> None:
    lines = client.merged("--config", "--chroot", "ov").splitlines()
    pairs = [line.split("=", 2) for line in lines if line and line[0] not in "#["]
    assert {len(pair) for pair in pairs} == {2}
    configuration = dict(pairs)
    assert (configuration["type"], configuration["union-type"]) == ("directory", "overlay")
    assert {"root-users", "root-groups"} <= configuration.keys()
    begin = ("--quiet", "--begin-session", "--chroot", "ov", "--session-name", "adt")
    assert client.merged(*begin) == "adt\n"
    assert client.merged("--location", "--chroot", "session:adt") == f"{location}/adt\n"
    Path(location, "adt/tmp/copied").write_text("data\n")
    run = ("--run-session", "--quiet", "--directory=/", "--chroot", "adt")
    assert client.merged(*run, "--user=root", "--", "cat", "/tmp/copied") == "data\n"
    assert client.merged(*run, "--", "grep", " /proc ", "/proc/mounts").startswith("proc /proc proc")
    assert client.merged("--quiet", "--end-session", "--chroot", "adt") == ""


def test_piuparts(client: Client, location: str) -> None:
    name = f"ov-{uuid.uuid1()}-piuparts"
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    assert client.merged("--begin-session", "--chroot", "ov", "--session-name", name).strip() == name
    root = client.merged("--chroot", f"session:{name}", "--location", environment=environment).strip()
    assert root == f"{location}/{name}"
    Path(root, "tmp/script").write_text("#!/bin/sh\necho ran as $(id -u) with $KEPT\n")
    Path(root, "tmp/script").chmod(0o755)
    run = ("--preserve-environment", "--run-session", "--chroot", f"session:{name}", "--directory", "/", "-u", "root")
    words = (*run, "--", "tmp/script")
    assert client.merged(*words, environment={"KEPT": "this"}) == "ran as 0 with this\n"
    # It ends what runs inside, which it knows by its root, before it ends the session.
    words = (*run, "--", "sh", "-c", "echo there; exec sleep 1000")
    with subprocess.Popen(
        [client.command, *words], cwd="/", env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as sleeper:
        assert sleeper.stdout and sleeper.stdout.readline() == "there\n"
        kill = f'if [ "$(readlink $process/root)" = {root} ]; then kill ${{process#/proc/}}; fi'
        client.sh(f"for process in /proc/[0-9]*; do {kill}; done 2>/dev/null")
        assert sleeper.communicate()[1] == "E: Child terminated by signal ‘Terminated’\n"
    assert client.merged("--end-session", "--chroot", f"session:{name}", environment=environment) == ""


def test_mk_sbuild_and_its_kin(client: Client) -> None:
    """A command without --, in the source: what it writes is in every session afterwards."""
    script = client.world.root / "finish.sh"
    script.write_text("#!/bin/sh\necho finished >/finished\nrm /finish.sh\n")
    script.chmod(0o755)
    assert client.merged("-c", "source:ov", "-u", "root", "/finish.sh") == ""
    assert not script.exists()
    assert client.merged("-c", "ov", "-d", "/", "--", "cat", "/finished") == "finished\n"


def test_openstack_clean_up(client: Client) -> None:
    for name in ("one", "two"):
        client.merged("-b", "-c", "ov", "-n", name)
    client.sh("""
        for session in $(schroot --all-sessions --list | grep '^session:' | sed 's/^session://'); do
            schroot -e -c "$session"
        done
    """)
    # That of the plain chroot, which is nothing to end, is always there.
    assert client.merged("--all-sessions", "--list") == "session:plain\n"
    assert client.merged("-c", "source:ov", "-u", "root", "-d", "/", "--", "pwd") == "/\n"


def test_debci(client: Client) -> None:
    found = client.sh("schroot --config --chroot ov | grep ^directory= | cut -d= -f2")
    assert found == f"{client.world.root}\n"
    assert client.sh("schroot --config --chroot nosuch 2>/dev/null | grep ^directory= || true") == ""


def test_debomatic(client: Client) -> None:
    for words in (["-l"], ["--all-chroots", "-l"]):
        assert "chroot:ov" in client.merged(*words) and re.search(r"chroot:(dir)\n", client.merged(*words))
    client.merged("-b", "-c", "ov", "-n", "busy")
    assert "session:busy\n" in client.merged("--all-sessions", "-l")
    client.merged("-e", "-c", "busy")


def test_click(client: Client) -> None:
    assert client.sh("schroot -c ov -i >/dev/null && echo exists") == "exists\n"
    assert client.sh("schroot -c nosuch -i 2>/dev/null || echo missing") == "missing\n"
    client.sh("schroot -c ov --begin-session --session-name click")
    said = client.sh("schroot -c click --run-session -d / -- env KEY='a value' sh -c 'echo $KEY'")
    assert said == "a value\n"
    client.sh("schroot -u root -c source:ov -d / -- true; schroot -c click --end-session")


@pytest.mark.parametrize("before", [(), ("-u", "nobody"), ("-u", "root", "-p")])
def test_python_schroot_and_go_schroot(client: Client, location: str, before: tuple[str, ...]) -> None:
    session = client.merged("-b", "-c", "ov", environment={}).strip()
    root = client.merged("--location", "-c", f"session:{session}", environment={}).strip()
    assert root == f"{location}/{session}"
    Path(root, "tmp/file").write_text("text")
    words = ("-r", "-c", session, *before, "--directory", "/", "--", "cat", "/tmp/file")
    assert client.merged(*words, environment={}) == "text"
    assert client.merged("-e", "-c", session, environment={}) == ""


def test_homcc(client: Client) -> None:
    """A session for each compilation."""
    profiles = re.findall(r"(?<=chroot:).*?(?=\n)", client.merged("-l"))
    assert profiles == ["dir", "other", "other-source", "ov", "plain"]
    for number in range(10):
        words = ("-c", "ov", "-d", "/", "--", "sh", "-c", f"echo {number} >/tmp/o; cat /tmp/o; exit {number}")
        assert client.merged(*words, status=number) == f"{number}\n"
    assert client.merged("-l", "--all-sessions") == "session:plain\n"


def test_lava_and_dgit(client: Client) -> None:
    assert client.merged("-l", "-c", "ov") == "ov\n"
    assert client.merged("-c", "ov", "-d", "/", "--", "cat", "/etc/debian_chroot") == "ov\n"


@pytest.mark.parametrize("environment", [{}, BARE, {"LC_ALL": "nosuch"}, {"HOME": "/nonexistent", "TERM": "x"}])
@pytest.mark.parametrize("action", ["--config", "--location", "--list", "--info"])
def test_nothing_but_the_answer(client: Client, action: str, environment: dict[str, str]) -> None:
    """Even where something is wrong with another chroot, what is asked of one is answered without a word more."""
    client.world.write("schroot/chroot.d/broken", "[broken\nthis is no configuration\n")
    client.world.write("schroot/chroot.d/odd", "[odd]\ndirectory=/\nnosuchkey=1\nscript-config=x\n")
    words = [client.command, action, "--chroot", "ov"]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_working_directory_that_is_gone(client: Client, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    client.merged("-b", "-c", "ov", "-n", "s1")
    script = f"cd {gone}; rmdir {gone}; schroot -r -c s1 -- pwd; schroot -e -c s1"
    assert client.sh(script) == "/\n"
    assert not shutil.which("schroot", path=f"{gone}")

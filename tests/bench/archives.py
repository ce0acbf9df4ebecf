"""Sessions of a tar archive with a real Debian in it: the first, later ones, Debian's schroot, and tar alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from sessions.linux.archive import compression_of
from tests.bench import contenders
from tests.bench.contenders import ENVIRONMENT, TRUE, Ground, Program, timed
from tests.bench.worker import NotMeasured, Times, Worker, cover, make_disk

ROUNDS = 3
LATER = 5
CHROOT = "archive"
# As that of a directory is called, which is asked for first.
DEBIANS_CHROOT = contenders.PROFILES[0]
# Three trees of some hundred megabytes at once.
DISK_BYTES = 4 << 30
# Debian's schroot knows this ending, and not the shorter one.
NAME = "debian.tar.zstd"

# At least so many times as quick as Debian's schroot; at most so many times as long as tar.
LATER_LIMIT, FIRST_LIMIT = 50.0, 1.1


def measure(work: str, programs: Sequence[Program], debian: Program | None) -> dict[str, list[float]]:
    """The times of every case, in microseconds, on a disk of its own in the directory `work`. Raises NotMeasured."""
    make_disk(work, DISK_BYTES)
    archive = f"{work}/{NAME}"
    with _debian() as source:
        shutil.copy(source, archive)
    ground = Ground(work, "")
    _configure(Path(ground.configuration), archive)
    makers = {"ours": partial(Ours, ground, programs), "tar": partial(Tar, work, archive)}
    if debian:
        makers["debian"] = partial(Debians, ground, debian)
    workers = {name: Worker(make, answer_timeout_s=600) for name, make in makers.items()}
    times: dict[str, list[float]] = {}
    try:
        for _round in range(ROUNDS):
            for worker in workers.values():
                for case, value in worker.measure(CHROOT).items():
                    times.setdefault(case, []).append(value)
    finally:
        for worker in workers.values():
            worker.close()
    return times


@contextmanager
def _debian() -> Iterator[Path]:
    """The archive that tests/root makes with mmdebstrap, and keeps. Raises NotMeasured."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "root"))
    try:
        import debian
    except ImportError as error:
        raise NotMeasured(f"{error}, which the tests need: make .venv/installed-for-tests") from None
    with ExitStack() as stack:
        try:
            made = stack.enter_context(debian.cached())
        except (debian.pytest.fail.Exception, OSError, subprocess.CalledProcessError) as error:
            raise NotMeasured(f"there is no Debian to unpack: {error}") from None
        yield made.archive


def _configure(configuration: Path, archive: str) -> None:
    """For Debian's schroot one that unpacks each time, and for ours, in a directory in there, one with the cache."""
    for directory, chroot, more in (
        (configuration, DEBIANS_CHROOT, ""),
        (configuration / "ours", CHROOT, "archive-cache=true\n"),
    ):
        for name in ("minimal", "chroot.d"):
            (directory / name).mkdir(parents=True)
        for file in (contenders.CHECKOUT / "etc/minimal").iterdir():
            shutil.copy(file, directory / "minimal" / file.name)
        section = f"[{chroot}]\ntype=file\nfile={archive}\nprofile=minimal\nusers=root\nroot-users=root\n"
        (directory / "schroot.conf").write_text(section + more)


class Ours:
    """The cache emptied, the first session, and later ones, by the whole command and in a process that is there."""

    def __init__(self, ground: Ground, programs: Sequence[Program]) -> None:
        contenders.install(ground)
        self.api = contenders.Api(ground)
        cover("/etc/schroot", f"{ground.configuration}/ours", ground.work)
        self.programs = programs

    def measure(self, chroot: str) -> Times:
        """One round."""
        shutil.rmtree("/var/lib/chroot-sessions/archives", ignore_errors=True)
        times: Times = {}
        os.sync()
        program = self.programs[-1]
        times["first"] = timed(program.calls(chroot, "")["cycle"], ENVIRONMENT)
        for program in self.programs:
            calls = program.calls(chroot, "")
            times[f"later {program.name}"] = median(timed(calls["cycle"], ENVIRONMENT) for _later in range(LATER))
        times["later api"] = median(self.api.cycle(chroot)["cycle"] for _later in range(LATER))
        return times


class Tar:
    """tar with the same decompressor."""

    def __init__(self, work: str, archive: str) -> None:
        self.work, self.archive = work, archive

    def measure(self, chroot: str) -> Times:
        """One round."""
        target = tempfile.mkdtemp(dir=self.work)
        words = ["/usr/bin/tar", "--extract", "--numeric-owner", f"--directory={target}", f"--file={self.archive}"]
        words.append(f"--use-compress-program={' '.join(compression_of(self.archive).decompress)}")
        os.sync()
        try:
            return {"tar": timed(words, ENVIRONMENT)}
        finally:
            shutil.rmtree(target)


class Debians(contenders.Debian):
    """Debian's schroot, which unpacks the archive each time."""

    def measure(self, chroot: str) -> Times:
        """One round."""
        os.sync()
        return {"debian": timed([*self.program.words, "-d", "/", "-c", DEBIANS_CHROOT, "--", TRUE], ENVIRONMENT)}

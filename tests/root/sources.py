"""Source packages for clients to build and to test: from the mirror, or where it has no sources, one of our own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from debian import LONGEST_AGE_S, SUITE, cache_directory, host_recipe

# Built in seconds, with what every chroot for builds has: a program in C, and a library that is loaded by others.
BUILT = "authbind"
# Has a test that runs what the package installs.
TESTED = "morsegen"

OURS = {
    "debian/control": """\
Source: trial
Section: misc
Priority: optional
Maintainer: Nobody <nobody@example.org>
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: trial
Architecture: any
Depends: ${shlibs:Depends}
Description: package made inside a session
 It has one program, which says hello.
""",
    "debian/changelog": """\
trial (1.0) unstable; urgency=low

  * Made for a test.

 -- Nobody <nobody@example.org>  Sat, 01 Jan 2022 00:00:00 +0000
""",
    "debian/source/format": "3.0 (native)\n",
    "debian/rules": """\
#!/usr/bin/make -f
root = debian/trial
clean:
	rm -rf $(root) debian/files debian/substvars trial
build build-arch: trial
build-indep binary-indep:
binary binary-arch: build
	install -D trial $(root)/usr/bin/trial
	mkdir $(root)/DEBIAN
	dpkg-shlibdeps trial
	dpkg-gencontrol -P$(root)
	dpkg-deb --root-owner-group --build $(root) ..
""",
    "debian/tests/control": "Test-Command: trial | grep hello\n",
    "trial.c": """\
#include <stdio.h>
int main(void) { puts("hello from a package of our own"); return 0; }
""",
}


def fetched() -> Path | None:
    """A directory with BUILT and TESTED as the mirror has them, kept for a week; None if it has no sources."""
    cache = cache_directory()
    directory = cache / f"{SUITE}-sources"
    with open(cache / "sources.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.is_dir() and time.time() - directory.stat().st_mtime < LONGEST_AGE_S:
            return directory
        new = cache / "new-sources"
        for old in (new, directory):
            shutil.rmtree(old, ignore_errors=True)
        if not _fetch(new):
            return None
        new.rename(directory)
    return directory


def _fetch(directory: Path) -> bool:
    """Have the host's apt get them, from an index of its own."""
    lists = directory / "lists"
    (lists / "partial").mkdir(parents=True)
    (directory / "list").write_text(f"deb-src{host_recipe().sources.removeprefix('deb')}\n")
    places = {"Etc::sourcelist": directory / "list", "Etc::sourceparts": os.devnull, "State::lists": lists}
    apt = ["apt-get", "--quiet", *(f"--option=Dir::{name}={path}" for name, path in places.items())]
    for words in (["update", "--error-on=any"], ["source", "--download-only", BUILT, TESTED]):
        done = subprocess.run(
            [*apt, *words], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode != 0:
            print(done.stdout)
            return False
    shutil.rmtree(lists)
    return True


def description(package: str, directory: Path) -> Path:
    """The .dsc of a package of the mirror, or of our own, which is made in `directory`."""
    sources = fetched()
    return next(sources.glob(f"{package}_*.dsc")) if sources else make(directory)


def make(directory: Path, **changes: str) -> Path:
    """The .dsc of our own package, with other contents of some files."""
    for name, text in {**OURS, **changes}.items():
        path = directory / "trial-1.0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name == "debian/rules" else 0o644)
    words = ["dpkg-source", "--build", "trial-1.0"]
    done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.fail(done.stdout)
    return directory / "trial_1.0.dsc"


def make_binary(directory: Path) -> Path:
    """A package without a source, whose installation leaves a file that its removal does not take away."""
    root = directory / "leaving"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: leaving\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
        "Description: package that leaves a file behind\n"
    )
    (root / "DEBIAN/postinst").write_text("#!/bin/sh\ntouch /var/lib/trial-was-here\n")
    (root / "DEBIAN/postinst").chmod(0o755)
    package = directory / "leaving_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, package], check=True, stdout=subprocess.DEVNULL)
    return package

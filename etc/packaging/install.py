"""Installs the checkout, removes the installation, and puts it in the place of Debian's schroot: see the Makefile."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from diverting import divert, undivert
from installing import install, uninstall
from layout import Layout, Refused

WORK = {"install": install, "uninstall": uninstall, "divert": divert, "undivert": undivert}


def main() -> None:
    """Do what the words say; the errors are one line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--destdir", default="")
    parser.add_argument("--prefix", default="/usr/local")
    parser.add_argument("--with-venv", action="store_true")
    parser.add_argument("--keep-sessions", action="store_true")
    given = parser.parse_args()
    os.umask(0o022)
    try:
        layout = Layout(
            root=_directory("DESTDIR", given.destdir),
            prefix=_directory("PREFIX", given.prefix),
            config_dir="/etc/chroot-sessions",
            has_venv=given.with_venv,
        )
        WORK[given.work](layout, given.keep_sessions)
    except Refused as error:
        sys.exit(f"{given.work}: {error}")
    except OSError as error:
        sys.exit(f"{given.work}: {error.filename}: {error.strerror}")


def _directory(option: str, path: str) -> str:
    path = path.rstrip("/")
    if path and (not path.startswith("/") or path != os.path.normpath(path)):
        raise Refused(f"{option}={path}: not an absolute path, or one with '..' in it")
    # It stands in the first line of scripts, where a blank ends it.
    if path.split() not in ([path], []):
        raise Refused(f"{option}={path}: a blank in it would break the interpreter lines of scripts")
    return path


if __name__ == "__main__":
    main()

"""Where the files of this installation are: in the tree it is run from, or where pip or a package has put them."""

from __future__ import annotations

import os

from sessions.data import replace
from sessions.errors import UsageError
from sessions.model import Places


def usual_places() -> Places:
    """The places of the installed system, with the stock setup.d and profiles that belong to this very package."""
    modules = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isfile(f"{modules}/setup.d/10mount"):  # a checkout
        return _with_data(modules)
    # PREFIX/lib/python3*/*-packages/sessions; where that is a virtual environment, its "share" is a link to PREFIX's.
    data = os.path.realpath(f"{modules}/../../../share/chroot-sessions")
    return _with_data(data) if os.path.isdir(f"{data}/setup.d") else Places()


def _with_data(directory: str) -> Places:
    return Places(stock_setup_dir=f"{directory}/setup.d", stock_etc_dir=f"{directory}/etc")


def changed(places: Places, *, config_dir: str = "", state_dir: str = "", runtime_dir: str = "") -> Places:
    """The same places with some of them elsewhere; one configuration directory then stands for both.

    Raises UsageError for a path that is not absolute.
    """
    for option, path in (("--config-dir", config_dir), ("--state-dir", state_dir), ("--runtime-dir", runtime_dir)):
        if path and not path.startswith("/"):
            raise UsageError(f"{option} {path}: not an absolute path", hint="give it from / on")
    if config_dir:
        places = replace(places, native_config_dir=config_dir.rstrip("/"), schroot_config_dir=config_dir.rstrip("/"))
    if state_dir:
        places = replace(places, state_dir=state_dir.rstrip("/"))
    if runtime_dir:
        places = replace(places, runtime_dir=runtime_dir.rstrip("/"))
    return places

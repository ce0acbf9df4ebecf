"""Our `schroot` in the place of Debian's, for the length of a mount namespace that the caller has made its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = """\
#!{python} -IS
import sys
sys.path[:0] = ["{directory}/checkout", "{directory}/packages"]
from sessions.cli.schroot import main
main()
"""


def take_the_place(directory: Path, *targets: str) -> None:
    """Mount our command over `targets` (/usr/bin/schroot), readable by everybody wherever this checkout is.

    What is needed for that is put into `directory`, which must not be there yet.
    """
    import psutil

    checkout, packages = Path(__file__).parents[1], Path(psutil.__file__).parents[1]
    for source, name in ((checkout, "checkout"), (packages, "packages")):
        (directory / name).mkdir(parents=True)
        subprocess.run(["mount", "--bind", source, directory / name], check=True)
    command = directory / "schroot"
    command.write_text(COMMAND.format(python=os.path.realpath(sys.executable), directory=directory))
    command.chmod(0o755)
    for target in targets or ("/usr/bin/schroot",):
        subprocess.run(["mount", "--bind", command, target], check=True)

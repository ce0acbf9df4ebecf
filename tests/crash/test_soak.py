"""Many workers do whatever can be done with a few sessions, and kill each other's commands: nothing is left behind."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import world

MAIN = Path(__file__).with_name("soakmain.py")
SHORT = 150
OPERATIONS = int(os.environ.get("SESSIONS_SOAK_OPERATIONS") or SHORT)
# The short one draws the same each time; the workers meet in other moments all the same.
IS_SHORT = OPERATIONS <= SHORT
SEED = os.environ.get("SESSIONS_SOAK_SEED") or ("1" if IS_SHORT else str(random.SystemRandom().randrange(10**9)))


def test_nothing_is_left_and_nobody_hangs(disk: Path, etc: str, tell: Callable[[str], None]) -> None:
    """No command hangs, none inside is ended by `end` without force, and all that is left can be taken away."""
    tell(f"soak: SESSIONS_SOAK_SEED={SEED} SESSIONS_SOAK_OPERATIONS={OPERATIONS}")
    settings = {"base": str(disk / "0"), "etc": etc, "seed": SEED, "operations": OPERATIONS}
    program = world.start(MAIN, json.dumps(settings))
    output, _errors = program.communicate()
    assert program.returncode == 0, "the program failed: see its standard error"
    result = json.loads(output)
    tell("soak: " + ", ".join(f"{what} {count}" for what, count in sorted(result["counts"].items())))
    tell(f"soak: {result['killed']} processes killed, {len(result['problems'])} failures")
    assert result["killed"] > 0
    assert not result["problems"], "\n".join(result["problems"])

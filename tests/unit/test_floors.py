"""The structure that ARCHITECTURE.md promises, held against the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sessions"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(path for path in (ROOT / "setup.d").iterdir() if path.is_file())
LONGEST_FILE_LINES = 450

FLOORS = (
    ("errors", "data"),
    ("linux",),
    (
        "model",
        "names",
        "keys",
        "keytypes",
        "volumetables",
        "sources",
        "access",
        "environ",
        "mountoptions",
        "mountwords",
        "records",
    ),
    ("config",),
    ("steps", "archivecache", "archiveidentity", "journal", "locks", "owners", "engine"),
    (
        "script",
        "schroots",
        "setupd",
        "fromshell",
        "store",
        "early",
        "users",
        "where",
        "events",
        "following",
        "newsession",
        "enter",
        "relay",
        "waiters",
        "sourcelock",
        "running",
        "lifecycle",
        "upkeep",
        "eviction",
        "sweep",
        "api",
    ),
    ("cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The one module that may import each of these.
DOORS = {
    "ctypes": "linux/syscall.py",
    "subprocess": "linux/run.py",
    "psutil": "linux/proc.py",
    "filelock": "waiters.py",
}


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, wherever in it, and whether for type checking only."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in guarded
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in guarded
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in guarded


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_floors_below(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        return
    assert room in FLOOR_OF, f"{room} stands on no floor: name it in ARCHITECTURE.md and here"
    for module, for_types in _imports(path):
        parts = module.split(".")
        if parts[0] == "sessions" and len(parts) > 1 and parts[1] in FLOOR_OF and not for_types:
            assert FLOOR_OF[parts[1]] <= FLOOR_OF[room], f"{path.name} imports {module} from a floor above"


def test_no_import_cycles() -> None:
    """Modules of one floor may use each other, but never in a circle, at import time."""
    graph: dict[str, set[str]] = {}
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    for name, path in modules.items():
        top = ast.parse(path.read_text()).body
        used = set()
        for node in top:
            if isinstance(node, ast.ImportFrom) and node.module:
                used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = {module for module in used if module in modules and module != name}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path, name))}"
        if name not in seen:
            for used in graph[name]:
                # "from package import module" runs the package first; its own imports of the module are no circle.
                if not name.startswith(f"{used}."):
                    visit(used, (*path, name))
            seen.add(name)

    seen: set[str] = set()
    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_danger_has_one_door(path: Path) -> None:
    for module, for_types in _imports(path):
        door = DOORS.get(module.split(".")[0])
        if door and not for_types:
            assert path == PACKAGE / door, f"{module} is for sessions/{door} alone"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_engine_does_and_undoes(path: Path) -> None:
    if path == PACKAGE / "engine.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("do", "undo"):
            is_super = isinstance(node.func.value, ast.Call) and ast.unparse(node.func.value) == "super()"
            assert is_super, f"{path.name}:{node.lineno} calls {node.func.attr}"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_enough_to_hold_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE_LINES

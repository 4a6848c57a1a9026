"""Who imports whom, read from the sources: imports inside functions count like any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "ALL",
    "ANALYSIS",
    "HISTORY",
    "ROOT",
    "RUNNER",
    "folder_of",
    "imports",
    "module_of",
    "room",
    "room_imports",
    "without_implied",
]

ROOT = Path(__file__).parent.parent


def modules(package: str) -> dict[str, Path]:
    """Dotted name → source file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ANALYSIS, RUNNER = modules("analysis"), modules("runner")
HISTORY = modules("history")
ALL = ANALYSIS | RUNNER | HISTORY


def imports(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """(module, line) of every import; ``from a import b`` gives ``a.b``, which may also be a name in ``a``."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*ancestors, *filter(None, [base])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value, node.lineno


def module_of(imported: str, known: dict[str, Path]) -> str | None:
    """The module of ours that ``imported`` is or is a name of."""
    if imported in known:
        return imported
    parent = imported.rpartition(".")[0]
    return parent if parent in known else None


def room(module: str) -> str:
    """First folder or file below the package: ``analysis.sums.tables`` is in ``sums``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def folder_of(name: str, path: Path) -> str:
    """The folder that a module lies in; a file at the top of its package (``report.py``) is a room of its own."""
    return name if path.name == "__init__.py" or name.count(".") == 1 else name.rpartition(".")[0]


def room_imports() -> dict[str, set[str]]:
    """Room, such as ``analysis.sums`` → the other rooms of all packages that its files import."""
    graph: dict[str, set[str]] = {}
    for name, path in ALL.items():
        if not room(name):
            continue
        here = f"{name.split('.')[0]}.{room(name)}"
        there = (module_of(imported, ALL) for imported, _ in imports(name, path))
        rooms = {f"{module.split('.')[0]}.{room(module)}" for module in there if module is not None and room(module)}
        graph.setdefault(here, set()).update(rooms - {here})
    return graph


def without_implied(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows of a graph without circles that do not follow from others: from A to C falls where A → B → C."""

    def reached(node: str) -> set[str]:
        return graph[node].union(*(reached(below) for below in graph[node]))

    return {
        (above, below)
        for above, direct in graph.items()
        for below in direct
        if not any(below in reached(other) for other in direct - {below})
    }

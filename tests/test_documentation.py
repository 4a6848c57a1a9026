"""The pages say what the sources are: the diagram of rooms, the list of pages, links, commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from import_graph import ROOT, room_imports, without_implied
from test_architecture import FLOORS

DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
DIAGRAM = re.compile(r"```mermaid\nflowchart TD\n(.*?)```", re.DOTALL)


def diagram_of_the_sources() -> str:
    """The rooms and arrows that the page must show, top floor first."""
    graph = room_imports()
    arrows = without_implied(graph)
    lines = []
    for package, floors in FLOORS.items():
        rooms = [f"{package}.{floor}" for floor in reversed(floors) if f"{package}.{floor}" in graph]
        lines += [f"  subgraph {package}", *(f"    {id_of(room)}[{room.split('.')[1]}]" for room in rooms), "  end"]
    order = [f"{package}.{floor}" for package, floors in FLOORS.items() for floor in reversed(floors)]
    in_order = sorted(arrows, key=lambda arrow: tuple(map(order.index, arrow)))
    return "\n".join([*lines, *(f"  {id_of(above)} --> {id_of(below)}" for above, below in in_order), ""])


def id_of(room: str) -> str:
    return room.replace(".", "_")


def test_the_diagram_shows_the_rooms_and_the_arrows_that_there_are() -> None:
    shown = DIAGRAM.search(ARCHITECTURE.read_text())
    assert shown is not None
    wanted = diagram_of_the_sources()
    assert shown[1] == wanted, f"docs/architecture.md should show:\n{wanted}"


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_is_described(package: str) -> None:
    text = ARCHITECTURE.read_text()
    section = re.split(r"\n##+ ", text.split(f"\n### `{package}/`\n")[1])[0]
    described = re.findall(r"^\| `([a-z]+)(?:/|\.py)` \|", section, re.MULTILINE)
    there = [floor for floor in FLOORS[package] if f"{package}.{floor}" in room_imports()]
    assert described == there


def test_the_index_lists_every_page() -> None:
    listed = {
        (DOCS / target).resolve() for target in LINK.findall((DOCS / "index.md").read_text()) if "://" not in target
    }
    pages = {page.resolve() for page in [*PAGES, *DOCS.rglob("*.ipynb"), *DOCS.rglob("*.schema.json")]}
    assert listed >= pages - {(DOCS / "index.md").resolve()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if not re.match(r"[a-z]+:", target)]
    missing = [target for target in targets if not (page.parent / target.split("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()))
    assert named <= there


def test_every_check_of_the_commit_hooks_is_one_of_make_lint() -> None:
    """A commit that the hooks let through does not fail in CI for style or types."""
    makefile = (ROOT / "Makefile").read_text()
    lint = makefile[makefile.index("\nlint:") :].split("\n\n")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    for tool in ("ruff check", "ruff format", "oxlint --deny-warnings", "mypy"):
        assert f"$(BIN)/{tool}" in lint
        assert f"entry: .venv/bin/{tool}" in hooks


def test_the_changelog_begins_with_what_follows_the_release_that_this_is() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(version)} – \d{{4}}-\d\d-\d\d", headings[1])

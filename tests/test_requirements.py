"""requirements/ are the versions of constraints.txt, whole, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = ("analysis", "runner", "dev")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Package → its version, and the hashes of its files."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w.-]+)==([^\s;\\]+)([^\n]*(?:\n    .*)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE))
    return {
        canonicalize_name(package): (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", rest))
        for package, version, rest in entries
    }


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    return {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in pins)}


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {str(canonicalize_name(Requirement(line).name)) for line in lines} - {"torch"}


@pytest.mark.parametrize("name", [*FILES, "torch"])
def test_every_package_has_hashes(name: str) -> None:
    packages = locked(name)
    assert packages
    assert all(hashes for _, hashes in packages.values())


@pytest.mark.parametrize("name", [*FILES, "torch"])
def test_versions_are_those_of_the_constraints(name: str) -> None:
    pins = pinned()
    assert {
        package: (version, pins[package])
        for package, (version, _) in locked(name).items()
        if pins.get(package, version) != version
    } == {}


@pytest.mark.parametrize(
    ("name", "extras"), [("analysis", ()), ("runner", ("runner",)), ("dev", ("runner", "dev", "tp", "zst"))]
)
def test_what_is_declared_is_locked(name: str, extras: tuple[str, ...]) -> None:
    assert declared(*extras) <= set(locked(name))


def test_a_larger_file_holds_the_smaller_ones() -> None:
    analysis, runner, dev = (locked(name) for name in FILES)
    assert analysis.items() <= runner.items()
    assert runner.items() <= dev.items()


def test_every_pin_is_locked() -> None:
    assert set(pinned()) - {"torch"} <= set(locked("dev"))
    assert set(locked("torch")) == {"torch"}


@pytest.mark.parametrize("name", [*FILES, "torch"])
def test_no_index_is_named(name: str) -> None:
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")

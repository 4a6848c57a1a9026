"""The process namespace that nsys gets."""

from __future__ import annotations

import os
import subprocess

import pytest

from runner.process.isolation import namespace_prefix


def first_ids(prefix: tuple[str, ...]) -> tuple[int, int]:
    """Process ids of what is started in a namespace, and of what that starts."""
    done = subprocess.run([*prefix, "sh", "-c", "echo $$; sh -c 'echo $$'"], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    return int(first), int(second)


def counting_prefix() -> tuple[str, ...]:
    prefix = namespace_prefix(os.environ)
    if not prefix:
        pytest.skip("no process namespace can be made here")
    if first_ids(prefix)[1] < 300:
        pytest.skip("process ids of a namespace cannot be set here")
    return prefix


@pytest.mark.parametrize("root", [True, False])
def test_each_namespace_counts_from_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    """nsys names what its parts share on the machine by process ids: two that began at 1 met each other's."""
    if not root:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seconds = set()
    for _ in range(3):
        first, second = first_ids(counting_prefix())
        assert (first, second >= 300) == (1, True)
        seconds.add(second)
    assert len(seconds) > 1


def test_the_right_to_set_it_is_given_up_before_the_program_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    prefix = counting_prefix()
    done = subprocess.run([*prefix, "cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    sets = dict(line.split(":\t") for line in done.stdout.splitlines() if line.startswith("Cap"))
    assert {int(sets[name], 16) for name in ("CapInh", "CapAmb")} == {0}


def test_without_a_shell_there_is_still_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    counting_prefix()
    known = {name: f"/usr/bin/{name}" for name in ("unshare", "true")}
    monkeypatch.setattr("runner.process.isolation.find_program", lambda name, environ: known.get(name))
    assert first_ids(namespace_prefix(os.environ))[0] == 1

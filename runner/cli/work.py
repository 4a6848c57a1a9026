"""``dsocr-profile work``, hidden: the background half of ``submit``."""

from __future__ import annotations

import os
from pathlib import Path

from runner.cli.output import say

__all__ = ["work"]


def work(run_dir: Path) -> None:
    """Carry out a prepared run."""
    from runner.launcher.launch import carry_out, choose_again
    from runner.launcher.outcome import print_result
    from runner.launcher.run_directory import RunDirectory

    directory = RunDirectory(run_dir.absolute())
    choice = choose_again(directory.read_plan(), None, os.environ, needed=True)
    print_result(directory, carry_out(directory, choice, os.environ, say, wait=True))

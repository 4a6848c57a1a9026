"""Modules of ours as programs of their own, safe from what lies in the current folder."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["import_path", "module_command", "rank_command"]


def module_command(module: str, *arguments: str) -> list[str]:
    """Give the command line that runs a module of ours.

    ``-P`` keeps the current folder out of the import path: without it a user's ``analysis.py`` or ``numpy.py`` there
    would be imported in place of ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def rank_command(ranks: int, program: Sequence[str]) -> list[str]:
    """Give the command line that starts a program once for each rank on this machine, by torch's own launcher.

    Args:
        ranks: how many; 1: the program is started as it is.
        program: its command line.
    """
    if ranks == 1:
        return list(program)
    launcher = module_command("torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--no-python")
    return [*launcher, *program]


def import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables by which a program started here finds our packages, and nothing of the current folder.

    Run from sources that are not installed, our packages would only be found through the current folder: so their
    folder comes first in PYTHONPATH. Installed, they are found without it. Empty entries of PYTHONPATH (from
    ``PYTHONPATH=$PYTHONPATH:/lib`` where it was unset) mean the current folder to Python, and are left out. Other
    entries are the user's own and are passed on, ``.`` too, as absolute paths: so they mean the same folder to whatever
    is started, wherever it runs.
    """
    sources = str(Path(__file__).resolve().parents[2])
    entries = [str(Path(entry).absolute()) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if sources not in (str(Path(folder).resolve()) for folder in (*site.getsitepackages(), site.getusersitepackages())):
        entries = [sources, *(entry for entry in entries if entry != sources)]
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(entries)} if entries else {})}

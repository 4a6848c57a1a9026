"""Puts the scripted child in the place of the model's program: on PYTHONPATH, every Python of a run reads this first.

So the commands of the table are those that a user types, all processes are real, and none of them imports torch.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).resolve().parent
_CHILD = _HERE.parents[1] / "scripted_child.py"
_PATIENCE = "DSOCR_STAND_IN_PATIENCE_S"
"""Set: how long the modules below are patient, in place of half a minute and of two."""
_PATIENT = {
    "history.store": "_WAIT_S",  # for a locked history
    "runner.collectors.nsys.export": "AFTER_TIMEOUT_S",  # for an import or export when --timeout is over
}
"""Module → its constant."""


class _Impatient(SourceFileLoader):
    """Loads a module as it is, and makes it less patient."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        constant = _PATIENT[module.__name__]
        assert hasattr(module, constant)
        setattr(module, constant, float(os.environ[_PATIENCE]))


class _StandIn:
    """Finds the scripted child where the workload is asked for, and less patience where a test wants that."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "runner.child.workload":
            return spec_from_file_location(name, _CHILD)
        if name in _PATIENT and _PATIENCE in os.environ:
            file = str(_HERE.parents[2].joinpath(*name.split(".")).with_suffix(".py"))
            return spec_from_file_location(name, file, loader=_Impatient(name, file))
        return None


sys.meta_path.insert(0, _StandIn)

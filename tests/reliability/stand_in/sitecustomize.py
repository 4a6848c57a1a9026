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
_GPU = "DSOCR_STAND_IN_GPU"
"""Set: the driver says that there is an H100."""
_WAIT = "DSOCR_STAND_IN_WAIT_S"
"""Set: how long a locked history is waited for, in place of half a minute."""


class _ImpatientStore(SourceFileLoader):
    """Loads the history's store, and has it wait for as long as the variable says."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["_WAIT_S"] = float(os.environ[_WAIT])


class _StandIn:
    """Finds the scripted child where the workload is asked for, and a GPU where a test wants one."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "runner.child.workload":
            return spec_from_file_location(name, _CHILD)
        if name == "runner.process.driver" and _GPU in os.environ:
            return spec_from_file_location(name, _HERE / "driver_with_a_gpu.py")
        if name == "history.store" and _WAIT in os.environ:
            store = str(_HERE.parents[2] / "history" / "store.py")
            return spec_from_file_location(name, store, loader=_ImpatientStore(name, store))
        return None


sys.meta_path.insert(0, _StandIn)

"""docs/analysis.ipynb runs on a real trace, and is committed with the outputs that it gives."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def outputs(notebook: Any) -> list[tuple[str, list[str]]]:
    """Source of each code cell, and its outputs as text; a picture is only named."""
    return [
        (
            cell.source,
            [
                one.text if one.output_type == "stream"
                else "picture" if "image/png" in one.data
                else one.data["text/plain"]
                for one in cell.outputs
            ],
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the kernel's client, at its end
def test_the_notebook_runs_and_says_what_it_said() -> None:
    """After a change of what it shows: make docs."""
    spec = spec_from_file_location("run_notebook", ROOT / "scripts" / "run_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found, committed = outputs(module.executed()), outputs(module.committed())
    assert found == committed
    texts = [text for _, cell in committed for text in cell]
    assert texts.count("picture") == 3
    assert any("Decode is host-bound in Python" in text for text in texts)
    assert module.NOTEBOOK.stat().st_size < 200_000

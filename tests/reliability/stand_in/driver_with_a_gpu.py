"""`runner.process.driver` of a machine with one H100: all of it, but for what the driver says."""

from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[3] / "runner" / "process" / "driver.py"
exec(compile(_SOURCE.read_text(), str(_SOURCE), "exec"), globals())


def driver_facts():  # type: ignore[no-untyped-def]  # the types are those of the source
    """One H100."""
    gpu = VisibleGpu("NVIDIA H100 80GB HBM3", "b8a7a1a0-0000-0000-0000-000000000000")  # type: ignore[name-defined] # noqa: F821
    return DriverFacts(cuda=(13, 0), driver="580.1", gpus=(gpu,))  # type: ignore[name-defined]  # noqa: F821

"""Which collector records a run."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.manifest import Collector as CollectorName
from runner.collectors.interface.collector import Collector, Tool
from runner.collectors.nsys.collector import NsysCollector
from runner.collectors.nsys.presets import Preset
from runner.collectors.torch_profiler.collector import TorchCollector
from runner.plan.settings import CollectorChoice

__all__ = ["COLLECTORS", "Choice", "choose_collector", "planned_collector"]

COLLECTORS: dict[CollectorName, Collector] = {
    collector.name: collector for collector in (NsysCollector(), TorchCollector())
}
"""Every collector by its name, without its program: for what is true of all runs that it records."""


@frozen
class Choice:
    """Which collector, with its program, and why."""

    collector: Collector
    reason: str

    @property
    def name(self) -> CollectorName:
        """As in the manifest."""
        return self.collector.name

    @property
    def tool(self) -> Tool | None:
        """The collector's program, None where it has none or none is needed."""
        return self.collector.tool


def choose_collector(
    wanted: CollectorChoice, device: str, preset: Preset, nsys: str | None, environ: Mapping[str, str]
) -> Choice:
    """Choose between nsys and torch.

    ``auto`` takes nsys if the run is on a GPU and a usable nsys is found, else torch.

    Raises:
        CaptureError: nsys is asked for and there is no usable one, or it would lose every range of this nvtx.
        RequestError: the preset only makes sense under nsys.
    """
    nsys_collector, torch_collector = COLLECTORS["nsys"], COLLECTORS["torch"]
    if wanted != "auto":
        choice = Choice(COLLECTORS[wanted].with_tool(nsys, environ, to_record=True), "asked for")
    elif not device.startswith("cuda"):
        choice = Choice(torch_collector, f"the device is {device}, where nsys sees no kernels")
    else:
        try:
            ready = nsys_collector.with_tool(nsys, environ, to_record=True)
            choice = Choice(ready, f"the device is {device} and {ready.tool_name} is usable")
        except CaptureError as error:
            if nsys is not None:
                raise
            choice = Choice(torch_collector, str(error))
    if preset.refuse and not choice.collector.uses_preset_options:
        raise RequestError(f"preset {preset.name} needs nsys, and the collector is {choice.name} ({choice.reason})")
    return choice


def planned_collector(name: CollectorName, nsys: str | None, environ: Mapping[str, str], *, needs_tool: bool) -> Choice:
    """Give the collector of a plan that was made before.

    Args:
        name: the plan's collector.
        nsys: ``--nsys``, or None.
        environ: for NSYS and PATH.
        needs_tool: something is left to record, import or export; else its program is not looked for.

    Raises:
        CaptureError: its program is needed, and there is no usable one.
    """
    collector = COLLECTORS[name]
    return Choice(collector.with_tool(nsys, environ, to_record=False) if needs_tool else collector, "as planned")

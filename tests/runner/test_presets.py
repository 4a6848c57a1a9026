"""Presets: every file is read, and what an nsys does not know is dropped or refused as the preset says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.manifest import DecodeMode
from launch_kit import fake_nsys
from runner.collectors.nsys.presets import load_preset, parse_preset, preset_names, resolve_options
from runner.collectors.nsys.tool import NsysTool

NAMES = {"default", "light", "modules", "operators", "gpu-metrics", "cuda-graph-nodes", "os-runtime"}


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path)


def test_all_presets_are_there_and_valid() -> None:
    assert set(preset_names()) == NAMES
    assert preset_names()[0] == "default"
    for name in NAMES:
        preset = load_preset(name)
        assert preset.description
        assert "cuda" in preset.options["trace"].split(",")
        assert "nvtx" in preset.options["trace"].split(",")


def test_annotation_levels() -> None:
    levels = {name: load_preset(name).annotations for name in NAMES}
    assert (levels["light"], levels["default"], levels["operators"]) == ("stages", "modules", "operators")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"'ligth' is unknown; did you mean light"):
        load_preset("ligth")
    with pytest.raises(RequestError, match="unknown"):
        load_preset("../../etc/passwd")


def test_unknown_options_are_dropped_with_a_warning(tool: NsysTool) -> None:
    resolved = resolve_options(load_preset("default"), tool, device="cpu")
    assert resolved.options == {"trace": "cuda,nvtx", "sample": "none"}
    assert any("--cpuctxsw" in warning for warning in resolved.warnings)


def test_unknown_traces_are_dropped_or_refused(tool: NsysTool) -> None:
    without = evolve(tool, profile_options={**tool.profile_options, "trace": " Possible values are 'cuda', 'nvtx'. "})
    resolved = resolve_options(load_preset("os-runtime"), without, device="cpu")
    assert resolved.options["trace"] == "cuda,nvtx"
    assert any("--trace=osrt" in warning for warning in resolved.warnings)
    no_nvtx = evolve(tool, profile_options={**tool.profile_options, "trace": " Possible values are 'cuda'. "})
    with pytest.raises(CaptureError, match="--trace=nvtx"):
        resolve_options(load_preset("default"), no_nvtx, device="cpu")


def test_a_gpu_gets_a_capture_range_and_a_cpu_none(tool: NsysTool) -> None:
    gpu = resolve_options(load_preset("light"), tool, device="cuda:0").options
    assert (gpu["capture-range"], gpu["capture-range-end"]) == ("cudaProfilerApi", "stop")
    assert "capture-range" not in resolve_options(load_preset("light"), tool, device="cpu").options


@pytest.mark.parametrize("name", sorted(NAMES))
def test_graphs_that_the_runner_replays_are_traced_node_by_node(tool: NsysTool, name: str) -> None:
    """Their kernels are all of decode. Elsewhere a graph is one row, and a preset that says otherwise is obeyed."""
    known = {"cuda-graph-trace": "", "gpu-metrics-devices": ""}
    tool = evolve(tool, profile_options={**tool.profile_options, **known})
    traced = {
        mode: resolve_options(load_preset(name), tool, device="cuda:0", decode_mode=mode).options["cuda-graph-trace"]
        for mode in get_args(DecodeMode)
    }
    always = {"light": "graph", "cuda-graph-nodes": "node"}.get(name)
    assert traced == {mode: always or ("node" if mode == "cuda-graph" else "graph") for mode in get_args(DecodeMode)}


def test_an_older_name_is_used(tool: NsysTool) -> None:
    assert resolve_options(load_preset("gpu-metrics"), tool, device="cuda:0").options["gpu-metrics-device"] == "all"


def test_what_a_preset_insists_on_is_refused(tool: NsysTool) -> None:
    options = {name: text for name, text in tool.profile_options.items() if "gpu-metrics" not in name}
    with pytest.raises(CaptureError, match=r"gpu-metrics needs --gpu-metrics-devices.*newer nsys"):
        resolve_options(load_preset("gpu-metrics"), evolve(tool, profile_options=options), device="cuda:0")
    with pytest.raises(CaptureError, match="--cuda-graph-trace"):
        resolve_options(load_preset("cuda-graph-nodes"), tool, device="cuda:0")


def test_a_preset_for_gpus_is_refused_on_a_cpu(tool: NsysTool) -> None:
    with pytest.raises(RequestError, match="needs a GPU"):
        resolve_options(load_preset("gpu-metrics"), tool, device="cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("description = ", "not valid TOML"),
        ("description='x'\nannotations='modules'\n[options]\ntrace='cuda'", "unknown is missing"),
        ("description='x'\nannotations='all'\nunknown='drop'\n[options]", "annotations"),
        ("description='x'\nannotations='modules'\nunknown='ask'\n[options]", "unknown"),
        ("description='x'\nannotations='modules'\nunknown='drop'\n[options]\nsample=false", "table of texts"),
        ("description='x'\nannotations='modules'\nunknown='drop'\nextra=1\n[options]", "unknown key extra"),
        ("description='x'\nannotations='modules'\nunknown='drop'\n[options]\n[renamed]\na='b'", "not in"),
    ],
)
def test_a_broken_preset_is_named(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=rf"preset mine.*{words}"):
        parse_preset("mine", text)


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(RequestError) as raised:
        parse_preset(
            "long",
            'description = "x"\nannotations = "module"\nunknown = "' + "x" * 5000 + '"\n[options]\ntrace = "cuda"\n',
        )
    assert "must be in" in str(raised.value)
    assert len(str(raised.value)) < 300

"""An option is declared once: from the declaration come the command line, plan.json and run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from attrs import evolve, fields, frozen, make_class
from typer.testing import CliRunner

from analysis.domain.convert import from_json, from_json_file, to_json
from analysis.domain.errors import RequestError
from analysis.domain.manifest import RunManifest
from launch_kit import ROOT, prepare
from runner.cli.app import app
from runner.cli.options import from_options, with_settings
from runner.launcher.provenance import as_recorded, first_manifest
from runner.launcher.run_directory import RunDirectory
from runner.plan.options import Option, option, options_of
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

OPTIONS = {one.name: one for one in options_of(Settings)}


def another(one: Option) -> Any:
    """A valid value that is not the default."""
    if one.name == "preset":
        return "light"
    texts = [value for value in get_args(one.type) if isinstance(value, str)]
    for inner in get_args(one.type):  # Literal[…] | None
        texts += [value for value in get_args(inner) if isinstance(value, str)]
    if texts:
        return next(value for value in texts if value != one.default)
    if one.type is bool:
        return not one.default
    if isinstance(one.default, tuple):
        return ("FIRST", "SECOND")
    if one.type in (int, float):
        return one.type(one.default + 1)
    return 7.5 if float in get_args(one.type) else "something"


def on_the_command_line(one: Option, value: Any) -> list[str]:
    if one.type is bool:
        return [one.flag]
    values = value if isinstance(value, tuple) else (value,)
    return [f"{one.flag}={single}" for single in values]


@pytest.mark.parametrize("command", ["run", "submit"])
def test_every_setting_is_an_option_with_its_help(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "TERM": "dumb"}).output
    for one in OPTIONS.values():
        assert one.flag in shown
        assert one.help in shown


@pytest.mark.parametrize("name", OPTIONS)
def test_a_setting_goes_from_the_command_line_to_the_manifest(name: str) -> None:
    one = OPTIONS[name]
    value = another(one)
    assert value != one.default
    taken: list[Settings] = []
    program = typer.Typer()

    @program.command()
    @with_settings()
    def command(*, settings: Settings) -> None:
        taken.append(settings)

    done = CliRunner().invoke(program, on_the_command_line(one, value))
    assert done.exit_code == 0, done.output
    assert taken == [evolve(Settings(), **{name: value})]

    run = prepare_plan(taken[0])
    assert from_json(RunPlan, to_json(run)) == run
    manifest = first_manifest(run, status="queued")
    if name in ("collector", "annotation_level"):
        return  # the manifest says what was chosen
    held = {one.name for one in fields(RunManifest)}
    if name == "preset":
        assert manifest.preset is None  # no nsys, no preset
    elif name in held:
        assert getattr(manifest, name) == value
    else:
        assert manifest.options[name] == (" ".join(value) if isinstance(value, tuple) else value)


def prepare_plan(settings: Settings) -> RunPlan:
    from analysis.domain.contracts import LLMProfileRequest

    request = LLMProfileRequest("deepseek-ocr-tiny", "/pages", device="cpu")
    return RunPlan("run", request, "/runs/run", "torch", settings=settings)


@frozen
class WithOneMore(Settings):
    """A new option is one new field."""

    colour_depth: int = option(8, "Bits per channel.", "The model")


def test_a_new_option_is_one_declaration() -> None:
    taken: list[WithOneMore] = []
    program = typer.Typer()

    @program.command()
    @with_settings(WithOneMore)
    def command(*, settings: WithOneMore) -> None:
        taken.append(settings)

    shown = CliRunner().invoke(program, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "--colour-depth" in shown
    assert "Bits per channel." in shown
    assert CliRunner().invoke(program, ["--colour-depth", "16", "--seed", "3"]).exit_code == 0
    assert taken == [WithOneMore(colour_depth=16, seed=3)]
    assert from_json(WithOneMore, to_json(taken[0])) == taken[0]
    _, options = as_recorded(taken[0])
    assert options["colour_depth"] == 16


def test_a_field_of_the_manifest_is_filled_by_its_name() -> None:
    made = make_class("Made", {"capture_passes": option(2, "Passes.", "The run")}, frozen=True)
    made.__annotations__ = {"capture_passes": int}
    assert as_recorded(made()) == ({"capture_passes": 2}, {})


def test_secrets_in_arguments_are_not_recorded() -> None:
    _, options = as_recorded(Settings(nsys_args=("--hf-token", "planted", "--x=two words")))
    assert options["nsys_args"] == "--hf-token '***' '--x=two words'"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_size": 0}, "^--batch-size must be >= 1: 0$"),
        ({"warmup_passes": -1}, "^--warmup must be >= 0: -1$"),
        ({"timeout_s": 0.0}, "^--timeout must be > 0: 0.0$"),
    ],
)
def test_a_value_out_of_range_names_its_option(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        from_options(Settings, values)


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [("--collector", "auto"), ("--dtype", "bf16"), ("--annotations", "operators"), ("--decode", "cuda-graph")],
)
def test_a_value_that_is_none_of_the_choices_is_one_line(flag: str, allowed: str, capsys: Any) -> None:
    from runner.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main(["run", "deepseek-ocr-tiny", flag, "green"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    for word in (flag, "green", allowed):
        assert word in said[0]


@pytest.mark.parametrize("file", sorted(ROOT.glob("tests/data/runs/*.json")), ids=lambda file: file.stem)
def test_runs_that_older_versions_recorded_are_read(file: Path) -> None:
    manifest = from_json_file(RunManifest, file)
    assert manifest.manifest_version == 1
    assert manifest.options["warmup_passes"] == 1
    assert set(manifest.options) & set(OPTIONS) == set(OPTIONS) & set(json.loads(file.read_text())["options"])


def test_a_plan_of_an_older_version_says_what_can_be_done(tmp_path: Path) -> None:
    directory: RunDirectory = prepare(tmp_path, None).directory
    directory.plan_file.write_text('{"run_id": "r", "request": {}, "preset": "default", "seed": 0}')
    (directory.path / "launch.json").write_text("{}")
    with pytest.raises(RequestError, match=r"older version.*dsocr-analyze .*trace\.sqlite") as caught:
        directory.read_plan()
    assert len(str(caught.value).splitlines()) == 1

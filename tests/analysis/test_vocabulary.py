"""What range names mean: the vocabularies that come with the program, a user's own, and how one is chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from analysis.attribution.attribution import Attribution
from analysis.attribution.vocabulary import BUILT_IN, Composition, load_vocabulary
from analysis.cli.app import app
from analysis.domain.errors import RequestError
from analysis.sums.stages import gpu_rows, instance_summaries, step_points
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder

Attribute = Callable[..., Attribution]
RealAttribution = Callable[[str], tuple[Trace, Attribution]]
Expected = Callable[[str], dict[str, Any]]

VLLM = ("vllm_h100_llama", "vllm_h100_moe-eager")
OUTSIDE_STEPS = {"vllm_h100_llama": (0, 0), "vllm_h100_moe-eager": (0, 0)}


def steps_of(*names: str) -> TraceBuilder:
    """A step of each name, each with one kernel of 5 ns."""
    built = TraceBuilder()
    for number, name in enumerate(names):
        start = 100 * number
        built.range(name, start, start + 50).launch(start + 10, start + 11, (f"k{number}", start + 20, start + 25))
    return built


def kinds(attribution: Attribution) -> list[tuple[str, Composition | None]]:
    return [(row.stage, row.composition) for row in instance_summaries(attribution)]


# --- real traces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VLLM)
def test_kinds_of_an_engines_steps_add_up_to_the_expected_integers(
    real_attribution: RealAttribution, expected: Expected, name: str
) -> None:
    _, attribution = real_attribution(name)
    wanted = expected(f"{name}_steps")["with_the_ranges_that_follow"]
    assert attribution.choice.vocabulary.name == "vllm"
    rows = {row.name: row for row in gpu_rows(gpu_table(attribution, "stage"))}
    assert list(rows) == ["prefill", "mixed", "decode", "empty", "(unattributed)"]
    instances = instance_summaries(attribution)
    for kind, numbers in wanted.items():
        row, mine = rows[kind], [instance for instance in instances if instance.stage == kind]
        assert {
            "steps": len(mine),
            "ctx_reqs": sum((one.composition or Composition()).prefill_requests or 0 for one in mine),
            "ctx_tokens": sum((one.composition or Composition()).prefill_tokens or 0 for one in mine),
            "gen_reqs": sum((one.composition or Composition()).decode_requests or 0 for one in mine),
            "gen_tokens": sum((one.composition or Composition()).decode_tokens or 0 for one in mine),
            "kernels": row.kernels,
            "kernel_sum_ns": row.kernel_sum_ns,
            "memcpys": row.memcpys,
            "memcpy_ns": row.memcpy_ns,
            "memsets": row.memsets,
            "host_ns": sum(one.profiled_host_ns for one in mine),
        } == numbers
    assert (rows["(unattributed)"].kernels, rows["(unattributed)"].kernel_sum_ns) == OUTSIDE_STEPS[name]


@pytest.mark.parametrize("name", VLLM)
def test_the_table_by_stage_of_an_engine_is_printed(
    real_trace: Callable[[str], Path], expected: Expected, name: str
) -> None:
    result = CliRunner().invoke(app, ["table", str(real_trace(name)), "--by", "stage", "--format", "json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    for kind, numbers in expected(f"{name}_steps")["with_the_ranges_that_follow"].items():
        assert {key: rows[kind][key] for key in ("steps", "kernels", "kernel_sum_ns", "memcpys", "memcpy_ns")} == {
            key: numbers[key] for key in ("steps", "kernels", "kernel_sum_ns", "memcpys", "memcpy_ns")
        }


def test_modules_of_an_eager_engine_name_every_layer(real_attribution: RealAttribution) -> None:
    _, attribution = real_attribution("vllm_h100_moe-eager")
    names = {row.name for row in gpu_rows(gpu_table(attribution, "module"))}
    for layer in range(8):
        assert {f"model.layers.{layer}.mlp.experts", f"model.layers.{layer}.self_attn.qkv_proj"} <= names
    assert not [name for name in names if "{" in name]


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "tensor-parallel_2xh200_rank0", "deepseek-ocr_h100_lossy"])
def test_our_own_traces_are_read_by_our_own_names(real_attribution: RealAttribution, name: str) -> None:
    _, attribution = real_attribution(name)
    assert attribution.choice.vocabulary.name == "dsocr"
    assert attribution.stages == ("prefill", "decode")


def test_steps_of_an_engine_say_what_they_held_and_what_was_queued(real_attribution: RealAttribution) -> None:
    _, attribution = real_attribution("vllm_h100_llama")
    instances = instance_summaries(attribution)
    steps = step_points(attribution, instances)
    assert len(steps) == 74
    assert [step.index for step in steps] == list(range(74))
    assert sum(step.tokens or 0 for step in steps) == 819 + 11799 + 92 + 352
    assert steps[0].between_ns is None
    assert all(step.between_ns is not None for step in steps[1:])
    assert any((step.queued_ns or 0) > 0 for step in steps)
    for before, after in pairwise(instances):
        assert before.finished_ns <= max(after.start_ns, before.end_ns)


# --- engines, by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocabulary", "name", "kind", "composition"),
    [
        ("vllm", "execute_context_2(373)_generation_0(0)", "prefill", Composition(2, 373, 2, 373, 0, 0)),
        ("vllm", "execute_context_1(512)_generation_6(6)", "mixed", Composition(7, 518, 1, 512, 6, 6)),
        ("vllm", "execute_context_0(0)_generation_6(6)", "decode", Composition(6, 6, 0, 0, 6, 6)),
        ("vllm", "execute_context_0(0)_generation_0(0)", "empty", Composition(0, 0, 0, 0, 0, 0)),
        (
            "vllm",
            "execute_context_1(sq5sk8sqsq25sqsk40)_generation_2(sq2sk30sqsq2sqsk30)",
            "mixed",
            Composition(3, 7, 1, 5, 2, 2, 8, 25, 40, 30, 2, 30),
        ),
        ("vllm", "execute_new_1_cached_7", "mixed", Composition(8, None, 1, None, 7, None)),
        ("sglang", "step[EXTEND bs=3 toks=8192]", "prefill", Composition(3, 8192, 3, 8192, 0, 0)),
        ("sglang", "step[EXTEND bs=2 toks=12 c_sqsq=80 c_sqsk=120 c_sk=20]", "prefill",
         Composition(2, 12, 2, 12, 0, 0, 20, 80, 120)),
        ("sglang", "step[DECODE bs=16]", "decode", Composition(16, None, 0, 0, 16, None)),
        ("sglang", "step[MIXED bs=2]", "mixed", Composition(2)),
        ("sglang", "step[NEWMODE bs=2]", "step", Composition(2)),
        ("sglang", "scheduler.run_batch", "step", Composition()),
        ("tensorrt-llm", "[Executor] _forward_step 7: 2 ctx reqs, 512 ctx tokens, 6 gen reqs", "mixed",
         Composition(8, None, 2, 512, 6, None)),
        ("tensorrt-llm", "[Executor] _forward_step 7: 0 ctx reqs, 6 gen reqs", "decode",
         Composition(6, None, 0, 0, 6, None)),
        ("tensorrt-llm", "[Executor] _forward_step: 2 ctx reqs, 0 gen reqs", "prefill",
         Composition(2, None, 2, None, 0, 0)),
    ],
)  # fmt: skip
def test_an_engine_is_told_by_its_steps(
    attribute: Attribute, vocabulary: str, name: str, kind: str, composition: Composition
) -> None:
    attribution = attribute(steps_of(name))
    assert attribution.choice.vocabulary.name == vocabulary
    ((stage, read),) = kinds(attribution)
    assert (stage, read) == (kind, composition)
    assert [(row.name, row.kernels) for row in gpu_rows(gpu_table(attribution, "stage"))] == [
        (kind, 1), ("(unattributed)", 0)
    ]  # fmt: skip


def test_sampling_behind_a_step_belongs_to_it_and_nothing_else_does(attribute: Attribute) -> None:
    built = TraceBuilder()
    built.range("gpu_model_runner: sample", 0, 5).launch(1, 2, ("before", 3, 4))
    built.range("execute_context_1(8)_generation_0(0)", 10, 50).launch(20, 21, ("inside", 30, 40))
    built.range("gpu_model_runner: sample", 60, 70).launch(61, 62, ("behind", 63, 64))
    built.range("something else", 80, 90).launch(81, 82, ("other", 83, 84))
    built.thread(1, 2).range("gpu_model_runner: sample", 91, 99).launch(92, 93, ("thread", 94, 95))
    attribution = attribute(built)
    rows = attribution.operation_level("stage")
    names = {
        attribution.operations.names[code]: int(row)
        for code, row in zip(attribution.operations.name, rows, strict=True)
    }
    assert names["inside"] == names["behind"] >= 0
    assert (names["before"], names["other"], names["thread"]) == (-1, -1, -1)


def test_the_most_ranges_decide_and_the_others_are_told(attribute: Attribute) -> None:
    attribution = attribute(steps_of("step[DECODE bs=1]", "step[DECODE bs=2]", "prefill"))
    assert attribution.choice.vocabulary.name == "sglang"
    assert attribution.choice.others == (("plain prefill and decode ranges", 1),)


@pytest.mark.parametrize("domain", [None, "app", "dsocr2"])
def test_plain_stages_work_in_any_domain(attribute: Attribute, domain: str | None) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain=domain).range("mlp", 5, 50, domain=domain)
    built.launch(10, 11, ("a", 20, 30)).range("decode", 100, 200, domain=domain)
    built.range("decode_step", 110, 150, domain=domain).launch(120, 121, ("b", 130, 140))
    attribution = attribute(built)
    assert attribution.choice.vocabulary.name == "plain"
    assert [(row.stage, row.kernels, row.steps) for row in instance_summaries(attribution)] == [
        ("prefill", 1, 0), ("decode", 1, 1)
    ]  # fmt: skip
    assert [row.name for row in gpu_rows(gpu_table(attribution, "module"))] == ["mlp", "(unattributed)"]


@pytest.mark.parametrize("name", ["Prefill", "PREFILL", "prefill 3", "prefill[3]", "prefill#3"])
def test_plain_stages_may_be_numbered(attribute: Attribute, name: str) -> None:
    assert [stage for stage, _ in kinds(attribute(steps_of(name)))] == ["prefill"]


@pytest.mark.parametrize("name", ["prefill_attention", "my prefill", "decoder", "predecode"])
def test_names_that_only_hold_a_stage_are_none(attribute: Attribute, name: str) -> None:
    assert not kinds(attribute(steps_of(name)))


def test_counts_that_no_count_can_be_are_unknown(attribute: Attribute) -> None:
    attribution = attribute(steps_of(f"execute_context_0(0)_generation_{'9' * 5000}(1)", "execute_new_0_cached_2"))
    assert [stage for stage, _ in kinds(attribution)] == ["decode"]  # too long a name is not looked at to its end
    ((kind, composition),) = kinds(attribute(steps_of(f"execute_context_0(0)_generation_{'9' * 40}(1)")))
    assert (kind, composition) == ("decode", Composition(None, 1, 0, 0, None, 1))


# --- a user's own ---------------------------------------------------------------------------------------------------

OWN = """
name = "mine"
[[ranges]]
name = 'batch (?P<prefill_requests>\\d+)\\+(?P<decode_requests>\\d+)'
level = "step"
kind = "by counts"
[[ranges]]
name = 'block (?P<module>.+)'
domain = 'layers'
level = "module"
"""


def test_a_file_of_the_users_own_is_used(attribute: Attribute, tmp_path: Path) -> None:
    (path := tmp_path / "mine.toml").write_text(OWN)
    built = TraceBuilder().range("batch 0+3", 0, 100).range("block h.0.mlp", 5, 50, domain="layers")
    built.launch(10, 11, ("k", 20, 30)).range("prefill", 200, 300)
    attribution = attribute(built, vocabulary=load_vocabulary(str(path)))
    assert attribution.choice.stated
    assert kinds(attribution) == [("decode", Composition(3, None, 0, 0, 3, None))]
    assert [row.name for row in gpu_rows(gpu_table(attribution, "module"))] == ["h.0.mlp"]


def test_a_vocabulary_is_named_on_the_command_line(tmp_path: Path) -> None:
    trace = steps_of("execute_new_0_cached_2", "prefill").write(tmp_path / "trace.sqlite")
    for stated, rows in (("plain", {"prefill", "decode"}), ("vllm", {"decode"})):
        result = CliRunner().invoke(app, ["table", str(trace), "--vocabulary", stated, "--format", "json"])
        assert result.exit_code == 0, result.output
        assert {row["name"] for row in json.loads(result.stdout)} == rows | {"(unattributed)"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ranges = 3", "has no [[ranges]]"),
        ("", "has no [[ranges]]"),
        ("[[ranges]]\nlevel = 'step'", "has no name"),
        ("[[ranges]]\nname = '('\nlevel = 'step'", "name is no regular expression"),
        (
            "[[ranges]]\nname = 'a'\nkind = 'prefill'\ncontinues = true",
            "stage or step only; write one of them, or take it out",
        ),
        (f"[[ranges]]\nname = 'a'\nlevel = '{'x' * 4000}'", "xxx'; choose from "),
        ("[[ranges]]\nname = 'a'\nlevel = 'epoch'", "unknown level 'epoch'"),
        ("[[ranges]]\nname = 'a'\nlevle = 'step'", "unknown key 'levle'"),
        ("colour = 1\n[[ranges]]\nname = 'a'\nlevel = 'step'", "unknown key 'colour'"),
        ("[[ranges]]\nname = 'a'", "says nothing; write one of them"),
        ("[[ranges]]\nname = 'a'\nlevel = 'stage'\nkind = 'mixed'", "a stage needs kind"),
        ("[[ranges]]\nname = 'a'\nlevel = 'step'\nkind = 'epoch'", "unknown kind 'epoch'"),
        ("[[ranges]]\nname = 'a'\nlevel = 'step'\nkind = 'by counts'", "needs groups in the name; write"),
        ("[[ranges]]\nname = '(?P<batch>a)'\nlevel = 'step'", "unknown group 'batch'"),
        ("[[ranges]]\nname = '(?P<kind>a)'\nlevel = 'step'", "needs a table [kinds]"),
        ("[kinds]\na = 'b'\n[[ranges]]\nname = 'a'\nlevel = 'step'", "[kinds] must map"),
        ("[[ranges]]\nname = 3\nlevel = 'step'", "name must be a text"),
        ("[[ranges]]\nname = 'a'\nlevel = 'step'\ncontinues = 1", "continues must be true or false"),
        ("not toml", "not valid TOML"),
        ("[[ranges]]\nname = 'a'\nlevel = 'step'\n" * 101, "more than the 100"),
        ("# " + "x" * 70_000, "larger than 65,536 bytes"),
        (f"[[ranges]]\nname = '{'a' * 2001}'\nlevel = 'step'", "longer than 2,000 characters"),
    ],
)
def test_a_bad_file_ends_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (path := tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RequestError) as raised:
        load_vocabulary(str(path))
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"vlm: cannot be read .No such file.*vllm"):
        load_vocabulary("vlm")


@pytest.mark.parametrize("name", BUILT_IN)
def test_those_that_come_with_the_program_are_well_formed(name: str) -> None:
    vocabulary = load_vocabulary(name)
    assert vocabulary is not None
    assert vocabulary.name == name


def test_the_vocabulary_of_the_page_is_one(attribute: Attribute, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "annotate.md").read_text(encoding="utf-8")
    shown = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    (path := tmp_path / "mine.toml").write_text(shown[1])
    built = TraceBuilder().range("batch 2+6", 0, 50).range("block h.3.mlp", 5, 40, domain="layers")
    built.launch(10, 11, ("a", 20, 30)).range("sampling: top k", 60, 70).launch(61, 62, ("b", 63, 64))
    attribution = attribute(built, vocabulary=load_vocabulary(str(path)))
    assert kinds(attribution) == [("mixed", Composition(8, None, 2, None, 6, None))]
    assert {row.name: row.kernels for row in gpu_rows(gpu_table(attribution, "stage"))} == {
        "mixed": 2,
        "(unattributed)": 0,
    }

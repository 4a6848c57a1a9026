"""The text of the pages: from tokens, beside the page, and none where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from PIL import Image
from tokenizers import Tokenizer, models

import released_checkpoint
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import ModelUnderTest
from analysis.domain.manifest import PromptTokens, RunManifest
from launch_kit import fake_nsys, prepare
from runner.child import workload
from runner.inputs.inputs import discover
from runner.launcher.outcome import print_result
from runner.launcher.texts import NO_TEXT, write_texts
from runner.plan.plan import RunPlan, WorkloadResult
from runner.plan.settings import Settings
from runner.process.process import Interrupts

HOSTILE = "# Title\n```\n<script>alert(1)</script> & more\n````"


def control_run(tmp_path: Path, model: str, **settings: object) -> WorkloadResult:
    (tmp_path / "pages").mkdir()
    for name in "ab":
        Image.linear_gradient("L").convert("RGB").save(tmp_path / "pages" / f"{name}.png")
    request = LLMProfileRequest(model, str(tmp_path / "pages"), repeats=2, device="cpu", max_new_tokens=3)
    chosen = Settings(ignore_eos=True, input_mode="tiny", **settings)  # type: ignore[arg-type]
    plan = RunPlan("test", request, str(tmp_path), "torch", settings=chosen, input_set=discover(tmp_path / "pages"))
    return workload.run(plan, "control", None, lambda line: None, with_costs=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = released_checkpoint.write_checkpoint(tmp_path / "model", released_checkpoint.released_weights())
    words = {f"word{index}": index for index in range(released_checkpoint.VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(folder / "tokenizer.json"))
    return folder


def test_a_checkpoints_words_are_those_of_its_tokenizer(tmp_path: Path, checkpoint: Path) -> None:
    result = control_run(tmp_path, str(checkpoint))
    assert len(result.texts) == 2
    for text in result.texts:
        assert 1 <= len(text.split()) <= 3
        assert all(word.startswith("word") for word in text.split())
    assert result.passes[0].new_tokens == 3


def test_random_weights_have_no_text(tmp_path: Path, checkpoint: Path) -> None:
    assert control_run(tmp_path, str(checkpoint), random_weights=True).texts == ()


def read(tmp_path: Path, texts: tuple[str, ...], weights: str = "checkpoint") -> tuple[RunManifest, WorkloadResult]:
    """A run that read a page with a name that is markup."""
    (tmp_path / "pages").mkdir()
    Image.new("RGB", (2000, 1000), "red").save(tmp_path / "pages" / "<b>.png")
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    manifest = evolve(run.directory.read_manifest(), input_set=discover(tmp_path / "pages"))
    model = ModelUnderTest("<i>m", "/m", "fp32", "cpu", True, weights=weights)  # type: ignore[arg-type]
    return manifest, WorkloadResult("control", model, (PromptTokens(0, "tiny", 0, 9, 3, 12),), (), "eager", texts=texts)


def test_the_text_stands_beside_its_page_and_can_do_no_harm(tmp_path: Path) -> None:
    manifest, result = read(tmp_path, (HOSTILE,))
    assert write_texts(tmp_path, manifest, result)
    page = (tmp_path / "text.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<script" not in page
    assert "<h2>&lt;b&gt;.png</h2>" in page
    assert 'src="data:image/jpeg;base64,' in page
    assert len(page) < 100_000
    markdown = (tmp_path / "text.md").read_text()
    assert markdown == f"## &lt;b&gt;.png\n\n`````text\n{HOSTILE}\n`````\n"


def test_a_page_that_is_gone_leaves_its_text(tmp_path: Path) -> None:
    manifest, result = read(tmp_path, ("words",))
    (tmp_path / "pages" / "<b>.png").unlink()
    assert write_texts(tmp_path, manifest, result)
    assert "<pre>words</pre>" in (tmp_path / "text.html").read_text()


@pytest.mark.parametrize(
    ("texts", "weights", "words"),
    [((), "random", NO_TEXT), ((), "checkpoint", "The checkpoint brings no tokenizer: there is no text to show.")],
)
def test_it_is_said_where_there_is_no_text(tmp_path: Path, texts: tuple[str, ...], weights: str, words: str) -> None:
    manifest, result = read(tmp_path, texts, weights)
    assert not write_texts(tmp_path, manifest, result)
    assert (tmp_path / "text.md").read_text() == words + "\n"
    assert not (tmp_path / "text.html").exists()


def test_a_model_of_text_reads_no_pages(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    with Interrupts() as interrupts:
        run.start(interrupts)
    assert not list(run.directory.path.glob("text.*"))


def test_the_end_of_a_run_says_where_the_text_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    (run.directory.path / "text.html").write_text("x")
    print_result(run.directory, manifest)
    assert f"Text of the pages: {run.directory.path}/text.html" in capsys.readouterr().out.splitlines()

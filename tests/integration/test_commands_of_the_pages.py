"""Every command that README and docs/ show can be typed: ours run, make's targets and variables exist.

Commands of the analysis run on real traces under the names that the pages use. Commands that would capture run with
``--dry-run``, which reads all options and inputs. Commands of other programs (``pip``, ``nsys``, ``torchrun`` …) are not ours to
check.
"""

from __future__ import annotations

import json
import lzma
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from merged_trace import merge_exports

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parent.parent.parent
DATA: Final = ROOT / "tests" / "data"
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
TRACES: Final = {
    "trace.sqlite": "deepseek-ocr_h100_64tok.sqlite.xz",
    "deepseek-ocr_h100_64tok.sqlite": "deepseek-ocr_h100_64tok.sqlite.xz",
}
"""A name on the pages → the real trace that it stands for."""
COUNTERS: Final = {"census.csv": "ncu_h100_decode-step.csv.xz"}
DRY: Final = ("run", "ab", "exec", "submit", "review", "sweep")
"""Commands of the runner that would capture."""
RANKS: Final = ("tensor-parallel_2xh100_graph_rank0", "tensor-parallel_2xh100_graph_rank1")
"""``rank0.sqlite`` and ``rank1.sqlite``, alone, in the folder ``traces`` and in one file, ``both.sqlite``."""
CONFIG: Final = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
"""Of the program that wrote them: ``config.json``."""
MADE_BY_A_RUN: Final = re.compile(r"(^|[ =])(latest|reports/\S+|RUN)( |$)")
"""What names a finished run, which is not there."""


def commands(page: Path) -> Iterator[str]:
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        joined = re.sub(r"\\\n\s*", "", block)
        for line in joined.splitlines():
            if line.startswith("$ "):
                yield re.sub(r"\s+# .*$", "", line[2:]).strip()


EVERY: Final = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


def of(program: str) -> list[tuple[str, str]]:
    return sorted({(page, command) for page, command in EVERY if shlex.split(command)[:1] == [program]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, real_trace: Callable[[str], Path]) -> Path:
    """What the commands find where they are typed."""
    place = tmp_path_factory.mktemp("reader")
    for name, source in (TRACES | COUNTERS).items():
        with lzma.open(DATA / source) as packed, (place / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    (place / "traces").mkdir()
    for rank, name in enumerate(RANKS):
        for where in (place, place / "traces"):
            shutil.copyfile(real_trace(name), where / f"rank{rank}.sqlite")
    merge_exports(place / "rank0.sqlite", place / "rank1.sqlite", place / "both.sqlite")
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "eager.json").write_text("{}")
    (place / "cuda-graph.json").write_text('{"decode": "cuda-graph"}')
    (place / "pages").mkdir()
    for number in range(3):
        Image.new("RGB", (640, 400 + number), "white").save(place / "pages" / f"{number}.png")
    examples = ROOT / "reports" / "examples"
    shutil.copytree(
        examples / "deepseek-ocr_h100_cuda-graph", place / "reports" / "bae7f3a8-6dbf-4a32-997f-50f19f15dd24"
    )
    for name, run_of in (("eager", "deepseek-ocr_h100"), ("cuda-graph", "deepseek-ocr_h100_cuda-graph")):
        shutil.copytree(examples / run_of, place / "runs" / name)
    run([sys.executable, "-m", "runner.cli", "history", "import", str(examples)], place)
    return place


def run(argv: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}"
    return done


def test_the_pages_show_commands_of_ours() -> None:
    assert len(of("dsocr-analyze")) >= 7
    assert len(of("make")) >= 10


@pytest.mark.parametrize(("page", "command"), of("dsocr-analyze"))
def test_a_command_of_the_analysis_does_what_the_page_says(page: str, command: str, folder: Path) -> None:
    if MADE_BY_A_RUN.search(command):
        pytest.skip("wants a finished run")
    if "--scheduler" in command:
        pytest.skip("wants a cluster; tests/analysis/test_ranks.py starts one")
    argv = shlex.split(command)
    run([sys.executable, "-m", "analysis.cli", *argv[1:]], folder)


@pytest.mark.parametrize(("page", "command"), of("dsocr-profile"))
def test_a_command_of_the_runner_takes_the_options_that_the_page_shows(page: str, command: str, folder: Path) -> None:
    if MADE_BY_A_RUN.search(command):
        pytest.skip("wants a finished run")
    argv = shlex.split(command)
    if argv[1] in DRY:
        argv.insert(2, "--dry-run")
    run([sys.executable, "-m", "runner.cli", *argv[1:]], folder)


@pytest.mark.parametrize(("page", "command"), of("make"))
def test_targets_and_variables_of_make_exist(page: str, command: str) -> None:
    argv = shlex.split(command)
    run(["make", "-n", *argv[1:]], ROOT)
    known = (ROOT / "Makefile").read_text()
    for variable in (word.split("=")[0] for word in argv[1:] if "=" in word):
        assert f"$({variable})" in known, f"make knows no {variable}"

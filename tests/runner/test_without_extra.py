"""The launcher on a machine that has the analysis alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("PIL", "nvtx", "platformdirs", "psutil", "pynvml", "safetensors", "torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Forbid())
from runner.cli import main
main(sys.argv[1:])
"""


def dsocr_profile(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FORBID, *argv], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


def test_a_run_says_what_to_install(tmp_path: Path) -> None:
    done = dsocr_profile("run", "deepseek-ocr-tiny", "--out", str(tmp_path / "reports"))
    assert done.returncode == 10
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'dsocr-profiler[runner]'")
    assert "Traceback" not in done.stderr


def test_help_needs_none_of_it() -> None:
    done = dsocr_profile("--help")
    assert done.returncode == 0
    assert "doctor" in done.stdout

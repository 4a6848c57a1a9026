"""Commands run where secrets are planted: in the environment, and wherever a test puts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launch_kit import ROOT, environment
from leak_search import leaks, leaks_in
from planted_secrets import NAMED, PLANTED

__all__ = ["FORMED", "POLICY", "SECRETS", "Planted", "planted_environment"]

FORMED = {kind: secret for kind, (_, secret) in PLANTED.items()}
"""Secrets that their form tells."""
SECRETS = FORMED | NAMED
POLICY = 'on_cannot_judge = "pass"\n' + "".join(
    f"[[{table}]]\nmax = {bound}\noptional = true\n"
    for table, bound in (("stage", '"1 ns"'), ("module", '"1 ns"'), ("kernel", '"1 ns"'), ("launches", 0))
)
"""Of a gate: exceeded by everything, so that all of it is named."""


def planted_environment(folder: Path) -> dict[str, str]:
    """Every secret in a variable: those with a form in one whose name says nothing, the others in what names them."""
    forms = {f"PLANT_{number}": text for number, (text, _) in enumerate(PLANTED.values())}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return environment(**forms, **NAMED, DSOCR_LOCK_DIR=str(folder / "locks"), TMPDIR=str(folder / "tmp"))


class Planted:
    """Runs commands where secrets are planted, and collects what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.environ = planted_environment(folder)
        self.printed = b""
        self._printed_by: list[tuple[str, bytes]] = []
        self.cwd = ROOT
        self.prefix: tuple[str, ...] = ()
        """What starts the commands, such as ``("unshare", "--uts")``."""

    def run(self, program: str, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*self.prefix, sys.executable, "-P", "-m", f"{program}.cli", *arguments],
            env=self.environ,
            cwd=self.cwd,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert code is None or done.returncode == code, (arguments, done.stderr.decode()[-2000:])
        self.printed += done.stdout + done.stderr
        self._printed_by.append((" ".join((program, *arguments))[:80], done.stdout + done.stderr))
        return done

    def leaks(self, secrets: dict[str, str] = SECRETS) -> list[str]:
        """Kind and place of each secret that was printed, or lies in the folder."""
        printed = [f"{kind} on the terminal" for kind in leaks_in(self.printed, secrets)]
        printed += [f"{kind} by {line}" for line, text in self._printed_by for kind in leaks_in(text, secrets)]
        return printed + leaks([self.folder], secrets)

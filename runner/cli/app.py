"""The commands under one name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final, NoReturn

import typer

from runner.cli import exit_codes
from runner.cli.ab import ab
from runner.cli.cancel import cancel
from runner.cli.doctor import doctor
from runner.cli.exec import EXAMPLES as EXEC_EXAMPLES
from runner.cli.exec import exec_program
from runner.cli.history import history
from runner.cli.inputs import inputs
from runner.cli.models import models
from runner.cli.output import tell
from runner.cli.resume import resume
from runner.cli.review import review
from runner.cli.run import run
from runner.cli.status import status
from runner.cli.submit import submit
from runner.cli.sweep import sweep
from runner.cli.work import work
from runner.process.file_modes import keep_files_private, leave_no_core_files

__all__ = ["EXAMPLES", "app", "main"]

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "run": (
        "dsocr-profile run",
        "dsocr-profile run deepseek-ocr --decode cuda-graph",
        "dsocr-profile run ./checkpoint --images scan.pdf#1-3 --max-new-tokens 256",
        "dsocr-profile run ./folder-with-config-json --random-weights --dry-run",
    ),
    "ab": (
        "dsocr-profile ab eager.json cuda-graph.json --rounds 5",
        "dsocr-profile ab eager.json eager.json --no-capture",
    ),
    "resume": ("dsocr-profile resume latest",),
    "review": (
        "dsocr-profile review latest --stage decode --budget-s 300",
        "dsocr-profile review latest --from counters.csv",
    ),
    "sweep": (
        "dsocr-profile sweep deepseek-ocr --batch-size 1,2,4,8,16 --decode eager,cuda-graph",
        "dsocr-profile sweep deepseek-ocr --input-mode base,gundam --max-new-tokens 64,256 --budget-s 600",
        "dsocr-profile sweep llama-1b --batch-size 1,8 --prompt-tokens 128,1024,8192",
    ),
    "doctor": ("dsocr-profile doctor", "dsocr-profile doctor --json"),
    "submit": ("dsocr-profile submit request.json --timeout 1800",),
    "status": ("dsocr-profile status latest", "dsocr-profile status --all"),
    "cancel": ("dsocr-profile cancel latest",),
    "inputs": ("dsocr-profile inputs", "dsocr-profile inputs scan.pdf#2- --dpi 200"),
    "models": ("dsocr-profile models",),
}
"""Command lines for the end of each help."""

_WRITE_RUNS: Final = frozenset({"ab", "cancel", "exec", "resume", "review", "run", "submit", "sweep", "work"})
"""Commands that write into runs' folders. What the others write, such as an export of the history, is for whom the user says."""

app = typer.Typer(
    name="dsocr-profile",
    help="Run an annotated prefill and decode, record it, and report where the time goes.",
    epilog="Words are completed in your shell after: dsocr-profile --install-completion",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(value: bool) -> None:
    if value:
        from runner.process.driver import installed_version

        number = installed_version("dsocr-profiler") or "(version unknown: the package is not installed)"
        tell(f"dsocr-profile {number}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep what a run writes from other users, before anything of it is there."""
    if context.invoked_subcommand in _WRITE_RUNS:
        keep_files_private()
        leave_no_core_files()


def _with_examples(*commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(epilog="\n\n".join(("Examples:", *EXAMPLES[command.__name__])))(command)


_with_examples(run, ab)
# Behind the first word of the program's command line every option is the program's, also without --.
app.command("exec", epilog=EXEC_EXAMPLES, context_settings={"allow_interspersed_args": False})(exec_program)
_with_examples(sweep, resume, review, doctor, submit, status, cancel, inputs, models)
app.add_typer(history, name="history")
app.command(hidden=True)(work)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: what a user can cause or meet becomes one line on standard error and an exit code."""
    exit_codes.run(app, list(sys.argv[1:] if argv is None else argv))

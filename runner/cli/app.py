"""The commands under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from runner.cli import exit_codes
from runner.cli.cancel import cancel
from runner.cli.doctor import doctor
from runner.cli.exec import EXAMPLES, exec_program
from runner.cli.inputs import inputs
from runner.cli.models import models
from runner.cli.resume import resume
from runner.cli.review import review
from runner.cli.run import run
from runner.cli.status import status
from runner.cli.submit import submit
from runner.cli.work import work

__all__ = ["app", "main"]

app = typer.Typer(
    name="dsocr-profile",
    help="Run an annotated prefill and decode, record it, and report where the time goes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command()(run)
# Behind the first word of the program's command line every option is the program's, also without --.
app.command("exec", epilog=EXAMPLES, context_settings={"allow_interspersed_args": False})(exec_program)
for _command in (resume, review, doctor, submit, status, cancel, inputs, models):
    app.command()(_command)
app.command(hidden=True)(work)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: what a user can cause or meet becomes one line on standard error and an exit code."""
    exit_codes.run(app, list(sys.argv[1:] if argv is None else argv))

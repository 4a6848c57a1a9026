"""Nsight Systems around any program: one report for all of its processes, or one for each rank."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import RequestError
from analysis.domain.programs import SAFE_FOLDER
from runner.collectors.nsys.presets import ResolvedOptions, load_preset, resolve_with
from runner.collectors.nsys.tool import NsysTool, output_name, profile_argv
from runner.plan.program import ExecSettings
from runner.process.file_modes import umask_prefix, users_umask
from runner.process.process import with_target_mark

__all__ = ["PLACEHOLDER", "ProgramCommand", "program_options", "python_of", "require_ranks"]

PLACEHOLDER: Final = "{nsys}"
"""Stands in a command where the program of each rank begins."""

RANK_VARIABLE: Final = "DSOCR_RANK"
_RANK_VARIABLES: Final = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
"""Where launchers say a process's rank, in the order in which they are asked."""
_USUAL_UMASK: Final = 0o022
_TORCH_LAUNCHERS: Final = ("torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate")
"""What starts each rank with the program that ``PYTHON_EXEC`` names."""


def program_options(settings: ExecSettings, tool: NsysTool) -> ResolvedOptions:
    """Give the options of nsys for a run of a program.

    Child processes are followed also where they never call exec, as Python's multiprocessing forks them. CUDA graphs are
    traced node by node only where a preset says so: what a program replays is not known.

    Raises:
        RequestError: there is no such preset.
        CaptureError: this nsys lacks an option that the capture insists on.
    """
    preset = load_preset(settings.preset)
    wanted: dict[str, str] = {}
    captured = settings.captured
    if captured == "cuda-profiler-api":
        wanted["capture-range"] = "cudaProfilerApi"
    elif captured.startswith("nvtx:"):
        wanted |= {"capture-range": "nvtx", "nvtx-capture": captured.removeprefix("nvtx:")}
    if wanted:
        wanted["capture-range-end"] = "stop"
    if settings.delay_s is not None:
        wanted["delay"] = f"{settings.delay_s:g}"
    if settings.duration_s is not None:
        # nsys does not wait for a program that goes on: it is ended when the report is written, and not before.
        wanted |= {"duration": f"{settings.duration_s:g}", "kill": "none"}
    if "nccl" in tool.trace_values():  # others record NCCL's own ranges with NVTX
        wanted["trace"] = f"{preset.options['trace']},nccl"
    return resolve_with(preset, tool, wanted, graphs="graph", optional={"trace-fork-before-exec": "true"})


def require_ranks(command: Sequence[str], ranks: int) -> None:
    """Refuse a command of which it is not known where its ranks begin.

    Raises:
        RequestError: it is neither torchrun nor says so itself.
    """
    if ranks == 1:
        if PLACEHOLDER in command:
            raise RequestError(f"{PLACEHOLDER} in the command is for several ranks: give --ranks N")
        return
    if PLACEHOLDER in command:
        return
    starts_ranks = any(Path(argument).name in _TORCH_LAUNCHERS for argument in command)
    if not starts_ranks or "--no-python" in command or "--no_python" in command:
        raise RequestError(
            f"--ranks {ranks}: put torchrun or accelerate launch in front of a Python program, or {PLACEHOLDER} where the "
            f"program of each rank begins, such as: mpirun -n {ranks} {PLACEHOLDER} ./program"
        )


def python_of(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Give the Python that a launcher such as torchrun runs on, which is the one that it starts its ranks with."""
    chosen = environ.get("PYTHON_EXEC")
    if chosen:
        return chosen
    path = shutil.which(command[0], path=environ.get("PATH")) or command[0]
    if Path(path).name.startswith("python"):
        return path
    try:
        with Path(path).open("rb") as file:
            head = file.readline(256)
    except OSError:
        return "python3"
    words = head.removeprefix(b"#!").decode("utf-8", "replace").split() if head.startswith(b"#!") else []
    if not words or "python" not in words[-1]:
        return "python3"
    return words[-1]


@frozen
class ProgramCommand:
    """The command lines of one capture."""

    tool: NsysTool
    options: ResolvedOptions
    settings: ExecSettings
    run_id: str
    run_dir: Path
    prefix: tuple[str, ...] = ()
    """Starts what follows where it sees no other processes; empty where that is not possible."""

    @property
    def rank_script(self) -> Path:
        """Starts one rank's program under an nsys of its own."""
        return self.run_dir / "rank.sh"

    def argv(self, command: Sequence[str]) -> list[str]:
        """Give the command line that captures ``command``."""
        if self.settings.ranks > 1:
            script = str(self.rank_script)
            return [*self.prefix, *(script if argument == PLACEHOLDER else argument for argument in command)]
        target = [*self._begin(str(Path.cwd())), *with_target_mark(command, self.run_id)]
        return [*self.prefix, *self._profile(output_name(self.run_dir, "trace"), f"dsocr-{self.run_id[:8]}", target)]

    def environment(self) -> dict[str, str]:
        """Give the variables that the capture needs beside the program's own."""
        more = {}
        if self.settings.captured.startswith("nvtx:"):
            more["NSYS_NVTX_PROFILER_REGISTER_ONLY"] = "0"  # else only registered strings can open the capture
        if self.settings.ranks > 1:
            more["PYTHON_EXEC"] = str(self.rank_script)
        return more

    def script(self, command: Sequence[str], environ: Mapping[str, str]) -> str:
        """Give the text of `rank_script`.

        Torchrun starts every rank with the program that ``PYTHON_EXEC`` names: so nsys is put around each rank without
        taking the user's command line apart. One nsys around all of them would mix the ranks into one report, begin and
        end the capture of all with the first that asks for it, and lose all of them with one.
        """
        rank = ":-${".join(_RANK_VARIABLES)
        asked = "${" + rank + ":?the launcher does not say the rank}" + "}" * (len(_RANK_VARIABLES) - 1)
        python = [] if PLACEHOLDER in command else [python_of(command, environ)]
        output = output_name(self.run_dir, f"rank%q{{{RANK_VARIABLE}}}")
        target = [*self._begin(f"dsocr-{self.run_id[:8]}-FOLDER"), *with_target_mark(python, self.run_id)]
        argv = self._profile(output, f"dsocr-{self.run_id[:8]}-RANK", target)
        line = shlex.join(argv).replace(f"dsocr-{self.run_id[:8]}-RANK", f'"dsocr-{self.run_id[:8]}-${RANK_VARIABLE}"')
        line = line.replace(f"dsocr-{self.run_id[:8]}-FOLDER", '"$dsocr_folder"')
        return (
            f"#!/bin/sh\n{RANK_VARIABLE}={asked}\nexport {RANK_VARIABLE}\nunset PYTHON_EXEC\n"
            f'dsocr_folder=$PWD\ncd {SAFE_FOLDER}\nexec {line} "$@"\n'
        )

    @staticmethod
    def _begin(folder: str) -> tuple[str, ...]:
        """Put in front of the program, so that it has the user's mask and runs in the user's folder.

        Under nsys everybody could write its files. nsys itself is started elsewhere: its Python would take modules from there.
        """
        mask = users_umask()
        return umask_prefix(_USUAL_UMASK if mask < 0 else mask, folder)

    def _profile(self, output: str, session: str, target: Sequence[str]) -> list[str]:
        return profile_argv(
            self.tool,
            self.options.options,
            output=output,
            session=session,
            target=target,
            extra=self.settings.nsys_args,
        )

"""From a command line or a request in JSON to a resolved plan."""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import InputSet
from analysis.domain.errors import RequestError
from analysis.domain.redaction import redacted
from runner.collectors.choosing import Choice, choose_collector
from runner.collectors.nsys.presets import load_preset
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings
from runner.process.driver import DriverFacts, default_device
from runner.process.environment import own_secrets, redact

__all__ = ["make_plan", "make_request", "require_device", "require_no_secret", "require_no_secrets"]

_DEVICE: Final = re.compile(r"cpu|cuda(:\d+)?")


def make_request(
    model: str,
    images: Path,
    *,
    presets: Collection[str],
    device: str,
    facts: DriverFacts,
    repeats: int,
    max_new_tokens: int,
    use_flash_attn: bool,
    say: Callable[[str], None],
) -> LLMProfileRequest:
    """Build a request from a command line.

    Args:
        model: a preset, a folder or a Hugging Face id. A preset's name always means the preset; a folder is taken
            from here where its path begins with ``.``, ``~`` or ``/``, or where no preset has its name.
        images: file or folder.
        presets: names of the model presets.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        facts: what the driver says, for ``auto``.
        repeats: passes of the control run.
        max_new_tokens: tokens per image at most.
        use_flash_attn: fused attention where the device has it.
        say: told what was chosen here, one line each.

    Raises:
        RequestError: a value is out of its range.
    """
    if device == "auto":
        device, reason = default_device(facts)
        say(f"device: {device} ({reason})")
    elif not _DEVICE.fullmatch(device):
        raise RequestError(f"--device {device}: write auto, cpu, cuda or cuda:N")
    else:
        require_device(device, facts, where="--device ")
    is_folder = Path(model).is_dir()
    if model in presets:
        if is_folder:
            say(f"model: the preset {model}; the folder of the same name is ./{model}")
    elif is_folder or model.startswith((".", "~", "/")):
        model = str(Path(model).expanduser().absolute())
    try:
        return LLMProfileRequest(
            model_path=model,
            input_dir=str(images.expanduser().absolute()),
            repeats=repeats,
            use_flash_attn=use_flash_attn,
            device=device,
            max_new_tokens=max_new_tokens,
        )
    except ValueError as error:
        raise RequestError(str(error.args[0])) from error


def require_device(device: str, facts: DriverFacts, *, where: str = "device ") -> None:
    """Insist that a device is there, by the driver's own word (which knows ``CUDA_VISIBLE_DEVICES``).

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        facts: what the driver says.
        where: begins the message.

    Raises:
        RequestError: it is a GPU that this process does not see.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return
    if not facts.gpus:
        raise RequestError(f"{where}{device}: no CUDA device is visible; `dsocr-profile doctor` says more")
    if int(number or 0) >= len(facts.gpus):
        last = len(facts.gpus) - 1
        there = "only cuda:0 is" if last == 0 else f"cuda:0 to cuda:{last} are"
        raise RequestError(f"{where}{device}: no such GPU; {there} visible here")


def make_plan(
    request: LLMProfileRequest,
    settings: Settings,
    out: Path,
    environ: Mapping[str, str],
    *,
    run_id: str | None = None,
    input_set: InputSet | None = None,
) -> tuple[RunPlan, Choice]:
    """Resolve a request: choose the collector, check preset and options, name the run.

    Args:
        request: what is asked.
        settings: what is asked beyond it.
        out: folder that gets the run's folder.
        environ: the launcher's environment.
        run_id: None: a new one.
        input_set: the pages, where they have been looked at already.

    Raises:
        RequestError: the preset is unknown, or does not fit the collector.
        CaptureError: nsys is asked for, but there is no usable one.
    """
    require_no_secrets(request, settings, out)
    preset = load_preset(settings.preset)
    run_id = run_id or str(uuid.uuid4())
    choice = choose_collector(settings.collector, request.device, preset, settings.nsys, environ)
    _require_ranks_fit(settings, request.device, choice)
    plan = RunPlan(
        run_id=run_id,
        request=request,
        run_dir=str(out.expanduser().absolute() / run_id),
        collector=choice.name,
        annotation_level=settings.annotation_level or preset.annotations,
        settings=settings,
        input_set=input_set,
    )
    return plan, choice


def require_no_secret(what: str, text: str) -> None:
    """Refuse a text that a run's folder would keep, and that looks like a secret.

    Args:
        what: names the text, such as its option.
        text: as it was given.

    Raises:
        RequestError: it looks like one, or holds the value of a variable that is named like one.
    """
    if (shown := redacted(text, own_secrets())) != text:
        raise RequestError(
            f"{what} holds what looks like a secret ({shown}), and a run's folder would keep it: take it out"
        )


def require_no_secrets(request: LLMProfileRequest, settings: Settings, out: Path) -> None:
    """Refuse what would have to be written down to be carried out, and looks like a secret.

    A plan holds prompt, paths and arguments as they are, and the report names them.

    Raises:
        RequestError: one of them looks like a secret, or holds the value of a variable that is named like one.
    """
    texts = {
        "the model's path": request.model_path,
        "--images": request.input_dir,
        "--out": str(out.expanduser().absolute()),
        "--prompt": settings.prompt or "",
        "--nsys": settings.nsys or "",
        "--attn-implementation": settings.attn_implementation or "",
        "--experts-implementation": settings.experts_implementation or "",
    }
    for what, text in texts.items():
        require_no_secret(what, text)
    arguments = tuple(redacted(argument, own_secrets()) for argument in redact(settings.nsys_args))
    if arguments != settings.nsys_args:
        raise RequestError(
            f"--nsys-arg holds what looks like a secret ({shlex.join(arguments)}), and a run's folder would keep it: "
            "leave it out; --keep-env NAME gives the program a variable"
        )


def _require_ranks_fit(settings: Settings, device: str, choice: Choice) -> None:
    """Refuse what does not go together with several ranks."""
    ranks = settings.tensor_parallel
    if ranks == 1:
        return
    what = f"--tensor-parallel {ranks}"
    if not choice.collector.exports:
        raise RequestError(f"{what} needs the collector nsys, and it is {choice.name} ({choice.reason})")
    if settings.decode_mode != "eager":
        raise RequestError(f"{what} decodes eagerly: transformers makes static caches for whole models only")
    if device not in ("cpu", "cuda", "cuda:0"):
        raise RequestError(
            f"{what} takes the first {ranks} GPUs: leave out --device {device}, or use CUDA_VISIBLE_DEVICES"
        )

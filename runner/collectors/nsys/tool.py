"""Nsight Systems: where it is, what it can do, and the command lines that ask it to.

What an nsys can do is read from its own ``--help``, never from a table of versions.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.nsight import NSYS_PLACES
from analysis.domain.programs import SAFE_FOLDER, find_program, is_program, search_folders
from runner.collectors.nsys.answers import Answers, remember, remembered
from runner.process.questions import answer_of, ended_when_interrupted

__all__ = [
    "NsysTool",
    "candidate_paths",
    "export_argv",
    "find_nsys",
    "import_argv",
    "missing_libraries",
    "option_name",
    "output_name",
    "parse_options",
    "parse_values",
    "probe",
    "profile_argv",
    "usable_tools",
]

_PROBE_TIMEOUT_S: Final = 60.0
_VERSION = re.compile(r"version\s+(\d+(?:\.\d+)+)")
_OPTION = re.compile(r"^\s+(?:-(?P<short>\w), )?--(?P<long>[a-z][a-z0-9-]*)(?P<either>\[[a-z|]+\])?", re.MULTILINE)
_CUPTI = re.compile(r"libcupti\.so\.(\d+)\.(\d+)")


@frozen
class NsysTool:
    """One installed nsys and what it says of itself."""

    path: str
    version: str
    """As it prints it: ``2022.4.2.1``."""
    profile_options: dict[str, str]
    """Long option → its help text; a short one (``t``) maps to its long name."""
    export_options: dict[str, str]
    importer: str | None
    """QdstrmImporter of this installation, or None: then a report cannot be finished."""
    missing: tuple[str, ...] = ()
    """Shared libraries that the importer needs and the loader does not find."""
    cupti_cuda: tuple[int, int] | None = None
    """Newest CUDA that its CUPTI was built for, None where the files do not tell."""

    @property
    def version_key(self) -> tuple[int, ...]:
        """For ordering."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def fault(self) -> str | None:
        """Why reports of this nsys cannot be had, None if nothing speaks against it."""
        if self.importer is None:
            return "its importer (QdstrmImporter) is not installed beside it, so captures stay .qdstrm files"
        if self.missing:
            return f"its importer lacks {', '.join(self.missing)}, so captures stay .qdstrm files"
        return None

    def trace_values(self) -> frozenset[str]:
        """Values that ``--trace`` knows, as its help lists them; empty if the help has no list."""
        return parse_values(self.profile_options.get("trace", ""))


def candidate_paths(environ: Mapping[str, str], *, folders: Iterable[Path] = ()) -> list[Path]:
    """List every nsys that this machine may have, without duplicates: PATH, ``.nsys`` folders, the usual places.

    Args:
        environ: for PATH.
        folders: where a ``.nsys`` made by ``make nsys`` may lie.
    """
    paths = [Path(folder) / "nsys" for folder in search_folders(environ)]
    for folder in folders:
        paths += sorted((folder / ".nsys").glob("target-linux-*/nsys"))
    for pattern in NSYS_PLACES:
        paths += sorted(Path("/").glob(pattern.lstrip("/")))
    unique: dict[Path, Path] = {}
    for path in paths:
        if is_program(path):
            unique.setdefault(path.resolve(), path)
    return list(unique.values())


def find_nsys(
    explicit: str | None, environ: Mapping[str, str], *, folders: Iterable[Path] = (), need_import: bool = True
) -> NsysTool:
    """Find the nsys to use: ``--nsys``, else ``$NSYS``, else the newest usable one.

    Args:
        explicit: path or command given by the user.
        environ: for NSYS and PATH, and to run the candidates with.
        folders: see `candidate_paths`.
        need_import: an nsys whose importer cannot run does not count as usable.

    Raises:
        CaptureError: there is none, or what was named is none; every candidate's reason is in the message.
    """
    named = explicit or environ.get("NSYS")
    if named:
        whence = "--nsys" if explicit else "$NSYS"
        path = find_program(named, environ)
        if path is None:
            raise CaptureError(f"{whence} {named}: no such program; give the path of an nsys executable")
        tool = probe(Path(path), environ)
        if need_import and tool.fault:
            raise CaptureError(f"{whence} {named} (version {tool.version}): {tool.fault}")
        return tool
    tools, reasons = usable_tools(environ, folders=folders)
    for tool in tools:
        if tool.fault is None or not need_import:
            return tool
        reasons.append(f"{tool.path} ({tool.version}): {tool.fault}")
    if reasons:
        raise CaptureError(f"no usable nsys: {'; '.join(reasons)}")
    raise CaptureError(
        "no nsys found in PATH or the usual places: install Nsight Systems, run `make nsys` (Debian, Ubuntu), "
        "or give its path with --nsys"
    )


def usable_tools(environ: Mapping[str, str], *, folders: Iterable[Path] = ()) -> tuple[list[NsysTool], list[str]]:
    """Probe all candidates, at once.

    Returns:
        Those that answer, newest first, those without a fault before the rest; and why the others do not.
    """
    tools: list[NsysTool] = []
    reasons: list[str] = []

    def answer(path: Path) -> NsysTool | CaptureError:
        try:
            return probe(path, environ)
        except CaptureError as error:
            return error

    paths = candidate_paths(environ, folders=folders)
    with ThreadPoolExecutor(max_workers=max(1, len(paths))) as pool, ended_when_interrupted():
        for answered in pool.map(answer, paths):
            if isinstance(answered, NsysTool):
                tools.append(answered)
            else:
                reasons.append(str(answered))
    tools.sort(key=lambda tool: (tool.fault is None, tool.version_key), reverse=True)
    return tools, reasons


def probe(path: Path, environ: Mapping[str, str]) -> NsysTool:
    """Ask one nsys what it is and what it can do.

    What it says is asked for once per file and kept in the user's cache; whether its importer can run is looked at anew
    each time, since that changes when something else is installed.

    Raises:
        CaptureError: it does not run, or does not answer like an nsys.
    """
    answers = remembered(path, environ)
    if answers is None:
        asked = (["--version"], ["profile", "--help"], ["export", "--help"])
        # nsys takes half a second or more to start.
        with ThreadPoolExecutor(max_workers=len(asked)) as pool, ended_when_interrupted():
            texts = list(pool.map(lambda arguments: _ask([str(path), *arguments], environ), asked))
        version = _VERSION.search(texts[0])
        if version is None:
            raise CaptureError(f"{path}: does not say its version as nsys does")
        answers = Answers(version[1], parse_options(texts[1]), parse_options(texts[2]))
        remember(path, environ, answers)
    importer = _find_importer(path)
    return NsysTool(
        path=str(path),
        version=answers.version,
        profile_options=answers.profile_options,
        export_options=answers.export_options,
        importer=None if importer is None else str(importer),
        missing=() if importer is None else missing_libraries(importer, environ),
        cupti_cuda=_newest_cupti(path),
    )


def parse_options(help_text: str) -> dict[str, str]:
    """Read the options out of a ``--help`` text: long name → its paragraph, short name → long name."""
    options: dict[str, str] = {}
    matches = list(_OPTION.finditer(help_text))
    ends = [match.start() for match in matches[1:]] + [len(help_text)]
    for match, end in zip(matches, ends, strict=False):
        text = help_text[match.end() : end]
        names = [match["long"]]
        if match["either"]:  # --nvtx-domain-[include|exclude]=
            names = [match["long"] + ending for ending in match["either"].strip("[]").split("|")]
        for name in names:
            options[name] = text
        if match["short"]:
            options[match["short"]] = names[0]
    return options


def parse_values(paragraph: str) -> frozenset[str]:
    """Read the quoted values of an option's paragraph up to its first full stop.

    Example: ``Possible values are 'cuda', 'nvtx' or 'none'.`` gives cuda, nvtx and none.
    """
    start = paragraph.find("Possible values are")
    if start < 0:
        return frozenset()
    sentence = re.split(r"\.\s", paragraph[start:], maxsplit=1)[0]
    return frozenset(re.findall(r"['`]([\w-]+)['`]", sentence))


def option_name(argument: str, known: Mapping[str, str] | None = None) -> str:
    """Give the long name of ``--trace=cuda``, ``-t`` or ``trace``; a short one is looked up in ``known``."""
    name = argument.lstrip("-").split("=", 1)[0]
    if len(name) == 1 and known:
        return known.get(name, name)
    return name


def profile_argv(
    tool: NsysTool,
    options: Mapping[str, str],
    *,
    output: str,
    session: str | None,
    target: Sequence[str],
    extra: Sequence[str] = (),
) -> list[str]:
    """Build ``nsys profile … target``.

    Args:
        tool: the nsys that will run it.
        options: long name → value, from a preset.
        output: path of the report without its suffix.
        session: name of the collection, by which it can be found again; None: nsys makes one up.
        target: the program and its arguments.
        extra: the user's ``--nsys-arg``; an option named there replaces the preset's.

    Raises:
        RequestError: an extra argument sets what the launcher itself must set.
    """
    replaced = set()
    for argument in extra:
        name = option_name(argument, tool.profile_options)
        if name in ("output", "session-new", "export", "stats"):
            raise RequestError(f"--nsys-arg={argument}: the launcher sets --{name} itself")
        if name in ("env-var", "inherit-environment"):
            raise RequestError(f"--nsys-arg={argument}: environment values end up in the report; use --keep-env NAME")
        if argument.startswith("-"):
            replaced.add(name)
    argv = [tool.path, "profile", f"--output={output}"]
    if session is not None and "session-new" in tool.profile_options:
        argv.append(f"--session-new={session}")
    argv += [f"--{name}={value}" for name, value in options.items() if name not in replaced]
    return [*argv, *extra, *target]


def output_name(folder: Path, name: str) -> str:
    """Give the value of nsys' ``--output`` for a report.

    Args:
        folder: taken as it is: nsys would put its host's name, a process id or a variable in the place of ``%h``, ``%p`` or
            ``%q{VARIABLE}``.
        name: of the report without its ending, in which such marks are meant.

    Raises:
        RequestError: the folder's name is no UTF-8, in which nsys passes it on between its processes.
    """
    text = str(folder)
    try:
        os.fsencode(text).decode("utf-8")  # its bytes: how Python shows them depends on the locale
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{os.fsencode(folder)!r}: nsys writes only to folders whose names are UTF-8; choose another --out"
        ) from error
    return f"{text.replace('%', '%%')}/{name}"


def export_argv(tool: NsysTool, report: str, output: str, *, blobs: bool = False) -> list[str]:
    """Build ``nsys export`` to SQLite.

    Args:
        tool: the nsys that will run it.
        report: the ``.nsys-rep``.
        output: the export.
        blobs: with the binary payloads of ranges, in which NCCL says what it sends, if this nsys can export them.
    """
    argv = [tool.path, "export", "--type=sqlite", f"--output={output}", "--force-overwrite=true"]
    if blobs and "include-blobs" in tool.export_options:
        argv.append("--include-blobs=true")
    if "quiet" in tool.export_options:
        argv.append("--quiet=true")
    return [*argv, report]


def import_argv(importer: str, qdstrm: str, report: str) -> list[str]:
    """Build the importer's command line: ``.qdstrm`` → ``.nsys-rep``."""
    return [importer, f"--input-file={qdstrm}", f"--output-file={report}"]


def missing_libraries(binary: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Name the shared libraries that the loader does not find for ``binary``, as ``ldd`` shows them."""
    ldd = find_program("ldd", environ)
    if ldd is None:
        return ()
    try:
        done = subprocess.run(
            [ldd, str(binary)],
            cwd=SAFE_FOLDER,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)
    return tuple(dict.fromkeys(names))


def _ask(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = answer_of(argv, environ=environ, timeout_s=_PROBE_TIMEOUT_S, cwd=SAFE_FOLDER)
    except OSError as error:
        raise CaptureError(f"{argv[0]}: cannot be run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise CaptureError(f"{argv[0]}: did not answer `{' '.join(argv[1:])}` in {_PROBE_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0 and not done.stdout:
        said = done.stderr.strip().splitlines()
        raise CaptureError(f"{argv[0]}: `{' '.join(argv[1:])}` failed: {said[-1] if said else done.returncode}")
    return done.stdout + done.stderr


def _installation_folders(path: Path) -> list[Path]:
    """Folders that hold an installation's halves (target-…, host-…), for nsys itself or a link or script to it."""
    real = path.resolve()
    folders = [real.parent.parent]
    try:
        with real.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return folders
    if head.startswith(b"#!"):  # /usr/local/cuda/bin/nsys is a script that starts the real one
        for text in re.findall(rb"(/[\w./+-]*/)(?:bin|target-linux-\w+)/nsys\b", head):
            folders.append(Path(os.fsdecode(text)))
    return folders


def _find_importer(path: Path) -> Path | None:
    for folder in _installation_folders(path):
        for importer in sorted(folder.glob("*/QdstrmImporter")):
            if os.access(importer, os.X_OK):
                return importer
    return None


def _newest_cupti(path: Path) -> tuple[int, int] | None:
    versions = [
        (int(match[1]), int(match[2]))
        for folder in _installation_folders(path)
        for file in folder.glob("target-linux-*/libcupti.so.*")
        if (match := _CUPTI.fullmatch(file.name))
    ]
    return max(versions, default=None)

"""Templates of pages: escaped, and compiled once."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from analysis.domain.figures import bytes_, count
from analysis.render.pictures.palette import PARTS, STAGE_COLOURS, page_variables
from analysis.render.pictures.svg import STYLE
from analysis.render.spec.text import visible

__all__ = ["page_environment", "page_style"]

_HERE: Final = Path(__file__).parent
_TEMPLATES: Final = _HERE / "templates"
"""Where the templates lie that all pages share: the base, components, tables."""
_COMPILED: Final = _TEMPLATES / "__pycache__"


@cache
def page_environment(*folders: Path) -> Environment:
    """The environment whose templates lie in some folders, in that order, and where those lie that all pages share.

    A worker writes the pages of several ranks with one: it compiles the templates once.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_CompiledTemplates(str(_COMPILED)),
    )
    environment.globals.update(visible=visible, count=count, bytes_=bytes_)
    return environment


def page_style() -> Markup:
    """The one style of all pages: the palette, that of the pictures, and that of the rest."""
    filled = "".join(f".fill-{name}{{background:var(--{name})}}" for name in (*PARTS, *STAGE_COLOURS))
    faces = "".join(f".face-{name}{{color:var(--{name})}}" for name in ("on", "ink", "deep"))
    rest = (_HERE / "assets" / "report.css").read_text(encoding="utf-8")
    return Markup("\n".join((page_variables(), STYLE, filled + faces, rest)))


class _CompiledTemplates(FileSystemBytecodeCache):
    """Keeps the compiled template beside the template, as Python keeps its own: to compile it takes 25 ms of each report.

    An installation that cannot be written to compiles it each time, and so does a Python that is to write no bytecode.
    """

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        with suppress(OSError):
            Path(self.directory).mkdir(exist_ok=True)
            super().dump_bytecode(bucket)

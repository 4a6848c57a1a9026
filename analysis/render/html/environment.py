"""Templates of pages: escaped, and compiled once."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from analysis.domain.figures import bytes_, count
from analysis.render.spec.text import visible

__all__ = ["SHARED_TEMPLATES", "page_environment"]

SHARED_TEMPLATES: Final = Path(__file__).parent / "templates"
"""Where ``tables.html.j2`` lies, which pages share."""
_COMPILED: Final = SHARED_TEMPLATES / "__pycache__"


def page_environment(*folders: Path) -> Environment:
    """An environment whose templates lie in some folders, the first of which goes first."""
    environment = Environment(
        loader=FileSystemLoader(list(folders)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_CompiledTemplates(str(_COMPILED)),
    )
    environment.globals.update(visible=visible, count=count, bytes_=bytes_)
    return environment


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

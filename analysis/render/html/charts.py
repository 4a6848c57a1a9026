"""The chart library of the HTML report: Apache ECharts' released build, as a pinned package carries it.

``instaui-echarts`` is used for that one file and never imported. The file is an ECMAScript module; the report needs a
classic script, because the page's own script and its tests speak to a global ``echarts``.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

from analysis.domain.errors import RequestError

__all__ = ["library"]

_PACKAGE: Final = "instaui_echarts"
_FILE: Final = Path("static", "echarts.esm.min.js")
_EXPORTS: Final = re.compile(r"export\s*\{([^{}]*)\}\s*;?\s*$")


def library() -> str:
    """ECharts as a script that sets ``window.echarts``; its licence comment stays in front.

    Raises:
        RequestError: the package that carries it is missing or is built otherwise.
    """
    package = importlib.util.find_spec(_PACKAGE)
    places = list(package.submodule_search_locations or ()) if package is not None else []
    path = next((Path(place) / _FILE for place in places if (Path(place) / _FILE).is_file()), None)
    if path is None:
        raise RequestError(
            f"the package {_PACKAGE.replace('_', '-')} (charts of report.html) is missing; install it with pip"
        )
    module = path.read_text(encoding="utf-8")
    # The exports are the last statement of a megabyte: found from its end, not searched for from the start.
    exports = _EXPORTS.match(module, max(module.rfind("export"), 0))
    if exports is None:
        raise RequestError(f"{path}: is not the build of ECharts that report.html needs; install the pinned version")
    names = []
    for export in filter(None, (part.strip() for part in exports[1].split(","))):
        local, _, public = export.partition(" as ")
        names.append(f"{public or local}:{local}")
    return f"(function(){{\n{module[: exports.start()]}\nwindow.echarts={{{','.join(names)}}};\n}})();\n"

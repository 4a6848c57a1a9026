"""Write docs/api.md: what `analysis.load` takes and gives, from the declarations themselves."""

from __future__ import annotations

import inspect
from pathlib import Path

from attrs import fields

from analysis.api.options import AnalysisOptions
from analysis.api.profile import TABLES, Profile
from analysis.cli.options import SHARED
from analysis.render.markdown_tables import escaped

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

HEAD = """\
# From Python

<!-- Written by `make docs` from the declarations; change those. -->

```python
import analysis

profile = analysis.load("trace.sqlite")  # or a run folder, or a .nsys-rep, where there is an nsys to export it
profile.verdicts()[["stage", "bound", "sentence"]]
profile.kernels("decode").head(10)
profile.launches().groupby(["stage", "module"], observed=True)["duration_ns"].sum()
profile.to_html("report.html")  # without a name: the page as text
```

`analysis.diff(base, new)` holds a run against another one (folders, traces or `report.json`) and gives the record that
[diff.json](schemas/diff.schema.json) holds; `analysis.api.comparing.frames` makes DataFrames of it: `stages`, `settings`,
`contributions` and `kernels`, with the columns `diff_…` of [columns.md](columns.md).

`import analysis` imports nothing heavy; `load` reads the trace once and closes it. A capture that its own evidence calls
unfit is refused (`UnfitTraceError`), as by the command; `accept_lossy=True` reads it all the same. Errors are those of
`analysis.domain.errors`, each one line.

A `.nsys-rep` is exported beside itself with the nsys in `$NSYS`, on `PATH`, or under `.nsys/` beside it; an export that
lies there and is not older is taken. Such an export holds the environment of the profiled process, as the report does.

Of a list – the traces of the ranks of one run, a folder of them, or one trace that holds several – `load` gives
`RankProfiles`: the same methods with a column `rank` in front, `ranks[1]` for the profile of one rank, `report()` for the
combined report, and its tables `ranks()`, `rank_stages()`, `lateness()` and `rank_steps()` ([Many ranks](ranks.md)).

[analysis.ipynb](analysis.ipynb) asks a real trace the five usual questions.

## Options of `load`

Those of the commands, under the same names.

| option | meaning |
|---|---|
"""

TABLES_HEAD = """
## DataFrames

Columns are stable: they are declared once, for DataFrames as for CSV, JSON and Parquet, and [columns.md](columns.md) lists
them; so do the methods' docstrings and `frame.attrs["definitions"]`. A name ends with its unit: `_ns` integer nanoseconds,
`_ms`, `_bytes`, `_flop`, `_per_s`. Shares are 0–1. Times are measured inside the capture, so with what profiling costs,
unless `latencies()`, `overhead()` and `utilisation()` say otherwise in a column. Unknown is `pd.NA`, or NaN in `float64`
columns – never 0.

| type | dtype |
|---|---|
| string | `string`; `category` in `launches()` and `ranges()` |
| int64, bool | `int64`, `bool`; `Int64`, `boolean` where a value may be unknown |
| float64 | `float64` |
| shape | `object`: (x, y, z) |

| method | what | a row | columns |
|---|---|---|---|
"""

TAIL = """
`profile.report()` is the whole report as a frozen record; [its JSON](schemas/report.schema.json) has a schema.
"""


def page() -> str:
    """The page as text."""
    lines = [HEAD.rstrip("\n")]
    lines += [f"| `{one.name}` | {SHARED[one.name].help} |" for one in fields(AnalysisOptions)]
    lines += [TABLES_HEAD.rstrip("\n")]
    for name, spec in TABLES.items():
        method = getattr(Profile, name)
        arguments = ", ".join(
            parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
            for parameter in list(inspect.signature(method).parameters.values())[1:]
        )
        summary = (inspect.getdoc(method) or "").splitlines()[0]
        lines.append(
            f"| `{name}({arguments})` | {summary} | {escaped(spec.rows)} | [{spec.key}](columns.md#{spec.key}) |"
        )
    return "\n".join([*lines, TAIL])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What a trace is held to where it is read: docs/trace-checks.md is written from the declarations (``make docs``)."""

from __future__ import annotations

from analysis.quality.findings import IMPOSSIBLE_SHARE
from analysis.quality.values import SESSIONS
from analysis.render.markdown_tables import code, escaped, head_lines, row_line
from analysis.trace import schema
from analysis.trace.checks import EXAMPLES, must_be

__all__ = ["reference"]

_DAY_NS = 86_400 * 10**9


def reference() -> str:
    """Every table and column that is read, what a value must be, and what happens if it is not, as Markdown."""
    lines = [
        "# What is checked where a trace is read",
        "",
        "<!-- Written by `make docs` from analysis/trace/schema.py; a test compares them. -->",
        "",
        "Reading neither writes nor locks: no byte of the file changes, and no file appears beside it. A file with a rollback",
        "journal or a write-ahead log that is not empty is refused (exit code 3), for what it holds is not what was committed.",
        "So is a view, a virtual table, a generated column or a table without row ids under the name of a table below: nsys",
        "writes none. Indexes of the file are not used.",
        "",
        "Of each value that is used:",
        "",
        "- what SQLite keeps in another type than it must be (text, a fraction or binary data among whole numbers) is refused:",
        "  one line with table, column, row, value and remedy, exit code 3; so is NULL where it says *not NULL*;",
        '- out of range: refused where it says so, otherwise it reads as not recorded ("n/a", never 0), and the finding',
        f"  `impossible-values` counts the rows and names the first {EXAMPLES} of each column; it also counts ids of strings and",
        "  processes that the file does not have;",
        f"- where more than {IMPOSSIBLE_SHARE:.0%} of a table's events have such a value, or end before they start, the capture is",
        "  unfit (exit code 4; `--accept-lossy` reports all the same); fewer events that end before they start are the finding",
        "  `clock-oddities`, and read as lasting 0 ns;",
        f"- events more than {schema.LONGEST_NS // _DAY_NS} days apart are refused; operations and calls that span more than",
        f"  {SESSIONS} times the session and a second make the capture unfit (`times-beyond-session`).",
        "",
    ]
    lines += head_lines([("Table", "left"), ("Column", "left"), ("Must be", "left"), ("Out of range", "left")])
    for spec in schema.CHECKED:
        for name, column in spec.columns.items():
            ranged = column.low is not None or column.refers is not None
            happens = "–" if not ranged else "refused" if column.refused else "not recorded, and reported"
            words = (
                "a text of any bytes"
                if column.kind == "text"
                else "binary data"
                if column.kind == "bytes"
                else must_be(column)
            )
            lines.append(
                row_line((" or ".join(code(table) for table in spec.names), code(name), escaped(words), happens))
            )
    return "\n".join(lines) + "\n"


def _must_be(column: schema.Column) -> str:
    return {"text": "text of any bytes", "bytes": "binary data"}.get(column.kind) or must_be(column)


def _what_happens(column: schema.Column) -> str:
    if column.low is None:
        return "reported" if column.refers is not None else "–"
    return "refused" if column.refused else "not recorded, and reported"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())

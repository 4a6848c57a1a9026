"""The categories of kernels and the families in each: docs/kernels.md is written from the rules (``make docs``)."""

from __future__ import annotations

from analysis.render.markdown_tables import code, escaped, head_lines, row_line
from analysis.sums.kernel_classes import Category, Rule, load_rules

__all__ = ["reference"]


def reference() -> str:
    """Every category, what counts as it, and the families that the rules know, as Markdown."""
    rules = load_rules()
    lines = [
        "# Kernel categories",
        "",
        "<!-- Written by `make docs` from analysis/sums/kernel_rules.toml; a test compares them. -->",
        "",
        "A kernel's category and library are told by its name, by the ordered rules of",
        "[`kernel_rules.toml`](../analysis/sums/kernel_rules.toml); the first that holds decides. A kernel that does two things",
        "counts as the first of: attention, matrix product, normalisation, rotary embedding, activation, quantisation.",
        "`--kernel-rules FILE` puts rules of your own first. What no rule knows is `other`, under its own name.",
        "",
    ]
    lines += head_lines([("Category", "left"), ("What counts", "left"), ("Families that the rules know", "left")])
    lines += [row_line(_cells(category, rules.rules)) for category in rules.categories]
    between = [code(category.name) for category in rules.categories if category.communication]
    lines += ["", f"Communication between devices: {', '.join(between)}."]
    return "\n".join(lines) + "\n"


def _cells(category: Category, rules: tuple[Rule, ...]) -> tuple[str, str, str]:
    mine = [rule for rule in rules if rule.category == category.name]
    families: dict[str, list[str]] = {}
    for rule in mine:
        human = rule.human.replace(" ({operation})", "").replace("{operation}", "operation")
        known = families.setdefault(human, [])
        if rule.library is not None and rule.library not in known:
            known.append(rule.library)
    shown = [f"{human} ({', '.join(known)})" if known else human for human, known in families.items()]
    return code(category.name), escaped(category.meaning), escaped("; ".join(shown))


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())

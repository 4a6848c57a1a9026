import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.figures import exact_ms
from analysis.render.html import environment
from analysis.render.html import page as html
from analysis.render.html.page_data import (
    MAX_KERNELS,
    MAX_NAME_BYTES,
    MAX_SHAPES_OF_ONE,
    MAX_STEPS,
    cut,
    page_data,
)
from analysis.report import Report
from report_builder import HOSTILE, hostile_report, plain_report


class _Page(HTMLParser):
    """Scripts, attributes that could run or load something, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[str | None, str]] = []
        self.policy = ""
        self.suspects: list[tuple[str, str, str | None]] = []
        self.ids: list[str] = []
        self._open: str | None = None
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self._open, self._inside = given.get("type"), True
            self.scripts.append((self._open, ""))
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given.get("content") or ""
        if given.get("id"):
            self.ids.append(str(given["id"]))
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "href", "action") and not (value or "").startswith(("#", "data:"))
            ):
                self.suspects.append((tag, name, value))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)


def data_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_compiled_template_is_kept_where_that_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made_by_a_new_process() -> str:
        environment.page_environment.cache_clear()
        return html.page(plain_report())

    monkeypatch.setattr(environment, "_COMPILED", tmp_path / "__pycache__")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made_by_a_new_process()
    assert not (tmp_path / "__pycache__").exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = made_by_a_new_process()
    assert list((tmp_path / "__pycache__").iterdir())
    assert made_by_a_new_process() == first
    monkeypatch.setattr(environment, "_COMPILED", tmp_path / "not there" / "__pycache__")
    assert made_by_a_new_process() == first
    environment.page_environment.cache_clear()


@pytest.mark.parametrize("make", [plain_report, hostile_report])
def test_the_page_runs_two_scripts_of_ours_and_loads_nothing(make: Any) -> None:
    page = _Page(html.page(make()))
    assert page.suspects == []
    assert [kind for kind, _ in page.scripts] == ["application/json", None, None]
    assert "default-src 'none'" in page.policy
    allowed = re.findall(r"'sha256-([^']+)'", page.policy)
    assert len(allowed) == 2
    assert "unsafe-inline" not in re.search(r"script-src[^;]*", page.policy)[0]  # type: ignore[index]
    assert len(page.ids) == len(set(page.ids))


def test_hostile_names_are_text() -> None:
    page = html.page(hostile_report())
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;document" in page
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page.split("<script>")[0])
    names = data_in(page)["kernels"]["strings"]
    assert "<script>document.title='owned'</script>" in names
    assert "\\x1b[31mred\\x1b]0;title\\x07 bell" in names


def kernel_rows(page: str) -> list[dict[str, Any]]:
    """The kernel table's rows: key of a column → value."""
    kernels = data_in(page)["kernels"]
    return [
        {
            column["key"]: kernels["strings"][value] if column["type"] == "string" and value is not None else value
            for column, value in zip(kernels["columns"], row, strict=True)
        }
        for row in kernels["rows"]
    ]


def test_kernels_on_the_page_are_those_of_the_report() -> None:
    report = plain_report()
    found = {(row["stage"], row["name"]): row for row in kernel_rows(html.page(report))}
    assert len(found) == len(report.kernels)
    for one in report.kernels:
        row = found[one.stage, one.name]
        assert (row["calls"], row["total_ns"], row["tensor_core"]) == (one.calls, one.total_ns, one.tensor_core)
        assert row["grid"] == (None if one.grid is None else list(one.grid))


def test_launch_shapes_stand_below_their_kernel_and_add_up_to_it() -> None:
    report = plain_report()
    kernel = evolve(report.kernels[0], shapes=40, calls=40, total_ns=820, grid=None)
    shapes = tuple(evolve(kernel, shapes=1, calls=1, total_ns=index + 1, grid=(index + 1, 1, 1)) for index in range(40))
    kernels = data_in(html.page(evolve(report, kernels=(kernel, *report.kernels[1:]), kernel_shapes=shapes)))["kernels"]
    place = {column["key"]: index for index, column in enumerate(kernels["columns"])}
    (number,) = kernels["shapes"]
    assert kernels["strings"][kernels["rows"][int(number)][place["name"]]] == kernel.name
    found = kernels["shapes"][number]
    assert [one["rest"] for one in found] == [0] * MAX_SHAPES_OF_ONE + [40 - MAX_SHAPES_OF_ONE]
    assert found[0]["row"][place["grid"]] == [40, 1, 1]
    for key, whole in (("calls", 40), ("total_ns", 820)):
        assert sum(one["row"][place[key]] for one in found) == whole
    why = kernels["unknown"][number]["grid"]
    assert "differ" in kernels["strings"][why]


def test_a_cut_name_fits_and_keeps_its_ends() -> None:
    for name in (*HOSTILE, "é" * 5000, "\U0001f600" * 5000):
        shown = cut(name)
        assert len(shown.encode()) <= MAX_NAME_BYTES + 10
    assert cut("a" * 5000 + "end").endswith("end")


def many(kernels: int) -> Report:
    report = plain_report()
    step = report.steps[0]
    name = "void at::native::elementwise_kernel<(int)128, (int)4, " * 30
    return evolve(
        report,
        kernels=tuple(evolve(report.kernels[0], name=f"{name}{index}", total_ns=index + 1) for index in range(kernels)),
        steps=tuple(evolve(step, index=index, context=index) for index in range(50_000)),
        instances=tuple(evolve(report.instances[0], path=f"image[{index}]/prefill") for index in range(5_000)),
        module_rows={
            stage: tuple(
                evolve(report.stage_rows[0], name=f"layers.{index}.{'x' * (index % 50)}") for index in range(5_000)
            )
            for stage in ("all", "prefill", "decode")
        },
        host_calls=tuple(evolve(report.host_calls[0], where=f"layers.{index}") for index in range(5_000)),
    )


def test_a_huge_trace_makes_a_page_below_five_megabytes_that_adds_up() -> None:
    report = many(20_000)
    page = html.page(report)
    assert len(page.encode()) < 5_000_000
    kernels = data_in(page)["kernels"]
    assert len(kernels["rows"]) == MAX_KERNELS
    shown = sum(row["total_ns"] for row in kernel_rows(page))
    (folded,) = kernels["folded"]
    assert folded["kernels"] == 20_000 - MAX_KERNELS
    assert folded["sums"][1] == f"{exact_ms(sum(one.total_ns for one in report.kernels) - shown)} ms"


def test_steps_are_averaged_by_the_stated_rule() -> None:
    steps = page_data(many(10))["steps"]
    assert steps["count"] == 50_000
    assert len(steps["points"]) <= MAX_STEPS
    assert steps["averaged"] == 25
    assert steps["points"][0][0] == pytest.approx(sum(range(25)) / 25)


def test_the_modules_of_the_icicle_are_those_of_the_report() -> None:
    report = plain_report(("a", "b.c", "b.d", "b"))
    modules = data_in(html.page(report))["modules"]
    decode = {modules["paths"][path]: gpu for stage, path, gpu, *_ in modules["rows"] if stage == "decode"}
    assert decode == {row.name: row.kernel_sum_ns for row in report.module_rows["decode"]}


def test_cautions_stand_in_the_header(tmp_path: Path) -> None:
    report = plain_report()
    page = html.page(evolve(report, capture=evolve(report.capture, on_cpu=True)))
    header = page.split("<main>")[0]
    assert "Weights are random" in header
    assert "Leaf operators on the CPU" in header


def test_every_section_stands_once() -> None:
    page = html.page(plain_report())
    for mark in ('class="tiles"', 'id="verdict"', 'id="kernel-modules"', 'id="kernels"', 'id="where"'):
        assert page.count(mark) == 1, mark

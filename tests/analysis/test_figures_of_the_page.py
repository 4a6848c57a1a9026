"""The page's script writes numbers by the same rules as Python: the same values, written by both."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.render.spec import specification
from analysis.render.spec.specification import Style

SCRIPT = Path(specification.__file__).parents[1] / "html" / "assets" / "figures.js"
STYLES = {value.name: value for value in vars(specification).values() if isinstance(value, Style)}
STYLES |= {f"decimal {digits}": specification.decimals(digits) for digits in range(5)}
STYLES |= {f"times {digits}": specification.factor(digits) for digits in range(4)}
WHOLE = {"count", "exact_ms", "plain"}
"""Styles of whole numbers only."""

TIES = (
    0.5,
    1.5,
    2.5,
    0.125,
    0.375,
    0.0625,
    1.0625,
    2.675,
    1.005,
    0.045,
    12.25,
    999.5,
    99.95,
    9.995,
    0.9995,
    0.99949,
    1e-9,
)
WHOLES = (
    0,
    1,
    9,
    999,
    1000,
    999_499,
    999_500,
    999_999,
    1_000_000,
    999_499_999,
    12_345_678_901,
    3_600_000_000_000,
    2**52,
)


def values_of(style: Style) -> list[Any]:
    if style.name in ("name", "text"):
        return ["gemm<1>", "a\\x1bb", ""]
    if style.name == "shape":
        return [(1, 2, 3), (300, 24, 1)]
    if style.name == "yes_no":
        return [True, False]
    draw = random.Random(7)
    wholes = [*WHOLES, *(draw.randrange(10 ** draw.randrange(1, 15)) for _ in range(500))]
    if style.name in WHOLE:
        return [sign * value for value in wholes for sign in (1, -1)]
    floats = [draw.uniform(0, 1) * 10 ** draw.randrange(-7, 16) for _ in range(3000)]
    halves = [draw.randrange(10**5) / 2 ** draw.randrange(1, 8) for _ in range(2000)]
    floats += [float(f"{value:.4g}") for value in floats]
    return [*wholes, *TIES, *floats, *halves, *(-value for value in (*TIES, *halves))]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs node, to run the page's script outside a browser")
    return found


@pytest.mark.parametrize("name", STYLES)
def test_python_and_the_page_write_alike(name: str, node: str, tmp_path: Path) -> None:
    style = STYLES[name]
    values = [*values_of(style), None]
    given = tmp_path / "values.json"
    given.write_text(json.dumps({"style": style.name, "digits": style.digits, "values": values}))
    program = (
        f"{SCRIPT.read_text()}\nconst given = JSON.parse(require('fs').readFileSync({json.dumps(str(given))}));"
        "console.log(JSON.stringify(given.values.map((value) => figures.written(given.style, value, given.digits))));"
    )
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True, encoding="utf-8")
    written = json.loads(done.stdout)
    differ = [
        (value, style(value), found) for value, found in zip(values, written, strict=True) if style(value) != found
    ]
    assert differ == []


def test_the_page_knows_every_style() -> None:
    listed = re.search(r"const styles = \{(.*?)\n  \};", SCRIPT.read_text(), re.DOTALL)
    assert listed is not None
    names = set(re.findall(r"^    (\w+)[:,]", listed[1], re.MULTILINE))
    assert names == {style.name for style in STYLES.values()}

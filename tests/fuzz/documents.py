"""Damage to JSON, TOML and CSV files."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.damage import flip

if TYPE_CHECKING:
    from fuzz.cases import Claim

__all__ = ["damage_csv", "damage_json", "damage_toml"]

_RAW: Final = {
    "null": "null", "true": "true", "empty text": '""', "text": '"abc"', "hostile text": '"\\u001b[2J</script>\\n=1+1"',
    "lone surrogate": '"\\ud800"', "NUL": '"a\\u0000b"', "0": "0", "-1": "-1", "2**63": str(2**63),
    "2**64": str(2**64), "-2**63": str(-(2**63)),
    "10**400": "1" + "0" * 400, "1e308": "1e308", "-1e308": "-1e308", "1e999": "1e999", "1e-320": "1e-320",
    "NaN": "NaN", "Infinity": "Infinity", "0.5": "0.5", "empty list": "[]", "empty object": "{}", "list": "[1]",
    "object": '{"a": 1}', "5000 digits": "7" * 5000, "deep list": "[" * 5_000 + "]" * 5_000,
    "deeper list": "[" * 200_000 + "]" * 200_000, "deep object": '{"a":' * 3_000 + "1" + "}" * 3_000,
    "long text": '"' + "x" * 500_000 + '"', "a date": '"2026-13-45T99:00:00"', "a path": '"../../../etc/passwd"',
}  # fmt: skip
"""What takes the place of a value, as JSON text."""
_MARK: Final = "__fuzz_value__"


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value; of long lists the first and the last items only."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key, below in value.items():
            found += _places(below, (*at, key))
    elif isinstance(value, list):
        for number in {0, len(value) - 1} if value else ():
            found += _places(value[number], (*at, number))
    return found


def _parent(value: Any, place: tuple[Any, ...]) -> Any:
    for step in place[:-1]:
        value = value[step]
    return value


def _dotted(place: tuple[Any, ...]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def damage_json(draw: random.Random, source: Path, target: Path) -> tuple[str, Claim]:
    """Write a damaged copy; returns what was done, and what is known of it."""
    text = source.read_text(encoding="utf-8")
    way = draw.choice(("value", "value", "value", "value", "value", "values", "delete", "add", "twice", "truncate",
                       "flips", "bytes", "whole", "numbers"))  # fmt: skip
    plain = json.loads(text)
    places = _places(plain)
    place = draw.choice(places)
    what, claim = f"{way} at {_dotted(place)}", "anything"
    if way in ("value", "values"):
        names = []
        for _ in range(1 if way == "value" else draw.randint(2, 6)):
            place = draw.choice(places)
            name = draw.choice(tuple(_RAW))
            try:
                _parent(plain, place)[place[-1]] = f"{_MARK}{name}"
            except (KeyError, IndexError, TypeError):  # gone with a value above it, which may be a text now
                continue
            names.append(f"{_dotted(place)} = {name}")
        text = json.dumps(plain, ensure_ascii=False)
        for name, raw in _RAW.items():
            text = text.replace(f'"{_MARK}{name}"', raw)
        what = ", ".join(names)
    elif way == "numbers":
        text, what = _numbers(draw, plain, places)
    elif way == "delete":
        del _parent(plain, place)[place[-1]]
        text = json.dumps(plain)
    elif way == "add":
        parent = _parent(plain, place)
        if isinstance(parent, dict):
            parent[draw.choice(("fuzz", "", "__class__", "\x00", "naïve"))] = 1
        else:
            parent.append(draw.choice((None, 1, "a", [], {})))
        text = json.dumps(plain)
    elif way == "twice":
        objects = [one for one in [(), *places] if isinstance(_at(plain, one), dict) and _at(plain, one)]
        place = draw.choice(objects)
        chosen = _at(plain, place)
        key = draw.choice(tuple(chosen))
        chosen[_MARK] = chosen[key]
        text = json.dumps(plain).replace(json.dumps(_MARK), json.dumps(key))
        what, claim = f"{_dotted(place)}.{key} twice", "impossible"
    elif way == "truncate":
        length = draw.randrange(len(text.rstrip()) - 1)
        text, what, claim = text[:length], f"truncated to {length} characters", "impossible"
    elif way == "flips":
        target.write_bytes(flip(draw, text.encode()))
        return "flipped bytes", "anything"
    elif way == "bytes":
        return _bytes(draw, text, target)
    else:
        name = draw.choice(tuple(_RAW))
        text, what, claim = _RAW[name], f"nothing but {name}", "impossible"
    target.write_bytes(text.encode("utf-8", "surrogatepass"))
    return what, claim  # type: ignore[return-value]


def _at(plain: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        plain = plain[step]
    return plain


def _numbers(draw: random.Random, plain: Any, places: list[tuple[Any, ...]]) -> tuple[str, str]:
    """Other numbers where numbers are, which fit the type and not the truth."""
    chosen = [place for place in places if type(_at(plain, place)) in (int, float)]
    words = []
    for place in draw.sample(chosen, min(len(chosen), draw.randint(1, 8))):
        value = _at(plain, place)
        new = draw.choice((-1, 0, 1, 2**31, 2**53 + 1, 2**62)) if isinstance(value, int) else draw.choice(
            (-1.0, 0.0, 1e-300, 1e18, 1e300, 1.5))  # fmt: skip
        _parent(plain, place)[place[-1]] = new
        words.append(f"{_dotted(place)} = {new}")
    return json.dumps(plain), ", ".join(words)


def _bytes(draw: random.Random, text: str, target: Path) -> tuple[str, Claim]:
    way = draw.choice(("empty", "BOM", "UTF-16", "invalid UTF-8", "NUL bytes", "spaces", "twice over", "noise"))
    content = text.encode()
    claim: Claim = "anything"
    if way == "empty":
        content, claim = b"", "impossible"
    elif way == "BOM":
        content = b"\xef\xbb\xbf" + content
    elif way == "UTF-16":
        content = text.encode("utf-16")
    elif way == "invalid UTF-8":
        at = draw.randrange(len(content))
        content = content[:at] + draw.choice((b"\xff", b"\xc3(", b"\xed\xa0\x80")) + content[at:]
    elif way == "NUL bytes":
        content, claim = bytes(len(content)), "impossible"
    elif way == "spaces":
        content += b" " * 2_000_000
    elif way == "twice over":
        content, claim = content + content, "impossible"
    else:
        content, claim = b"\x89" + draw.randbytes(2000), "impossible"
    target.write_bytes(content)
    return way, claim


# --- TOML ------------------------------------------------------------------------------------------------------------

_TOML_VALUES: Final = (
    '""', '"abc"', "0", "-1", "1e308", "nan", "inf", "true", "[]", "{}", "[[]]", "2026-01-01", str(2**63), str(2**64), "7" * 5000,
    '"' + "x" * 100_000 + '"', "[" * 3_000 + "]" * 3_000, "[" * 100_000 + "]" * 100_000,
    '"\\u0000"', '"\\u001b[2J"', '"-5 %"', '"1e400 s"', '"nan %"',
    "{a" + ".a" * 2_000 + " = 1}", '["a", 1]', '[""]', "'(a+)+$'", '"*"', '"' + "*a" * 200 + '"', "''",
)  # fmt: skip


def damage_toml(draw: random.Random, source: Path, target: Path) -> tuple[str, Claim]:
    """Write a damaged copy; returns what was done, and what is known of it."""
    text = source.read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if " = " in line and not line.lstrip().startswith("#")]
    way = draw.choice(("value", "value", "value", "value", "delete", "add", "twice", "truncate", "flips", "bytes",
                       "header", "swap"))  # fmt: skip
    what, claim = way, "anything"
    if way == "value":
        number, value = draw.choice(keys), draw.choice(_TOML_VALUES)
        key = lines[number].partition(" = ")[0]
        # A list may go on over the following lines: the whole of it is replaced.
        end = number + 1
        while end < len(lines) and lines[number].rstrip().endswith("[") and not lines[end].startswith("]"):
            end += 1
        lines[number : end + (end > number + 1)] = [f"{key} = {value}"]
        what = f"line {number + 1}: {key} = {value[:30]}"
    elif way == "delete":
        number = draw.choice([number for number, line in enumerate(lines) if line.strip()])
        what = f"line {number + 1} deleted: {lines.pop(number)[:40]}"
    elif way == "add":
        new = draw.choice(
            ("fuzz = 1", "[fuzz]", "[[fuzz]]", '"" = 1', "a.b.c = 2", "[a" + ".a" * 2_000 + "]", "= 1", "\x00")
        )
        number = draw.randrange(len(lines) + 1)
        lines.insert(number, new)
        what = f"line {number + 1}: {new[:30]!r} added"
    elif way == "twice":
        number = draw.choice(keys)
        lines.insert(number, lines[number])
        what = f"line {number + 1} twice"
    elif way == "swap":
        one, other = draw.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        what = f"lines {one + 1} and {other + 1} swapped"
    elif way == "header":
        headers = [number for number, line in enumerate(lines) if line.startswith("[")]
        if headers:
            number = draw.choice(headers)
            lines[number] = draw.choice(("[]", "[x", lines[number].replace("[[", "[").replace("]]", "]"), "[[fuzz]]"))
            what = f"line {number + 1}: {lines[number]}"
    elif way == "truncate":
        length = draw.randrange(len(text))
        target.write_text(text[:length], encoding="utf-8")
        return f"truncated to {length} characters", "anything"
    elif way == "flips":
        target.write_bytes(flip(draw, text.encode()))
        return "flipped bytes", "anything"
    else:
        return _bytes(draw, text, target)[0], "anything"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return what, claim  # type: ignore[return-value]


# --- CSV -------------------------------------------------------------------------------------------------------------

_CELLS: Final = (
    "", "abc", "-1", "0", "nan", "inf", "-inf", "1e308", "1e400", str(2**63), str(2**70), "1,234.5", '"', "\x00", "=1+1", "\x1b[2J",
    "x" * 200_000,
    "(0, 0, 0)", "(1, 1)", "(-1, 1, 1)", "()", "n/a", "7" * 5000,
)  # fmt: skip


def damage_csv(draw: random.Random, source: Path, target: Path) -> tuple[str, Claim]:
    """Write a damaged copy; returns what was done, and what is known of it."""
    text = source.read_text(encoding="utf-8")
    table = list(csv.reader(io.StringIO(text)))
    way = draw.choice(("cell", "cell", "cell", "column", "header", "units", "short row", "long row", "delete rows",
                       "twice", "truncate", "flips", "bytes", "drop column"))  # fmt: skip
    row, column = draw.randrange(2, len(table)), draw.randrange(len(table[0]))
    what = f"{way}, row {row}, column {table[0][column][:40]}"
    if way == "cell":
        table[row][column] = value = draw.choice(_CELLS)
        what += f" = {value[:20]!r}"
    elif way == "column":
        value = draw.choice(_CELLS)
        for line in table[2:]:
            line[column] = value
        what += f" = {value[:20]!r}"
    elif way == "header":
        table[0][column] = draw.choice(("", table[0][column - 1], "ID", "Kernel Name", "\x00"))
    elif way == "units":
        table[1][column] = draw.choice(("", "ns", "Gbyte", "%", "furlong", "7"))
    elif way == "short row":
        table[row] = table[row][:column]
    elif way == "long row":
        table[row] += ["1"] * draw.choice((1, 1000))
    elif way == "delete rows":
        del table[draw.randrange(0, 3) : row]
    elif way == "twice":
        table.insert(row, table[row])
    elif way == "drop column":
        table = [line[:column] + line[column + 1 :] for line in table]
    elif way == "truncate":
        target.write_text(text[: draw.randrange(len(text))], encoding="utf-8")
        return "truncated", "anything"
    elif way == "flips":
        target.write_bytes(flip(draw, text.encode()))
        return "flipped bytes", "anything"
    else:
        return _bytes(draw, text, target)[0], "anything"
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(table)
    target.write_text(written.getvalue(), encoding="utf-8")
    return what, "anything"

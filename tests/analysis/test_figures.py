"""How numbers are written: units, digits, and arithmetic that holds as it is shown."""

import re
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.domain import figures

NANOSECONDS = st.floats(min_value=0, max_value=1e14, allow_nan=False) | st.integers(min_value=0, max_value=10**14)


def in_last_digits(text: str) -> tuple[int, int, str]:
    """The digits as one whole number, how many are decimals, the unit."""
    number, unit = text.rsplit(" ", 1)
    digits = number.replace(",", "")
    return int(digits.replace(".", "")), len(digits.partition(".")[2]), unit


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, "n/a"),
        (0, "0 ns"),
        (812, "812 ns"),
        (2_780.4, "2.78 µs"),
        (999_999, "1.00 ms"),
        (78_291_298, "78.3 ms"),
        (3_382_110_000, "3.38 s"),
        (3_600_000_000_000, "3,600 s"),
    ],
)
def test_a_duration_has_three_digits_and_the_unit_that_fits(ns: float | None, shown: str) -> None:
    assert figures.duration(ns) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "n/a"), (0.0, "0 %"), (0.092, "9.2 %"), (0.0052, "0.52 %"), (0.000046, "0.005 %"), (1.0, "100.0 %"),
     (1e-9, "< 0.0001 %")],
)  # fmt: skip
def test_a_small_share_does_not_read_as_none(value: float | None, shown: str) -> None:
    assert figures.share(value) == figures.ratio(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1240.4, "1,240"), (78.34, "78.3"), (0.125, "0.125"), (0.00378788, "0.00379"), (0.0001894, "0.000189"), (0, "0.00"),
     (3e-7, "< 0.000001"), (0.09995, "0.100"), (-0.0042, "-0.00420")],
)  # fmt: skip
def test_three_digits_are_significant(value: float, shown: str) -> None:
    assert figures.significant(value) == shown


@given(st.floats(min_value=0, exclude_min=True, max_value=1e12))
def test_what_is_not_zero_does_not_read_as_zero(value: float) -> None:
    assert re.search(r"[1-9]", figures.significant(value))


@given(st.floats(min_value=0, max_value=1e6))
def test_a_share_never_exceeds_its_whole(value: float) -> None:
    shown = figures.share(value)
    assert float(shown.removeprefix("< ").removesuffix(" %")) <= 100
    assert figures.ratio(1.042) == "104.2 %"


@given(st.lists(st.integers(min_value=0, max_value=10**15), max_size=20))
def test_exact_milliseconds_add_up_on_paper(times: list[int]) -> None:
    on_paper = sum(int(figures.exact_ms(one).replace(",", "").replace(".", "")) for one in times)
    assert on_paper == sum(times)


@pytest.mark.parametrize(
    ("whole", "part", "shown"),
    [
        (2_019_600, 456_000, ("2.02 ms", "0.46 ms", "1.56 ms")),  # 1.5636; rounded apart: 2.02 − 0.46 = 1.56
        (2_024_900, 455_100, ("2.02 ms", "0.46 ms", "1.56 ms")),  # 1.5698, which alone is 1.57
        (17_900_000, 17_900_000, ("17.9 ms", "17.9 ms", "0.0 ms")),
        (24_000_000, 3_000, ("24.000 ms", "0.003 ms", "23.997 ms")),
        (400_000, 1_300_000, ("0.40 ms", "1.30 ms", "-0.90 ms")),
        (0, 0, ("0 ns", "0 ns", "0 ns")),
    ],
)
def test_a_difference_holds_as_it_is_written(whole: float, part: float, shown: tuple[str, str, str]) -> None:
    found = figures.difference(whole, part)
    assert (found.whole, found.part, found.rest) == shown


@given(NANOSECONDS, NANOSECONDS)
def test_every_difference_holds_as_it_is_written(whole: float, part: float) -> None:
    found = figures.difference(whole, part)
    first, second, rest = (in_last_digits(text) for text in (found.whole, found.part, found.rest))
    assert first[0] - second[0] == rest[0]
    assert first[1:] == second[1:] == rest[1:]
    size = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1.0}[rest[2]]
    assert rest[0] / 10 ** rest[1] * size == pytest.approx(whole - part, abs=1.01 * size / 10 ** rest[1])


@given(NANOSECONDS, NANOSECONDS)
def test_a_part_of_a_whole_divides_as_it_is_written(part: float, whole: float) -> None:
    assume(whole > 1000)
    found = figures.part_of(part, whole)
    above, below = in_last_digits(found.part), in_last_digits(found.whole)
    assert above[1:] == below[1:]
    assert found.share == figures.share(part / whole)
    exact = {"s": 9, "ms": 6, "µs": 3, "ns": 0}[below[2]]
    assert above[1] == exact or figures.share(above[0] / below[0]) == found.share


def test_a_part_of_a_whole_takes_no_more_digits_than_it_needs() -> None:
    found = figures.part_of(2_400_000, 17_900_000)
    assert (found.part, found.whole, found.share) == ("2.4 ms", "17.9 ms", "13.4 %")
    found = figures.part_of(464_900, 2_015_100)  # 0.46 of 2.02 would be 22.8 %
    assert (found.part, found.whole, found.share) == ("0.465 ms", "2.015 ms", "23.1 %")
    assert figures.part_of(5, 0).share == "n/a"


@given(st.lists(st.floats(min_value=0, max_value=1e12), min_size=1, max_size=8))
def test_whole_per_cents_add_up(parts: list[float]) -> None:
    assume(sum(parts) > 0)
    shown = figures.whole_per_cents(parts)
    assert sum(int(text.removesuffix(" %")) for text in shown) == 100
    for text, part in zip(shown, parts, strict=True):
        assert int(text.removesuffix(" %")) == pytest.approx(100 * part / sum(parts), abs=1)


def test_whole_per_cents_of_nothing() -> None:
    assert figures.whole_per_cents((0, 0)) == ("n/a", "n/a")
    assert figures.whole_per_cents((1, 1, 1)) == ("34 %", "33 %", "33 %")


def test_unknown_is_never_a_number() -> None:
    writers = (figures.count, figures.duration, figures.exact_ms, figures.microseconds, figures.ratio, figures.share,
               figures.times, figures.bytes_, figures.flop, figures.significant)  # fmt: skip
    assert {write(None) for write in writers} == {"n/a"}
    assert figures.decimal(None, 2) == figures.rate(None, "B/s") == "n/a"
    assert not re.search(r"\d", figures.NOT_AVAILABLE)


@pytest.mark.parametrize(
    ("number", "words", "shown"),
    [(1, ("launch", "launches"), "1 launch"), (0, ("gap",), "0 gaps"), (1_204, ("copy", "copies"), "1,204 copies")],
)
def test_one_of_a_thing_is_singular(number: int, words: tuple[str, ...], shown: str) -> None:
    assert figures.counted(number, *words) == shown


@given(NANOSECONDS, st.floats(min_value=0, max_value=1))
def test_a_fall_holds_as_it_is_written(before: float, left: float) -> None:
    assume(before >= 1)
    after = before * left
    shown = figures.fall(before, after)
    digits, decimals, unit = in_last_digits(f"{shown.before} {shown.after.rsplit(' ', 1)[1]}")
    rest, same_decimals, same_unit = in_last_digits(shown.after)
    assert (decimals, unit) == (same_decimals, same_unit)
    match = re.fullmatch(r"−([\d.]+) %|0 %|(under −0\.1 %)", shown.per_cent)
    assert match is not None
    if match[1]:
        places = len(match[1].partition(".")[2])
        size = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1}[unit]
        exact = {"s": 9, "ms": 6, "µs": 3, "ns": 0}[unit]
        # Recalculated from what is shown, unless nanoseconds are not fine enough.
        if decimals < exact:
            assert abs(100 * (1 - rest / digits) - float(match[1])) <= 0.5001 * 10**-places
        assert abs(before / size - digits / 10**decimals) <= 0.51 * 10**-decimals
    assert not (shown.per_cent.endswith("−100 %") and rest), "not all of it, while something is left"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (1_790_700_000, 255_900_000, ("1,791", "256 ms", "−86 %")),
        (263_000_000, 183_000_000, ("263", "183 ms", "−30 %")),
        (1_790_700_000, 1_775_500_000, ("1,791", "1,776 ms", "−0.8 %")),
        (100_000, 36_000, ("100", "36 µs", "−64 %")),
        (250e9, 10e9, ("250", "10 s", "−96 %")),
        (5_000_000, 5_000_000, ("5.00", "5.00 ms", "0 %")),
    ],
)
def test_a_fall_has_one_unit(before: float, after: float, shown: tuple[str, str, str]) -> None:
    written = figures.fall(before, after)
    assert (written.before, written.after, written.per_cent) == shown


@given(st.lists(st.integers(min_value=0, max_value=10**13), min_size=1, max_size=6))
def test_times_written_together_add_up(parts: list[int]) -> None:
    assume(sum(parts) > 0)
    shown = figures.together(parts)
    whole, decimals, unit = in_last_digits(shown.whole)
    each = [in_last_digits(text) for text in shown.parts]
    assert {(places, name) for _, places, name in each} == {(decimals, unit)}
    assert sum(digits for digits, _, _ in each) == whole


def number_of(text: str) -> Decimal:
    return Decimal(text.partition(" ")[0].replace(",", "").replace("−", "-"))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (16.912e6, 12.581e6, ("16.91", "12.58 ms", "−4.33 ms", "−26 %")),
        (1_790e6, 254e6, ("1,790", "254 ms", "−1,536 ms", "−86 %")),
        (1e6, 1.0004e6, ("1.0000", "1.0004 ms", "+0.0004 ms", "+0.04 %")),
        (1e6, 3e6, ("1.00", "3.00 ms", "+2.00 ms", "3.00 ×")),
        (5.0, 5.0, ("5", "5 ns", "0 ns", "0 %")),
        (0.0, 4e3, ("0.00", "4.00 µs", "+4.00 µs", "n/a")),
    ],
)
def test_a_change_is_read_at_a_glance(before: float, after: float, shown: tuple[str, ...]) -> None:
    change = figures.change(before, after)
    assert (change.before, change.after, change.by, change.relative) == shown


@given(NANOSECONDS, NANOSECONDS)
def test_every_change_holds_as_it_is_written(before: float, after: float) -> None:
    change = figures.change(before, after)
    assert number_of(change.after) - number_of(change.before) == number_of(change.by)
    if change.relative.endswith("×"):
        assert change.relative == figures.times(float(number_of(change.after) / number_of(change.before)))
    elif change.relative != "n/a":
        digits = len(change.relative.partition(".")[2].removesuffix(" %"))
        exact = (
            100 * (number_of(change.after) / number_of(change.before) - 1) if number_of(change.before) else Decimal(0)
        )
        assert abs(exact - number_of(change.relative)) <= Decimal("0.5000001") * Decimal(10) ** -digits


@given(st.lists(st.tuples(st.floats(-1e9, 1e11), st.floats(-1e9, 1e11)), max_size=30))
def test_a_ledger_adds_up_across_and_down(rows: list[tuple[float, float]]) -> None:
    ledger = figures.ledger([before for before, _ in rows], [after for _, after in rows])
    columns = [[number_of(text) for text in column] for column in (ledger.before, ledger.after, ledger.by)]
    assert [sum(column) for column in columns] == [number_of(text) for text in ledger.total]
    assert all(after - before == by for before, after, by in zip(*columns, strict=True))
    assert number_of(ledger.total[1]) - number_of(ledger.total[0]) == number_of(ledger.total[2])


def test_a_ledger_signs_its_differences_only() -> None:
    ledger = figures.ledger([9e6, 4.2e6, -3e5, 3e4], [9.1e6, 1.2e6, -1e5, 2.9e4])
    assert ledger.unit == "ms"
    assert ledger.before == ("9.000", "4.200", "−0.300", "0.030")
    assert ledger.by == ("+0.100", "−3.000", "+0.200", "−0.001")
    assert ledger.total == ("12.930", "10.229", "−2.701")


@pytest.mark.parametrize(
    ("ns", "shown"), [(None, "n/a"), (0, "0 ns"), (-3e6, "−3.00 ms"), (3_410.0, "+3.41 µs"), (-0.0, "0 ns")]
)
def test_a_difference_has_its_sign(ns: float | None, shown: str) -> None:
    assert figures.signed_duration(ns) == shown

"""Cursor values keep their full precision and their database's order."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_core.domain.watermark import CursorType, Watermark, latest

TIMESTAMPS = st.builds(
    lambda moment, nanos: moment.replace(microsecond=0).isoformat() + (f".{nanos:09d}".rstrip("0").rstrip(".")),
    st.datetimes(),
    st.integers(0, 999_999_999),
)


@given(TIMESTAMPS)
def test_p08_a_timestamp_keeps_nine_decimals(text: str) -> None:
    assert Watermark.parse(CursorType.TIMESTAMP, text).value == text


@given(TIMESTAMPS, TIMESTAMPS)
def test_timestamps_sort_as_their_moments(one: str, other: str) -> None:
    padded = [text + "." * ("." not in text) for text in (one, other)]
    first, second = (text.ljust(29, "0") for text in padded)
    is_less = Watermark.parse(CursorType.TIMESTAMP, one) < Watermark.parse(CursorType.TIMESTAMP, other)
    assert is_less == (first < second)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27))
def test_p08_a_number_keeps_every_digit(value: Decimal) -> None:
    assert Decimal(Watermark.parse(CursorType.NUMBER, str(value)).value) == value


def test_p08_a_number_of_38_digits_is_kept() -> None:
    digits = "9" * 38
    assert Watermark.parse(CursorType.NUMBER, digits).value == digits
    assert Watermark.parse(CursorType.NUMBER, digits).back(1).value == "9" * 37 + "8"


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        (CursorType.NUMBER, "-12.50", "-12.5"),
        (CursorType.NUMBER, "1E+3", "1000"),
        (CursorType.NUMBER, "-0.0", "0"),
        (CursorType.DATE, "2024-02-29", "2024-02-29"),
        (CursorType.DATE, "2024-02-29 00:00:00", "2024-02-29"),
        (CursorType.TIMESTAMP, "2020-01-01", "2020-01-01T00:00:00"),
        (CursorType.TIMESTAMP, "2020-01-01 10:11:12.100", "2020-01-01T10:11:12.1"),
        (CursorType.TIMESTAMP_TZ, "2020-01-01T00:30:00+01:00", "2019-12-31T23:30:00Z"),
        (CursorType.TIMESTAMP_TZ, "2020-01-01T00:30:00.1234567-02:30", "2020-01-01T03:00:00.1234567Z"),
        (CursorType.ROWVERSION, "7d1", "0x00000000000007D1"),
        (CursorType.VERSION, "0042", "42"),
    ],
)
def test_values_are_written_in_one_way(kind: CursorType, text: str, canonical: str) -> None:
    assert Watermark.parse(kind, text).value == canonical
    assert Watermark.parse(kind, canonical).value == canonical


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (CursorType.NUMBER, "twelve"),
        (CursorType.NUMBER, "NaN"),
        (CursorType.DATE, "2024-02-30"),
        (CursorType.DATE, "2024-02-29T10:00:00"),
        (CursorType.TIMESTAMP, "2024-01-01T00:00:00Z"),
        (CursorType.TIMESTAMP, "2024-13-01"),
        (CursorType.TIMESTAMP, "2024-01-01T00:00:00.1234567890"),
        (CursorType.TIMESTAMP_TZ, "yesterday"),
        (CursorType.ROWVERSION, "0x1234567890ABCDEF0"),
        (CursorType.VERSION, "-1"),
    ],
)
def test_what_is_no_value_is_refused_with_an_example(kind: CursorType, text: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        Watermark.parse(kind, text)


@given(st.datetimes(min_value=datetime(1, 1, 3)), st.integers(0, 86_400))
def test_looking_back_subtracts_seconds(moment: datetime, seconds: int) -> None:
    mark = Watermark.parse(CursorType.TIMESTAMP, moment.isoformat())
    expected = Watermark.parse(CursorType.TIMESTAMP, (moment - timedelta(seconds=seconds)).isoformat())
    assert mark.back(seconds) == expected


def test_looking_back_stops_at_the_first_moment_and_rounds_dates_outwards() -> None:
    assert Watermark.parse(CursorType.TIMESTAMP, "0001-01-01").back(3600).value == "0001-01-01T00:00:00"
    assert Watermark.parse(CursorType.DATE, "2024-03-01").back(1).value == "2024-02-29"
    rowversion = Watermark.parse(CursorType.ROWVERSION, "7d1")
    assert rowversion.back(10) == rowversion


def test_latest_ignores_what_is_not_there() -> None:
    one, two = (Watermark.parse(CursorType.NUMBER, text) for text in ("9", "10"))
    assert latest(None, two, one) == two
    assert latest(None) is None


def test_values_of_two_types_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        _ = Watermark.parse(CursorType.NUMBER, "1") < Watermark.parse(CursorType.VERSION, "1")

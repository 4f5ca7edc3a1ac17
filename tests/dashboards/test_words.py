from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from dashboards import words


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "unknown"), (0, "0"), (1024, "1,024"), (1.5, "1.5"), (2.0, "2"), (-3, "-3")],
)
def test_a_count_that_is_not_known_is_a_word(value: float | None, written: str) -> None:
    assert words.count(value) == written


@pytest.mark.parametrize(
    ("ratio", "written"),
    [
        pytest.param(None, "unknown", id="not known"),
        pytest.param(0.0, "0.0 %", id="a measured zero"),
        pytest.param(0.00001, "< 0.1 %", id="nearly nothing is not nothing"),
        pytest.param(0.99999, "> 99.9 %", id="nearly all is not all"),
        pytest.param(1.0, "100.0 %", id="all"),
        pytest.param(0.125, "12.5 %", id="in between"),
    ],
)
def test_a_ratio_never_reads_as_more_or_less_than_it_is(ratio: float | None, written: str) -> None:
    assert words.percent(ratio) == written


@pytest.mark.parametrize(("part", "whole"), [(None, 4), (4, None), (4, 0), (0, 0)])
def test_a_share_of_nothing_is_unknown(part: int | None, whole: int | None) -> None:
    assert words.share(part, whole) == "unknown"


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        pytest.param(None, "no price", id="no price"),
        pytest.param(Decimal(0), "$0.00", id="a zero is an amount"),
        pytest.param(Decimal("2.494"), "$2.49", id="cents while they matter"),
        pytest.param(Decimal("12345.67"), "$12,346", id="whole dollars above a hundred"),
        pytest.param(Decimal(-5), "-$5.00", id="negative"),
    ],
)
def test_money_is_written_in_dollars(amount: Decimal | None, written: str) -> None:
    assert words.money(amount) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (90061, "1 d 1 h"),
        (86400 * 400, "400 d"),
    ],
)
def test_a_length_of_time_is_told_in_two_units(seconds: int, written: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == written


def test_a_sample_from_the_future_is_told_as_such() -> None:
    assert words.age(timedelta(minutes=-5)) == "5 min ahead"
    assert words.age(timedelta(minutes=5)) == "5 min old"
    assert words.age(None) == "unknown"


def test_a_moment_names_its_zone() -> None:
    assert words.moment(datetime(2026, 3, 2, 9, 5, tzinfo=UTC)) == "02 Mar 2026, 09:05 UTC"


def test_text_of_others_does_not_turn_into_markup() -> None:
    assert words.in_markdown("$a$ *b* [c](d) `e`") == r"\$a\$ \*b\* \[c\](d) \`e\`"

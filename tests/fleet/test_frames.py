from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import BadFrame
from fleet.frames import MONEY, UTC_MICROSECONDS, Column, Table, check, conform

TABLE = Table(
    "reading",
    "A table with a column of every type there is.",
    (
        Column("gpu", pl.UInt32(), "the key", required=True),
        Column("ts", UTC_MICROSECONDS, "when", required=True),
        Column("power_w", pl.Float32(), "a small real"),
        Column("energy_j", pl.Float64(), "an exact real"),
        Column("error_count", pl.Int64(), "an integer"),
        Column("fan_count", pl.Int32(), "a small integer"),
        Column("cost_usd", MONEY, "money"),
        Column("is_lost", pl.Boolean(), "a flag"),
        Column("node", pl.String(), "text"),
    ),
    key=("gpu", "ts"),
    time="ts",
)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
GIVEN = {"gpu_uuid": ["GPU-a"], "ts": [NOON]}

# naive bounds are what hypothesis asks for; the zone is put on afterwards
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001
MOMENTS = st.integers(0, 2**52).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
ROWS = st.fixed_dictionaries(
    {"gpu_uuid": st.text(min_size=1), "ts": MOMENTS},
    optional={
        "power_w": st.none() | st.floats(width=32),
        "energy_j": st.none() | st.floats() | st.integers(0, 10**9).map(float),
        "error_count": st.none() | st.integers(-(2**40), 2**40),
        "fan_count": st.none() | st.integers(-(2**31), 2**31 - 1),
        "cost_usd": st.none() | st.decimals(-(10**9), 10**9, places=6),
        "is_lost": st.none() | st.booleans(),
        "node": st.none() | st.text(),
    },
)


def conformed(**columns: list[Any]) -> pl.DataFrame:
    return conform(pl.DataFrame(GIVEN | columns), TABLE)


@given(st.lists(ROWS, min_size=1, max_size=8), st.permutations(TABLE.names("wire")))
def test_conform_loses_no_row_no_value_and_invents_none(rows: list[dict[str, Any]], order: list[str]) -> None:
    schema = {name: TABLE.schema("wire")[name] for name in order if any(name in row for row in rows)}
    frame = pl.DataFrame(rows, schema=schema)
    result = conform(frame, TABLE)
    assert dict(result.schema) == TABLE.schema("wire")
    for name in TABLE.names("wire"):
        had = frame.get_column(name) if name in schema else pl.Series(name, [None] * len(rows), dtype=pl.Null)
        assert result.get_column(name).is_null().to_list() == had.is_null().to_list()
        assert repr(result.get_column(name).to_list()) == repr(had.to_list())  # repr, so that NaN equals NaN


@given(st.lists(ROWS, min_size=1, max_size=8))
def test_conform_twice_is_conform_once(rows: list[dict[str, Any]]) -> None:
    once = conform(pl.DataFrame(rows, infer_schema_length=None, schema_overrides=TABLE.schema("wire")), TABLE)
    assert conform(once, TABLE).equals(once)


@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_whole_numbers_that_come_as_floats_keep_their_value_and_their_gaps(values: list[int | None]) -> None:
    floats = pl.Series("fan_count", values, dtype=pl.Float64)
    frame = pl.DataFrame({"gpu_uuid": ["GPU-a"] * len(values), "ts": [NOON] * len(values), "fan_count": floats})
    assert conform(frame, TABLE)["fan_count"].to_list() == values


def test_a_missing_optional_column_is_null_and_not_zero() -> None:
    row = conformed().row(0, named=True)
    assert {name for name, value in row.items() if value is None} == set(TABLE.names("wire")) - {"gpu_uuid", "ts"}


def test_an_optional_column_of_nothing_but_null_takes_the_type_of_the_table() -> None:
    assert conformed(power_w=[None]).schema["power_w"] == pl.Float32()


def test_zero_and_false_stay_what_they_are() -> None:
    row = conformed(power_w=[0], error_count=[0.0], is_lost=[False], cost_usd=[Decimal(0)]).row(0, named=True)
    assert (row["power_w"], row["error_count"], row["is_lost"], row["cost_usd"]) == (0.0, 0, False, Decimal(0))


def test_nan_and_infinity_stay_in_a_column_of_reals() -> None:
    assert str(conformed(power_w=[float("nan")])["power_w"][0]) == "nan"
    assert conformed(power_w=[float("inf")])["power_w"][0] == float("inf")


def test_a_time_of_another_zone_becomes_the_same_moment_in_utc() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    frame = pl.DataFrame({"gpu_uuid": ["GPU-a"], "ts": pl.Series([east], dtype=pl.Datetime("ms", "Asia/Kolkata"))})
    assert conform(frame, TABLE)["ts"].to_list() == [NOON]


@pytest.mark.parametrize(
    ("columns", "field", "words"),
    [
        pytest.param({"colour": ["red"]}, "colour", "is unknown; the columns are gpu_uuid, ts, power_w", id="unknown"),
        pytest.param({"gpu": [1]}, "gpu", "is unknown", id="the store's key in a wire frame"),
        pytest.param({"gpu_uuid": [None]}, "gpu_uuid", "is required and is null in row 0", id="null key"),
        pytest.param({"ts": [NOON.replace(tzinfo=None)]}, "ts", "has no time zone", id="naive time"),
        pytest.param({"ts": [1_772_452_800]}, "ts", "is Int64, not Datetime", id="epoch seconds"),
        pytest.param({"ts": [date(2026, 3, 2)]}, "ts", "is Date, not Datetime", id="date"),
        pytest.param({"ts": ["2026-03-02T12:00Z"]}, "ts", "is String, not Datetime", id="time as text"),
        pytest.param({"power_w": ["300"]}, "power_w", "is String, not Float32", id="number as text"),
        pytest.param({"power_w": [True]}, "power_w", "is Boolean, not Float32", id="flag as number"),
        pytest.param({"power_w": [1e39]}, "power_w", "holds numbers too large for Float32", id="real overflow"),
        pytest.param({"is_lost": [0]}, "is_lost", "is Int64, not Boolean", id="number as flag"),
        pytest.param({"node": [7]}, "node", "is Int64, not String", id="number as text column"),
        pytest.param({"node": [b"n1"]}, "node", "is Binary, not String", id="bytes"),
        pytest.param({"fan_count": [0.5]}, "fan_count", "holds fractions", id="fraction"),
        pytest.param({"fan_count": [Decimal("1.5")]}, "fan_count", "holds fractions", id="decimal fraction"),
        pytest.param({"fan_count": [timedelta(seconds=1)]}, "fan_count", "is Duration", id="duration as count"),
        pytest.param({"fan_count": [2**31]}, "fan_count", "does not fit Int32", id="integer overflow"),
        pytest.param({"fan_count": [float("nan")]}, "fan_count", "does not fit Int32", id="NaN as count"),
        pytest.param({"fan_count": [float("inf")]}, "fan_count", "does not fit Int32", id="infinity as count"),
        pytest.param({"fan_count": [[1]]}, "fan_count", "is List(Int64), not Int32", id="list"),
        pytest.param({"cost_usd": [float("nan")]}, "cost_usd", "does not fit Decimal", id="NaN as money"),
        pytest.param({"cost_usd": [10**14]}, "cost_usd", "does not fit Decimal", id="too much money"),
    ],
)
def test_conform_refuses_and_names_the_table_and_the_column(
    columns: dict[str, list[Any]], field: str, words: str
) -> None:
    with pytest.raises(BadFrame) as refusal:
        conformed(**columns)
    assert str(refusal.value).startswith(f"table reading, column {field}: ")
    assert words in str(refusal.value)
    assert (refusal.value.place, refusal.value.field) == ("reading", field)


@pytest.mark.parametrize("missing", ["gpu_uuid", "ts"])
def test_conform_refuses_a_frame_without_a_required_column(missing: str) -> None:
    with pytest.raises(BadFrame, match=f"column {missing}: is required and is not in the frame"):
        conform(pl.DataFrame(GIVEN).drop(missing), TABLE)


def test_a_null_key_is_refused_though_every_type_is_right() -> None:
    frame = pl.concat([conformed(), conformed().with_columns(ts=pl.lit(None, UTC_MICROSECONDS))])
    with pytest.raises(BadFrame, match="column ts: is required and is null in row 1"):
        conform(frame, TABLE)


@pytest.mark.parametrize("form", ["wire", "stored"])
def test_a_frame_without_rows_conforms_and_passes_the_check(form: Any) -> None:
    empty = TABLE.empty(form)
    assert conform(empty, TABLE, form).equals(empty)
    assert check(empty, TABLE, form).equals(empty)


def test_check_passes_a_conforming_frame_in_the_order_of_the_table() -> None:
    frame = conformed(power_w=[300])
    assert check(frame.select(reversed(frame.columns)), TABLE, "wire").equals(frame)


def stored() -> pl.DataFrame:
    return conform(pl.DataFrame({"gpu": [1], "ts": [NOON]}), TABLE, "stored")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        pytest.param(stored().drop("node"), "column node: is not in the frame", id="missing"),
        pytest.param(stored().with_columns(pl.col("gpu").cast(pl.Int64)), "gpu: is Int64, not UInt32", id="wider type"),
        pytest.param(stored().with_columns(colour=pl.lit(1)), "column colour: is unknown", id="unknown"),
        pytest.param(stored().clear(1), "column gpu: is required and is null in row 0", id="null"),
        pytest.param(conformed(), "column gpu_uuid: is unknown", id="wire form where stored is due"),
    ],
)
def test_check_refuses_whatever_is_not_exactly_the_table(frame: pl.DataFrame, words: str) -> None:
    with pytest.raises(BadFrame, match=words):
        check(frame, TABLE)


def test_the_wire_form_speaks_of_uuids_where_the_stored_form_has_keys() -> None:
    assert TABLE.names("wire")[0] == "gpu_uuid"
    assert TABLE.names("stored")[0] == "gpu"
    assert TABLE.schema("wire")["gpu_uuid"] == pl.String()
    assert TABLE.key_names("wire") == ("gpu_uuid", "ts")
    assert TABLE.key_names() == ("gpu", "ts")
    assert TABLE.required("wire") == {"gpu_uuid", "ts"}
    assert TABLE.required("stored") == {"gpu", "ts"}

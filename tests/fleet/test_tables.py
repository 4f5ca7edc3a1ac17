import re

import polars as pl
import pytest

from fleet import tables
from fleet.frames import MONEY, UTC_MICROSECONDS, WIRE_NAMES, Column, Table
from fleet.tables import TABLES

PAIRS = [(table, column) for table in TABLES.values() for column in table.columns]
COLUMNS = [pytest.param(table, column, id=f"{table.name}.{column.name}") for table, column in PAIRS]
EVERY_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
EVERY_COLUMN = pytest.mark.parametrize(("table", "column"), COLUMNS)

# What a number's name may say of its unit; a bound, quantile or aggregate of it may stand behind (_max, _upper_80).
UNITS = r"_(w|mib|j|c|mhz|s|bits|count|usd|usd_per_gpu_hour|usd_per_hour|hours|seconds|milli)"
THINGS = r"(^|_)(gpus|nodes|jobs|slices)(_per_node)?"
AGGREGATES = r"(_(min|max|mean|lower_\d\d|upper_\d\d))?$"
RATIOS = r"(utilization|activity|fraction|coverage|confidence)"
# Numbers without a unit: keys, indices and codes, and two ratios to something else, each explained in its meaning.
UNITLESS = {
    "gpu", "slice", "gpu_index", "gpu_instance", "compute_instance", "code", "ordinal", "priority",
    "recovery_action", "pcie_generation", "pcie_width", "weight", "mase", "coverage_80",
}  # fmt: skip
NUMBER = re.compile(f"({UNITS}|{THINGS}|{RATIOS}){AGGREGATES}")


@EVERY_COLUMN
def test_a_number_has_its_unit_in_its_name(table: Table, column: Column) -> None:
    if column.dtype.is_numeric():
        assert column.name in UNITLESS or NUMBER.search(f"_{column.name}"), f"{table.name}.{column.name}: which unit?"


@EVERY_COLUMN
def test_a_ratio_says_so(table: Table, column: Column) -> None:
    if column.dtype.is_float() and re.search(RATIOS + AGGREGATES, column.name):
        assert re.search(r"ratio|0\.\.1", column.meaning), f"{table.name}.{column.name}: {column.meaning}"


@EVERY_COLUMN
def test_money_is_exact(table: Table, column: Column) -> None:
    assert (column.dtype == MONEY) == ("usd" in column.name), f"{table.name}.{column.name}"


@EVERY_COLUMN
def test_a_time_is_aware_and_named_as_a_moment(table: Table, column: Column) -> None:
    is_moment = column.name in {"ts", "since", "until"} or column.name.endswith("_at")
    assert (column.dtype == UTC_MICROSECONDS) == is_moment, f"{table.name}.{column.name}"


@EVERY_COLUMN
def test_a_column_says_what_it_means(table: Table, column: Column) -> None:
    assert column.meaning.strip() == column.meaning != "", f"{table.name}.{column.name}"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)


@EVERY_TABLE
def test_the_key_and_the_time_are_columns(table: Table) -> None:
    names = table.names()
    assert len(set(names)) == len(names)
    assert table.key
    assert set(table.key) <= set(names)
    assert table.time is None or table.schema()[table.time] == UTC_MICROSECONDS


@EVERY_TABLE
def test_a_key_has_at_least_one_part_that_is_never_null(table: Table) -> None:
    assert table.required() & set(table.key)


@EVERY_TABLE
def test_a_key_is_made_of_things_that_are_equal_or_not(table: Table) -> None:
    schema = table.schema()
    assert [name for name in table.key if schema[name].is_float()] == []


@EVERY_TABLE
def test_a_tolerance_needs_a_time_in_the_key(table: Table) -> None:
    assert table.tolerance_s >= 0
    assert table.tolerance_s == 0 or table.time in table.key


@EVERY_TABLE
def test_the_two_forms_differ_in_the_keys_of_the_store_only(table: Table) -> None:
    stored, wire = table.schema("stored"), table.schema("wire")
    assert len(wire) == len(stored)
    assert [WIRE_NAMES.get(name, name) for name in stored] == list(wire)
    for name, dtype in stored.items():
        assert wire[WIRE_NAMES.get(name, name)] == (pl.String() if name in WIRE_NAMES else dtype)


@EVERY_TABLE
def test_an_empty_frame_can_be_written_as_json(table: Table) -> None:
    assert pl.read_json(table.empty().write_json().encode(), schema=table.schema()).height == 0


def test_a_table_is_found_by_its_own_name() -> None:
    assert all(name == table.name for name, table in TABLES.items())


def test_every_table_that_is_named_in_the_module_is_listed() -> None:
    named = {table.name for name in tables.__all__ if isinstance(table := getattr(tables, name), Table)}
    assert named == set(TABLES)

import re

import polars as pl
import pytest

from fleet import tables
from fleet.frames import MONEY, UTC_MICROSECONDS, WIRE_NAMES, Table
from fleet.tables import TABLES

PAIRS = [(table, column) for table in TABLES.values() for column in table.columns]
EVERY_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)

# What a number's name may say of its unit; a bound, quantile or aggregate of it may stand behind (_max, _upper_80).
UNITS = r"((^|_)usd(_per_((gpu_)?hour|month))?|_(w|mib|j|c|mhz|s|us|bits|count|hours(_per_month)?|seconds|milli))"
THINGS = r"(^|_)(gpus|nodes|jobs|slices|tokens|steps)(_per_node)?"
AGGREGATES = r"(_(min|max|mean|lower_\d\d|upper_\d\d))?$"
RATIOS = r"(utilization|activity|fraction|coverage|confidence|(risk|base)_\d+d|alert_line)"
# Numbers without a unit: keys, indices and codes, and two ratios to something else, each explained in its meaning.
UNITLESS = {
    "gpu", "slice", "gpu_index", "gpu_instance", "compute_instance", "code", "ordinal", "priority",
    "recovery_action", "pcie_generation", "pcie_width", "pcie_generation_max", "pcie_width_max", "weight", "mase",
    "coverage_80", "coverage_95", "mase_seasonal", "wql", "stretch_50", "stretch_80", "stretch_95", "probability",
    "performance_state", "minor_number", "fabric_status", "fabric_clique", "adjustment",
    "quantity",
}  # fmt: skip
NUMBER = re.compile(f"({UNITS}|{THINGS}|{RATIOS}){AGGREGATES}")
RATIO = re.compile(RATIOS + AGGREGATES)


def is_moment(name: str) -> bool:
    return name in {"ts", "since", "until"} or name.endswith("_at")


@EVERY_TABLE
def test_every_number_has_its_unit_in_its_name(table: Table) -> None:
    numbers = [column.name for column in table.columns if column.dtype.is_numeric()]
    assert [name for name in numbers if name not in UNITLESS and not NUMBER.search(name)] == []


@EVERY_TABLE
def test_every_ratio_says_so(table: Table) -> None:
    ratios = [column for column in table.columns if column.dtype.is_float() and RATIO.search(column.name)]
    assert [column for column in ratios if not re.search(r"ratio|0\.\.1", column.meaning)] == []


@EVERY_TABLE
def test_money_and_nothing_else_is_an_exact_decimal(table: Table) -> None:
    assert [column for column in table.columns if (column.dtype == MONEY) != ("usd" in column.name)] == []


@EVERY_TABLE
def test_times_are_aware_and_named_as_moments(table: Table) -> None:
    assert [column for column in table.columns if (column.dtype == UTC_MICROSECONDS) != is_moment(column.name)] == []


@EVERY_TABLE
def test_every_column_says_what_it_means(table: Table) -> None:
    assert table.meaning.endswith(".")
    assert [
        column.name for column in table.columns if column.meaning.strip() != column.meaning or not column.meaning
    ] == []
    assert [column.name for column in table.columns if not re.fullmatch(r"[a-z][a-z0-9_]*", column.name)] == []


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

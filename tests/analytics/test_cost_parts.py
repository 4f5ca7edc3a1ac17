"""The parts of a bill beside whole GPUs: MIG devices and what they leave bare, hosts, overhead, charges."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from analytics.cost import ledger
from analytics.cost_beside import charge_lines, overhead_lines
from analytics.cost_hosts import split_hosts
from analytics.cost_policy import LedgerPolicy
from fleet.errors import BadInput
from fleet.tables import CHARGE, POD, WORKSPACE_MEMBER
from tests.analytics import ledger_histories as told

HOUR_US = 3_600_000_000


def seconds(lines: pl.DataFrame) -> dict[str, float]:
    return dict(lines.group_by("category").agg(pl.col("gpu_seconds").sum()).iter_rows())


def book(held: list[Any], **policy: Any) -> pl.DataFrame:
    hours = told.hours_of(held, {}, range(1)).filter(pl.col("gpu") == 3)
    return ledger(hours, told.prices_of(Decimal(7), []), told.failures_of([]), LedgerPolicy(**policy), told.devices())


@pytest.mark.parametrize(
    ("basis", "held", "bare"),
    [pytest.param("compute", 3 / 7, 2 / 7, id="compute"), pytest.param("memory", 0.5, 0.25, id="memory"),
     pytest.param("max", 0.5, 1 - 0.5 - 2 / 7, id="max")],
)  # fmt: skip
def test_what_no_mig_device_covers_is_fragmentation(basis: str, held: float, bare: float) -> None:
    found = seconds(book([(3, 1, 0, HOUR_US, 0.1, 11)], mig_basis=basis))
    assert found["unknown"] == pytest.approx(3600 * held)
    assert found["fragmentation"] == pytest.approx(3600 * bare)
    assert sum(found.values()) == pytest.approx(3600)


def test_more_than_there_is_was_given_only_as_long_as_it_lasts() -> None:
    lines = book([(3, 1, 0, HOUR_US, 1.0, None), (3, 2, HOUR_US // 2, HOUR_US, 1.0, None)])
    assert dict(lines.group_by("pod_uid").agg(pl.col("gpu_seconds").sum()).drop_nulls().iter_rows()) == {
        "uid-1": 2700.0, "uid-2": 900.0,
    }  # fmt: skip


def lines_of_node() -> tuple[pl.DataFrame, pl.DataFrame]:
    hours = told.hours_of([(1, 1, 0, HOUR_US, 1.0, None)], {}, range(1))
    lines = ledger(hours, told.prices_of(Decimal("2.000001"), []), told.failures_of([]), LedgerPolicy())
    nodes = [
        {"gpu": gpu, "cluster": "c1", "node": "n1", "gpus": 3, "cpu_milli": 96000, "memory_mib": 786432}
        for gpu in told.GPUS
    ]
    return lines, pl.DataFrame(nodes, schema_overrides={"gpu": pl.UInt32})


def pods(**more: Any) -> pl.DataFrame:
    row = {
        "cluster": "c1", "namespace": "team", "pod": "p1", "pod_uid": "uid-1", "node": "n1", "workload_kind": "Job",
        "workload": "w1", "workspace": "s1", "cpu_milli": 48000, "memory_mib": 196608, "created_at": told.MOMENT,
        "starts_at": told.MOMENT, **more,
    }  # fmt: skip
    return pl.DataFrame([row], schema=POD.schema())


def test_a_nodes_price_is_split_over_gpu_cpu_and_ram_and_stays_whole() -> None:
    lines, nodes = lines_of_node()
    split = split_hosts(lines, nodes, pods(), LedgerPolicy(split_nodes=True))
    assert split["cost_usd"].sum() == lines["cost_usd"].sum() == Decimal("6.000003")
    assert split["gpu_seconds"].sum() == lines["gpu_seconds"].sum()
    by = {
        (row[0], row[1]): row[2]
        for row in split.group_by("resource", "workspace").agg(pl.col("cost_usd").sum()).iter_rows()
    }
    assert by["cpu", "s1"] == pytest.approx(by["cpu", None], abs=Decimal("0.000002"))
    assert by["ram", "s1"] * 3 == pytest.approx(by["ram", None], abs=Decimal("0.000004"))
    whole = 3 * 0.95 + 96 * 0.031611 + 768 * 0.004237
    assert float(by["gpu", "s1"]) * 3 == pytest.approx(6.000003 * 3 * 0.95 / whole, abs=1e-5)


def test_a_node_that_nobody_knows_the_size_of_stays_whole() -> None:
    lines, nodes = lines_of_node()
    unknown = nodes.with_columns(cpu_milli=pl.lit(None, pl.Int64()))
    assert split_hosts(lines, unknown, pods(), LedgerPolicy(split_nodes=True)).equals(lines)


def test_overhead_is_an_hours_and_a_clusters() -> None:
    lines, _ = lines_of_node()
    found = overhead_lines(lines, LedgerPolicy(overhead_usd_per_hour=Decimal("1.25")))
    assert found.select("cluster", "category", "cost_usd", "gpu_seconds").rows() == [
        ("c1", "overhead", Decimal("1.25"), 0.0)
    ]
    assert overhead_lines(lines, LedgerPolicy()).is_empty()
    with pytest.raises(BadInput, match="overhead_usd_per_hour"):
        LedgerPolicy(overhead_usd_per_hour=Decimal(-1))


def test_the_hours_of_a_charge_sum_to_it_however_they_are_cut() -> None:
    row = {
        "charge_id": "x", "cluster": "c1", "resource": "storage", "namespace": "team",
        "starts_at": told.MOMENT + timedelta(minutes=7), "ends_at": told.MOMENT + timedelta(hours=9, seconds=1),
        "cost_usd": Decimal("10.000001"),
    }  # fmt: skip
    charges = pl.DataFrame([row], schema=CHARGE.schema())
    member = {"cluster": "c1", "namespace": "team", "workspace": "s1", "starts_at": told.MOMENT}
    members = pl.DataFrame([member], schema=WORKSPACE_MEMBER.schema())
    day = told.MOMENT + timedelta(days=1)
    whole = charge_lines(charges, members, told.MOMENT, day)
    assert whole["cost_usd"].sum() == Decimal("10.000001")
    assert whole["workspace"].unique().to_list() == ["s1"]
    middle = told.MOMENT + timedelta(hours=4)
    parts = [charge_lines(charges, members, told.MOMENT, middle), charge_lines(charges, members, middle, day)]
    assert pl.concat(parts).sort("starts_at").equals(whole.sort("starts_at"))

"""The ledger: every second and every dollar once, whatever is missing, overlapping or out of order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.apportion import apportion
from analytics.cost import ledger, no_intervals, summarise, unhealthy_intervals
from analytics.cost_hours import ledger_hours
from analytics.cost_policy import LedgerPolicy
from fleet.errors import BadInput
from fleet.tables import PRICE, VERDICT

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

HOUR = timedelta(hours=1)
POLICY = LedgerPolicy()
MODEL = "NVIDIA H100 80GB HBM3"


def price(usd: str = "2.50", **more: Any) -> dict[str, Any]:
    row = {"model": "H100", "capacity_type": "on_demand", "usd_per_gpu_hour": Decimal(usd), "source": "test"}
    return {**row, "starts_at": datetime(2020, 1, 1, tzinfo=UTC), **more}


def prices(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=PRICE.schema())


def add_fleet(engine: "Engine", now: datetime, gpus: int = 1, hours: int = 3, active: int = 30) -> None:
    engine.add("node", cluster="c1", node="n1", capacity_type="on_demand", region="r1")
    for gpu in range(1, gpus + 1):
        engine.add_gpu(gpu, model=MODEL)
        for back in range(1, hours + 1):
            engine.add(
                "gpu_hour", gpu=gpu, hour_at=now - HOUR * back, sample_count=60, known_sample_count=60,
                active_sample_count=active,
            )  # fmt: skip


def book(
    engine: "Engine", now: datetime, hours: float = 3, unhealthy: pl.DataFrame | None = None, *rows: dict[str, Any]
) -> pl.DataFrame:
    frame = engine.run(ledger_hours(engine.tables, now - HOUR * hours, now, POLICY))
    book_of = _booker(prices(*(rows or (price(),))), no_intervals() if unhealthy is None else unhealthy)
    lines = book_of(frame)
    assert book_of(frame.sample(fraction=1, shuffle=True, seed=5)).equals(lines)
    return lines


def seconds(lines: pl.DataFrame) -> dict[str, float]:
    return dict(summarise(lines, by=()).select("category", "gpu_seconds").iter_rows())


def test_an_empty_store_has_an_empty_ledger(engine: "Engine", now: datetime) -> None:
    lines = book(engine, now)
    assert lines.height == 0
    assert summarise(lines).height == 0


def test_used_idle_and_free_time_sum_to_the_capacity(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=15)
    engine.add_pod(1, now - 2 * HOUR)
    lines = book(engine, now)
    assert seconds(lines) == {
        "unallocated": 2700.0, "unattributed": 900.0, "used": 1800.0, "allocated_idle": 5400.0,
    }  # fmt: skip
    assert lines["cost_usd"].sum() == Decimal("7.500000")
    used = lines.row(by_predicate=(pl.col("category") == "used") & (pl.col("starts_at") == now - HOUR), named=True)
    assert (used["workspace"], used["workload"]) == ("research", "Job/team/train")
    assert used["cost_usd"] == Decimal("0.625000")


def test_an_hour_without_samples_is_unknown_where_held_and_free_where_not(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, hours=0)
    engine.add_pod(1, now - HOUR)
    assert seconds(book(engine, now)) == {"unallocated": 7200.0, "unknown": 3600.0}


@pytest.mark.parametrize(
    ("known", "unknown_s"),
    [pytest.param(57, 0, id="enough"), pytest.param(45, 900, id="a-quarter-missing"), pytest.param(0, 3600, id="none")],
)
def test_missing_samples_are_unknown_and_not_zero(
    engine: "Engine", now: datetime, known: int, unknown_s: float
) -> None:
    add_fleet(engine, now, hours=0)
    engine.add_gpu(2)
    engine.add_pod(1, now - HOUR)
    for gpu, count in ((1, known), (2, 60)):
        engine.add(
            "gpu_hour", gpu=gpu, hour_at=now - HOUR, sample_count=60, known_sample_count=count, active_sample_count=0
        )
    assert seconds(book(engine, now, 1)).get("unknown", 0) == unknown_s


def test_a_gpu_nobody_priced_costs_null_and_not_zero(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now)
    lines = book(engine, now, 3, None, price(model="L4"))
    assert lines["cost_usd"].null_count() == lines.height > 0
    total = summarise(lines, by=())
    assert set(total["cost_usd"]) == {None}
    assert total["unpriced_gpu_seconds"].sum() == 10800.0


def test_a_partly_priced_fleet_says_what_its_bill_leaves_out(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now)
    engine.add_gpu(2, model="unheard of")
    total = summarise(book(engine, now), by=())
    assert total["cost_usd"].sum() == Decimal("7.500000")
    assert total["unpriced_gpu_seconds"].sum() == 10800.0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([price("1"), price("2", region="r1")], "2", id="the-regions-own-wins"),
        pytest.param([price("1"), price("2", region="elsewhere")], "1", id="another-regions-does-not"),
        pytest.param([price("1", capacity_type="spot")], None, id="another-capacity-type"),
        pytest.param([price("1", ends_at=datetime(2021, 1, 1, tzinfo=UTC))], None, id="over"),
        pytest.param([price("1", starts_at=datetime(2030, 1, 1, tzinfo=UTC))], None, id="not-yet"),
        pytest.param([price("1"), price("2", starts_at=datetime(2025, 1, 1, tzinfo=UTC))], "2", id="the-later-wins"),
        pytest.param([price("0")], "0", id="free-is-a-price"),
    ],
)
def test_the_price_that_holds_is_taken(
    engine: "Engine", now: datetime, rows: list[dict[str, Any]], expected: str | None
) -> None:
    add_fleet(engine, now)
    rates = set(book(engine, now, 3, None, *rows)["usd_per_gpu_hour"])
    assert rates == {None if expected is None else Decimal(expected)}


def test_a_price_change_counts_from_the_next_hour(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now)
    old, new = price("1", ends_at=now - HOUR), price("4", starts_at=now - HOUR)
    assert book(engine, now, 3, None, old, new)["cost_usd"].sum() == Decimal(6)


def test_overallocation_is_scaled_to_the_gpu(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=60)
    for name in ("a", "b", "c"):
        engine.add_pod(1, now - HOUR, name, workspace=name)
    lines = book(engine, now, 1)
    assert seconds(lines) == {"used": 3600.0}
    assert lines["cost_usd"].sum() == Decimal("2.500000")
    assert max(lines["cost_usd"]) - min(lines["cost_usd"]) <= Decimal("0.000001")


def test_a_pods_containers_are_one_line(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=60)
    for container in ("a", "b"):
        engine.add_pod(1, now - HOUR, container=container, fraction=0.25)
    lines = book(engine, now, 1)
    assert lines.filter(pl.col("category") == "used")["gpu_seconds"].to_list() == [1800.0]


def test_slices_are_charged_by_their_own_activity(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=60)
    for number, busy in ((11, 1.0), (12, 0.0)):
        engine.add("slice", slice=number, uuid=f"MIG-{number}", gpu=1)
        engine.add_pod(1, now - HOUR, f"p{number}", slice=number, fraction=0.25)
        times = [now - timedelta(minutes=back) for back in range(60, 0, -1)]
        engine.add_samples(number, times, "slice_sample", gr_activity=busy)
    assert seconds(book(engine, now, 1)) == {"used": 900.0, "allocated_idle": 900.0, "unallocated": 1800.0}


def test_a_slice_without_samples_is_unknown_whatever_its_gpu_did(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=60)
    engine.add("slice", slice=11, uuid="MIG-11", gpu=1)
    engine.add_pod(1, now - HOUR, slice=11, fraction=0.5)
    assert seconds(book(engine, now, 1)) == {"unknown": 1800.0, "unallocated": 1800.0}


def test_unhealthy_time_is_nobodys_and_leaves_what_was_used(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, active=15)
    engine.add_pod(1, now - HOUR, fraction=0.5)
    bad = pl.DataFrame(
        {
            "gpu_uuid": ["GPU-1", "GPU-1"],
            "starts_at": [now - HOUR / 2, now - HOUR / 2],
            "ends_at": [now, now - HOUR / 4],
        }
    )
    lines = book(engine, now, 1, bad)
    assert seconds(lines) == {"used": 450.0, "allocated_idle": 675.0, "unallocated": 900.0, "unhealthy": 1575.0}
    assert lines.filter(pl.col("category") == "unhealthy")["workspace"].to_list() == [None]


def test_a_gpu_is_capacity_only_while_it_is_there(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1, first_seen_at=now - HOUR / 2, last_seen_at=now)
    engine.add_gpu(2, first_seen_at=now - timedelta(days=9), last_seen_at=now - timedelta(hours=25))
    lines = book(engine, now, 3)
    by_gpu = lines.group_by("gpu").agg(pl.col("gpu_seconds").sum()).sort("gpu").rows()
    assert by_gpu == [(1, 1800.0), (2, 7200.0)]


def test_a_gpu_of_unknown_beginning_was_always_there(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, hours=1, active=0)
    assert seconds(book(engine, now, 3)) == {"unallocated": 10800.0}


def test_a_window_that_cuts_hours_is_counted_to_the_microsecond(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now)
    engine.add_pod(1, now - timedelta(minutes=90, microseconds=1), ends_at=now - timedelta(minutes=10))
    frame = engine.run(ledger_hours(engine.tables, now - timedelta(minutes=100, microseconds=7), now, POLICY))
    lines = ledger(frame, prices(price("1.234567")), no_intervals(), POLICY)
    assert (lines["gpu_seconds"] * 1e6).round().cast(pl.Int64).sum() == 6_000_000_007
    assert lines["cost_usd"].sum() == (Decimal("1.234567") * 6_000_000_007 / 3_600_000_000).quantize(
        Decimal("0.000001"), ROUND_HALF_UP
    )


def test_summaries_keep_every_second_and_every_cent(engine: "Engine", now: datetime) -> None:
    add_fleet(engine, now, gpus=5)
    for gpu in (1, 2, 3):
        engine.add_pod(gpu, now - 2 * HOUR, f"j{gpu}", workspace=f"w{gpu % 2}")
    lines = book(engine, now, 3, None, price("0.333333"))
    for by in ((), ("workspace",), ("cluster", "workload"), ("category",)):
        total = summarise(lines, by=by)
        assert total["gpu_seconds"].sum() == pytest.approx(5 * 3 * 3600, abs=1e-6)
        assert total["cost_usd"].sum() == Decimal("4.999995")


def test_a_summary_by_no_column_of_ours_is_refused(engine: "Engine", now: datetime) -> None:
    with pytest.raises(BadInput, match="colour"):
        summarise(book(engine, now), by=("colour",))


def test_failures_last_until_a_verdict_says_otherwise(now: datetime) -> None:
    def verdict(hours: float, state: str, **more: Any) -> dict[str, Any]:
        row = {"made_at": now - HOUR * hours, "topic": "health", "subject_kind": "gpu", "subject": "GPU-1"}
        return {**row, "state": state, "severity": "ok", "rule": "r", "evidence": "{}", **more}

    rows = [
        verdict(9, "healthy"), verdict(5, "failed", since=now - HOUR * 6), verdict(4, "unknown"), verdict(3, "failed"),
        verdict(2, "healthy"), verdict(1, "failed", subject="GPU-2"), verdict(1, "failed", topic="idle"),
    ]  # fmt: skip
    found = unhealthy_intervals(pl.DataFrame(rows, schema=VERDICT.schema()), now)
    assert found.rows() == [
        ("GPU-1", now - HOUR * 6, now - HOUR * 3),
        ("GPU-1", now - HOUR * 3, now - HOUR * 2),
        ("GPU-2", now - HOUR, now),
    ]
    assert unhealthy_intervals(VERDICT.empty(), now).schema == no_intervals().schema


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**15)), min_size=1, max_size=30),
    st.lists(st.integers(0, 10**15), min_size=4, max_size=4),
)
def test_apportioned_parts_sum_to_the_whole(parts: list[tuple[int, int]], totals: list[int]) -> None:
    frame = pl.DataFrame(
        {"group": [group for group, _ in parts], "weight": [weight for _, weight in parts]},
        schema={"group": pl.Int64, "weight": pl.Int64},
    ).with_columns(total=pl.col("group").replace_strict(dict(enumerate(totals))))
    divided = apportion(frame, ["group"], "total", "weight", "part")
    for (group,), rows in divided.group_by("group"):
        assert isinstance(group, int)
        whole = rows["weight"].sum()
        if whole == 0:
            assert rows["part"].null_count() == rows.height
            continue
        assert rows["part"].sum() == totals[group]
        for part, weight in rows.select("part", "weight").iter_rows():
            assert abs(part * whole - totals[group] * weight) < whole


MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
_pods = st.tuples(
    st.integers(1, 3), st.integers(0, 4), st.integers(0, 3_600_000_000), st.integers(1, 3_600_000_000),
    st.floats(0.01, 1.0), st.one_of(st.none(), st.integers(0, 60)), st.integers(0, 60),
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    pods=st.lists(_pods, max_size=12),
    rate=st.decimals("0.000001", "99", places=6),
    bad=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9000), st.integers(1, 9000)), max_size=4),
    shuffle=st.randoms(use_true_random=False),
)
def test_whatever_happened_the_parts_sum_to_the_whole_in_any_order(
    pods: list[tuple[int, int, int, int, float, int | None, int]],
    rate: Decimal,
    bad: list[tuple[int, int, int]],
    shuffle: Any,
) -> None:
    rows = [_hour(gpu, hour) for gpu in (1, 2, 3) for hour in range(2)]
    rows += [_held(pod) for pod in pods]
    schema = _hours_schema()
    unhealthy = pl.DataFrame(
        [(f"GPU-{gpu}", MOMENT + timedelta(seconds=a), MOMENT + timedelta(seconds=a + b)) for gpu, a, b in bad],
        schema=no_intervals().schema, orient="row",
    )  # fmt: skip
    book_of = _booker(prices(price(str(rate))), unhealthy)
    lines = book_of(pl.DataFrame(rows, schema=schema))
    per_gpu = lines.with_columns(us=(pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64)).group_by("gpu")
    expected = (rate * 2).quantize(Decimal("0.000001"))
    for gpu, us, cost in per_gpu.agg(pl.col("us").sum(), pl.col("cost_usd").sum()).iter_rows():
        assert (gpu, us, cost) == (gpu, 7_200_000_000, expected)
    assert lines["gpu"].n_unique() == 3
    assert (lines["gpu_seconds"] > 0).all()
    assert (lines["cost_usd"] >= 0).all()
    assert not lines.select("gpu", "starts_at", "pod_uid", "category").is_duplicated().any()
    shuffle.shuffle(rows)
    assert book_of(pl.DataFrame(rows, schema=schema)).equals(lines)


def _booker(priced: pl.DataFrame, unhealthy: pl.DataFrame) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda hours: ledger(hours, priced, unhealthy, POLICY)


def _hour(gpu: int, hour: int) -> dict[str, Any]:
    start = MOMENT + HOUR * hour
    return {
        "gpu": gpu, "uuid": f"GPU-{gpu}", "cluster": "c1", "model": "H100", "capacity_type": "on_demand",
        "starts_at": start, "ends_at": start + HOUR, "interval_s": 60.0,
    }  # fmt: skip


def _held(drawn: tuple[int, int, int, int, float, int | None, int]) -> dict[str, Any]:
    gpu, pod, offset_us, length_us, fraction, known, active = drawn
    start = MOMENT + timedelta(microseconds=offset_us)
    return {
        **_hour(gpu, 0), "pod_uid": f"uid-{pod}", "namespace": "team", "workload_kind": "Job", "workload": f"w{pod}",
        "pod": f"p{pod}", "workspace": f"s{pod % 2}", "fraction": fraction, "held_from": start,
        "held_until": min(start + timedelta(microseconds=length_us), MOMENT + HOUR), "known_count": known,
        "active_count": None if known is None else min(known, active),
    }  # fmt: skip


def _hours_schema() -> dict[str, pl.DataType]:
    moment, text, number = pl.Datetime("us", "UTC"), pl.String(), pl.Int64()
    return {
        "gpu": pl.UInt32(), "uuid": text, "cluster": text, "model": text, "capacity_type": text, "region": text,
        "starts_at": moment, "ends_at": moment, "interval_s": pl.Float64(), "known_count": number,
        "active_count": number, "held_from": moment, "held_until": moment, "pod_uid": text, "namespace": text,
        "workload_kind": text, "workload": text, "pod": text, "workspace": text, "slice": pl.UInt32(),
        "fraction": pl.Float64(),
    }  # fmt: skip

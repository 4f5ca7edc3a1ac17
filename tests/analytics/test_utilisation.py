"""The funnel: each step is the next and what was lost between, whatever the lines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.cost import CATEGORIES, ledger, no_intervals
from analytics.cost_hours import LedgerPolicy, ledger_hours
from analytics.utilisation import LOSSES, STEPS, fragmented_time, funnel, funnel_lines, shared_holds
from fleet.errors import BadInput
from fleet.tables import COST_LINE, PRICE

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
LINES = {**COST_LINE.schema(), "activity_mean": pl.Float64()}


def lines(*parts: tuple[str, str | None, int], activity: float | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "gpu": place, "starts_at": MOMENT, "ends_at": MOMENT + HOUR, "cluster": "c1",
                "workspace": workspace, "category": category, "gpu_seconds": microseconds / 1e6,
                "activity_mean": activity,
            }
            for place, (category, workspace, microseconds) in enumerate(parts)
        ],
        schema=LINES,
    )  # fmt: skip


def holds(*spans: tuple[int, float, float, float]) -> pl.DataFrame:
    """Give holds of (gpu, fraction, first minute, last minute)."""
    return pl.DataFrame(
        [
            {
                "gpu": gpu, "fraction": fraction,
                "starts_at": MOMENT + timedelta(minutes=first), "ends_at": MOMENT + timedelta(minutes=last),
            }
            for gpu, fraction, first, last in spans
        ],
        schema={"gpu": pl.UInt32(), "fraction": pl.Float64(), "starts_at": pl.Datetime("us", "UTC"),
                "ends_at": pl.Datetime("us", "UTC")},
    )  # fmt: skip


def check(row: dict[str, float | None]) -> None:
    """Fail unless each step is the next and the loss between them, to the microsecond."""
    for step, following, loss in zip(STEPS[:-1], STEPS[1:], LOSSES, strict=True):
        parts = [row[f"{name}_gpu_seconds"] for name in (step, following, loss)]
        if None in parts:
            assert following == "effective"
            continue
        whole, rest, lost = (round((part or 0.0) * 1e6) for part in parts)
        assert whole == rest + lost, step


def test_no_lines_give_no_rows_and_one_row_of_nothing_in_all() -> None:
    assert funnel(COST_LINE.empty()).height == 0
    whole = funnel(COST_LINE.empty(), by=())
    assert whole["total_gpu_seconds"].to_list() == [0.0]
    assert whole["active_share"].to_list() == [None]


def test_each_loss_lies_between_its_steps() -> None:
    parts = lines(
        ("used", "a", 5_000_000), ("allocated_idle", "a", 4_000_000), ("unknown", "a", 3_000_000),
        ("unallocated", None, 2_000_000), ("unhealthy", None, 1_000_000), activity=0.4,
    )  # fmt: skip
    row = funnel(parts).row(0, named=True)
    assert [row[f"{step}_gpu_seconds"] for step in STEPS] == [15.0, 14.0, 14.0, 12.0, 9.0, 5.0, 2.0]
    assert [row[f"{loss}_gpu_seconds"] for loss in LOSSES] == [1.0, 0.0, 2.0, 3.0, 4.0, 3.0]
    assert row["allocated_share"] == pytest.approx(12 / 14)
    assert row["active_share"] == pytest.approx(5 / 9)
    assert row["effective_share"] == pytest.approx(2 / 5)


def test_how_effective_it_was_is_unknown_where_nothing_was_measured() -> None:
    row = funnel(lines(("used", "a", 5_000_000))).row(0, named=True)
    assert (row["active_gpu_seconds"], row["effective_gpu_seconds"], row["partly_used_gpu_seconds"]) == (
        5.0,
        None,
        None,
    )


def test_workspaces_have_their_own_funnels_and_nobodys_is_last() -> None:
    rows = funnel(lines(("used", "b", 10), ("used", "a", 5), ("unallocated", None, 7)), by=("workspace",))
    assert rows["workspace"].to_list() == ["a", "b", None]
    assert rows["active_share"].to_list() == [1.0, 1.0, None]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*CATEGORIES, "fragmentation"]), st.sampled_from(["a", "b", None]), st.integers(0, 10**13)
        ),
        max_size=20,
    ),
    st.floats(0, 1) | st.none(),
    st.integers(0, 10**13),
)
def test_steps_and_losses_sum_exactly(
    parts: list[tuple[str, str | None, int]], activity: float | None, lost: int
) -> None:
    fragments = pl.DataFrame(
        {"gpu": list(range(20)), "hour": [MOMENT] * 20, "fragmented_us": [lost] * 20},
        schema_overrides={"gpu": pl.UInt32()},
    )
    for row in funnel(lines(*parts, activity=activity), ("workspace",), fragments).iter_rows(named=True):
        check(row)
    whole = funnel(lines(*parts, activity=activity), (), fragments).row(0, named=True)
    assert round(whole["total_gpu_seconds"] * 1e6) == sum(part[2] for part in parts)


def test_a_funnel_by_no_column_of_ours_is_refused() -> None:
    with pytest.raises(BadInput, match="colour"):
        funnel(COST_LINE.empty(), by=("colour",))


@pytest.mark.parametrize(
    ("spans", "minutes"),
    [
        pytest.param([(1, 0.5, 0, 60)], {0: 30}, id="half-of-it-for-an-hour"),
        pytest.param([(1, 0.5, 0, 60), (1, 0.5, 0, 60)], {}, id="both-halves"),
        pytest.param([(1, 0.5, 0, 40), (1, 0.25, 20, 60)], {0: 10 + 5 + 15}, id="overlapping"),
        pytest.param([(1, 0.75, 0, 30), (1, 0.75, 0, 30)], {}, id="given-out-more-than-once-over"),
        pytest.param([(1, 0.5, 30, 90)], {0: 15, 1: 15}, id="over-the-hour"),
        pytest.param([(1, 0.5, 10, 10)], {}, id="no-time-at-all"),
        pytest.param([(1, 1 / 7, 0, 60)] * 7, {}, id="seven-sevenths"),
    ],
)
def test_what_is_free_beside_a_holder_is_fragmented(
    spans: list[tuple[int, float, float, float]], minutes: dict[int, int]
) -> None:
    frame = fragmented_time(holds(*spans)).filter(pl.col("fragmented_us") > 0).sort("hour")
    found = {(hour - MOMENT) // HOUR: us / 60e6 for hour, us in frame.select("hour", "fragmented_us").iter_rows()}
    assert found == pytest.approx(minutes)


def test_a_fragment_is_taken_from_what_was_not_held_and_once_only() -> None:
    parts = lines(("unallocated", None, 3_600_000_000)).vstack(lines(("fragmentation", None, 600_000_000)))
    row = funnel(parts, (), fragmented_time(holds((0, 0.75, 0, 60)))).row(0, named=True)
    assert (row["fragmented_gpu_seconds"], row["unallocated_gpu_seconds"]) == (900.0, 3300.0)


def fleet(engine: "Engine", now: datetime) -> None:
    engine.add("node", cluster="c1", node="n1", pool="p", model="H100")
    for gpu in (1, 2, 3):
        engine.add_gpu(gpu, first_seen_at=now - 4 * HOUR, last_seen_at=now, mig_enabled=gpu == 3)
    engine.add("slice", slice=31, uuid="MIG-31", gpu=3)
    engine.add_pod(1, now - 4 * HOUR, name="a")
    engine.add_pod(2, now - timedelta(minutes=90), name="b", ends_at=now - timedelta(minutes=30))
    engine.add_pod(3, now - 4 * HOUR, name="c", slice=31, fraction=3 / 7, workspace="other")
    for gpu in (1, 2, 3):
        for back in range(1, 5):
            engine.add(
                "gpu_hour", gpu=gpu, hour_at=now - back * HOUR, sample_count=60,
                known_sample_count=60 if gpu < 3 else 0,
                active_sample_count=30 if gpu < 3 else 0, activity_mean=0.25 if gpu < 3 else None,
            )  # fmt: skip
    moments = [now - timedelta(minutes=back) for back in range(1, 241)]
    engine.add_samples(31, moments, "slice_sample", gr_activity=0.5)


def test_the_funnel_of_a_fleet_sums_by_every_dimension(engine: "Engine", now: datetime) -> None:
    fleet(engine, now)
    since = now - 4 * HOUR
    hours = engine.run(ledger_hours(engine.tables, since, now, LedgerPolicy()))
    engine.put("cost_line", ledger(hours, PRICE.empty(), no_intervals(), LedgerPolicy()))
    rows = engine.run(funnel_lines(engine.tables, since, now))
    fragments = fragmented_time(engine.run(shared_holds(engine.tables, since, now)))
    for by in ((), ("cluster",), ("pool",), ("model",), ("workspace",), ("workload",), ("hour",), ("pool", "hour")):
        found = funnel(rows, by, fragments)
        for row in found.iter_rows(named=True):
            check(row)
        assert found["total_gpu_seconds"].sum() == pytest.approx(3 * 4 * 3600.0, abs=1e-6)
    whole = funnel(rows, (), fragments).row(0, named=True)
    assert whole["fragmented_gpu_seconds"] == pytest.approx(4 * 3600 * 4 / 7, abs=1e-3)
    by_workload = {row["workload"]: row for row in funnel(rows, ("workload",), fragments).iter_rows(named=True)}
    assert by_workload["Job/team/c"]["effective_gpu_seconds"] == pytest.approx(4 * 3600 * 3 / 7 * 0.5, rel=1e-6)
    assert by_workload["Job/team/a"]["effective_gpu_seconds"] == pytest.approx(4 * 3600 * 0.25, rel=1e-6)
    assert by_workload["Job/team/a"]["active_gpu_seconds"] == pytest.approx(4 * 3600 * 0.5, rel=1e-6)


def test_the_funnel_of_a_recorded_cluster_sums_to_its_gpu_seconds(
    engine: "Engine", now: datetime, data_root: Path
) -> None:
    found = (
        sorted((data_root / "traces").glob("*pod_list*.parquet")),
        sorted((data_root / "traces").glob("*node_list*.parquet")),
    )
    if not all(found):
        pytest.skip("no trace of pods and nodes")
    (pods_path, *_), (nodes_path, *_) = found
    nodes = pl.read_parquet(nodes_path).filter(pl.col("gpu") > 0)
    gpus = place(pl.read_parquet(pods_path), nodes, engine, now)
    since = now - 3 * HOUR
    hours = engine.run(ledger_hours(engine.tables, since, now, LedgerPolicy()))
    engine.put("cost_line", ledger(hours, PRICE.empty(), no_intervals(), LedgerPolicy()))
    rows = engine.run(funnel_lines(engine.tables, since, now))
    fragments = fragmented_time(engine.run(shared_holds(engine.tables, since, now)))
    by_model = funnel(rows, ("model", "hour"), fragments)
    for row in by_model.iter_rows(named=True):
        check(row)
    total = round(float(by_model["total_gpu_seconds"].sum()) * 1e6)
    assert total == gpus * 3 * 3600 * 10**6
    assert by_model["fragmented_gpu_seconds"].sum() > 0


def place(pods: pl.DataFrame, nodes: pl.DataFrame, engine: "Engine", now: datetime) -> int:
    """Put the trace's pods on its GPUs in the order they came, as many as fit at once; return the GPUs there are."""
    last = pods["creation_time"].max()
    assert isinstance(last, int)
    first_s = last - 3 * 3600
    gpus = [(f"{sn}-{place}", sn, model) for sn, count, model in nodes.select("sn", "gpu", "model").iter_rows()
            for place in range(count)]  # fmt: skip
    moments = {"first_seen_at": now - 9 * HOUR, "last_seen_at": now}
    engine.put("gpu", pl.DataFrame(
        {"gpu": range(len(gpus)), "uuid": [g[0] for g in gpus], "cluster": "openb", "node": [g[1] for g in gpus],
         "model": [g[2] for g in gpus]},
        schema_overrides={"gpu": pl.UInt32()},
    ).with_columns(**{name: pl.lit(moment) for name, moment in moments.items()}))  # fmt: skip
    free, rows = [1000] * len(gpus), []
    live = pods.filter(pl.col("num_gpu") > 0, pl.col("deletion_time") > first_s, pl.col("creation_time") < last)
    for pod in live.sort("creation_time", "name").iter_rows(named=True):
        need = pod["gpu_milli"] if pod["num_gpu"] == 1 else 1000
        fitting = [number for number, left in enumerate(free) if left >= need][: pod["num_gpu"]]
        for number in fitting if len(fitting) == pod["num_gpu"] else ():
            free[number] -= need
            rows.append(
                {
                    "cluster": "openb", "namespace": str(pod["qos"]), "pod": pod["name"], "pod_uid": pod["name"],
                    "gpu": number, "fraction": need / 1000,
                    "starts_at": now - timedelta(seconds=min(last - pod["creation_time"], 4 * 3600)),
                    "ends_at": now - timedelta(seconds=max(0, last - pod["deletion_time"])),
                }
            )  # fmt: skip
    assert len(rows) > 50
    engine.put("pod_allocation", pl.DataFrame(rows, schema_overrides={"gpu": pl.UInt32()}))
    return len(gpus)

"""The page's questions on stores whose answers are known: empty, queues only, a small fleet, and awkward ones."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from dashboards.demand_questions import find_demand, find_forecast, find_workspaces
from dashboards.fleet_questions import find_funnel, find_idle
from dashboards.money_questions import find_amounts, find_amounts_over_time, find_idle_holders
from dashboards.plan_questions import find_plan
from dashboards.scope import Scope, clusters, find_scope
from dashboards.trust_questions import find_coverage, find_sources, last_sample_at
from dashboards.verdict_questions import find_failing, find_wasting
from fleet.batch import Batch
from fleet.tables import TABLES
from fleet.verdict import Severity, Verdict, verdict_frame
from store.store import Store

WEEK = timedelta(days=7)
EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


def scope_of(store: Store, window: timedelta = WEEK, cluster: str | None = None) -> Scope:
    found = find_scope(store.engine, window, cluster)
    assert found is not None
    return found


def nothing(store: Store) -> Scope:
    """Look at an empty store as if there were something to look at."""
    assert find_scope(store.engine, WEEK, None) is None
    return Scope(EPOCH, EPOCH + WEEK, None, None)


def test_every_question_has_an_answer_on_an_empty_store(empty: Store) -> None:
    engine, scope = empty.engine, nothing(empty)
    funnel = find_funnel(engine, scope)
    assert (funnel.gpus, funnel.healthy, funnel.allocated, funnel.active) == (None, None, None, None)
    assert clusters(engine) == []
    assert find_idle(engine, scope) == {}
    assert find_amounts(engine, scope) == {}
    assert find_plan(engine, scope) is None
    assert find_coverage(engine, scope) is None
    assert last_sample_at(engine) is None
    assert find_workspaces(engine, scope) == []
    frames = [
        find_amounts_over_time(engine, scope),
        find_idle_holders(engine, scope),
        find_failing(engine, scope),
        find_wasting(engine, scope),
        find_demand(engine, scope, None),
        find_forecast(engine, scope, None),
        find_sources(engine),
    ]
    assert [frame.height for frame in frames] == [0] * len(frames)


def test_a_window_ends_where_the_data_ends_and_not_at_the_clock(full: Store) -> None:
    scope = scope_of(full, timedelta(hours=6))
    newest = last_sample_at(full.engine)
    assert newest is not None
    assert scope.since <= newest < scope.until
    assert scope.until - newest < timedelta(minutes=1)


def test_a_fleet_is_counted_down_to_its_active_gpus(full: Store) -> None:
    funnel = find_funnel(full.engine, scope_of(full))
    assert (funnel.gpus, funnel.told_by) == (16, "gpu")
    assert funnel.health == {"healthy": 13, "failed": 1, "degraded": 1, "unknown": 1}
    assert (funnel.healthy, funnel.allocated, funnel.active, funnel.activity_known) == (13, 12, 8, 15)
    assert find_idle(full.engine, scope_of(full)) == {"idle_held": 4}


def test_without_telemetry_queues_tell_what_they_can(queues_only: Store) -> None:
    funnel = find_funnel(queues_only.engine, scope_of(queues_only))
    assert (funnel.gpus, funnel.told_by) == (16, "demand_sample")
    assert (funnel.allocated, funnel.allocated_by) == (11, "demand_sample")
    assert (funnel.healthy, funnel.active) == (None, None)


def test_another_cluster_has_none_of_it(full: Store) -> None:
    scope = scope_of(full, cluster="west")
    funnel = find_funnel(full.engine, scope)
    assert (funnel.gpus, funnel.healthy, funnel.allocated, funnel.active) == (None, None, None, None)
    assert find_amounts(full.engine, scope) == {}
    assert find_failing(full.engine, scope).is_empty()
    assert find_demand(full.engine, scope, None).is_empty()
    assert find_coverage(full.engine, scope) is None


def test_a_gpu_of_several_verdicts_counts_once_by_the_worst(full: Store) -> None:
    made_at = full.read("verdict")["made_at"].max()
    more = [
        Verdict(made_at, "health", "gpu", "GPU-0000", state, Severity.WARNING, rule, cluster="east")  # type: ignore[arg-type]  # the maximum of a time column is a time
        for state, rule in (("degraded", "a"), ("failed", "b"), ("unknown", "c"))
    ]
    full.append_stored("verdict", verdict_frame(more))
    health = find_funnel(full.engine, scope_of(full)).health
    assert health == {"healthy": 12, "failed": 2, "degraded": 1, "unknown": 1}
    assert sum(health.values()) == 16


def test_the_ledger_adds_up_to_the_whole(full: Store) -> None:
    scope = scope_of(full)
    amounts = find_amounts(full.engine, scope)
    lines = full.read("cost_line")
    assert sum(amount.gpu_hours for amount in amounts.values()) == lines["gpu_seconds"].sum() / 3600
    assert sum(amount.cost_usd or Decimal(0) for amount in amounts.values()) == lines["cost_usd"].sum()
    by_time = find_amounts_over_time(full.engine, scope)
    assert by_time["cost_usd"].sum() == lines["cost_usd"].sum()
    assert amounts["allocated_idle"].cost_usd == Decimal(192)
    assert amounts["allocated_idle"].unpriced_gpu_hours == 0


def test_a_short_window_tells_costs_by_the_hour_and_a_long_one_by_the_day(full: Store) -> None:
    hourly = find_amounts_over_time(full.engine, scope_of(full, timedelta(hours=24)))
    daily = find_amounts_over_time(full.engine, scope_of(full))
    assert hourly["ts"].n_unique() == 24
    assert daily["ts"].n_unique() == 2


def test_hours_without_a_price_are_told_apart_and_cost_not_zero(full: Store) -> None:
    lines = full.read("cost_line").filter(pl.col("category") == "allocated_idle")
    unpriced = lines.with_columns(
        pl.col("gpu") + 100, usd_per_gpu_hour=pl.lit(None), cost_usd=pl.lit(None), workspace=pl.lit("free")
    )
    full.append_stored("cost_line", unpriced)
    amount = find_amounts(full.engine, scope_of(full))["allocated_idle"]
    assert (amount.gpu_hours, amount.cost_usd, amount.unpriced_gpu_hours) == (192.0, Decimal(192), 96.0)
    holders = find_idle_holders(full.engine, scope_of(full))
    assert dict(holders.select("workspace", "cost_usd").iter_rows()) == {"serving": Decimal(192), "free": None}


def test_only_the_latest_turn_speaks(full: Store) -> None:
    failing = find_failing(full.engine, scope_of(full))
    assert failing.select("subject", "rule").rows() == [("GPU-0013", "xid_fatal"), ("GPU-0014", "ecc_growth")]


def test_a_holder_and_its_gpus_are_not_both_called_waste(full: Store) -> None:
    wasting = find_wasting(full.engine, scope_of(full))
    assert wasting.select("subject", "gpu_hours").rows() == [("Deployment/serving/chat", 96.0)]


def test_a_plan_is_told_with_how_far_each_move_has_come(full: Store) -> None:
    planned = find_plan(full.engine, scope_of(full))
    assert planned is not None
    assert planned.moves.select("kind", "stage", "saving_usd_per_hour").rows() == [
        ("suspend_workload", "applied (dry run)", Decimal(8)),
        ("fence_gpu", "planned", None),
    ]
    assert planned.saving_usd_per_hour == Decimal(8)
    assert planned.held_back["reason"].to_list() == ["only degraded"]


def test_demand_adds_up_over_workspaces(full: Store) -> None:
    scope = scope_of(full)
    demand = find_demand(full.engine, scope, None)
    assert demand["ts"].is_sorted()
    assert demand.drop("ts").unique().rows() == [(11.0, 2.0, 16.0)]
    assert find_demand(full.engine, scope, "serving").drop("ts").unique().rows() == [(4.0, 0.0, 8.0)]
    assert find_workspaces(full.engine, scope) == ["research", "serving"]


def test_a_hole_in_demand_stays_a_hole(full: Store) -> None:
    last = full.read("demand_sample")["ts"].max()
    later = full.read("demand_sample").filter(pl.col("ts") == last).with_columns(pl.col("ts") + timedelta(hours=5))
    full.append(Batch("replay:later", {"demand_sample": later}))
    demand = find_demand(full.engine, scope_of(full), None)
    assert demand["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
    assert demand.tail(6)["running_gpus"].to_list() == [11.0, None, None, None, None, 11.0]


def test_parts_of_a_workspace_are_not_added_to_its_whole(full: Store) -> None:
    parts = full.read("demand_sample").with_columns(pool=pl.lit("a100"), running_gpus=pl.lit(99.0))
    full.append(Batch("replay:parts", {"demand_sample": parts}))
    assert find_demand(full.engine, scope_of(full), None)["running_gpus"].unique().to_list() == [11.0]


def test_demand_that_was_not_measured_is_not_zero(empty: Store) -> None:
    row = {"cluster": "east", "workspace": "research", "ts": EPOCH, "running_gpus": 3.0}
    empty.append(Batch("replay:half", {"demand_sample": pl.DataFrame([row])}))
    demand = find_demand(empty.engine, scope_of(empty), None)
    assert demand.drop("ts").rows() == [(3.0, None, None)]
    assert find_funnel(empty.engine, scope_of(empty)).gpus is None


def test_a_forecast_is_shown_for_the_series_it_was_made_for_only(full: Store) -> None:
    scope = scope_of(full)
    assert find_forecast(full.engine, scope, None)["gpus"].unique().to_list() == [12.0]
    assert find_forecast(full.engine, scope, "research").is_empty()
    assert find_forecast(full.engine, scope_of(full, cluster="east"), None).is_empty()


def test_the_forecast_of_the_only_cluster_is_that_of_all_and_those_of_several_add_up(empty: Store) -> None:
    demand = {"cluster": "east", "workspace": "research", "ts": EPOCH, "running_gpus": 3.0}
    empty.append(Batch("replay:one", {"demand_sample": pl.DataFrame([demand])}))
    made: dict[str, object] = {"made_at": EPOCH, "workspace": "*", "forecaster": "last_value", "gpus": 3.0}
    known = TABLES["forecast"].schema()
    names = ("made_at", "workspace", "forecaster", "gpus", "cluster", "ts")
    one = [{**made, "cluster": "east", "ts": EPOCH + timedelta(hours=1)}]
    empty.append_stored("forecast", pl.DataFrame(one, schema={name: known[name] for name in names}))
    assert find_forecast(empty.engine, scope_of(empty), None).height == 1
    two = [{**made, "cluster": "west", "ts": EPOCH + timedelta(hours=1)}]
    empty.append_stored("forecast", pl.DataFrame(two, schema={name: known[name] for name in names}))
    (row,) = find_forecast(empty.engine, scope_of(empty), None).to_dicts()
    assert (row["cluster"], row["gpus"], row["gpus_upper_80"]) == ("*", 6.0, None)
    assert "bands do not add up" in row["note"]


def test_an_hour_that_one_cluster_was_not_forecast_for_has_no_sum(empty: Store) -> None:
    made: dict[str, object] = {"made_at": EPOCH, "workspace": "*", "forecaster": "last_value", "ts": EPOCH}
    known = TABLES["forecast"].schema()
    names = ("made_at", "workspace", "forecaster", "ts", "cluster", "gpus")
    rows = [{**made, "cluster": "east", "gpus": 3.0}, {**made, "cluster": "west", "gpus": None}]
    demand = {"cluster": "east", "workspace": "research", "ts": EPOCH, "running_gpus": 3.0}
    empty.append(Batch("replay:one", {"demand_sample": pl.DataFrame([demand])}))
    empty.append_stored("forecast", pl.DataFrame(rows, schema={name: known[name] for name in names}))
    assert find_forecast(empty.engine, scope_of(empty), None).get_column("gpus").to_list() == [None]


def test_a_silent_gpu_lowers_the_coverage(full: Store) -> None:
    coverage = find_coverage(full.engine, scope_of(full))
    assert coverage is not None
    assert (coverage.gpus, coverage.samples, coverage.samples_per_hour) == (16, 23 * 15 * 4, 4.0)
    assert coverage.ratio == pytest.approx(15 / 16)


def test_troubles_are_counted_by_source_and_a_quiet_source_has_none(full: Store) -> None:
    full.append(Batch("quiet", {}, EPOCH))
    sources = find_sources(full.engine).select("source", "failures", "rejected_rows")
    assert sources.rows() == [("quiet", 0, 0), ("simulator", 1, 7)]


def test_a_short_quota_is_not_a_failing_gpu(full: Store) -> None:
    before = find_failing(full.engine, scope_of(full))
    turn = scope_of(full).turn
    assert turn is not None
    short = Verdict(turn, "demand", "workspace", "research", "short", Severity.WARNING, "forecast_above_quota")
    full.append_stored("verdict", verdict_frame([short]))
    assert find_failing(full.engine, scope_of(full)).equals(before)

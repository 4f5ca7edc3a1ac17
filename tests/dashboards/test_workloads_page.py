"""The page of workloads, drawn over a small fleet of which every state is known."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port, use_charts
from dashboards.port import Engine
from dashboards.scope import find_scope
from dashboards.use_questions import by_state, find_caught, find_fits, find_heat, find_hours_funnel
from fleet.batch import Batch
from store.store import Store
from tests.dashboards.conftest import END, opened

PAGE = Path(dashboards.__path__[0]) / "workloads_page.py"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# What each GPU of the fleet does all the time; 4 is at 8 %, which another line would catch.
ACTIVITY = {1: 0.9, 2: 0.0, 3: 0.0, 4: 0.08, 5: None, 6: 1.0}
KINDS = {1: "Job", 2: "Deployment", 3: "Notebook", 4: "Job", 5: "Job", 6: "Job"}


@pytest.fixture
def fleet() -> Iterator[Store]:
    yield from opened(fill, END)


def fill(store: Store) -> None:
    gpus = [
        {"gpu_uuid": f"GPU-{gpu}", "uuid": f"GPU-{gpu}", "cluster": "east", "node": f"node-{gpu % 2}",
         "last_seen_at": END, "first_seen_at": END - 30 * HOUR}
        for gpu in ACTIVITY
    ]  # fmt: skip
    samples = [
        {"gpu_uuid": f"GPU-{gpu}", "ts": END - MINUTE * back, "utilization": value, "gr_activity": value,
         "sm_activity": 0.1 if gpu == 6 else value, "dram_activity": 0.01 if gpu == 6 else value,
         "memory_used_mib": 0 if gpu == 2 else 9000}
        for gpu, value in ACTIVITY.items()
        for back in range(1, 30 * 60)
    ]  # fmt: skip
    pods = [
        {"cluster": "east", "namespace": "team", "pod": f"pod-{gpu}", "pod_uid": f"u{gpu}", "workload_kind": kind,
         "workload": f"w{gpu}", "workspace": "research", "owner": "ada", "gpu_uuid": f"GPU-{gpu}", "fraction": 1.0,
         "starts_at": END - 29 * HOUR}
        for gpu, kind in KINDS.items()
    ]  # fmt: skip
    floats = {name: pl.Float32() for name in ("utilization", "gr_activity", "sm_activity", "dram_activity")}
    frames = {
        "gpu": pl.DataFrame(gpus),
        "gpu_sample": pl.DataFrame(samples, schema_overrides={**floats, "memory_used_mib": pl.Int32()}),
        "pod_allocation": pl.DataFrame(pods),
    }
    store.append(Batch("test", frames, END))
    store.roll_up(END - 31 * HOUR, END)


def drawn(page: AppTest | None = None) -> AppTest:
    page = page or AppTest.from_file(PAGE, default_timeout=60)
    page.run()
    assert [each.value for each in page.exception] == []
    assert [each.value for each in page.error] == []
    return page


def numbers(page: AppTest) -> dict[str, tuple[str, str]]:
    return {each.label: (each.value, each.delta) for each in page.metric}


@pytest.mark.usefixtures("empty")
def test_an_empty_store_is_told_and_nothing_is_counted() -> None:
    page = drawn()
    assert "Nothing collected yet" in page.info[0].value
    assert numbers(page) == {}


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    page = AppTest.from_file(PAGE, default_timeout=30).run()
    assert "steward serve" in page.error[0].value


@pytest.mark.usefixtures("fleet")
def test_each_state_has_its_tab_and_what_is_unknown_is_never_called_idle() -> None:
    page = drawn()
    assert [tab.label for tab in page.tabs] == [
        "Zombies (2)", "Idle, memory held (0)", "Idle (0)", "Stalled (1)", "Under-used (0)", "Bursty (0)",
        "Unknown (1)",
    ]  # fmt: skip
    assert numbers(page)["GPUs and slices caught"] == ("2", "by the usual line")
    assert numbers(page)["Unknown"] == ("1", "never called idle")
    assert numbers(page)["Cost of it so far"][0] == "no price"


@pytest.mark.usefixtures("fleet")
def test_moving_the_line_shows_what_it_would_catch_beside_the_usual_one() -> None:
    page = drawn()
    page.select_slider(key="line").set_value(10)
    moved = numbers(drawn(page))
    assert moved["GPUs and slices caught"] == ("3", "1 more than at 5 %")


def engine_of(store: Store) -> Engine:
    return store.engine


def test_what_the_page_asks_is_answered_for_one_cluster_alone(fleet: Store) -> None:
    engine = engine_of(fleet)
    scope = find_scope(engine, timedelta(days=1), "elsewhere")
    assert scope is not None
    assert find_caught(engine, scope, 0.05).workloads == ()
    assert find_heat(engine, scope).is_empty()
    assert find_fits(engine, scope).is_empty()
    assert find_hours_funnel(engine, scope)(()).is_empty()


def test_a_workload_that_idles_for_more_than_a_day_is_a_zombie(fleet: Store) -> None:
    scope = find_scope(engine_of(fleet), timedelta(days=1), None)
    assert scope is not None
    found = by_state(find_caught(engine_of(fleet), scope, 0.05), scope)
    assert {v.subject for v in found["zombie"]} == {"Deployment/team/w2", "Notebook/team/w3"}
    assert [v.subject for v in found["stalled"]] == ["Job/team/w6"]
    assert [v.subject for v in found["unknown"]] == ["Job/team/w5"]


def test_the_heat_of_a_node_is_the_mean_of_its_gpus_and_a_gap_has_no_cell(fleet: Store) -> None:
    scope = find_scope(engine_of(fleet), timedelta(days=1), None)
    assert scope is not None
    cells = find_heat(engine_of(fleet), scope)
    means = dict(cells.group_by("node").agg(pl.col("activity").mean()).iter_rows())
    assert means["node-0"] == pytest.approx((0.0 + 0.08 + 0.1) / 3, abs=0.001)
    assert means["node-1"] == pytest.approx(0.45, abs=0.001)
    figure: dict[str, Any] = use_charts.heat(cells.with_columns(activity=pl.lit(None, dtype=pl.Float64)))
    assert figure["series"][0]["data"] == []
    assert figure["yAxis"]["data"] == ["node-0", "node-1"]


def test_a_funnel_step_that_is_not_known_has_no_bar_but_its_word() -> None:
    figure: dict[str, Any] = use_charts.hours_funnel([("Active", 10.0), ("Effective", None)], [("partly used", None)])
    assert figure["yAxis"]["data"] == ["Active", "Effective: unknown"]
    assert figure["series"][0]["data"] == [10.0, None]


def test_funnel_bars_are_what_is_left_and_what_is_lost_next() -> None:
    figure: dict[str, Any] = use_charts.hours_funnel([("All", 10.0), ("Held", 7.0)], [("not held", 3.0)])
    assert figure["series"][0]["data"] == [7.0, 7.0]
    assert [bar["value"] for bar in figure["series"][1]["data"]] == [3.0, None]


@pytest.mark.usefixtures("full")
def test_the_overview_draws_the_funnel_in_gpu_hours() -> None:
    page = AppTest.from_file(PAGE.with_name("overview_page.py"), default_timeout=60).run()
    assert [each.value for each in page.exception] == []
    assert "Where the GPU-hours went" in [each.value for each in page.subheader]
    table = next(each.value for each in page.dataframe if "effective" in each.value.columns)
    assert table["total"].sum() == pytest.approx(16 * 24)

"""The demand page: bands, scores beside them, odds, and sliders that replay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port
from dashboards.forecast_charts import bands
from dashboards.forecast_questions import Series, find_history_of, find_series
from fleet.batch import Batch
from fleet.frames import Table, conform
from fleet.tables import EXHAUSTION, FORECAST, FORECAST_SCORE
from store.store import Store

PAGE = Path(dashboards.__path__[0]) / "demand_page.py"
END = datetime(2026, 3, 2, 12, tzinfo=UTC)
SERIES = {"made_at": END, "cluster": "east", "workspace": "research"}


def rows(table: Table, found: list[dict[str, object]]) -> pl.DataFrame:
    return conform(pl.DataFrame(found, schema={name: table.schema()[name] for name in found[0]}), table, "stored")


@pytest.fixture
def judged(full: Store) -> Store:
    """Give a fleet with a forecast, its scores, odds and jobs."""
    path = [
        {
            **SERIES, "ts": END + timedelta(hours=hour), "forecaster": "combination", "gpus": 9.0,
            "gpus_lower_80": 8.0, "gpus_upper_80": 10.0, "gpus_lower_95": 7.0, "gpus_upper_95": 12.0,
            "note": "history under two weeks: 1.0 days",
        }
        for hour in range(24)
    ]  # fmt: skip
    scores = [
        {**SERIES, "horizon_hours": 24, "forecaster": name, "is_used": name == "combination", "mase": mase}
        for name, mase in (("combination", 0.83), ("last_value", 1.0))
    ]
    odds = [
        {**SERIES, "window_hours": hours, "limit_kind": "quota", "limit_gpus": 8.0, "probability": chance}
        for hours, chance in ((24, 0.25), (168, 0.5), (720, None))
    ]
    full.append_stored("forecast", rows(FORECAST, path))
    full.append_stored("forecast_score", rows(FORECAST_SCORE, scores))
    full.append_stored("exhaustion", rows(EXHAUSTION, odds))
    jobs = pl.DataFrame(
        [
            {
                "cluster": "east", "job_id": f"j{place}", "workspace": "research", "gpus": 8.0,
                "submitted_at": END - timedelta(hours=20, minutes=-place), "duration_s": 3600.0,
            }
            for place in range(10)
        ]
    )  # fmt: skip
    full.append(Batch("jobs", {"job": jobs}, END))
    return full


def drawn() -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30).run()
    assert [each.value for each in page.exception] == []
    return page


def texts(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.info, page.error, page.warning)
    return "\n".join(each.value for kind in kinds for each in kind)


@pytest.mark.usefixtures("empty")
def test_an_empty_store_says_what_is_missing_in_each_part() -> None:
    said = texts(drawn())
    assert "No forecast yet." in said
    assert "Unknown: no series has a quota" in said
    assert "No jobs are recorded" in said


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    assert "steward serve" in texts(drawn())


@pytest.mark.usefixtures("judged")
def test_a_forecast_stands_beside_how_wrong_it_was() -> None:
    page = drawn()
    page.selectbox(key="series").select("east / research").run()
    said = texts(page)
    assert "Used: combination; its error is 0.83 of the last value's." in said.replace("\\", "")
    assert "history under two weeks" in said.replace("\\", "")
    scores = page.dataframe[0].value
    assert scores["forecaster"].tolist() == ["combination", "last value"]


@pytest.mark.usefixtures("judged")
def test_odds_are_shown_and_the_unknown_is_not_nought() -> None:
    table = drawn().dataframe[-1].value
    assert table["within 1 d"].tolist() == [0.25]
    assert table["within 7 d"].tolist() == [0.5]
    assert table["within 30 d"].isna().all()


@pytest.mark.usefixtures("judged")
def test_sliders_replay_both_worlds() -> None:
    page = drawn()
    assert page.number_input(key="gpus_there").value == 16
    page.number_input(key="gpus_there").set_value(8)
    page.slider(key="gpus_more").set_value(100)
    page.button[0].click().run()
    assert [each.value for each in page.exception] == []
    shown = {each.label: (each.value, each.delta) for each in page.metric}
    assert shown["Jobs started"][0] >= shown["Jobs started"][1].removeprefix("now ")
    assert shown["Mean wait"][0] != shown["Mean wait"][1].removeprefix("now ")


@pytest.mark.usefixtures("judged")
def test_without_quotas_and_racks_the_page_says_why_they_can_not_be_changed() -> None:
    said = texts(drawn())
    assert "fewer than two workspaces have one" in said
    assert "No rack can be drained" in said


@pytest.fixture
def divided(judged: Store) -> Store:
    """Give two workspaces eight GPUs of quota each, and half of the GPUs a rack."""
    quotas = [
        {"cluster": "east", "workspace": name, "gpus": 8.0, "starts_at": END - timedelta(days=9)}
        for name in ("research", "serving")
    ]
    nodes = [{"cluster": "east", "node": "n1", "rack": "r1", "gpus": 8, "last_seen_at": END}]
    frames = {"quota": pl.DataFrame(quotas), "node": pl.DataFrame(nodes, schema_overrides={"gpus": pl.Int32})}
    judged.append(Batch("limits", frames, END))
    return judged


@pytest.mark.usefixtures("divided")
def test_a_rack_that_is_drained_makes_jobs_wait() -> None:
    page = drawn()
    page.number_input(key="gpus_there").set_value(8)
    page.selectbox(key="drain").select("r1")
    page.slider(key="drain_hours").set_value(5)
    page.button[0].click().run()
    assert [each.value for each in page.exception] == []
    shown = {each.label: (each.value, each.delta) for each in page.metric}
    assert shown["Mean wait"][0] != shown["Mean wait"][1].removeprefix("now ")


@pytest.mark.usefixtures("divided")
def test_quota_that_is_moved_away_and_not_lent_stops_a_workspace() -> None:
    page = drawn()
    page.selectbox(key="quota_from").select("research")
    page.selectbox(key="quota_to").select("serving")
    page.slider(key="quota_moved").set_value(8)
    page.toggle(key="lending").set_value(False)
    page.button[0].click().run()
    assert [each.value for each in page.exception] == []
    shown = {each.label: (each.value, each.delta) for each in page.metric}
    assert shown["Jobs started"][0] == "0"
    assert shown["Jobs started"][1] != "now 0"


def test_history_is_by_the_hour_with_its_parts_added_up(judged: Store) -> None:
    with judged.session() as session:
        assert Series("east", "research", None, None) in find_series(session.engine)
        history = find_history_of(session.engine, Series("*", "*", None, None), 7)
    assert history["running_gpus"].drop_nulls().unique().to_list() == [11.0]
    assert history["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]


def test_a_figure_has_both_bands_over_the_future() -> None:
    history = pl.DataFrame({"ts": [END], "running_gpus": [1.0], "pending_gpus": [None], "capacity_gpus": [4.0]})
    names = [str(each["name"]) for each in bands(history, FORECAST.empty())["series"]]  # type: ignore[attr-defined]  # a figure is plain JSON
    assert [name for name in names if "band" in name] == ["95 % band", "80 % band"]

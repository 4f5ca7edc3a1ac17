"""The page Data quality: exact coverage, states and hints, and unknown where nobody can tell."""

from datetime import timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port
from dashboards.scope import find_scope
from dashboards.telemetry_charts import coverage_heat
from dashboards.telemetry_questions import find_heat
from store.store import Store

PAGE = Path(dashboards.__path__[0]) / "telemetry_page.py"


def drawn() -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    page.run()
    assert [each.value for each in page.exception] == []
    return page


def numbers(page: AppTest) -> dict[str, str]:
    return {each.label: each.value for each in page.metric}


@pytest.mark.usefixtures("empty")
def test_an_empty_store_has_no_source() -> None:
    page = drawn()
    assert [each.value for each in page.info] == ["No source was ever read."]
    assert numbers(page) == {}


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    assert "steward serve" in drawn().error[0].value


@pytest.mark.usefixtures("queues_only")
def test_a_source_without_samples_has_no_coverage_and_that_is_not_zero() -> None:
    page = drawn()
    assert numbers(page) == {
        "Sources well": "1 of 1", "Least coverage": "unknown", "Most behind": "3 min",
        "Failures / rows rejected": "0 / 0",
    }  # fmt: skip
    words = "\n".join(each.value for each in page.caption)
    assert "Unknown: no whole hour of telemetry yet." in words
    assert "Unknown: no source gave samples in the last hour to tell a cadence by." in words


@pytest.mark.usefixtures("full")
def test_a_source_that_failed_is_failing_with_its_exact_coverage_and_a_hint() -> None:
    page = drawn()
    # The hour before the clock has three of the four quarters: the last sample is 18 minutes old.
    assert numbers(page) == {
        "Sources well": "0 of 1", "Least coverage": "75.0 %", "Most behind": "3 min",
        "Failures / rows rejected": "1 / 7",
    }  # fmt: skip
    row = page.dataframe[0].value.to_dict("records")[0]
    assert (row["source"], row["state"], row["last_error"]) == ("simulator", "failing", "did not answer")
    assert row["hint"] == "see its last error, and its log"
    gaps = page.dataframe[1].value.to_dict("records")
    assert [(each["node"], each["gpus"], each["samples"]) for each in gaps] == [("node-0", 8, 24), ("node-1", 7, 21)]


def test_the_heat_counts_silent_gpus_as_missing(full: Store) -> None:
    scope = find_scope(full.engine, timedelta(hours=24), None)
    assert scope is not None
    cells = find_heat(full.engine, scope)
    assert set(cells.select("node", "ratio").iter_rows()) == {("node-0", 1.0), ("node-1", 0.875)}
    figure = coverage_heat(cells)
    series = figure["series"]
    assert isinstance(series, list)
    assert len(series[0]["data"]) == cells.height

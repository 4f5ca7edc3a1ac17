from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port
from dashboards.health_charts import event_timeline, fleet_map
from dashboards.health_questions import find_events, find_probation, find_risk, find_states, find_unhealthy
from dashboards.scope import Scope
from fleet.batch import Batch
from fleet.tables import RISK
from fleet.verdict import Severity, Verdict, verdict_frame
from store.store import Store

PAGE = Path(dashboards.__path__[0]) / "health_page.py"


def turn(store: Store) -> datetime:
    """Give the moment of the latest turn."""
    moment = store.read("verdict").get_column("made_at").max()
    assert isinstance(moment, datetime)
    return moment


def scope(store: Store) -> Scope:
    end = turn(store)
    return Scope(end - timedelta(days=7), end + timedelta(seconds=1), None, end)


@pytest.fixture
def told(full: Store) -> Store:
    """Give the small fleet with a repair on trial, events of the last day and risks."""
    end = turn(full)
    trial = Verdict(
        end, "health", "gpu", "GPU-0012", "probation", Severity.INFO, "probation",
        {"after": "xid_79", "repair": "boot", "risk": {"risk_7d": 0.055, "base_7d": 0.0012}}, cluster="east",
        node="node-1", since=end - timedelta(days=1), until=end + timedelta(days=6),
    )  # fmt: skip
    stored = full.read("verdict")
    keep = stored.filter(~((pl.col("subject") == "GPU-0012") & (pl.col("made_at") == end)))
    full.append_stored("verdict", verdict_frame([trial]))
    assert keep.height < full.read("verdict").height
    base = {"cluster": "east", "node": "node-1", "gpu_uuid": "GPU-0012", "source": "kmsg"}
    events = [
        {"ts": end - timedelta(hours=30), "kind": "xid", "code": 79, **base},
        {"ts": end - timedelta(hours=24), "kind": "boot", "code": None, **base},
    ]
    full.append(Batch("kmsg", {"event": pl.DataFrame(events, schema_overrides={"code": pl.Int32})}, None))
    rows = [
        {
            "subject_kind": kind, "subject": subject, "cluster": "east", "node": "node-1", "made_at": end,
            "risk_1d": 0.02, "risk_7d": risk, "risk_30d": 0.1, "base_1d": 0.0002, "base_7d": 0.0012,
            "base_30d": 0.0052, "alert_line": None, "fault_count": 1, "last_fault_at": None, "basis": "history",
        }
        for kind, subject, risk in (("gpu", "GPU-0012", 0.055), ("gpu", "GPU-0001", 0.0012), ("node", "node-1", 0.06))
    ]  # fmt: skip
    full.append_stored("risk", pl.DataFrame(rows, schema=RISK.schema()))
    return full


def drawn(**query: str) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert [each.value for each in page.exception] == []
    return page


def numbers(page: AppTest) -> dict[str, str]:
    return {each.label: each.value for each in page.metric}


def texts(page: AppTest) -> str:
    return "\n".join(each.value for kind in (page.markdown, page.caption, page.info, page.error) for each in kind)


@pytest.mark.usefixtures("empty")
def test_an_empty_store_says_how_to_begin() -> None:
    page = drawn()
    assert "steward analyse" in page.info[0].value
    assert numbers(page) == {}


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    assert "steward serve" in drawn().error[0].value


@pytest.mark.usefixtures("queues_only")
def test_without_telemetry_nothing_is_called_well() -> None:
    page = drawn()
    assert "Unknown: no telemetry to judge by." in texts(page)
    assert "found nothing" not in texts(page)


@pytest.mark.usefixtures("told")
def test_states_findings_probation_and_risk_are_told_in_their_true_numbers() -> None:
    page = drawn()
    shown = numbers(page)
    assert {name: shown[name] for name in ("Failed", "Degraded", "Unknown")} == {
        "Failed": "1", "Degraded": "1", "Unknown": "1",
    }  # fmt: skip
    assert sum(int(value) for value in shown.values()) == 16
    headings = [each.value for each in page.subheader]
    assert "On probation after a repair (1)" in headings
    assert any("Evidence: xid fatal on GPU-0013" in each.label for each in page.expander)
    assert [tab.label for tab in page.tabs] == ["GPUs", "Nodes"]


@pytest.mark.usefixtures("told")
def test_every_number_and_heading_explains_itself() -> None:
    page = drawn()
    for each in [*page.metric, *page.subheader]:
        assert all(word in each.help for word in ("**Rows**", "**Rule**", "**Formula**"))


@pytest.mark.usefixtures("told")
def test_a_link_leads_to_a_cluster_and_one_to_nowhere_leads_to_all() -> None:
    assert numbers(drawn(cluster="east", window="24h")) == numbers(drawn(cluster="<script>", window="-1"))


def test_a_gpu_that_no_verdict_speaks_of_is_unknown(told: Store) -> None:
    late = scope(told)
    nowhere = Scope(late.since, late.until, None, late.since)
    assert set(find_states(told.engine, nowhere).get_column("state")) == {"unknown"}


def test_the_questions_find_what_was_stored(told: Store) -> None:
    now = scope(told)
    (probation,) = find_probation(told.engine, now).to_dicts()
    assert (probation["uuid"], probation["after"], probation["risk_7d"]) == ("GPU-0012", "xid_79", 0.055)
    assert find_risk(told.engine, now, "gpu", 1).get_column("subject").to_list() == ["GPU-0012"]
    assert find_risk(told.engine, now, "node", 5).get_column("subject").to_list() == ["node-1"]
    assert find_events(told.engine, now, 9).get_column("name").to_list() == ["boot", "xid 79"]
    first = find_unhealthy(told.engine, now).row(0, named=True)
    assert (first["severity"], first["subject"]) == ("critical", "GPU-0013")


def test_a_storm_of_one_kind_does_not_hide_a_rare_one(told: Store) -> None:
    end = scope(told).until
    storm = [
        {
            "ts": end - timedelta(hours=2, seconds=5 * number), "kind": "xid", "code": 13, "cluster": "east",
            "node": "node-0", "gpu_uuid": "GPU-0001", "source": "kmsg",
        }
        for number in range(400)
    ]  # fmt: skip
    told.append(Batch("kmsg", {"event": pl.DataFrame(storm, schema_overrides={"code": pl.Int32})}, None))
    assert find_events(told.engine, scope(told), 2).get_column("name").to_list() == ["boot", "xid 79"]


def test_the_map_has_a_cell_for_each_gpu_and_the_worst_nodes_where_not_all_fit(told: Store) -> None:
    states = find_states(told.engine, scope(told))
    cells = [len(each["data"]) for each in fleet_map(states, 100)["series"]]  # type: ignore[attr-defined]  # a list
    assert sum(cells) == 16
    worst = fleet_map(states, 1)
    assert worst["xAxis"]["data"] == ["east/node-1"]  # type: ignore[index]  # an axis


def test_the_timeline_has_a_dot_for_each_hour_and_kind(told: Store) -> None:
    figure = event_timeline(find_events(told.engine, scope(told), 9))
    assert figure["yAxis"]["data"] == ["xid 79", "boot"]  # type: ignore[index]  # an axis
    assert len(figure["series"][0]["data"]) == 2  # type: ignore[index]  # a list

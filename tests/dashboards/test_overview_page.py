from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port
from fleet.errors import StoreBusy
from store.store import Store

PAGE = Path(dashboards.__path__[0]) / "overview_page.py"


def drawn(**query: str) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not [each.stack_trace for each in page.exception], page.exception[0].stack_trace
    assert [each.value for each in page.exception] == []
    return page


def numbers(page: AppTest) -> dict[str, tuple[str, str]]:
    return {each.label: (each.value, each.delta) for each in page.metric}


def texts(page: AppTest) -> str:
    return "\n".join(each.value for kind in (page.markdown, page.caption, page.info, page.error) for each in kind)


@pytest.mark.usefixtures("empty")
def test_an_empty_store_is_told_with_how_to_begin() -> None:
    page = drawn()
    assert [each.value for each in page.info] == ["Nothing collected yet."]
    assert "steward demo" in texts(page)
    assert numbers(page) == {}


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    page = drawn()
    assert "steward serve" in page.error[0].value


@pytest.mark.usefixtures("queues_only")
def test_without_telemetry_what_is_not_known_is_unknown_and_never_zero() -> None:
    shown = numbers(drawn())
    assert shown["GPUs"] == ("16", "as queues tell")
    assert shown["Held"] == ("11", "68.8 % of the fleet")
    assert shown["Healthy"] == ("unknown", "no telemetry")
    assert shown["Active"] == ("unknown", "no telemetry")
    assert shown["Held while idle"] == ("unknown", "no ledger yet")
    assert shown["Planned saving"] == ("unknown", "no plan yet")
    assert shown["Coverage"] == ("unknown", "no telemetry")
    assert shown["Newest sample"][0] == "1 h 3 min old"


@pytest.mark.usefixtures("queues_only")
def test_without_telemetry_finding_nothing_is_not_called_all_well() -> None:
    words = texts(drawn())
    assert words.count("Unknown: no telemetry to judge by.") == 2
    assert "Unknown: no ledger yet." in words
    assert "found nothing" not in words


@pytest.mark.usefixtures("full")
def test_a_fleet_is_told_in_its_true_numbers() -> None:
    shown = numbers(drawn())
    assert shown == {
        "GPUs": ("16", "seen in this window"),
        "Healthy": ("13", "2 faulty, 1 unknown"),
        "Held": ("12", "75.0 % of the fleet"),
        "Active": ("8", "53.3 % of those that tell"),
        "Held while idle": ("$192", "96 GPU-hours"),
        "Planned saving": ("$8.00 / h", "2 moves, dry run"),
        "Coverage": ("93.8 %", "1,380 samples"),
        "Newest sample": ("18 min old", "02 Mar 2026, 11:45 UTC"),
        "Rows rejected": ("7", "counted, not stored"),
        "Source failures": ("1", "1 source"),
    }


@pytest.mark.usefixtures("full")
def test_every_number_explains_itself_by_rows_rule_and_formula() -> None:
    page = drawn()
    helps = [each.help for each in page.metric]
    assert len(helps) == 10
    for text in helps:
        assert all(word in text for word in ("**Rows**", "**Rule**", "**Formula**"))


@pytest.mark.usefixtures("full")
def test_a_link_leads_to_a_window_and_a_cluster() -> None:
    page = drawn(window="24h", cluster="east")
    assert "window from 01 Mar 2026, 11:45 UTC" in texts(page)
    assert numbers(page)["GPUs"] == ("16", "seen in this window")


@pytest.mark.usefixtures("full")
def test_a_link_to_what_is_not_there_leads_to_the_whole() -> None:
    page = drawn(window="5 minutes", cluster="<script>", workspace="gone")
    assert "window from 23 Feb 2026, 11:45 UTC" in texts(page)
    assert numbers(page)["GPUs"] == ("16", "seen in this window")


@pytest.mark.usefixtures("full")
def test_findings_are_counted_and_their_evidence_is_at_hand() -> None:
    page = drawn()
    assert [tab.label for tab in page.tabs] == ["Failing (2)", "Held while idle (1)"]
    titles = [each.label for each in page.expander]
    assert titles[0] == r"Evidence: xid fatal on GPU-0013"
    assert r"Evidence: all parts idle on Deployment/serving/chat" in titles
    evidence = page.expander[0].dataframe[0].value
    assert dict(zip(evidence["what"], evidence["evidence"], strict=True))["xid"] == "79"


@pytest.mark.usefixtures("full")
def test_a_workspace_is_looked_at_by_itself() -> None:
    page = drawn()
    page.selectbox(key="workspace").select("serving").run()
    assert not page.exception
    assert "No forecast of this series yet" in texts(page)


@pytest.mark.usefixtures("full")
def test_the_navigation_leads_to_the_overview() -> None:
    page = AppTest.from_file(PAGE.parent / "app.py", default_timeout=30).run()
    assert not page.exception
    assert [each.value for each in page.title] == ["Fleet overview"]
    assert numbers(page)["GPUs"] == ("16", "seen in this window")


class LockedStore:
    def session(self) -> Store:
        message = "another process owns the store"
        raise StoreBusy(message)


def test_a_store_that_can_not_answer_is_told_in_its_words() -> None:
    port.provide(LockedStore())
    page = drawn()
    port.withdraw()
    assert [each.value for each in page.error] == ["another process owns the store"]
    assert numbers(page) == {}

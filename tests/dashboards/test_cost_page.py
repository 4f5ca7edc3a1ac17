"""The cost page draws whatever the store holds, and its table sums to the bill."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from dashboards import port
from dashboards.cost_questions import find_bills, focus_csv
from dashboards.scope import find_scope
from store.store import Store

PAGE = Path(dashboards.__path__[0]) / "cost_page.py"
BILL = Decimal(16 * 24 * 2)


def drawn(**query: str) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not [each.stack_trace for each in page.exception], page.exception[0].stack_trace
    return page


def numbers(page: AppTest) -> dict[str, tuple[str, str]]:
    return {each.label: (each.value, each.delta) for each in page.metric}


@pytest.mark.usefixtures("empty")
def test_without_a_ledger_the_page_says_what_writes_it() -> None:
    page = drawn()
    assert [each.value for each in page.info] == ["No ledger yet."]
    assert numbers(page) == {}


def test_without_a_store_the_page_says_how_to_start_it() -> None:
    port.withdraw()
    assert "steward serve" in drawn().error[0].value


@pytest.mark.usefixtures("full")
def test_the_bill_and_its_parts_are_the_ledgers() -> None:
    shown = numbers(drawn())
    assert shown["Bill"] == ("$768", "384 GPU-h")
    assert shown["Used"] == ("$384", "192 GPU-h")
    assert shown["Held while idle"] == ("$192", "96 GPU-h")
    assert shown["Nobody's"] == ("$192", "96 GPU-h")


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("word", "column"),
    [("workspace", "workspace"), ("namespace", "namespace"), ("workload", "workload"), ("user", "owner"),
     ("team", "team"), ("label", "label:app"), ("GPU model", "model"), ("node pool", "pool"), ("node", "node")],
)  # fmt: skip
@pytest.mark.parametrize("share", ["Apart", "By cost", "Evenly"])
def test_whatever_view_is_chosen_sums_to_the_bill(word: str, column: str, share: str) -> None:
    table = pl.DataFrame(drawn(by=word, share=share).dataframe[0].value)
    assert table.columns[0] == column
    assert table["total_usd"].sum() == pytest.approx(float(BILL))


@pytest.mark.usefixtures("full")
def test_a_number_is_explained_down_to_its_lines() -> None:
    page = drawn()
    page.selectbox(key="explained").set_value("serving").run()
    parts, lines = (pl.DataFrame(page.dataframe[place].value) for place in (1, 2))
    assert parts.select("category", "cost_usd").rows() == [("allocated_idle", 192.0)]
    assert lines.height == 96


def test_budgets_are_shown_with_what_follows(full: Store) -> None:
    ends = {
        "workspace": "research",
        "starts_at": full.read("cost_line")["starts_at"].min(),
        "usd_per_month": Decimal(400),
    }
    full.append_stored("budget", pl.DataFrame([ends], schema_overrides={"usd_per_month": pl.Decimal(18, 6)}))
    page = drawn()
    table = pl.DataFrame(page.dataframe[-1].value)
    assert table["workspace"].to_list() == ["research"]
    assert 0 < table["share"].item() <= 1


def test_downloads_sum_to_the_bill(full: Store) -> None:
    with full.session() as session:
        scope = find_scope(session.engine, timedelta(days=7), None)
        assert scope is not None
        found = find_bills(session.engine, scope, ("workspace",), "weighted")
        assert sum((bill.total_usd for bill in found if bill.total_usd is not None), Decimal(0)) == BILL
        text = pl.read_csv(
            focus_csv(session.engine, scope, "weighted").encode(), schema_overrides={"EffectiveCost": pl.String}
        )
        assert sum(Decimal(cost) for cost in text["EffectiveCost"]) == BILL

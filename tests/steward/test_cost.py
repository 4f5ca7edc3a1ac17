"""Money from the store to the command line: booking, corrections, closed months, budgets, bills, exports."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog
from typer.testing import CliRunner

from analytics.focus_check import focus_faults
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from fleet.tables import VERDICT
from fleet.verdict import verdict_frame, verdicts_of
from steward.booking import charge
from steward.cli import app
from steward.compose import House
from steward.config import Settings, load_settings
from steward.cost_desk import budget_verdicts
from steward.desk import HouseDesk
from store.store import Store

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 30, tzinfo=UTC)
NOW = START + timedelta(days=1)
DOLLAR_TOTAL = Decimal(4 * 24 * 2)


def gpus() -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"gpu_uuid": f"GPU-{number}", "uuid": f"GPU-{number}", "cluster": "east", "node": f"n{number // 2}",
             "model": "H100", "first_seen_at": START, "last_seen_at": NOW}
            for number in range(4)
        ]
    )  # fmt: skip


def samples(numbers: range, since: datetime, until: datetime, activity: float) -> pl.DataFrame:
    steps = int((until - since) / timedelta(minutes=10))
    rows = [
        {"gpu_uuid": f"GPU-{number}", "ts": since + timedelta(minutes=10 * step), "sm_activity": activity}
        for number in numbers
        for step in range(steps)
    ]
    return pl.DataFrame(rows, schema_overrides={"sm_activity": pl.Float32})


def pod(number: int, workspace: str | None, **more: Any) -> dict[str, Any]:
    row = {
        "cluster": "east", "namespace": f"team-{workspace}", "pod": f"p{number}", "pod_uid": f"uid-{number}",
        "workload_kind": "Job", "workload": f"w{number}", "workspace": workspace, "gpu_uuid": f"GPU-{number}",
        "fraction": 1.0, "starts_at": START, "ends_at": None,
    }  # fmt: skip
    return {**row, **more}


def price(usd: str, **more: Any) -> pl.DataFrame:
    row = {"model": "H100", "capacity_type": "on_demand", "usd_per_gpu_hour": Decimal(usd), "starts_at": START, **more}
    return pl.DataFrame([row], schema_overrides={"usd_per_gpu_hour": pl.Decimal(18, 6)})


@pytest.fixture
def house() -> Iterator[House]:
    clock = FixedClock(NOW)
    with Store.open(None, clock=clock) as store:
        fill(store)
        yield House(Settings(), store, clock)


def fill(store: Store, *, priced: bool = True) -> None:
    nodes = [{"cluster": "east", "node": f"n{number}", "capacity_type": "on_demand", "gpus": 2} for number in range(2)]
    frames = {
        "node": pl.DataFrame(nodes, schema_overrides={"gpus": pl.Int32}),
        "gpu": gpus(),
        "gpu_sample": pl.concat([samples(range(1), START, NOW, 0.9), samples(range(1, 4), START, NOW, 0.0)]),
        "pod_allocation": pl.DataFrame([pod(0, "research"), pod(1, "serving"), pod(2, None)]),
        "price": price("2"),
    }
    store.append(Batch("test", {name: frame for name, frame in frames.items() if priced or name != "price"}))
    store.roll_up(START, NOW)


def book(house: House) -> int:
    lines = charge(house, VERDICT.empty(), house.clock.now())
    return house.store.append_stored("cost_line", lines)


class Asked:
    """The desk, its answers of whatever shape."""

    def __init__(self, house: House) -> None:
        self._desk = HouseDesk(house)

    def report(self, name: str, parameters: Mapping[str, object]) -> Any:
        return self._desk.report(name, parameters)

    def operate(self, name: str, parameters: Mapping[str, object]) -> Any:
        return self._desk.operate(name, parameters)


def spent(house: House, **parameters: object) -> Any:
    return Asked(house).report("cost", parameters)


def total(house: House) -> Decimal:
    return Decimal(str(house.store.read("cost_line")["cost_usd"].sum()))


def test_hours_that_are_over_are_booked_once(house: House) -> None:
    assert book(house) > 0
    assert total(house) == DOLLAR_TOTAL
    assert book(house) == 0
    assert house.store.read("cost_line")["booked_at"].unique().to_list() == [NOW]


def test_whoever_pays_and_nobody_sum_to_the_ledger(house: House) -> None:
    book(house)
    items = spent(house)["items"]
    assert {row["workspace"]: row["total_usd"] for row in items} == {
        "research": "48.000000", "serving": "48.000000", "(unattributed)": "48.000000", "(unallocated)": "48.000000",
    }  # fmt: skip
    assert {row["workspace"]: row["efficiency"] for row in items}["research"] == 1.0


@pytest.mark.parametrize("how", ["even", "weighted"])
@pytest.mark.parametrize("by_node", [False, True])
@pytest.mark.parametrize(
    "by", ["workspace", "workspace,category", "workload", "model", "cluster,node", "pool", "owner"]
)
def test_sharing_what_nobody_held_changes_no_total(house: House, how: str, by: str, by_node: bool) -> None:  # noqa: FBT001 - a case
    book(house)
    body = spent(house, by=by, share_idle=how, idle_by_node=by_node)
    assert sum(Decimal(row["total_usd"]) for row in body["items"]) == DOLLAR_TOTAL


def test_idle_of_a_node_stays_with_who_used_the_node(house: House) -> None:
    book(house)
    by_node = {
        row["workspace"]: row["total_usd"] for row in spent(house, share_idle="weighted", idle_by_node=True)["items"]
    }
    assert by_node == {"(unattributed)": "96.000000", "research": "48.000000", "serving": "48.000000"}
    by_cluster = {row["workspace"]: row["total_usd"] for row in spent(house, share_idle="weighted")["items"]}
    assert by_cluster == {"(unattributed)": "64.000000", "research": "64.000000", "serving": "64.000000"}


def test_steps_are_the_whole(house: House) -> None:
    book(house)
    rows = spent(house, window="24h", step="6h")["items"]
    assert len({row["ts"] for row in rows}) == 4
    assert sum(Decimal(row["cost_usd"]) for row in rows) == DOLLAR_TOTAL


def test_data_that_comes_late_is_a_correction_and_never_a_rewriting(house: House) -> None:
    book(house)
    before = house.store.read("cost_line")
    house.store.append(Batch("late", {"pod_allocation": pl.DataFrame([pod(3, "research")])}))
    desk = Asked(house)
    answer = desk.operate("cost-recount", {"window": "24h"})
    assert answer["summary"]["corrections"] > 0
    after = house.store.read("cost_line")
    assert after.filter(pl.col("adjustment") == 0).height == before.height
    assert total(house) == DOLLAR_TOTAL
    owners = {row["workspace"]: row["total_usd"] for row in spent(house)["items"]}
    assert owners["research"] == "96.000000"
    assert desk.operate("cost-recount", {"window": "24h"})["summary"] == {"corrections": 0, "difference_usd": "0"}


def test_late_data_is_found_with_the_next_hour(house: House) -> None:
    book(house)
    house.store.append(Batch("late", {"pod_allocation": pl.DataFrame([pod(3, "research")])}))
    assert isinstance(house.clock, FixedClock)
    house.clock.move(HOUR)
    house.store.append(Batch("more", {"gpu_sample": samples(range(4), NOW, NOW + HOUR, 0.0)}))
    house.store.roll_up(NOW, NOW + HOUR)
    assert book(house) > 0
    assert {row["workspace"]: row["total_usd"] for row in spent(house, window="25h")["items"]}[
        "research"
    ] == "100.000000"


def test_a_new_price_is_booked_as_the_difference(house: House) -> None:
    book(house)
    house.store.append(Batch("prices", {"price": price("3")}))
    answer = Asked(house).operate("cost-reprice", {"window": "24h"})
    assert answer["summary"]["difference_usd"] == "96.000000"
    assert total(house) == DOLLAR_TOTAL * 3 / 2


def test_a_closed_month_stays_as_it_was_billed(house: House) -> None:
    book(house)
    desk = Asked(house)
    with pytest.raises(BadInput, match="not over"):
        desk.operate("cost-close", {"month": "2026-03"})
    assert isinstance(house.clock, FixedClock)
    house.clock.set(datetime(2026, 4, 2, tzinfo=UTC))
    assert desk.operate("cost-close", {"month": "2026-03"})["summary"]["cost_usd"] == "192.000000"
    with pytest.raises(BadInput, match="closed already"):
        desk.operate("cost-close", {"month": "2026-03"})
    with pytest.raises(BadInput, match="one after it"):
        desk.operate("cost-close", {"month": "2026-01"})
    house.store.append(Batch("prices", {"price": price("3")}))
    desk.operate("cost-reprice", {"window": "24h"})
    lines = house.store.read("cost_line")
    april = lines.filter(pl.col("billed_at") == datetime(2026, 4, 1, tzinfo=UTC))
    assert april["cost_usd"].sum() == Decimal(96)
    assert lines.filter(pl.col("billed_at").is_null())["cost_usd"].sum() == DOLLAR_TOTAL


def test_budgets_pass_thresholds_and_say_what_follows(house: House) -> None:
    book(house)
    desk = Asked(house)
    desk.operate("budget", {"workspace": "research", "usd": "50", "at_limit": "hold_queue"})
    desk.operate("budget", {"workspace": "serving", "gpu_hours": "24", "at_limit": "stop_borrowing"})
    desk.operate("budget", {"workspace": "nobody", "usd": "10"})
    body = desk.report("budgets", {})
    rows = {row["workspace"]: row for row in body["items"]}
    assert (rows["research"]["share"], rows["research"]["passed"], rows["research"]["action"]) == (0.96, 0.9, "notify")
    assert (rows["serving"]["share"], rows["serving"]["action"]) == (1.0, "stop_borrowing")
    assert (rows["nobody"]["share"], rows["nobody"]["action"]) == (0.0, "none")
    assert body["exitCode"] == 2


def test_a_verdict_on_a_budget_has_all_that_a_rule_needs_to_act_on_it(house: House) -> None:
    book(house)
    Asked(house).operate("budget", {"workspace": "research", "usd": "50", "at_limit": "hold_queue"})
    Asked(house).operate("budget", {"workspace": "serving", "usd": "40", "at_limit": "stop_borrowing"})
    found = {each.workspace: each for each in budget_verdicts(house, START + 12 * HOUR)}
    serving, research = found["serving"], found["research"]
    assert (serving.state, serving.action) == ("spent", "stop_borrowing")
    assert (research.state, research.action) == ("warned", "notify")  # 96 % spent: the policy does not follow yet
    assert dict(serving.evidence) == {
        "share": 1.2, "expected_share": serving.evidence["expected_share"], "passed": 1.0, "basis": "run rate",
        "usd_per_month": "40.000000", "gpu_hours_per_month": None, "at_limit": "stop_borrowing",
        "spent_usd": "48.000000", "spent_gpu_hours": 24.0, "clusters": ["east"],
        "period_starts_at": "2026-03-01T00:00:00+00:00", "period_ends_at": "2026-04-01T00:00:00+00:00",
    }  # fmt: skip
    assert research.evidence["at_limit"] == "hold_queue"
    assert verdicts_of(verdict_frame(found.values())) == list(found.values())


def test_a_budget_that_is_taken_away_leaves_a_word_by_which_what_was_stopped_is_given_back(house: House) -> None:
    book(house)
    desk = Asked(house)
    desk.operate("budget", {"workspace": "serving", "usd": "40", "at_limit": "stop_borrowing"})
    assert desk.operate("budget", {"workspace": "serving", "remove": True})["kind"] == "BudgetRemoved"
    (found,) = budget_verdicts(house, house.clock.now())
    assert (found.workspace, found.state, found.rule, found.action) == ("serving", "unlimited", "no_budget", "none")
    assert verdicts_of(verdict_frame([found])) == [found]
    with pytest.raises(BadInput, match="has no budget"):
        desk.operate("budget", {"workspace": "serving", "remove": True})
    assert desk.report("budgets", {})["items"] == []


@pytest.mark.parametrize(
    ("given", "word"),
    [({"usd": "-1"}, "usd"), ({}, "usd"), ({"usd": "x"}, "usd"), ({"usd": "5", "at_limit": "shout"}, "at_limit"),
     ({"gpu_hours": "0"}, "gpu_hours"), ({"usd": "5", "thresholds": "2,-1"}, "thresholds")],
)  # fmt: skip
def test_a_budget_that_means_nothing_is_refused(house: House, given: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        Asked(house).operate("budget", {"workspace": "a", **given})
    assert house.store.read("budget").is_empty()


def test_an_explanation_shows_rows_rates_and_rules(house: House) -> None:
    book(house)
    body = Asked(house).report("cost-explain", {"workspace": "serving"})
    (row,) = body["items"]
    assert (row["category"], row["gpu_hours"], row["usd_per_gpu_hour"], row["cost_usd"]) == (
        "allocated_idle", 24.0, "2.000000", "48.000000",
    )  # fmt: skip
    assert "no sample was active" in row["rule"]
    assert body["summary"]["lines"] == 24


CHARGES = """cluster,resource,namespace,starts_at,ends_at,cost_usd,quantity,unit
east,storage,team-serving,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,10,100,GiB-hours
east,support,,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,7.000001,,
"""


def test_charges_make_a_workspaces_bill_whole(house: House) -> None:
    book(house)
    member = {"cluster": "east", "namespace": "team-serving", "workspace": "serving", "starts_at": START}
    house.store.append(Batch("members", {"workspace_member": pl.DataFrame([member])}))
    desk = Asked(house)
    desk.operate("cost-charges", {"text": CHARGES, "place": "charges.csv"})
    assert total(house) == DOLLAR_TOTAL + Decimal("17.000001")
    owners = {row["workspace"]: row["total_usd"] for row in spent(house)["items"]}
    assert owners["serving"] == "58.000000"
    assert owners["(overhead)"] == "7.000001"
    desk.operate("cost-charges", {"text": CHARGES, "place": "charges.csv"})
    assert total(house) == DOLLAR_TOTAL + Decimal("17.000001")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        pytest.param("east,storage,a,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,ten,,", "cost_usd", id="no-amount"),
        pytest.param("east,storage,a,2026-03-30T00:00:00Z,,1,,", "ends_at", id="missing"),
        pytest.param("east,storage,a,2026-03-31T00:00:00Z,2026-03-30T00:00:00Z,1,,", "ends_at", id="backwards"),
        pytest.param("east,storage,a,2026-03-30 00:00:00,2026-03-31T00:00:00Z,1,,", "starts_at", id="no-zone"),
        pytest.param("east,storage,a,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,1,-5,", "quantity", id="negative"),
        pytest.param("east,storage,a,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,1,,,9", "line", id="too-many"),
    ],
)
def test_a_bad_charge_names_its_line_and_changes_nothing(house: House, line: str, word: str) -> None:
    text = CHARGES + line + "\n"
    with pytest.raises(BadInput, match=rf"charges.csv.*{word}") as caught:
        Asked(house).operate("cost-charges", {"text": text, "place": "charges.csv"})
    assert "line 4" in str(caught.value)
    assert house.store.read("charge").is_empty()


def test_a_currency_of_others_is_refused(house: House) -> None:
    text = "day,node,cost_usd,currency\n2026-03-30,n0,5,EUR\n"
    with pytest.raises(BadInput, match="line 2: currency: is EUR"):
        Asked(house).operate("cost-reconcile", {"text": text, "place": "bill.csv"})


def test_a_bill_is_compared_node_by_node(house: House) -> None:
    book(house)
    text = "day,node,cost_usd\n2026-03-30,n0,96\n2026-03-30,n1,120\n2026-03-30,n9,5\n"
    body = Asked(house).operate("cost-reconcile", {"text": text, "place": "bill.csv"})
    found = {row["node"]: (row["verdict"], row["difference_usd"]) for row in body["items"]}
    assert found == {"n0": ("equal", "0.000000"), "n1": ("price", "24.000000"), "n9": ("not_in_ledger", None)}


def test_units_of_work_have_a_cost(house: House) -> None:
    book(house)
    text = (
        "cluster,namespace,workload,served_model,starts_at,ends_at,prompt_tokens,generated_tokens,request_count\n"
        "east,team-research,Job/team-research/w0,m,2026-03-30T00:00:00Z,2026-03-31T00:00:00Z,8000000,1600000,4800\n"
    )
    desk = Asked(house)
    desk.operate("cost-work", {"text": text, "place": "work.csv"})
    row = desk.report("cost-unit", {"window": "24h"})["items"][0]
    assert row["usd_per_million_tokens"] == pytest.approx(5.0)
    assert row["usd_per_million_input"] == pytest.approx(4.0)
    assert row["usd_per_million_output"] == pytest.approx(10.0)
    assert row["usd_per_request"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "parameters",
    [
        {"by": "colour"},
        {"window": "7x"},
        {"since": "2026-01-01"},
        {"share_idle": "odd"},
        {"since": "2026-04-02T00:00:00Z"},
    ],
)
def test_a_question_that_means_nothing_is_refused(house: House, parameters: dict[str, object]) -> None:
    book(house)
    with pytest.raises(BadInput):
        spent(house, **parameters)


def test_focus_holds_its_rules_and_sums_to_the_ledger(house: House) -> None:
    node = pl.DataFrame([{"cluster": "east", "node": "n1", "capacity_type": "reserved"}])
    house.store.append(Batch("test", {"node": node, "price": price("1.5", capacity_type="reserved")}))
    book(house)
    for how in ("none", "weighted"):
        body = spent(house, form="focus", share_idle=how)
        frame = pl.DataFrame(body["items"], infer_schema_length=None)
        assert focus_faults(frame) == []
        assert sum(Decimal(text) for text in frame["EffectiveCost"]) == total(house)
        assert sum(Decimal(text) for text in frame["BilledCost"]) == total(house)


def test_an_empty_ledger_is_unknown_and_not_zero(house: House) -> None:
    body = spent(house)
    assert body["items"] == []
    assert body["summary"]["total_usd"] is None
    assert "unknown" in body["notes"][0]


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """Let the log go back to the standard error of the process when a command was run within it."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("log_as_before")
def test_the_command_line_prints_tables_csv_focus_and_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "store.duckdb"
    clock = FixedClock(NOW)
    with Store.open(database, clock=clock) as store:
        fill(store)
        book(House(Settings(), store, clock))
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(app, ["--store", str(database), "cost", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert "research" in run("--by", "workspace", "--window", "7d", "--share-idle", "weighted")
    rows = list(csv.DictReader(io.StringIO(run("-o", "csv"))))
    assert sum(Decimal(row["total_usd"]) for row in rows) == DOLLAR_TOTAL
    assert json.loads(run("-o", "json"))["kind"] == "CostReport"
    assert "EffectiveCost" in run("-o", "focus").splitlines()[0]
    run("-o", "focus", "--to", str(tmp_path / "focus.parquet"))
    frame = pl.read_parquet(tmp_path / "focus.parquet")
    assert frame["EffectiveCost"].sum() == DOLLAR_TOTAL
    assert "allocated_idle" in run("explain", "--workspace", "serving")


def allocations(house: House, **parameters: object) -> dict[str, Any]:
    (only,) = Asked(house).report("allocation", {"window": "24h", "includeIdle": "true", **parameters})["items"]
    found: dict[str, Any] = only["allocations"]
    return found


def test_tools_of_opencost_read_our_allocations(house: House) -> None:
    book(house)
    found = allocations(house, aggregate="namespace")
    costs = {name: (each["totalCost"], each["gpuHours"], each["gpuEfficiency"]) for name, each in found.items()}
    assert costs == {
        "team-research": (48.0, 24.0, 1.0), "team-serving": (48.0, 24.0, 0.0), "team-None": (48.0, 24.0, 0.0),
        "__idle__": (48.0, 0.0, 0.0),
    }  # fmt: skip
    shared = allocations(house, aggregate="namespace", shareIdle="true")
    assert {name: (each["totalCost"], each["gpuCostIdle"]) for name, each in shared.items()} == dict.fromkeys(
        ("team-research", "team-serving", "team-None"), (64.0, 16.0)
    )
    kept = allocations(house, aggregate="controllerKind", filter='namespace:"team-serving"')
    assert {name: each["totalCost"] for name, each in kept.items()} == {"job": 48.0, "__idle__": 16.0}


def test_steps_of_allocations_sum_to_the_window(house: House) -> None:
    book(house)
    sets = Asked(house).report("allocation", {"window": "24h", "step": "6h", "includeIdle": "true"})["items"]
    assert [len(each["allocations"]) for each in sets] == [4] * 4
    costs = [entry["totalCost"] for each in sets for entry in each["allocations"].values()]
    assert sum(costs) == float(DOLLAR_TOTAL)


@pytest.mark.parametrize(
    "parameters",
    [{"window": "7"}, {"window": "odd"}, {"step": "x"}, {"aggregate": "colour"}, {"filter": "namespace"},
     {"filter": 'colour:"red"'}, {"filter": 'namespace:"a"+'}, {"shareSplit": "odd"}],
)  # fmt: skip
def test_an_allocation_that_means_nothing_is_refused(house: House, parameters: dict[str, object]) -> None:
    book(house)
    with pytest.raises(BadInput):
        allocations(house, **parameters)


def test_what_is_lost_is_told_by_cause(house: House) -> None:
    demand = {"cluster": "east", "workspace": "research", "ts": START + HOUR, "pending_gpus": 2.0}
    quota = {"cluster": "east", "workspace": "serving", "gpus": 3.0, "starts_at": START - HOUR}
    slow = [
        {"gpu_uuid": "GPU-0", "ts": START + HOUR * hour, "slowed_by_power_cap_s": seconds}
        for hour, seconds in ((1, 100.0), (2, 1900.0), (3, 0.0), (4, 1800.0))
    ]
    house.store.append(
        Batch(
            "x",
            {"demand_sample": pl.DataFrame([demand]), "quota": pl.DataFrame([quota]), "gpu_sample": pl.DataFrame(slow)},
        )
    )
    book(house)
    items = Asked(house).report("cost-waste", {"window": "24h"})["items"]
    found = {
        (row["cause"], row["workspace"]): (round(row["gpu_hours"], 6), round(float(row["cost_usd"]), 6))
        for row in items
    }
    assert found["waiting", "research"] == (48.0, 96.0)
    assert found["quota_unused", "serving"] == (48.0, 96.0)
    assert found["throttled", None] == (1.0, 2.0)
    assert found["allocated_idle", "serving"] == (24.0, 48.0)


def test_counting_again_stops_at_the_booked_end_and_takes_whole_hours(house: House) -> None:
    book(house)
    odd = {"since": "2026-03-30T05:30:00Z", "until": "2026-03-30T07:10:00Z"}
    assert Asked(house).operate("cost-recount", odd)["summary"]["corrections"] == 0
    beyond = {"since": "2026-03-30T05:30:00Z", "until": "2026-04-09T00:00:00Z"}
    assert Asked(house).operate("cost-recount", beyond)["summary"]["corrections"] == 0


def test_without_any_telemetry_the_ledger_begins_with_the_first_pod() -> None:
    clock = FixedClock(NOW)
    with Store.open(None, clock=clock) as store:
        frames = {"gpu": gpus(), "pod_allocation": pl.DataFrame([pod(0, "research", starts_at=START + HOUR / 2)])}
        store.append(Batch("test", frames))
        bare = House(Settings(), store, clock)
        assert book(bare) > 0
        assert store.read("cost_line").filter(pl.col("category") == "unknown")["gpu_seconds"].sum() == 23.5 * 3600


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("cost", {"form": "focus", "share_idle": "weighted"}), ("cost", {"share_idle": "even"}), ("cost", {"step": "1d"}),
     ("cost-explain", {}), ("cost-unit", {}), ("cost-waste", {}), ("budgets", {}),
     ("cost", {"by": "label:a,pool,owner"})],
)  # fmt: skip
def test_a_store_without_anything_answers_with_nothing(name: str, parameters: dict[str, object]) -> None:
    clock = FixedClock(NOW)
    with Store.open(None, clock=clock) as store:
        assert Asked(House(Settings(), store, clock)).report(name, parameters)["items"] == []


def test_views_by_label_owner_and_team_read_the_pods(house: House) -> None:
    rows = [
        {"cluster": "east", "namespace": "team", "pod": f"p{number}", "pod_uid": f"uid-{number}", "created_at": START,
         "owner": "ann", "labels": json.dumps({"team": f"t{number % 2}", "app": "web"})}
        for number in range(3)
    ]  # fmt: skip
    house.store.append(Batch("pods", {"pod": pl.DataFrame(rows)}))
    book(house)
    by_team = {row["team"]: row["total_usd"] for row in spent(house, by="team")["items"]}
    assert by_team == {"t0": "96.000000", "t1": "48.000000", "(unallocated)": "48.000000"}
    assert {row["label:app"] for row in spent(house, by="label:app")["items"]} == {"web", "(unallocated)"}
    assert {row["owner"] for row in spent(house, by="owner")["items"]} == {"ann", "(unallocated)"}


def test_prices_of_nodes_are_split_where_it_is_asked_for(house: House) -> None:
    sizes = [{"cluster": "east", "node": f"n{number}", "cpu_milli": 64000, "memory_mib": 524288} for number in range(2)]
    pods = [
        {"cluster": "east", "namespace": "team-research", "pod": "p0", "pod_uid": "uid-0", "node": "n0",
         "workspace": "research", "workload_kind": "Job", "workload": "w0", "cpu_milli": 32000, "memory_mib": 262144,
         "created_at": START, "starts_at": START}
    ]  # fmt: skip
    house.store.append(Batch("hosts", {"node": pl.DataFrame(sizes), "pod": pl.DataFrame(pods)}))
    split = House(Settings(cost={"split_nodes": True, "overhead_usd_per_hour": "0.5"}), house.store, house.clock)  # type: ignore[arg-type]
    book(split)
    assert total(split) == DOLLAR_TOTAL + 12
    found = {
        row["resource"]: Decimal(row["total_usd"]) for row in spent(split, by="resource", share_idle="none")["items"]
    }
    assert found.keys() >= {"cpu", "ram", "gpu"}
    assert spent(split, by="workspace,resource")["items"][0]["total_usd"] is not None


def test_a_list_that_prices_nodes_alone_is_split_over_gpu_cpu_and_ram_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "pricing.csv").write_text(
        "EndTimestamp,InstanceID,Region,AssetClass,InstanceIDField,InstanceType,MarketPriceHourly,Version\n"
        "2028-01-01,big,,node,metadata.labels.size,,8.00,\n"
    )
    config, store = tmp_path / "steward.toml", tmp_path / "s.duckdb"
    config.write_text(f'[prices]\nbook = "{tmp_path}/pricing.csv"\n[cost]\nsplit_nodes = true\n')
    sizes = [
        {"cluster": "east", "node": f"n{number}", "cpu_milli": 64000, "memory_mib": 524288, "model": "H100",
         "labels": json.dumps({"size": "big"})}
        for number in range(2)
    ]  # fmt: skip
    with Store.open(store, clock=FixedClock(NOW)) as opened:
        fill(opened, priced=False)
        opened.append(Batch("hosts", {"node": pl.DataFrame(sizes)}))
    command = ["--config", str(config), "--store", str(store)]
    listed = json.loads(CliRunner().invoke(app, [*command, "prices", "-o", "json"]).stdout)
    assert {(item["model"], item["usd_per_gpu_hour"]) for item in listed["items"]} == {("H100", "4.000000")}
    with Store.open(store, clock=FixedClock(NOW)) as opened:
        book(House(load_settings(config, {}), opened, FixedClock(NOW)))
        lines = opened.read("cost_line").group_by("resource").agg(pl.col("cost_usd").sum())
    asked = [*command, "cost", "--by", "resource", "--since", START.isoformat(), "--until", NOW.isoformat()]
    shown = json.loads(CliRunner().invoke(app, [*asked, "-o", "json"]).stdout)
    assert sum(Decimal(item["total_usd"]) for item in shown["items"]) == 2 * 8 * 24
    parts = dict(lines.iter_rows())
    # two GPUs, 64 cores and 512 GiB at 0.95, 0.031611 and 0.004237 a unit: 8 dollars an hour of a node
    weights = {"gpu": 2 * 0.95, "cpu": 64 * 0.031611, "ram": 512 * 0.004237}
    assert sum(parts.values()) == 2 * 8 * 24
    for name, weight in weights.items():
        assert float(parts[name]) == pytest.approx(2 * 8 * 24 * weight / sum(weights.values()), rel=1e-4)


def test_nothing_is_counted_again_that_has_lost_its_samples(house: House) -> None:
    book(house)
    before = house.store.read("cost_line")
    house.store.retain({"gpu_hour": HOUR * 12}, NOW)
    with pytest.raises(BadInput, match="no longer kept"):
        Asked(house).operate("cost-recount", {"window": "24h"})
    assert Asked(house).operate("cost-recount", {"window": "11h"})["summary"]["corrections"] == 0
    assert house.store.read("cost_line").equals(before)
    house.store.retain({"gpu_hour": HOUR}, NOW + HOUR * 9)
    with pytest.raises(BadInput, match="no longer kept"):
        Asked(house).operate("cost-recount", {"window": "1h"})
    assert Asked(house).operate("cost-reprice", {"window": "24h"})["summary"]["corrections"] == 0


def test_the_ledger_by_day_is_added_up_anew_from_its_lines(house: House) -> None:
    book(house)
    before, bill = house.store.read("cost_day").height, spent(house)["items"]
    stray = house.store.read("cost_day").with_columns(category=pl.lit("stray"))
    house.store.append_stored("cost_day", stray)
    assert house.store.read("cost_day").height == 2 * before
    assert Asked(house).operate("cost-days", {})["summary"] == {"rows": before}
    assert spent(house)["items"] == bill

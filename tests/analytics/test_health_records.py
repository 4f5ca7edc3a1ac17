"""One verdict a GPU and slice: the worst of rules, peers, silence and record; and what is at stake with it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl
import pytest

from analytics.fault_history import (
    consequential_codes,
    gpu_exposure,
    gpu_faults,
    history_events,
    node_faults,
    service,
    slices_now,
)
from analytics.health_records import Chart, charts, judge_states, slice_verdicts
from analytics.health_stake import StakePolicy, Stakes, with_stakes
from analytics.health_state import StatePolicy
from analytics.node_condition import NodeCondition, node_conditions
from fleet.verdict import Severity, Verdict

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = StatePolicy()


def verdict(state: str = "healthy", rule: str = "no_finding", subject: str = "GPU-1", **more: object) -> Verdict:
    severity = {
        "healthy": Severity.OK, "degraded": Severity.WARNING, "unknown": Severity.UNKNOWN,
    }.get(state, Severity.CRITICAL)  # fmt: skip
    action = {"failing": "reset_gpu", "failed": "reboot_node", "degraded": "drain"}.get(state, "none")
    made = Verdict(NOW, "health", "gpu", subject, state, severity, rule, cluster="c1", node="n1", action=action)
    return replace(made, **more)  # type: ignore[arg-type]  # fields of Verdict by name


def history(*rows: tuple[float, str | None, str, int | None]) -> pl.DataFrame:
    schema: dict[str, pl.DataType] = {
        "ts": pl.Datetime("us", "UTC"), "cluster": pl.String(), "node": pl.String(), "gpu_uuid": pl.String(),
        "slice_uuid": pl.String(), "kind": pl.String(), "code": pl.Int32(), "message": pl.String(), "count": pl.Int64(),
    }  # fmt: skip
    told = [(NOW - ago * HOUR, "c1", "n1", uuid, None, kind, code, None, 1) for ago, uuid, kind, code in rows]
    return pl.DataFrame(told, schema=schema, orient="row")


def chart(*rows: tuple[float, str | None, str, int | None], heard_ago_h: float = 0.01) -> dict[str, Chart]:
    gpus = pl.DataFrame(
        {"uuid": ["GPU-1"], "cluster": ["c1"], "node": ["n1"], "last_sample_at": [NOW - heard_ago_h * HOUR]},
        schema_overrides={"last_sample_at": pl.Datetime("us", "UTC")},
    )
    return charts(gpus, history(*rows), POLICY)


def judged(*told: Verdict, known: dict[str, Chart] | None = None, policy: StatePolicy = POLICY) -> Verdict:
    (one,) = judge_states(told, known or {}, policy, NOW)
    return one


def test_a_gpu_with_nothing_found_and_no_record_is_healthy() -> None:
    assert judged(verdict()).state == "healthy"


def test_the_worst_of_all_that_speak_is_the_state_and_the_others_stand_in_the_evidence() -> None:
    odd = verdict("degraded", "straggler", topic="anomaly", action="inspect")
    lost = verdict("failed", "gpu_lost")
    one = judged(verdict(), odd, lost)
    assert (one.topic, one.state, one.rule, one.action) == ("health", "failed", "gpu_lost", "reboot_node")
    findings = one.evidence["findings"]
    assert isinstance(findings, list)
    assert [finding["rule"] for finding in findings] == ["straggler"]


def test_what_is_unknown_is_never_healthy_and_a_fault_outranks_it() -> None:
    unknown = verdict("unknown", "low_coverage")
    assert judged(verdict(), unknown).state == "unknown"
    assert judged(verdict("failed", "gpu_lost"), unknown).state == "failed"
    assert judged(unknown, known=chart((300, "GPU-1", "xid", 79))).state == "failed"


def test_a_latched_fault_outlives_the_look_back_of_the_rules() -> None:
    one = judged(verdict(), known=chart((100, "GPU-1", "xid", 79)))
    assert (one.state, one.rule, one.action, one.since) == ("failed", "xid_79", "reboot_node", NOW - 100 * HOUR)


def test_a_repaired_gpu_is_on_probation_until_its_time_is_over() -> None:
    known = chart((100, "GPU-1", "xid", 79), (90, None, "boot", None))
    one = judged(verdict(), known=known)
    assert (one.state, one.severity, one.action) == ("probation", Severity.INFO, "none")
    assert one.until == NOW - 90 * HOUR + timedelta(days=7)
    assert one.evidence["after"] == "xid_79"
    old = chart((400, "GPU-1", "xid", 79), (390, None, "boot", None))
    assert judged(verdict(), known=old).state == "healthy"


def test_a_boot_without_a_fault_before_it_puts_nobody_on_probation() -> None:
    assert judged(verdict(), known=chart((90, None, "boot", None))).state == "healthy"


def test_a_relapse_asks_for_the_next_rung_even_where_the_rules_ask_for_the_first() -> None:
    known = chart((50, "GPU-1", "xid", 79), (40, None, "boot", None), (2, "GPU-1", "xid", 79))
    one = judged(verdict("failed", "xid_79", evidence=MappingProxyType({"xid": 79})), known=known)
    assert (one.state, one.action) == ("failed", "run_diagnostics")


def test_live_findings_wait_for_the_boot_to_be_over_and_are_unknown_meanwhile() -> None:
    slow = verdict("degraded", "hw_slowdown")
    known = chart((0.1, None, "boot", None))
    assert judged(slow, known=known).state == "unknown"
    assert judged(slow, known=known).evidence["held_back"] == ["hw_slowdown"]
    assert judged(slow, known=chart((1, None, "boot", None))).state == "degraded"
    assert judged(verdict("failed", "remap_failed"), known=known).state == "failed"


def test_a_rule_may_be_asked_for_more_polls_than_it_asks_itself() -> None:
    strict = StatePolicy(debounce={"hw_slowdown": (9, 10)})
    for polls, state in ((8, "unknown"), (9, "degraded")):
        slow = verdict("degraded", "hw_slowdown", evidence=MappingProxyType({"polls": polls, "of_polls": 10}))
        assert judged(slow, policy=strict).state == state
        assert judged(slow).state == "degraded"


def test_a_failing_parent_takes_its_slices_with_it_and_a_degraded_one_does_not() -> None:
    slices = pl.DataFrame({"uuid": ["MIG-1", "MIG-2"], "parent_uuid": ["GPU-1", "GPU-2"]})
    told = [verdict("failed", "xid_79"), verdict("degraded", "hw_slowdown", "GPU-2")]
    first, second = slice_verdicts(slices, told, NOW)
    assert (first.subject_kind, first.subject, first.state, first.rule) == ("slice", "MIG-1", "failed", "parent_failed")
    assert (second.state, second.action) == ("healthy", "none")
    own = verdict("degraded", "xid_application", "MIG-1", subject_kind="slice")
    assert [one.subject for one in slice_verdicts(slices, [*told, own], NOW)] == ["MIG-2"]


def test_stakes_are_the_gpus_that_stand_still_for_as_long_as_the_repair_takes() -> None:
    gpus = pl.DataFrame(
        {"uuid": [f"GPU-{n}" for n in range(16)], "cluster": ["c1"] * 16, "node": ["n1"] * 8 + ["n2"] * 8}
    )
    gangs = pl.DataFrame({"uuid": ["GPU-1", "GPU-9"], "job": ["big", "big"]})
    stakes = Stakes.of(gpus, gangs, {f"GPU-{n}": Decimal("2.5") for n in range(16)})
    reset, reboot = with_stakes([verdict("failing", "xid_95"), verdict("failed", "xid_79")], stakes, StakePolicy())
    assert reset.gpu_hours == pytest.approx(2 * 2 / 60)
    assert reboot.gpu_hours == pytest.approx(9 * 20 / 60)
    assert reboot.evidence["gpus_at_stake"] == 9
    assert reboot.cost_usd == Decimal("7.500000")
    (healthy,) = with_stakes([verdict()], stakes, StakePolicy())
    assert (healthy.gpu_hours, healthy.cost_usd) == (None, None)


def test_one_gpu_without_a_price_makes_the_stake_unpriced_and_not_cheaper() -> None:
    gpus = pl.DataFrame({"uuid": ["GPU-1", "GPU-2"], "cluster": ["c1"] * 2, "node": ["n1"] * 2})
    stakes = Stakes.of(gpus, pl.DataFrame(schema={"uuid": pl.String, "job": pl.String}), {"GPU-1": Decimal(2)})
    (one,) = with_stakes([verdict("failed", "xid_79")], stakes, StakePolicy())
    assert one.gpu_hours is not None
    assert one.cost_usd is None


def test_a_node_condition_is_true_where_a_gpu_fails_and_names_it() -> None:
    told = [
        verdict("failed", "xid_79"),
        verdict(subject="GPU-2"),
        verdict("degraded", "hw_slowdown", "GPU-3", node="n2"),
    ]
    first, second = node_conditions(told)
    assert first == NodeCondition(
        "c1", "n1", "GpuHealthy", "False", "Xid79", "GPU-1 is failed (xid_79): reboot_node; 1 of 2 GPUs affected"
    )
    assert (second.node, second.status, second.reason) == ("n2", "False", "HwSlowdown")


def test_a_node_condition_is_unknown_where_nothing_is_known_and_true_where_all_is_well() -> None:
    (dark,) = node_conditions([verdict("unknown", "no_telemetry")])
    assert (dark.status, dark.reason) == ("Unknown", "NoTelemetry")
    (well,) = node_conditions([verdict(), verdict("probation", "probation", "GPU-2", severity=Severity.INFO)])
    assert (well.status, well.reason) == ("True", "GpusHealthy")
    assert "1 on probation" in well.message


def test_the_history_finds_gpus_by_slice_and_address_and_leaves_out_what_asks_for_nothing(engine: "Engine") -> None:
    engine.add_gpu(1, pci_bus_id="00000000:3B:00.0", first_seen_at=NOW - 24 * HOUR, last_seen_at=NOW)
    engine.add("slice", slice=5, uuid="MIG-5", gpu=1, last_seen_at=NOW)
    engine.add("slice", slice=6, uuid="MIG-6", gpu=1, last_seen_at=NOW - timedelta(days=30))
    base = {"cluster": "c1", "node": "n1", "kind": "xid", "source": "t"}
    engine.add("event", ts=NOW - HOUR, code=79, pci_bus_id="0000:3b:00", **base)
    engine.add("event", ts=NOW - HOUR, code=95, slice_uuid="MIG-5", **base)
    for second in range(30):
        engine.add("event", ts=NOW - 2 * HOUR + timedelta(seconds=second), code=48, gpu_uuid="GPU-1", **base)
    engine.add("event", ts=NOW - HOUR, code=13, gpu_uuid="GPU-1", **base)
    engine.add("event", ts=NOW + HOUR, code=79, gpu_uuid="GPU-1", **base)
    rows = engine.run(history_events(engine.tables, NOW, 30))
    assert sorted(rows.select("code", "gpu_uuid", "count").rows()) == [
        (48, "GPU-1", 30), (79, "GPU-1", 1), (95, "GPU-1", 1)
    ]  # fmt: skip
    assert set(gpu_faults(rows).get_column("kind")) == {"xid_48", "xid_79", "xid_95"}
    assert set(node_faults(rows).get_column("subject")) == {"c1/n1"}
    lives = gpu_exposure(engine.run(service(engine.tables)), NOW - 24 * HOUR)
    assert lives.rows() == [("GPU-1", NOW - 24 * HOUR, None)]
    assert engine.run(slices_now(engine.tables, NOW, 7 * 86400.0)).get_column("uuid").to_list() == ["MIG-5"]


def test_codes_of_applications_are_not_consequential() -> None:
    codes = consequential_codes()
    assert {48, 74, 79, 95, 154} <= set(codes)
    assert not {13, 31, 43, 45, 63} & set(codes)

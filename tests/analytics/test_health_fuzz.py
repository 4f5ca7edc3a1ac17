"""Whatever the signals and events hold, judging them never raises, and what is ill never turns healthy by it."""

import json
import math
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.health import judge_health
from analytics.health_policy import HealthPolicy
from analytics.health_rules import STATES, Signs
from analytics.health_signals import EVENT_COLUMNS
from fleet.verdict import verdict_frame

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = HealthPolicy()
MOMENTS = ("last_sample_at", "first_seen_at", "slow_since")
REALS = ("interval_s", "thermal_margin_c")
TEXTS = ("pci_address", "pool", "model", "architecture", "driver", "vbios", "fabric_state")
NAMED = ("uuid", "cluster", "node")
TIME = pl.Datetime("us", "UTC")


def dtype(name: str) -> pl.DataType:
    if name in MOMENTS:
        return TIME
    if name in (*TEXTS, *NAMED):
        return pl.String()
    return pl.Float64() if name in REALS or name.endswith(("_rise", "_span_s")) else pl.Int64()


COLUMNS = {field.name: dtype(field.name) for field in fields(Signs)}
WELL: dict[str, Any] = {
    "uuid": "GPU-1", "cluster": "c", "node": "n", "last_sample_at": NOW - timedelta(seconds=30), "interval_s": 60.0,
    "poll_count": 5, "known_history": 1, "known_lately": 1, "implausible_poll_count": 0, "slow_poll_count": 0,
}  # fmt: skip
# What is ill, with the columns that say so; a GPU lost to its clock is not among them, time itself may be wrong.
ILL: tuple[dict[str, Any], ...] = (
    {"remap_failed_poll_count": 1}, {"sram_threshold_poll_count": 1}, {"is_remap_pending": 2},
    {"is_page_retirement_pending": 2}, {"recovery_action": 2, "recovery_poll_count": 2},
    {"slow_poll_count": 3, "slow_bits": 0x80}, {"hot_poll_count": 3},
    {"pcie_width_lately": 8, "pcie_width_history": 16, "pcie_poll_count": 3},
    {"nvlink_active_lately": 17, "nvlink_active_history": 18, "nvlink_poll_count": 3},
    {"ecc_corrected_count_rise": 1e6, "ecc_corrected_count_span_s": 3000.0},
    {"ecc_uncorrected_count_rise": 1.0}, {"rows_remapped_uncorrected_count": 600, "architecture": "Hopper"},
    {"known_history": 3, "known_lately": 1, "poll_count": 5}, {"implausible_poll_count": 5, "poll_count": 5},
)  # fmt: skip

whole = st.one_of(st.none(), st.sampled_from([-1, 0, 1, 2**31, 2**62, -(2**62)]), st.integers(-(2**63), 2**63 - 1))
real = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308]), st.floats())
moment = st.one_of(st.none(), st.integers(0, 7_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC)))
text = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["in_progress", "completed", "Volta", "570.1"]))


def anything(name: str) -> st.SearchStrategy[Any]:
    if name in MOMENTS:
        return moment
    return text if name in TEXTS else real if COLUMNS[name] == pl.Float64 else whole


garbled = st.dictionaries(
    st.sampled_from([name for name in COLUMNS if name not in NAMED]), st.just(0), max_size=12
).flatmap(lambda names: st.fixed_dictionaries({name: anything(name) for name in names}))
words = st.one_of(
    st.none(), st.text(max_size=30),
    st.sampled_from(
        ["to 0x1", "to 0xffffffff", "(GPC 1, TPC 2", "Fatal", "(0x1 0x2", "link 9(0x0, 0xffffffff, 0x1, 0x2)"]
    ),
)  # fmt: skip
KINDS = ("xid", "sxid", "boot", "gpu_reset", "gpu_lost", "probe_hang", "recovery_action", "?")
CODES = (13, 31, 45, 48, 74, 79, 145, 149, 154, 163)
events = st.lists(
    st.fixed_dictionaries(
        {
            "ts": moment.filter(lambda m: m is not None),
            "cluster": st.just("c"),
            "node": st.sampled_from(["n", "m"]),
            "gpu_uuid": st.sampled_from(["GPU-1", "GPU-2", None]),
            "kind": st.sampled_from(KINDS),
            "code": st.one_of(st.none(), st.sampled_from(CODES), st.integers(-9, 2**31 - 1)),
            "message": words,
            "slice_uuid": st.sampled_from([None, "MIG-1"]),
            "gpu_instance": st.sampled_from([None, 0, 3, -1]),
            "workload": st.sampled_from([None, "a", "b"]),
        }
    ),
    max_size=6,
)  # fmt: skip
EVENTS = {name: pl.String() for name in (*EVENT_COLUMNS, "workload")} | {
    "ts": TIME, "code": pl.Int64(), "gpu_instance": pl.Int64()
}  # fmt: skip


def judged(rows: list[dict[str, Any]], told: list[dict[str, Any]]) -> dict[str, str]:
    signals, happened = pl.DataFrame(rows, schema=COLUMNS), pl.DataFrame(told, schema=EVENTS)
    verdicts = judge_health(signals, happened, POLICY, NOW)
    for verdict in verdicts:
        assert verdict.state in STATES
        assert verdict.confidence is not None
        assert 0 <= verdict.confidence <= 1
        json.dumps(dict(verdict.evidence))
    assert verdict_frame(verdicts).height == len(verdicts)
    return {verdict.subject: verdict.state for verdict in verdicts if verdict.subject_kind == "gpu"}


def check(ill: dict[str, Any], other: dict[str, Any], told: list[dict[str, Any]]) -> None:
    kept = {
        name: value for name, value in other.items() if name not in ill and name not in {"last_sample_at", "poll_count"}
    }
    states = judged([WELL | kept | ill, WELL | other | {"uuid": "GPU-2"}], told)
    assert states["GPU-1"] != "healthy"


@settings(max_examples=400)
@given(st.sampled_from(ILL), garbled, events)
def test_no_garbage_raises_or_makes_what_is_ill_healthy(
    ill: dict[str, Any], other: dict[str, Any], told: list[dict[str, Any]]
) -> None:
    check(ill, other, told)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(st.sampled_from(ILL), garbled, events)
def test_no_garbage_does_so_in_many_more_tries(
    ill: dict[str, Any], other: dict[str, Any], told: list[dict[str, Any]]
) -> None:
    check(ill, other, told)


def test_without_garbage_the_well_one_is_healthy() -> None:
    assert judged([WELL], []) == {"GPU-1": "healthy"}


@pytest.mark.parametrize("columns", [("last_sample_at",), ("poll_count", "known_history", "known_lately")])
def test_a_gpu_of_which_nothing_is_known_is_not_healthy(columns: tuple[str, ...]) -> None:
    row = WELL | dict.fromkeys(columns)
    assert judged([row], []) == {"GPU-1": "unknown"}

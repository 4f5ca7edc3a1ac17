"""Failure risk: learnt from any history, held against what happened, calm where it knows little."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.failure_risk import (
    EXPOSURE,
    FAULTS,
    GPU_RATES,
    HORIZONS_D,
    NODE_RATES,
    RiskPolicy,
    alert_line,
    combined,
    comes_back,
    fit_risk,
    lay_over_days,
    predict_risk,
    with_scores,
    without_bursts,
)
from analytics.failure_score import deciles, precision_at_top, rank_quality
from fleet.errors import BadInput

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RiskPolicy()
DAYS = 120


def faults(*rows: tuple[str, float] | tuple[str, float, str | None]) -> pl.DataFrame:
    told = [(row[0], START + timedelta(days=row[1]), row[2] if len(row) > 2 else "xid_79") for row in rows]
    return pl.DataFrame(told, schema=FAULTS, orient="row")


def exposure(count: int, until: datetime | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {"subject": [f"GPU-{gpu}" for gpu in range(count)], "since": [START] * count, "until": [until] * count},
        schema=EXPOSURE,
    )


def contagious(seed: int, gpus: int = 300, days: int = DAYS) -> pl.DataFrame:
    """Give faults that come at random, each followed within days by another half of the time."""
    random = np.random.default_rng(seed)
    rows: list[tuple[str, float]] = []
    for gpu in range(gpus):
        day = random.exponential(400)
        while day < days:
            rows.append((f"GPU-{gpu}", float(day)))
            day += random.exponential(4) + 0.5 if random.random() < 0.5 else random.exponential(400)
    return faults(*rows)


def test_the_risk_of_a_gpu_that_just_failed_is_above_the_base_and_fades() -> None:
    known = contagious(1)
    now = START + timedelta(days=DAYS)
    model = fit_risk(known, exposure(300), now, POLICY, GPU_RATES)
    assert model.source == "history"
    fresh = faults(("GPU-a", DAYS - 0.1))
    old = faults(("GPU-a", DAYS - 100))
    subjects = pl.Series(["GPU-a", "GPU-never"])
    just, never = predict_risk(model, fresh, subjects, now).get_column("risk_7d").to_list()
    long_ago = predict_risk(model, old, subjects, now).get_column("risk_7d")[0]
    assert just > 5 * model.base[7]
    assert never <= model.base[7]
    assert long_ago < just / 2


def test_predictions_of_the_last_third_beat_the_count_of_past_faults() -> None:
    known, end = contagious(5, gpus=600, days=180), START + timedelta(days=180)
    cut = START + timedelta(days=120)
    model = fit_risk(known, exposure(600), cut, POLICY, GPU_RATES)
    days = lay_over_days(known, exposure(600), (START, end), model.weights, model.memory_d)
    labels = days.labels(7)
    span = slice(120, labels.shape[1])
    never = np.zeros(int(days.never[span].sum()))
    happened = np.concatenate([labels[:, span].ravel(), never > 0])
    risk = np.concatenate([model.risk(days.score[:, span].astype(float), 7).ravel(), never])
    count = np.concatenate([np.cumsum(days.hits, axis=1)[:, span].astype(float).ravel(), never])
    ours, rival = rank_quality(risk, happened), rank_quality(count, happened)
    assert ours is not None
    assert rival is not None
    assert ours > rival
    assert precision_at_top(risk, happened) > precision_at_top(count, happened)


def test_repeats_are_calibrated_on_gpus_that_were_not_learnt_from() -> None:
    learnt, held = contagious(7, gpus=2000), contagious(8, gpus=2000)
    end = START + timedelta(days=DAYS)
    model = fit_risk(learnt, exposure(2000), end, POLICY, GPU_RATES)
    told = with_scores(without_bursts(held, POLICY.burst_s), model.weights, model.memory_d)
    told = told.with_columns(again=comes_back(7)).filter(pl.col("ts") <= end - timedelta(days=7))
    groups = deciles(model.repeat_risk(told.get_column("score").to_numpy(), 7), told.get_column("again").to_numpy())
    assert len(groups) > 1
    assert max(abs(group.error) for group in groups) < 0.1


def test_a_short_history_is_answered_by_published_rates_and_says_so() -> None:
    now = START + timedelta(days=10)
    model = fit_risk(faults(("GPU-1", 3)), exposure(8), now, POLICY, GPU_RATES)
    assert model.source.startswith("published: Titan")
    assert model.fault_count == 1
    told = predict_risk(model, faults(("GPU-1", 9.99)), pl.Series(["GPU-1", "GPU-2"]), now)
    assert told.get_column("risk_30d").to_list() == pytest.approx([0.097, 0.0052], abs=0.001)
    assert told.get_column("fault_count").to_list() == [1, 0]
    assert told.get_column("last_fault_at").to_list()[1] is None


@pytest.mark.parametrize("published", [GPU_RATES, NODE_RATES])
def test_published_rates_rise_with_the_horizon_and_after_a_repair(published: object) -> None:
    assert published in (GPU_RATES, NODE_RATES)
    for rates in (GPU_RATES.base, GPU_RATES.after_repair, NODE_RATES.base, NODE_RATES.after_repair):
        assert list(rates) == sorted(rates)
    assert all(after > base for base, after in zip(NODE_RATES.base, NODE_RATES.after_repair, strict=True))


def test_later_faults_change_nothing_of_what_was_predicted_before_them() -> None:
    known, now = contagious(3), START + timedelta(days=80)
    past = known.filter(pl.col("ts") < now)
    subjects = pl.Series([f"GPU-{gpu}" for gpu in range(300)])
    one, other = (
        predict_risk(fit_risk(history, exposure(300), now, POLICY, GPU_RATES), history, subjects, now)
        for history in (known, past.sample(fraction=1.0, shuffle=True, seed=1))
    )
    assert one.equals(other)


def test_a_burst_is_one_fault() -> None:
    told = without_bursts(faults(("a", 1.0), ("a", 1.01), ("a", 1.02), ("a", 3.0), ("b", 1.01)), 21600)
    assert told.group_by("subject").len().sort("subject").rows() == [("a", 2), ("b", 1)]


def test_a_kind_that_comes_back_weighs_more_than_one_that_does_not() -> None:
    rows: list[tuple[str, float, str | None]] = []
    for gpu in range(60):
        rows += [(f"GPU-a{gpu}", 10.0, "back"), (f"GPU-a{gpu}", 14.0, "back"), (f"GPU-b{gpu}", 10.0, "gone")]
    model = fit_risk(faults(*rows), exposure(10), START + timedelta(days=90), POLICY, GPU_RATES)
    assert model.weights["back"] > 1 > model.weights["gone"]


def test_subjects_out_of_service_are_not_counted() -> None:
    lives = exposure(3, START + timedelta(days=10))
    days = lay_over_days(faults(("GPU-0", 5.0)), lives, (START, START + timedelta(days=20)), {}, 14.0)
    assert days.exposed[0].tolist() == [True] * 9 + [False] * 11
    assert days.never.tolist() == [2] * 9 + [0] * 11


def test_the_alert_line_keeps_the_false_alarms_within_the_budget() -> None:
    known, end = contagious(2, gpus=800), START + timedelta(days=DAYS)
    lines = []
    for budget in (0.0, 0.5, 5.0):
        policy = RiskPolicy(false_alarms_per_day_max=budget)
        model = fit_risk(known, exposure(800), end, policy, GPU_RATES)
        days = lay_over_days(
            without_bursts(known, policy.burst_s), exposure(800), (START, end), model.weights, model.memory_d
        )
        assert model.alert_line == alert_line(model, days, policy)
        if model.alert_line is not None:
            risk = model.risk(days.score[:, :-7].astype(float), 7)
            risen = (risk >= model.alert_line) & (np.roll(risk, 1, axis=1) < model.alert_line)
            false = (risen & ~days.labels(7)[:, : risk.shape[1]])[:, 1:].sum()
            assert false / DAYS <= budget
            assert model.alert_line >= 3 * model.base[7]
            lines.append(model.alert_line)
    assert lines == sorted(lines, reverse=True)
    assert lines


def test_a_node_fails_when_any_part_does() -> None:
    assert combined(np.array([0.1, 0.1])) == pytest.approx(0.19)
    assert combined(np.array([])) == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"faults_min": 0},
        {"days_min": 0},
        {"burst_s": -1},
        {"memories_d": ()},
        {"memories_d": (0.0,)},
        {"lift_min": 0.5},
    ],
)
def test_a_policy_that_means_nothing_is_refused_by_its_field(changes: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(changes))):
        RiskPolicy(**changes)  # type: ignore[arg-type]  # one field each, of its own type


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1000, 1000), st.sampled_from(["x", None])), max_size=60),
    at=st.floats(-10, 400),
)
def test_any_history_gives_probabilities_that_rise_with_the_horizon(
    rows: list[tuple[str, float, str | None]], at: float
) -> None:
    known, now = faults(*rows), START + timedelta(days=at)
    policy = RiskPolicy(faults_min=3, days_min=1.0)
    lives = pl.DataFrame({"subject": list("abcd"), "since": [START] * 4, "until": [None] * 4}, schema=EXPOSURE)
    model = fit_risk(known, lives, now, policy, GPU_RATES)
    told = predict_risk(model, known, pl.Series(list("abcd")), now)
    for row in told.select(f"risk_{days}d" for days in HORIZONS_D).iter_rows():
        assert 0 <= row[0] <= row[1] <= row[2] <= 1


def test_ties_share_their_decile_and_their_precision() -> None:
    risk, happened = np.array([0.1] * 90 + [0.5] * 10), np.array([False] * 90 + [True] * 5 + [False] * 5)
    groups = deciles(risk, happened)
    assert [(group.count, group.observed) for group in groups] == [(90, 0.0), (10, 0.5)]
    assert precision_at_top(risk, happened) == 0.5
    assert precision_at_top(np.zeros(100), happened) == pytest.approx(0.05)
    assert rank_quality(risk, np.zeros(100, bool)) is None

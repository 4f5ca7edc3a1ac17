"""Decide: does the quota of a workspace fit what it will want, as far as the forecast can tell?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from types import MappingProxyType

import polars as pl

from fleet.bounds import require_between, require_positive
from fleet.clock import as_utc
from fleet.frames import check
from fleet.tables import FORECAST, QUOTA
from fleet.verdict import Severity, Verdict

TOPIC = "demand"
TOTAL = "*"
SOON_H = 3
LEVELS = MappingProxyType({
    "0.025": "gpus_lower_95", "0.1": "gpus_lower_80", "0.5": "gpus", "0.9": "gpus_upper_80", "0.975": "gpus_upper_95",
})  # fmt: skip
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DemandPolicy:
    """How far ahead a quota must fit, and on how much history.

    `window_h` hours of the forecast are looked at; `history_h` hours back the demand must be known for
    `min_coverage` of them, else the answer is "unknown".
    """

    window_h: int = 24
    history_h: int = 168
    min_coverage: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_positive("window_h", self.window_h)
        require_positive("history_h", self.history_h)
        require_between("min_coverage", self.min_coverage, 0, 1)


def judge_demand(
    forecasts: pl.DataFrame, quotas: pl.DataFrame, hourly: pl.DataFrame, policy: DemandPolicy, now: datetime
) -> list[Verdict]:
    """Return one verdict for each workspace of each cluster that has a quota in force or a forecast.

    `forecasts` are rows of one analysis (table `forecast`), `quotas` the table `quota`, `hourly` what
    `hourly_demand` gives. "short": the median forecast passes the quota somewhere in the window; "spare": not even
    the upper end of the 80 % interval reaches it; "fits" in between. A series that is not known, has no interval, or
    has no quota is "unknown" or "unbounded", never "spare". GPU-hours at stake are those of the median above the
    quota, or of the quota above the upper end. `forecast_quantiles` (GPUs by level) is what an hour of the next
    `SOON_H` is like, where every level of each of them is known: quotas are chosen by it.
    """
    now = as_utc(now, "now")
    ahead = check(forecasts, FORECAST).filter(
        pl.col("workspace") != TOTAL,
        pl.col("pool").is_null(),
        pl.col("model").is_null(),
        pl.col("ts") < now + policy.window_h * _HOUR,
    )
    outlook = {(row["cluster"], row["workspace"]): row for row in _outlook(ahead).iter_rows(named=True)}
    granted = {(row["cluster"], row["workspace"]): row for row in _granted(quotas, now).iter_rows(named=True)}
    known = {(row["cluster"], row["workspace"]): row for row in _known(hourly, policy, now).iter_rows(named=True)}
    return [
        _verdict(key, outlook.get(key), granted.get(key), known.get(key), policy, now)
        for key in sorted({*outlook, *granted})
    ]


def _outlook(ahead: pl.DataFrame) -> pl.DataFrame:
    """Return peak of median and upper end, and the hours, by workspace; a peak with an unknown hour is unknown."""
    whole = [
        pl.when(pl.col(name).is_not_null().all()).then(pl.col(name)).alias(f"{name}_hours")
        for name in ("gpus", "gpus_upper_80")
    ]
    # of the hours until a quota that was moved may turn round, each level's mean: what an hour of them is like
    soon = pl.col("ts") < pl.col("ts").min() + SOON_H * _HOUR
    whole += [
        pl.when(pl.col(name).filter(soon).is_not_null().all())
        .then(pl.col(name).filter(soon).mean())
        .alias(f"soon_{level}")
        for level, name in LEVELS.items()
    ]
    return ahead.group_by("cluster", "workspace").agg(
        *whole, pl.col("forecaster").first(), pl.col("mase").first(), pl.col("note").first()
    )


def _granted(quotas: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return the quota in force by workspace, and its only pool and model where it has only one."""
    in_force = check(quotas, QUOTA).filter(
        pl.col("starts_at") <= now, pl.col("ends_at").is_null() | (pl.col("ends_at") > now)
    )
    return in_force.group_by("cluster", "workspace").agg(
        pl.col("gpus").sum(), pl.len().alias("parts"), pl.col("pool").first(), pl.col("model").first()
    )


def _known(hourly: pl.DataFrame, policy: DemandPolicy, now: datetime) -> pl.DataFrame:
    """Return the hours known and the end of the last one, by workspace."""
    since = now - policy.history_h * _HOUR
    recent = hourly.filter(pl.col("ts") >= since, pl.col("ts") < now, pl.col("running_gpus_mean").is_not_null())
    return recent.group_by("cluster", "workspace").agg(
        pl.col("ts").n_unique().alias("hours"), pl.col("ts").min().alias("first"), pl.col("ts").max().alias("last")
    )


def _verdict(  # noqa: PLR0917 - one verdict is made of just these
    key: tuple[str, str],
    outlook: Mapping[str, object] | None,
    granted: Mapping[str, object] | None,
    known: Mapping[str, object] | None,
    policy: DemandPolicy,
    now: datetime,
) -> Verdict:
    cluster, workspace = key
    medians, uppers = _numbers(outlook, "gpus_hours"), _numbers(outlook, "gpus_upper_80_hours")
    quota = _number(granted, "gpus")
    coverage, until = _coverage(known, now)
    state, rule = _state(medians, uppers, quota, coverage, policy)
    at_stake = _at_stake(state, medians, uppers, quota)
    evidence: dict[str, object] = {
        "forecast_gpus": _peak(medians),
        "forecast_upper_gpus": _peak(uppers),
        "quota_gpus": quota,
        "window_h": policy.window_h,
        "forecaster": None if outlook is None else outlook["forecaster"],
        "mase": None if outlook is None else outlook["mase"],
        "note": None if outlook is None else outlook["note"],
    }
    soon = [gpus for level in LEVELS if (gpus := _number(outlook, f"soon_{level}")) is not None]
    if len(soon) == len(LEVELS):
        # levels that were forecast apart may cross by a hair
        evidence["forecast_quantiles"] = dict(zip(LEVELS, accumulate(soon, max), strict=True))
    if granted is not None and granted["parts"] == 1:
        evidence |= {"pool": granted["pool"], "model": granted["model"]}
    return Verdict(
        made_at=now,
        topic=TOPIC,
        subject_kind="workspace",
        subject=workspace,
        state=state,
        severity=_SEVERITIES[state],
        rule=rule,
        evidence=MappingProxyType(evidence),
        cluster=cluster,
        workspace=workspace,
        action=_ACTIONS.get(state, "none"),
        until=until,
        coverage=coverage,
        gpu_hours=at_stake,
    )


_SEVERITIES = MappingProxyType(
    {
        "short": Severity.WARNING,
        "spare": Severity.INFO,
        "fits": Severity.OK,
        "unbounded": Severity.OK,
        "unknown": Severity.UNKNOWN,
    }
)
_ACTIONS = MappingProxyType({"short": "raise_quota", "spare": "lower_quota"})


def _state(
    medians: list[float], uppers: list[float], quota: float | None, coverage: float | None, policy: DemandPolicy
) -> tuple[str, str]:
    if not medians:
        return "unknown", "no_forecast"
    if coverage is None or coverage < policy.min_coverage:
        return "unknown", "too_little_demand_known"
    if quota is None:
        return "unbounded", "no_quota"
    if max(medians) > quota:
        return "short", "forecast_above_quota"
    if uppers and max(uppers) < quota:
        return "spare", "forecast_below_quota"
    return "fits", "forecast_within_quota"


def _at_stake(state: str, medians: list[float], uppers: list[float], quota: float | None) -> float | None:
    if quota is None or state == "unknown":
        return None
    if state == "short":
        return sum(max(0.0, median - quota) for median in medians)
    return sum(quota - upper for upper in uppers) if state == "spare" else 0.0


def _coverage(known: Mapping[str, object] | None, now: datetime) -> tuple[float | None, datetime | None]:
    """Return the share of hours known since the first one known, and the end of the last one."""
    if known is None:
        return None, None
    hours, first, last = known["hours"], known["first"], known["last"]
    if not isinstance(hours, int) or not isinstance(first, datetime) or not isinstance(last, datetime):
        return None, None
    expected = max(1, int((now - first) / _HOUR))
    return min(1.0, hours / expected), min(now, last + _HOUR)


def _numbers(row: Mapping[str, object] | None, name: str) -> list[float]:
    values = None if row is None else row[name]
    return [float(value) for value in values if value is not None] if isinstance(values, list) else []


def _number(row: Mapping[str, object] | None, name: str) -> float | None:
    value = None if row is None else row[name]
    return float(value) if isinstance(value, (int, float)) else None


def _peak(values: list[float]) -> float | None:
    return max(values) if values else None

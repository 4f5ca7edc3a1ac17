"""Judge pools by the odds that demand passes what they have: one verdict a pool, from rows of `exhaustion`."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from fleet.frames import check
from fleet.tables import EXHAUSTION
from fleet.verdict import Severity, Verdict

TOPIC = "capacity"
RULE = "pool_odds"
WINDOW_H = 168
_MOST_AGE = timedelta(hours=48)
_LIKELY, _UNLIKELY = 0.5, 0.05


def judge_pools(odds: pl.DataFrame, now: datetime, window_h: int = WINDOW_H) -> list[Verdict]:
    """Return a verdict for each pool of the last rows of `exhaustion` that are not older than two days.

    "short" where it is at least as likely as not that the window's highest hour passes what there is, "spare" where the
    odds are one in twenty or less, else "fits". Odds that are not known are "unknown".
    """
    rows = check(odds, EXHAUSTION).filter(
        pl.col("pool").is_not_null(), pl.col("model").is_null(), pl.col("workspace") == "*",
        pl.col("window_hours") == window_h, pl.col("made_at") > now - _MOST_AGE, pl.col("made_at") <= now,
    )  # fmt: skip
    last = rows.sort("made_at").group_by("cluster", "pool", maintain_order=True).last().sort("cluster", "pool")
    return [_verdict(row, now) for row in last.iter_rows(named=True)]


def _verdict(row: Mapping[str, object], now: datetime) -> Verdict:
    odds, made_at = row["probability"], row["made_at"]
    state = _state(odds)
    return Verdict(
        made_at=now, topic=TOPIC, subject_kind="pool", subject=str(row["pool"]), state=state,
        severity=_SEVERITIES[state], rule=RULE, action=_ACTIONS.get(state, "none"), cluster=str(row["cluster"]),
        until=made_at if isinstance(made_at, datetime) else None,
        evidence={"probability": odds, "peak_gpus": row["peak_gpus"], "peak_gpus_upper": row["peak_gpus_upper_80"],
                  "limit_gpus": row["limit_gpus"], "window_h": row["window_hours"], "note": row["note"]},
    )  # fmt: skip


def _state(odds: object) -> str:
    if not isinstance(odds, float):
        return "unknown"
    return "short" if odds >= _LIKELY else "spare" if odds <= _UNLIKELY else "fits"


_SEVERITIES = {"short": Severity.WARNING, "spare": Severity.INFO, "fits": Severity.OK, "unknown": Severity.UNKNOWN}
_ACTIONS = {"short": "grow_pool", "spare": "shrink_pool"}

"""Lay predicted risks into the table `risk`, and beside the verdicts they belong to."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

import polars as pl

from analytics.failure_risk import HORIZONS_D, RiskModel
from fleet.tables import RISK
from fleet.verdict import Verdict

_TOLD = frozenset({"degraded", "failing", "failed", "probation"})


def risk_frame(risks: pl.DataFrame, places: pl.DataFrame, kind: str, model: RiskModel, now: datetime) -> pl.DataFrame:
    """Return predicted risks as rows of the table `risk`; `places` has key, subject, cluster and node.

    `key` is what the risks call a subject; the row is called what `places` calls it.
    """
    base = {f"base_{horizon}d": pl.lit(model.base.get(horizon), dtype=pl.Float64) for horizon in HORIZONS_D}
    joined = places.join(risks.rename({"subject": "key"}), on="key", how="inner", maintain_order="left")
    told = joined.with_columns(
        subject_kind=pl.lit(kind), made_at=pl.lit(now), alert_line=pl.lit(model.alert_line, dtype=pl.Float64),
        basis=pl.lit(model.source), **base,
    )  # fmt: skip
    return told.select(RISK.names()).cast(pl.Schema(RISK.schema()))


def with_risks(verdicts: Iterable[Verdict], risks: pl.DataFrame, model: RiskModel) -> list[Verdict]:
    """Return the verdicts, those of faults and probations with the risk of the next fault beside the base rate.

    On probation the risk is that of a fault coming back: what the history says of faults just repaired.
    """
    rows = {(row["subject_kind"], row["cluster"], row["subject"]): row for row in risks.iter_rows(named=True)}
    told = []
    for verdict in verdicts:
        row = rows.get((verdict.subject_kind, verdict.cluster or "", verdict.subject))
        if verdict.state in _TOLD and row is not None:
            evidence = {**verdict.evidence, "risk": _risk(row, model)}
            told.append(replace(verdict, evidence=MappingProxyType(evidence)))
        else:
            told.append(verdict)
    return told


def _risk(row: Mapping[str, object], model: RiskModel) -> dict[str, object]:
    names = [f"{what}_{horizon}d" for what in ("risk", "base") for horizon in HORIZONS_D]
    return {**{name: row[name] for name in names}, "faults": row["fault_count"], "basis": model.source}

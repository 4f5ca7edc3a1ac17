"""A verdict: what the analysis says of one subject, with the evidence that made it say so."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import polars as pl

from fleet.frames import check
from fleet.severity import Severity
from fleet.tables import VERDICT

__all__ = ["Severity", "Verdict", "verdict_frame", "verdicts_of"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table `verdict` as a value; the columns are explained in `fleet.tables.VERDICT`."""

    made_at: datetime
    topic: str
    subject_kind: str
    subject: str
    state: str
    severity: Severity
    rule: str
    evidence: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    cluster: str | None = None
    node: str | None = None
    workspace: str | None = None
    workload: str | None = None
    action: str | None = None
    confidence: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    coverage: float | None = None
    gpu_hours: float | None = None
    cost_usd: Decimal | None = None


def verdict_frame(verdicts: Iterable[Verdict]) -> pl.DataFrame:
    """Return verdicts as a frame of the table `verdict`; evidence is written as JSON with sorted keys."""
    rows = [
        {
            name: getattr(verdict, name)
            if name not in {"evidence", "severity"}
            else (verdict.severity.value if name == "severity" else json.dumps(dict(verdict.evidence), sort_keys=True))
            for name in VERDICT.names()
        }
        for verdict in verdicts
    ]
    return pl.DataFrame(rows, schema=VERDICT.schema())


def verdicts_of(frame: pl.DataFrame) -> list[Verdict]:
    """Return the rows of a verdict frame as values."""
    return [_verdict(row) for row in check(frame, VERDICT).iter_rows(named=True)]


def _verdict(row: dict[str, Any]) -> Verdict:  # a row of mixed types; the Verdict below gives each its own
    values = dict(row)
    values["severity"] = Severity(row["severity"])
    values["evidence"] = MappingProxyType(json.loads(row["evidence"]))
    return Verdict(**values)

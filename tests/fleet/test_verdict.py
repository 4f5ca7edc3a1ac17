from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from fleet.errors import BadFrame
from fleet.tables import VERDICT
from fleet.verdict import Severity, Verdict, verdict_frame, verdicts_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
BARE = Verdict(NOON, "idle", "gpu", "GPU-a", "unknown", Severity.UNKNOWN, "no_telemetry")
FULL = Verdict(
    NOON, "health", "gpu", "GPU-b", "failing", Severity.CRITICAL, "xid_fatal",
    evidence={"xids": [79, 48], "share": 0.25, "note": None},
    cluster="east", node="node-1", workspace="vision", workload="Job/vision/train", action="fence",
    confidence=0.0, since=NOON - timedelta(hours=1), until=NOON, coverage=1.0, gpu_hours=0.0,
    cost_usd=Decimal("0.000001"),
)  # fmt: skip


@pytest.mark.parametrize("verdict", [BARE, FULL], ids=["nothing but the required", "everything"])
def test_a_verdict_comes_back_from_its_row_as_it_was(verdict: Verdict) -> None:
    assert verdicts_of(verdict_frame([verdict])) == [verdict]


def test_the_frame_has_the_schema_of_the_table_even_without_rows() -> None:
    assert dict(verdict_frame([]).schema) == VERDICT.schema()
    assert verdicts_of(verdict_frame([])) == []


def test_order_is_kept_and_what_was_not_measured_stays_null_beside_a_zero() -> None:
    frame = verdict_frame([BARE, FULL])
    assert frame["subject"].to_list() == ["GPU-a", "GPU-b"]
    assert frame["gpu_hours"].to_list() == [None, 0.0]
    assert frame["confidence"].to_list() == [None, 0.0]


def test_evidence_is_written_with_sorted_keys() -> None:
    assert verdict_frame([FULL])["evidence"].item() == '{"note": null, "share": 0.25, "xids": [79, 48]}'


def test_every_column_of_the_table_is_a_field_of_the_value() -> None:
    assert tuple(sorted(Verdict.__slots__)) == tuple(sorted(VERDICT.names()))


def test_a_severity_nobody_knows_is_not_read() -> None:
    frame = verdict_frame([BARE]).with_columns(severity=pl.lit("terrible"))
    with pytest.raises(ValueError, match="terrible"):
        verdicts_of(frame)


def test_a_frame_of_another_table_is_not_read_as_verdicts() -> None:
    with pytest.raises(BadFrame, match="table verdict, column rule: is not in the frame"):
        verdicts_of(verdict_frame([BARE]).drop("rule"))

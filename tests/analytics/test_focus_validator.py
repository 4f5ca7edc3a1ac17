"""FOCUS: the validator that the FinOps Foundation puts on PyPI accepts our export, by its own rules."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from analytics.focus import Account, as_text, focus

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_focus"
DAY = datetime(2026, 3, 2, tzinfo=UTC)
NOBODY: dict[str, object] = {"workspace": None, "namespace": None, "workload": None, "category": "unallocated"}


def export(how: Literal["none", "weighted"]) -> pl.DataFrame:
    row = {
        "day": DAY, "month": DAY.replace(day=1), "is_correction": False, "cluster": "c1", "workspace": "a",
        "namespace": "team", "workload": "Job/team/x", "category": "used", "resource": "gpu", "model": "H100",
        "capacity_type": "on_demand", "region": "us-east-1", "zone": "us-east-1a", "us": 3 * 3_600_000_000,
        "cost_usd": Decimal("6.000001"),
    }  # fmt: skip
    changes: list[dict[str, object]] = [
        {}, {"workspace": "b", "category": "allocated_idle"}, NOBODY, {"capacity_type": "reserved"},
        {"capacity_type": "spot", "region": None}, {"resource": "storage", "model": None, "us": 0},
        {"is_correction": True, "month": DAY.replace(month=4, day=1), "cost_usd": Decimal(-1), "us": 0},
    ]  # fmt: skip
    rows = pl.DataFrame([{**row, **change} for change in changes], schema_overrides={"cost_usd": pl.Decimal(18, 6)})
    return as_text(focus(rows, Account(), how))


def check(sheet: pl.DataFrame, folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    path = folder / "export.csv"
    sheet.write_csv(path)
    command = [sys.executable, str(SCRIPT), str(path), "--python", python]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script


@pytest.fixture
def python() -> str:
    """Give the Python that focus-validator is installed in, or skip: it is no dependency of ours."""
    found = os.environ.get("FOCUS_VALIDATOR_PYTHON")
    if found is None:
        pytest.skip("FOCUS_VALIDATOR_PYTHON names no Python with focus-validator (docs/cost.md says how to install it)")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["none", "weighted"])
def test_the_tool_accepts_our_export_by_every_rule(
    how: Literal["none", "weighted"], tmp_path: Path, python: str
) -> None:
    told = check(export(how), tmp_path, python)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Validation succeeded." in told.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ProviderName", "ResourceId", "ChargeCategory", "SkuPriceId"])
def test_the_tool_refuses_an_export_without_a_column(name: str, tmp_path: Path, python: str) -> None:
    told = check(export("none").drop(name), tmp_path, python)
    assert told.returncode == 1, told.stdout
    assert name in told.stdout


def test_where_the_tool_is_not_installed_the_check_says_so(tmp_path: Path) -> None:
    told = check(export("none"), tmp_path, sys.executable)
    assert told.returncode == 2
    assert "does not run" in told.stderr

"""Price books: exact amounts, and errors that name the entry and the field."""

from decimal import Decimal
from pathlib import Path

import pytest

from collectors.prices import read_price_book
from fleet.errors import BadInput
from fleet.models import canonical_model, idle_power_w

GOOD = """
[[price]]
model = "NVIDIA H100 80GB HBM3"
capacity_type = "on_demand"
usd_per_gpu_hour = "6.88"
starts_at = 2026-01-01T00:00:00Z
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "book.toml"
    path.write_text(text)
    return path


def test_the_built_in_book_names_a_source_for_each_price() -> None:
    book = read_price_book(None)
    assert book.height > 5
    assert book.get_column("source").str.contains("USD/h").all()


def test_an_amount_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    row = read_price_book(write(tmp_path, GOOD)).row(0, named=True)
    assert (row["model"], row["usd_per_gpu_hour"]) == ("H100", Decimal("6.880000"))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        pytest.param('"6.88"', '"-1"', "usd_per_gpu_hour", id="negative"),
        pytest.param('"6.88"', '"cheap"', "usd_per_gpu_hour", id="not a number"),
        pytest.param('"6.88"', '"NaN"', "usd_per_gpu_hour", id="NaN"),
        pytest.param('"6.88"', "true", "usd_per_gpu_hour", id="a flag"),
        pytest.param('"6.88"', '"0.0000001"', "usd_per_gpu_hour", id="too fine"),
        pytest.param('usd_per_gpu_hour = "6.88"', "", "usd_per_gpu_hour", id="missing price"),
        pytest.param('"on_demand"', '"cheap"', "capacity_type", id="capacity type"),
        pytest.param("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "starts_at", id="no zone"),
        pytest.param("2026-01-01T00:00:00Z", '"soon"', "starts_at", id="no time"),
        pytest.param("model", "modell", "modell", id="unknown key"),
    ],
)
def test_a_bad_entry_is_named_with_its_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(BadInput, match=rf"entry 2: {field}|entry 2.*{field}"):
        read_price_book(write(tmp_path, GOOD.replace("H100", "H200") + GOOD.replace(old, new)))


def test_two_prices_at_once_are_refused_and_one_after_the_other_is_fine(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="overlap"):
        read_price_book(write(tmp_path, GOOD + GOOD.replace("2026", "2027")))
    ended = GOOD + "ends_at = 2027-01-01T00:00:00Z\n"
    assert read_price_book(write(tmp_path, ended + GOOD.replace("2026", "2027"))).height == 2


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("Tesla T4", "T4"),
        ("V100M32", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4080 SUPER", "NVIDIA GeForce RTX 4080 SUPER"),
    ],
)
def test_models_are_known_by_their_driver_names(name: str, short: str) -> None:
    assert canonical_model(name) == short


def test_the_power_of_an_unknown_model_is_unknown() -> None:
    assert idle_power_w("G2") is None
    assert idle_power_w("Tesla T4") == 10.0

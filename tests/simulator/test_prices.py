"""The simulated fleet's own GPUs have a price that says it is assumed."""

from datetime import UTC, datetime
from decimal import Decimal

from simulator.presets import default_spec
from simulator.prices import owned_prices


def test_owned_models_are_priced_and_no_others() -> None:
    prices = owned_prices(default_spec(48, 1.0))
    assert prices.select("model", "capacity_type").rows() == [("A100-80GB", "owned")]
    assert prices.get_column("source").str.starts_with("assumed").all()


def test_a_price_book_of_any_date_wins_over_what_is_assumed() -> None:
    assert owned_prices(default_spec(48, 1.0)).get_column("starts_at").to_list() == [datetime(2000, 1, 1, tzinfo=UTC)]


def test_the_hour_costs_a_share_of_the_purchase_upkeep_and_power() -> None:
    hour = owned_prices(default_spec(48, 1.0)).get_column("usd_per_gpu_hour")[0]
    by_hand = (Decimal(25000) / 5 + 1250) / 8766 + Decimal("0.8125") * Decimal("1.4") * Decimal("0.1")
    assert hour == round(by_hand, 6)

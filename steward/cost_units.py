"""What a unit of work costs, by workload: the ledger's dollars over the work that was told of."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import polars as pl

from analytics.cost_views import spend, tidy
from analytics.unit_cost import UnitCost, Work, unit_cost
from steward.compose import House
from steward.cost_desk import window_of
from steward.report import Report

_COUNTS = (
    "request_count", "prompt_tokens", "cached_tokens", "generated_tokens", "prefill_s", "decode_s", "training_steps",
)  # fmt: skip
_BY = ("cluster", "namespace", "workload")
_ALLOCATION, _USAGE = ("used", "allocated_idle", "unknown"), ("used",)


def unit_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return dollars a million tokens, a request and a step, of what was held and of what was used of it."""
    with house.store.snapshot() as engine:
        since, until = window_of(engine, parameters, house.clock.now())
        work = engine.table("work_done")
        within = work.filter(work.starts_at >= since, work.ends_at <= until)
        keys = (*_BY, "served_model")
        done = engine.run(within.group_by(keys).aggregate(**{name: within[name].sum() for name in _COUNTS})).sort(keys)
        spent = tidy(engine.run(spend(engine, since, until, _BY)), _BY)
    items = [
        {**{name: row[name] for name in keys}, "basis": basis, **_units(_cost(spent, row, categories), _work(row))}
        for row in done.iter_rows(named=True)
        for basis, categories in (("allocation", _ALLOCATION), ("usage", _USAGE))
    ]
    notes = () if items else ("unknown: no work is told of in this window; see `steward cost work FILE.csv`",)
    return Report("UnitCostReport", until, {"since": since, "until": until}, items, notes=notes)


def _cost(spent: pl.DataFrame, row: Mapping[str, object], categories: tuple[str, ...]) -> Decimal | None:
    own = spent.filter(pl.col("category").is_in(categories), *(pl.col(name) == row[name] for name in _BY))
    dollars = own.get_column("cost_usd").drop_nulls()
    return Decimal(str(dollars.sum())) if len(dollars) else None


def _work(row: Mapping[str, object]) -> Work:
    def count(name: str) -> Fraction | None:
        value = row[name]
        return Fraction(value) if isinstance(value, float) else None

    return Work(
        count("prompt_tokens"),
        count("generated_tokens"),
        count("cached_tokens"),
        count("prefill_s"),
        count("decode_s"),
        count("request_count"),
        count("training_steps"),
    )


def _units(cost: Decimal | None, work: Work) -> dict[str, object]:
    if cost is None:
        return {"cost_usd": None, "method": None}
    found: UnitCost = unit_cost(Fraction(cost), work)
    return {
        "cost_usd": cost,
        "method": found.method,
        "usd_per_million_tokens": _plain(found.blended_usd_per_million),
        "usd_per_million_input": _plain(found.input_usd_per_million),
        "usd_per_million_input_uncached": _plain(found.input_usd_per_effective_million),
        "usd_per_million_output": _plain(found.output_usd_per_million),
        "cache_savings_share": _plain(found.cache_savings_share),
        "usd_per_request": _plain(found.usd_per_request),
        "usd_per_training_step": _plain(found.usd_per_training_step),
    }


def _plain(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


QUESTIONS = {"cost-unit": unit_report}

"""What a unit of work costs: a million tokens, a request, a training step.

Input and output tokens are priced apart where prefill and decode were timed, in the ratio of the times. Where they
were not, a written token counts as much as `multiplier` read ones, as OpenCost weighs it.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fleet.errors import BadInput

MULTIPLIER = Fraction(5, 2)
_MILLION = 1_000_000
Method = Literal["compute_time", "multiplier"]


@dataclass(frozen=True, slots=True)
class Work:
    """What was done; None = not measured."""

    prompt_tokens: Fraction | None = None
    generated_tokens: Fraction | None = None
    cached_tokens: Fraction | None = None
    prefill_s: Fraction | None = None
    decode_s: Fraction | None = None
    request_count: Fraction | None = None
    training_steps: Fraction | None = None


@dataclass(frozen=True, slots=True)
class UnitCost:
    """Dollars by unit; None = it can't be told.

    `input_usd_per_million` divides by all tokens read, `..._effective_million` by those that no cache had.
    """

    method: Method | None
    blended_usd_per_million: Fraction | None = None
    input_usd_per_million: Fraction | None = None
    input_usd_per_effective_million: Fraction | None = None
    output_usd_per_million: Fraction | None = None
    cache_savings_share: Fraction | None = None
    usd_per_request: Fraction | None = None
    usd_per_training_step: Fraction | None = None


def unit_cost(cost_usd: Fraction, work: Work, multiplier: Fraction = MULTIPLIER) -> UnitCost:
    """Return what the units of `work` cost when all of it cost `cost_usd`."""
    if multiplier <= 0:
        message = f"multiplier: {multiplier} is not above zero"
        raise BadInput(message, field="multiplier")
    read, written = work.prompt_tokens, work.generated_tokens
    per_request = _per(cost_usd, work.request_count)
    per_step = _per(cost_usd, work.training_steps)
    if read is None or written is None or read + written <= 0:
        return UnitCost(None, usd_per_request=per_request, usd_per_training_step=per_step)
    method, input_share = _input_share(work, read, written, multiplier)
    cached = work.cached_tokens if work.cached_tokens is not None else Fraction(0)
    input_usd = cost_usd * input_share
    return UnitCost(
        method,
        _per(cost_usd * _MILLION, read + written),
        _per(input_usd * _MILLION, read),
        _per(input_usd * _MILLION, read - cached),
        _per((cost_usd - input_usd) * _MILLION, written),
        None if work.cached_tokens is None else _per(cached, read),
        per_request,
        per_step,
    )


def _input_share(work: Work, read: Fraction, written: Fraction, multiplier: Fraction) -> tuple[Method, Fraction]:
    prefill, decode = work.prefill_s, work.decode_s
    if prefill is not None and decode is not None and prefill + decode > 0:
        return "compute_time", prefill / (prefill + decode)
    return "multiplier", read / (read + multiplier * written)


def _per(amount: Fraction, count: Fraction | None) -> Fraction | None:
    return None if count is None or count <= 0 else amount / count


def efficiency(used: Fraction, asked: Fraction) -> Fraction | None:
    """Return used over asked; 1 where something was used and nothing asked, None where there was neither."""
    if asked > 0:
        return used / asked
    return Fraction(1) if used > 0 else None


def weighted_efficiency(parts: list[tuple[Fraction | None, Fraction]]) -> Fraction | None:
    """Return the mean of efficiencies (first) by their cost (second); None where nothing with a cost has one."""
    known = [(value, cost) for value, cost in parts if value is not None and cost > 0]
    whole = sum((cost for _, cost in known), Fraction(0))
    return None if whole == 0 else sum((value * cost for value, cost in known), Fraction(0)) / whole

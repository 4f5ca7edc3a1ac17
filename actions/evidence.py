"""What a verdict must bring before anything is done on it, and what a move carries of it."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

from actions.policy import EvidencePolicy
from fleet.move import HeldBack, Move
from fleet.verdict import Severity, Verdict

_MICRO_DOLLAR = Decimal("0.000001")
_MONEY_LIMIT = Decimal(10) ** 12  # DECIMAL(18,6) of the store
# what the engine itself writes beside a verdict's evidence and reads back: no verdict may speak for it
_ENGINE_S_OWN = frozenset({"undo_of", "expected", "restores", "first_move", "first_at", "uid"})


@dataclass(frozen=True, slots=True)
class Draft:
    """A move without its id, the verdicts that led to it and its place in the order (smallest first)."""

    move: Move
    verdicts: tuple[Verdict, ...]
    order: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one rule would do, and what it would not and why."""

    drafts: tuple[Draft, ...] = ()
    held_back: tuple[HeldBack, ...] = ()


def latest(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Return the newest verdicts of each topic and subject, in an order that does not depend on the input's."""
    groups: dict[tuple[str, str, str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.topic, verdict.subject_kind, verdict.cluster or "", verdict.subject].append(verdict)
    newest: list[Verdict] = []
    for _, group in sorted(groups.items()):
        if len(group) == 1:
            newest.append(group[0])
            continue
        made_at = max(verdict.made_at for verdict in group)
        kept = {_identity(verdict): verdict for verdict in group if verdict.made_at == made_at}
        newest.extend(kept[identity] for identity in sorted(kept))
    return tuple(newest)


def why_unfit(
    verdict: Verdict, policy: EvidencePolicy, now: datetime, *, max_sample_age_s: float, needs_coverage: bool
) -> str | None:
    """Say why a verdict is no ground for a move, or None where it is one."""
    if verdict.state == "unknown" or verdict.severity is Severity.UNKNOWN:
        return "unknown: what is not known never leads to a move"
    problem = why_not_now(verdict.made_at, verdict.until, policy, now, max_sample_age_s=max_sample_age_s)
    if problem is not None:
        return problem
    if not needs_coverage:
        return None
    if verdict.coverage is None:
        return "the coverage of its evidence is not known"
    if not verdict.coverage >= policy.min_coverage:
        return f"its evidence covers {verdict.coverage:.0%}; {policy.min_coverage:.0%} is needed"
    return None


def why_not_now(
    made_at: datetime,
    until: datetime | None,
    policy: EvidencePolicy,
    now: datetime,
    *,
    max_sample_age_s: float,
    what: str = "verdict",
) -> str | None:
    """Say why evidence made at `made_at`, reaching to `until`, is too old or from the future; None where neither."""
    last = made_at if until is None else until
    if max(made_at, last) > now + timedelta(seconds=policy.max_skew_s):
        return f"its evidence is from the future ({max(made_at, last).isoformat()}); check the clocks"
    for name, moment, limit_s in ((what, made_at, policy.max_age_s), ("last sample", last, max_sample_age_s)):
        age_s = (now - moment).total_seconds()
        if age_s > limit_s:
            return f"its {name} is {age_s / 3600:.1f} h old; at most {limit_s / 3600:.1f} h is allowed"
    return None


def hold(verdict: Verdict, reason: str, gpus: float = 0.0) -> HeldBack:
    """Return the verdict as held back for `reason`."""
    return HeldBack(verdict.subject, verdict.action or "none", reason, gpus)


def is_below(confidence: float | None, minimum: float) -> bool:
    """Return whether a confidence is given and does not reach `minimum` (NaN never does)."""
    return confidence is not None and not confidence >= minimum


def saving(verdict: Verdict, gpus: float) -> Decimal | None:
    """Return price times GPUs in US dollars an hour, or None where the verdict is not priced.

    The price is the evidence's `usd_per_gpu_hour`, else the verdict's cost over its GPU-hours.
    """
    price = _price(verdict)
    if price is None or not price.is_finite() or price < 0 or price * Decimal(str(gpus)) >= _MONEY_LIMIT:
        return None
    return (price * Decimal(str(gpus))).quantize(_MICRO_DOLLAR)


def _price(verdict: Verdict) -> Decimal | None:
    text = verdict.evidence.get("usd_per_gpu_hour")
    if isinstance(text, str):
        try:
            return Decimal(text)
        except InvalidOperation:
            return None
    hours = verdict.gpu_hours
    if verdict.cost_usd is None or hours is None or not 0 < hours < float("inf"):
        return None
    return verdict.cost_usd / Decimal(str(hours))


def carried(verdicts: tuple[Verdict, ...], before: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a move keeps: the first verdict's evidence, who said what when, and the target before."""
    first = verdicts[0]
    body = {
        **{name: value for name, value in first.evidence.items() if name not in _ENGINE_S_OWN},
        "before": dict(before),
        "verdict": {
            "topic": first.topic,
            "rule": first.rule,
            "state": first.state,
            "made_at": first.made_at.isoformat(),
            "since": None if first.since is None else first.since.isoformat(),
            "until": None if first.until is None else first.until.isoformat(),
            "subjects": sorted({verdict.subject for verdict in verdicts}),
        },
    }
    plain: dict[str, object] = json.loads(json.dumps(body, sort_keys=True), parse_constant=_not_a_number)
    return MappingProxyType(plain)


def _not_a_number(_text: str) -> None:
    """Read NaN and infinity as unknown: JSON has no word for them."""


def _identity(verdict: Verdict) -> tuple[str, str, str, str]:
    body = json.dumps(dict(verdict.evidence), sort_keys=True)
    return (verdict.rule, verdict.state, verdict.action or "", f"{verdict} {body}")

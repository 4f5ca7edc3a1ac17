"""Budgets: how much of a month's money is spent, where the month will end, and what follows."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from analytics.cost_forecast import forecast_month_end
from analytics.cost_views import UNATTRIBUTED
from fleet.errors import BadInput
from fleet.verdict import Severity, Verdict

AT_LIMIT = ("notify", "stop_borrowing", "hold_queue")
THRESHOLDS = (0.5, 0.75, 0.9, 1.0)
RULE, NO_BUDGET = "budget", "no_budget"
UNLIMITED = "unlimited"
_ALL = "*"
_CENT = Decimal("0.01")
_WARN_AT = 0.9
_US_PER_HOUR = 3_600_000_000
AtLimit = Literal["notify", "stop_borrowing", "hold_queue"]
Basis = Literal["run rate", "forecast"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a workspace may spend in a calendar month; None = not limited."""

    workspace: str
    usd: Decimal | None = None
    gpu_hours: float | None = None
    thresholds: tuple[float, ...] = THRESHOLDS
    at_limit: str = "notify"

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.usd is None and self.gpu_hours is None:
            _refuse("usd", "neither dollars nor GPU-hours are given")
        if self.usd is not None and (not self.usd.is_finite() or self.usd <= 0):
            _refuse("usd", f"{self.usd} is not above zero")
        if self.gpu_hours is not None and not 0 < self.gpu_hours < float("inf"):
            _refuse("gpu_hours", f"{self.gpu_hours} is not above zero")
        if not self.thresholds or any(not 0 < each <= 10 for each in self.thresholds):  # noqa: PLR2004 - ten times over
            _refuse("thresholds", f"{self.thresholds} are not shares of the budget")
        if self.at_limit not in AT_LIMIT:
            _refuse("at_limit", f"{self.at_limit!r} is not one of {', '.join(AT_LIMIT)}")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a workspace spent since the month began, and in which clusters; `usd` None = nothing of it has a price."""

    gpu_hours: float
    usd: Decimal | None
    until: datetime | None
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a workspace stands: shares of its budget spent and at the month's end; None = can't be told."""

    budget: Budget
    spent: Spent
    share: float | None
    expected_share: float | None
    expected_usd: Decimal | None
    expected_gpu_hours: float | None
    passed: float | None
    action: str
    basis: Basis = "run rate"


def budget_of(row: Mapping[str, object]) -> Budget:
    """Return a row of the table `budget` as a value."""
    usd, hours, thresholds = row["usd_per_month"], row["gpu_hours_per_month"], row["thresholds"]
    shares = THRESHOLDS if thresholds is None else tuple(float(each) for each in json.loads(str(thresholds)))
    return Budget(
        str(row["workspace"]),
        usd if isinstance(usd, Decimal) else None,
        hours if isinstance(hours, float) else None,
        shares,
        "notify" if row["at_limit"] is None else str(row["at_limit"]),
    )


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """Return the first moment of the month that `now` is in, and of the next."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)


def stand(budget: Budget, spent: Spent, now: datetime, forecasts: pl.DataFrame | None = None) -> Standing:
    """Return where a workspace stands at `now`; the month's end is expected at the rate of the month so far.

    Where `forecasts` (see `latest_forecasts`) tell of it, the rest of the month is its forecast GPUs, at the mean
    price that its GPU-hours of this month had.

    Dollars and GPU-hours each have a share; the greater counts. Dollars without any price say nothing.
    """
    start, end = month_of(now)
    until = spent.until if spent.until is not None else now
    elapsed = (until - start) / (end - start)
    ahead = 1 / elapsed if elapsed > 0 else None
    usd = _share(spent.usd, budget.usd)
    hours = None if budget.gpu_hours is None else spent.gpu_hours / budget.gpu_hours
    known = [share for share in (usd, hours) if share is not None]
    share = max(known, default=None)
    passed = max((each for each in budget.thresholds if share is not None and share >= each), default=None)
    action = budget.at_limit if share is not None and share >= 1 else "notify" if passed is not None else "none"
    rest = None if forecasts is None else _forecast_rest(budget.workspace, spent, until, end, forecasts)
    if rest is not None:
        usd_then, hours_then = rest
        shares = [None if usd_then is None else _share(usd_then, budget.usd),
                  None if budget.gpu_hours is None else hours_then / budget.gpu_hours]  # fmt: skip
        expected = max((each for each in shares if each is not None), default=None)
        return Standing(budget, spent, share, expected, usd_then, hours_then, passed, action, "forecast")
    return Standing(
        budget,
        spent,
        share,
        None if share is None or ahead is None else share * ahead,
        None if spent.usd is None or ahead is None else (spent.usd * Decimal(str(ahead))).quantize(_CENT),
        None if ahead is None else spent.gpu_hours * ahead,
        passed,
        action,
    )


def _forecast_rest(
    workspace: str, spent: Spent, until: datetime, end: datetime, forecasts: pl.DataFrame
) -> tuple[Decimal | None, float] | None:
    """Return dollars (None: no price known) and GPU-hours at the month's end by forecast demand; None: no forecast."""
    own = forecasts.filter(pl.col("workspace") == workspace)
    whole = own.filter(pl.col("cluster") == _ALL)
    rows = own if whole.is_empty() else whole  # what is forecast of all clusters is not added to its parts

    def at_end(rate: Decimal, so_far: Decimal) -> Decimal | None:
        found = forecast_month_end(rows, {workspace: rate}, {workspace: so_far}, until, end)
        return found[0].usd if found else None

    hours = at_end(Decimal(1), Decimal(str(spent.gpu_hours)))  # at a dollar an hour, dollars are hours
    if hours is None:
        return None
    if spent.usd is None or spent.gpu_hours <= 0:
        return None, float(hours)
    return at_end(spent.usd / Decimal(str(spent.gpu_hours)), spent.usd), float(hours)


def latest_forecasts(tables: Tables) -> ir.Table:
    """Return the rows of the table `forecast` that were made last."""
    rows = tables["forecast"]
    newest = rows.aggregate(newest=rows.made_at.max())
    return rows.semi_join(newest, rows.made_at == newest.newest)


def _share(spent: Decimal | None, budget: Decimal | None) -> float | None:
    return None if spent is None or budget is None else float(spent / budget)


def find_standings(
    budgets: pl.DataFrame,
    spent: pl.DataFrame,
    ledger_end: datetime | None,
    now: datetime,
    forecasts: pl.DataFrame | None = None,
) -> list[Standing]:
    """Return where every workspace with a budget stands at `now`.

    `budgets` is the table `budget`, `spent` are tidy rows of `spend` by workspace, and cluster where that is wanted,
    since the month began. A workspace without a line has spent nothing, where there is a ledger.
    """
    # One that was set after a recorded month still tells what that month would have meant.
    valid = budgets.filter(pl.col("ends_at").is_null() | (pl.col("ends_at") > now))
    start, end = month_of(now)
    until = None if ledger_end is None else max(start, min(ledger_end, end))
    found = []
    for row in valid.sort("workspace", "starts_at").unique("workspace", keep="last").sort("workspace").to_dicts():
        own = spent.filter(pl.col("workspace") == row["workspace"])
        dollars = own.get_column("cost_usd").drop_nulls()
        nothing = Decimal(0) if own.is_empty() and ledger_end is not None else None
        usd = Decimal(str(dollars.sum())) if len(dollars) else nothing
        hours = int(own.get_column("gpu_us").sum()) / _US_PER_HOUR
        places = own["cluster"].unique().sort().to_list() if "cluster" in own.columns else []
        clusters = tuple(str(place) for place in places if place != UNATTRIBUTED)
        found.append(stand(budget_of(row), Spent(hours, usd, until, clusters), now, forecasts))
    return found


def judge_budgets(standings: Iterable[Standing], now: datetime) -> list[Verdict]:
    """Return a verdict of topic cost for each workspace with a budget; its action is the budget's policy at 100 %.

    Its evidence has all that a rule needs to act: the policy (`at_limit`), the share spent, what was spent and of what,
    the clusters it was spent in, and the period, at whose end what was done is to be undone.
    """
    start, end = month_of(now)
    return [
        Verdict(
            now, "cost", "workspace", each.budget.workspace, _state(each), _severity(each), RULE,
            {"share": each.share, "expected_share": each.expected_share, "passed": each.passed, "basis": each.basis,
             "usd_per_month": None if each.budget.usd is None else str(each.budget.usd),
             "gpu_hours_per_month": each.budget.gpu_hours, "at_limit": each.budget.at_limit,
             "spent_usd": None if each.spent.usd is None else str(each.spent.usd),
             "spent_gpu_hours": each.spent.gpu_hours, "clusters": list(each.spent.clusters),
             "period_starts_at": start.isoformat(), "period_ends_at": end.isoformat()},
            workspace=each.budget.workspace, action=each.action, since=start, until=each.spent.until,
            gpu_hours=each.spent.gpu_hours, cost_usd=each.spent.usd,
        )
        for each in standings
    ]  # fmt: skip


def judge_ended(budgets: pl.DataFrame, now: datetime) -> list[Verdict]:
    """Return a verdict for each workspace whose last budget has ended: it is not limited, and nothing is to follow.

    Whoever acted on a budget takes that back on this word alone: a budget that can't be read has no such verdict.
    """
    ended = budgets.filter(pl.col("starts_at") <= now).group_by("workspace").agg(
        pl.col("ends_at").max(), is_open=(pl.col("ends_at").is_null() | (pl.col("ends_at") > now)).any()
    )  # fmt: skip
    return [
        Verdict(
            now, "cost", "workspace", row["workspace"], UNLIMITED, Severity.OK, NO_BUDGET,
            {"budget_ended_at": row["ends_at"].isoformat()}, workspace=row["workspace"], action="none",
            since=row["ends_at"], until=now,
        )
        for row in ended.filter(~pl.col("is_open")).sort("workspace").iter_rows(named=True)
    ]  # fmt: skip


def _state(standing: Standing) -> str:
    if standing.share is None:
        return "unknown"
    return "spent" if standing.share >= 1 else "warned" if standing.passed is not None else "within"


def _severity(standing: Standing) -> Severity:
    if standing.share is None:
        return Severity.UNKNOWN
    if standing.share >= 1:
        return Severity.CRITICAL
    will_pass = standing.expected_share is not None and standing.expected_share >= 1
    return Severity.WARNING if standing.share >= _WARN_AT or will_pass else Severity.OK


def _refuse(field: str, why: str) -> None:
    message = f"budget: {field}: {why}"
    raise BadInput(message, field=field)

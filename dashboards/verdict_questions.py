"""What did the latest turn find wrong, and what should be done about it?"""

from collections.abc import Callable

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope
from fleet.tables import VERDICT

_SEVERITY = {"critical": 0, "warning": 1}
_IDLE_STATES = ("idle", "idle_held")


def find_failing(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return critical and warning verdicts of the latest turn, worst and dearest first, idleness and quota apart."""
    rows = _of_turn(engine, scope, lambda verdict: verdict["topic"].notin(["idle", "demand"]))
    return _dearest_first(rows.filter(pl.col("severity").is_in(list(_SEVERITY))))


def find_wasting(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return the workloads that the latest turn found to hold GPUs they do nothing with, dearest first.

    Workloads and not GPUs, so that a GPU and its holder do not both count; those that are idle in part are there
    where the analysis would give some of it back.
    """
    rows = _of_turn(
        engine, scope, lambda verdict: (verdict["topic"] == "idle") & (verdict["subject_kind"] == "workload")
    )
    return _dearest_first(rows.filter(pl.col("state").is_in(_IDLE_STATES) | (pl.col("action") != "none")))


def is_judged(engine: Engine, scope: Scope, topic: str) -> bool:
    """Return whether the latest turn could judge anything of a topic, that is, said more of it than "unknown"."""
    rows = _of_turn(engine, scope, lambda verdict: (verdict["topic"] == topic) & (verdict["state"] != "unknown"))
    return not rows.is_empty()


def _of_turn(engine: Engine, scope: Scope, chosen: Callable[[ibis.Table], ibis.Value]) -> pl.DataFrame:
    if scope.turn is None:
        return VERDICT.empty()
    verdict = scope.here(engine.table("verdict"))
    return engine.run(verdict.filter(verdict["made_at"] == ibis.literal(scope.turn)).filter(chosen))


def _dearest_first(rows: pl.DataFrame) -> pl.DataFrame:
    order = pl.col("severity").replace_strict(_SEVERITY, default=len(_SEVERITY), return_dtype=pl.Int32)
    return rows.sort(order, "cost_usd", "gpu_hours", "subject", descending=[False, True, True, False], nulls_last=True)

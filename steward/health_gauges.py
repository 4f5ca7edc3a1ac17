"""Health as Prometheus gauges: each GPU's state, and the risk of each GPU and node."""

import polars as pl

from analytics.health_state import STATES
from api.exposition import Metric, Sample
from steward.compose import House


def health_gauges(house: House) -> tuple[Metric, ...]:
    """Return the gauges of the latest analysis.

    A GPU's state is one sample with the value 1 and the state as a label, so that it can be counted and alerted on;
    a GPU that nothing is known of says "unknown" and is never left out.
    """
    engine = house.store.engine
    verdict = engine.table("verdict")
    of_gpus = verdict.filter(verdict.topic == "health", verdict.subject_kind == "gpu")
    latest = engine.run(
        of_gpus.filter(of_gpus.made_at == of_gpus.made_at.max()).select("cluster", "node", "subject", "state", "rule")
    )
    states = latest.filter(pl.col("state").is_in(list(STATES))).sort("cluster", "node", "subject")
    return (
        Metric(
            "steward_gpu_state",
            "State of health of each GPU (1 for the state it is in) by the latest analysis.",
            "gauge",
            tuple(
                Sample(1, {"cluster": cluster or "", "node": node or "", "uuid": uuid, "state": state, "rule": rule})
                for cluster, node, uuid, state, rule in states.iter_rows()
            ),
        ),
        Metric(
            "steward_gpu_failure_risk_ratio",
            "Probability that a GPU or node has a fault within the window.",
            "gauge",
            tuple(
                Sample(row[f"risk_{days}d"], {**_names(row), "window": f"{days}d"})
                for row in house.store.read("risk").sort("subject_kind", "cluster", "subject").iter_rows(named=True)
                for days in (1, 7, 30)
                if row[f"risk_{days}d"] is not None
            ),
        ),
    )


def _names(row: dict[str, object]) -> dict[str, str]:
    return {"kind": str(row["subject_kind"]), "cluster": str(row["cluster"]), "subject": str(row["subject"])}

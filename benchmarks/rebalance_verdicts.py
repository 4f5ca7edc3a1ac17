"""Demand verdicts and holders for `rebalance.py`, as the analysis and the cluster would give them."""

from datetime import datetime
from types import MappingProxyType

import numpy as np

from actions.quota_demand import MEDIAN, QUANTILES, UPPER, Floats
from benchmarks.rebalance_fleets import LEVELS
from fleet.state import ObjectRef, Pod, Workload
from fleet.verdict import Severity, Verdict

_MEDIAN_AT, _UPPER_AT = int(np.argmin(np.abs(LEVELS - 0.5))), int(np.argmin(np.abs(LEVELS - 0.9)))


def demand_verdict(cluster: str, workspace: str, quantiles: Floats, now: datetime) -> Verdict:
    """Return the verdict of a forecast told by its quantiles."""
    evidence = {
        MEDIAN: float(quantiles[_MEDIAN_AT]),
        UPPER: float(quantiles[_UPPER_AT]),
        QUANTILES: {f"{level:g}": float(value) for level, value in zip(LEVELS, quantiles, strict=True)},
    }
    return Verdict(
        made_at=now,
        topic="demand",
        subject_kind="workspace",
        subject=workspace,
        state="fits",
        severity=Severity.OK,
        rule="forecast_within_quota",
        evidence=MappingProxyType(evidence),
        cluster=cluster,
        workspace=workspace,
        until=now,
        coverage=1.0,
    )


def holder(cluster: str, workspace: str, gpus: float) -> tuple[Workload, Pod]:
    """Return one workload that holds all the GPUs a workspace holds, a part of one counted as a part."""
    ref = ObjectRef("Job", workspace, "all")
    pod = Pod(cluster, workspace, "all-0", f"{cluster}-{workspace}", "", ref, ("all",), fraction=gpus)
    return Workload(cluster, ref, workspace, pods=(pod.uid,), gpu_uuids=("all",)), pod

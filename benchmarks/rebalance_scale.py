"""How long a plan of a large fleet takes, and how it compares with HiGHS there. A part of `rebalance.py`."""

import time
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np

from actions.plan import plan
from actions.policy import ActionPolicy, Budget
from actions.quota_choice import Claim, Thresholds, choose
from actions.quota_demand import outlook_of
from benchmarks.rebalance_solvers import by_highs, expected_unmet
from fleet.state import FleetState, Gpu, Node, Quota
from fleet.verdict import Severity, Verdict

NOW = datetime(2026, 3, 2, tzinfo=UTC)
_GPUS, _WORKSPACES, _POOLS, _PER_NODE = 10_000, 1_000, 20, 8
_MODEL = "NVIDIA H100 80GB HBM3"
_REPEATS = 3


def print_scale() -> None:
    """Time `plan()` with the default budget and with one that lets every pool move all it may."""
    state, verdicts = _fleet()
    print(f"\n{len(state.gpus)} GPUs, {len(state.quotas)} workspaces, {_POOLS} pools:")
    for name, budget in (("64 GPUs an hour", Budget()), ("no hourly bound", Budget(max_gpus_per_hour=_GPUS))):
        policy = ActionPolicy(budget=budget)
        took_s, cpu_s = [], []
        for _ in range(_REPEATS):
            started, worked = time.perf_counter(), time.process_time()
            made = plan(state, verdicts, policy, NOW)
            took_s.append(time.perf_counter() - started)
            cpu_s.append(time.process_time() - worked)
        print(
            f"  plan(), {name}: {min(took_s):.2f} to {max(took_s):.2f} s, {min(cpu_s):.2f} to {max(cpu_s):.2f} CPU-s; "
            f"{len(made.moves)} moves"
        )
    _print_beside_highs(state, verdicts)


def _print_beside_highs(state: FleetState, verdicts: list[Verdict]) -> None:
    pools: dict[str | None, list[Claim]] = {}
    for quota, verdict in zip(state.quotas, verdicts, strict=True):
        outlook = outlook_of(verdict.evidence)
        if isinstance(outlook, str):
            raise TypeError(outlook)
        claim = Claim(quota.workspace, quota.gpus, outlook.scenarios(), borrowing=quota.borrowing_gpus)
        pools.setdefault(quota.pool, []).append(claim)
    limit = _GPUS // _POOLS // 10
    started = time.process_time()
    ours = 0.0
    chosen = [choose(claims, limit, Thresholds(), 0.25) for claims in pools.values()]
    ours_s = time.process_time() - started
    for claims, choice in zip(pools.values(), chosen, strict=True):
        after = np.array([claim.quota + change for claim, change in zip(claims, choice.changes, strict=True)])
        ours += expected_unmet(claims, after, 0.25)
    started = time.process_time()
    bound = sum(by_highs(claims, limit, 0.25, whole=False) for claims in pools.values())
    highs_s = time.process_time() - started
    print(
        f"  expected unmet demand {ours:.2f} GPUs, HiGHS's bound (GPUs cut) {bound:.2f}, ratio {ours / bound:.5f}; "
        f"{ours_s:.2f} CPU-s, HiGHS {highs_s:.1f}: {highs_s / ours_s:.0f} times as long"
    )


def _fleet() -> tuple[FleetState, list[Verdict]]:
    rng = np.random.default_rng(20)
    nodes, gpus = [], []
    for number in range(_GPUS // _PER_NODE):
        pool = f"pool-{number % _POOLS:02}"
        nodes.append(Node("c", f"n{number:04}", pool=pool))
        gpus += [Gpu(f"GPU-{number:04}-{place}", "c", f"n{number:04}", place, _MODEL) for place in range(_PER_NODE)]
    quotas, verdicts = [], []
    for number in range(_WORKSPACES):
        name, pool, gpus_each = f"w{number:04}", f"pool-{number % _POOLS:02}", float(_GPUS // _WORKSPACES)
        quotas.append(Quota("c", name, gpus_each, pool, _MODEL, borrowing_gpus=2.0))
        median = float(rng.gamma(2.0, gpus_each / 2))
        evidence = {
            "forecast_gpus": median,
            "forecast_upper_gpus": median * float(1 + rng.random()),
            "quota_gpus": gpus_each,
            "pool": pool,
            "model": _MODEL,
        }
        verdicts.append(
            Verdict(
                NOW, "demand", "workspace", name, "fits", Severity.OK, "forecast", MappingProxyType(evidence),
                cluster="c", workspace=name, until=NOW, coverage=1.0,
            )
        )  # fmt: skip
    return FleetState(NOW, gpus=tuple(gpus), nodes=tuple(nodes), quotas=tuple(quotas)), verdicts

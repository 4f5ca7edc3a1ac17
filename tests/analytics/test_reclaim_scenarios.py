"""Every recorded reclaim scenario comes out as what is safe, told by the verdicts alone."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analytics.idle import IdlePolicy, judge_idle
from analytics.idle_signals import idle_signals
from fleet.verdict import Verdict

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)
DAY_MIN = 24 * 60


def scenarios(root: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((root / "idle").glob("*.json")):
        found += json.loads(path.read_text()).get("scenarios", [])
    return found


def build(engine: "Engine", case: dict[str, Any], now: datetime, first_gpu: int) -> tuple[str, int]:
    """Add the pods of one case, each under a workload of the case's name; return the workload and the next GPU."""
    kind = case.get("owner") or ("JobSet" if case.get("jobset") else "Deployment")
    gpu, name = first_gpu, case["id"]
    for place, pod in enumerate(case["pods"]):
        starts_at = now - MINUTE * pod.get("age_min", DAY_MIN)
        for value in pod.get("max_util", [None]):
            engine.add_gpu(gpu, f"node-{gpu // 8}", mig_enabled=bool(pod.get("mig")))
            held: dict[str, object] = {}
            if pod.get("mig"):
                engine.add("slice", slice=gpu, uuid=f"MIG-{gpu}", gpu=gpu, profile="1g.10gb")
                held = {"slice": gpu, "fraction": 1 / 7}
            engine.add_pod(
                gpu, starts_at, name=name, pod=f"{name}-{place}", pod_uid=f"{name}-{place}", workload_kind=kind, **held
            )
            if pod.get("samples", 1):
                signal = "gr_activity" if "PROF" in pod.get("metric", "") else "utilization"
                moments = [now - MINUTE * back for back in range(150, 0, -1)]
                engine.add_samples(gpu, moments, **{signal: value})
            gpu += 1
    return f"{kind}/team/{name}", gpu


def told(workload: Verdict, verdicts: list[Verdict]) -> str:
    """Give what the verdicts on one workload come to, in the words of the recorded column."""
    stops = {v.action for v in verdicts if v.workload == workload.subject} & {"reclaim"}
    if workload.state == "unknown":
        return "unknown" if not stops else "stop"
    if workload.action == "reclaim":
        stop = str(workload.evidence["stop"])
        return "scale0" if stop.endswith("replicas=0") else f"patch {workload.subject.partition('/')[0].lower()} {stop}"
    if workload.rule == "straggler":
        return "straggler"
    return workload.action or "none"


def is_as_safe(said: str, safe: str) -> bool:
    words = {"recommend_fewer": "recommend fewer GPUs, no stop", "straggler": "straggler finding"}
    return safe.startswith(words.get(said, said))


def test_every_scenario_comes_out_as_what_is_safe(engine: "Engine", now: datetime, data_root: Path) -> None:
    cases, gpu, workloads = scenarios(data_root), 0, {}
    assert cases
    for case in cases:
        workloads[case["id"]], gpu = build(engine, case, now, gpu)
    policy = IdlePolicy()
    verdicts = judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)
    by_subject = {v.subject: v for v in verdicts if v.subject_kind == "workload"}
    said = {name: told(by_subject[workload], verdicts) for name, workload in workloads.items()}
    wrong = {
        case["id"]: (said[case["id"]], case["safe"]) for case in cases if not is_as_safe(said[case["id"]], case["safe"])
    }
    assert wrong == {}


def test_no_part_of_a_workload_that_is_not_reclaimed_is_to_be_stopped(
    engine: "Engine", now: datetime, data_root: Path
) -> None:
    gpu = 0
    for case in scenarios(data_root):
        _, gpu = build(engine, case, now, gpu)
    policy = IdlePolicy()
    verdicts = judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)
    kept = {v.subject for v in verdicts if v.subject_kind == "workload" and v.action != "reclaim"}
    stopped = [v.subject for v in verdicts if v.action == "reclaim" and v.subject_kind != "pod" and v.workload in kept]
    assert [s for s in stopped if not any(v.subject == s and v.subject_kind == "replica" for v in verdicts)] == []

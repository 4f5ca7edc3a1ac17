"""Every recorded reclaim scenario ends in the safe move, or in none: from samples over verdicts to the plan."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from analytics.idle import IdlePolicy, judge_idle
from analytics.idle_signals import idle_signals
from fleet.move import MoveKind, Plan
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, Slice, Workload
from tests.actions.fakes import WIDE
from tests.analytics.test_reclaim_scenarios import build, scenarios

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

AUTO = ActionPolicy(modes=Modes(reclaim="auto"), budget=WIDE)
# The scenarios' workloads idle for an hour and more; how long is given is a setting and no part of what is safe.
_GRACE_H = 0.25


def state_of(engine: "Engine", workload: str, now: datetime) -> FleetState:
    """Give the fleet that the rows of a case tell of."""
    gpus = {row["gpu"]: row for row in engine.rows["gpu"]}
    rows = engine.rows["pod_allocation"]
    kind, namespace, name = workload.split("/")
    ref = ObjectRef(kind, namespace, name)
    pods: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        pods.setdefault(str(row["pod_uid"]), []).append(row)
    slices = {row["slice"]: str(row["uuid"]) for row in engine.rows["slice"]}
    held = tuple(
        Pod("c1", namespace, str(mine[0]["pod"]), uid, str(gpus[mine[0]["gpu"]]["node"]), ref,
            tuple(str(gpus[row["gpu"]]["uuid"]) for row in mine),
            tuple(slices[row["slice"]] for row in mine if row.get("slice") is not None),
            started_at=mine[0]["starts_at"])
        for uid, mine in pods.items()
    )  # fmt: skip
    uuids = tuple(uuid for pod in held for uuid in pod.gpu_uuids)
    started = min(row["starts_at"] for row in rows)  # type: ignore[type-var] # rows of a test are not typed
    owner = Workload("c1", ref, "research", "ann", tuple(pods), uuids, len(held), started_at=started)  # type: ignore[arg-type] # likewise
    return FleetState(
        taken_at=now,
        gpus=tuple(Gpu(str(row["uuid"]), "c1", str(row["node"]), is_mig_enabled=bool(row.get("mig_enabled")))
                   for row in gpus.values()),
        slices=tuple(Slice(str(row["uuid"]), f"GPU-{row['gpu']}", "1g.10gb") for row in engine.rows["slice"]),
        nodes=tuple(Node("c1", name, pool="p") for name in sorted({str(row["node"]) for row in gpus.values()})),
        pods=held,
        workloads=(owner,),
    )  # fmt: skip


def planned(engine: "Engine", case: dict[str, Any], now: datetime) -> Plan:
    workload, _ = build(engine, case, now, 0)
    policy = IdlePolicy()
    verdicts = judge_idle(engine.run(idle_signals(engine.tables, now, policy)), policy, now)
    rules = ActionPolicy(AUTO.modes, budget=WIDE, reclaim=type(AUTO.reclaim)(min_idle_h=_GRACE_H, min_run_h=_GRACE_H))
    return plan(state_of(engine, workload, now), verdicts, rules, now)


def said(made: Plan) -> str:
    """Give what a plan does, in the words of the recorded column."""
    if not made.moves:
        reasons = " ".join(each.reason for each in made.held_back)
        if "straggler" in reasons:
            return "straggler"
        return "recommend fewer GPUs, no stop" if "recommend fewer" in reasons else "no move"
    (move,) = made.moves
    assert move.kind is MoveKind.SUSPEND_WORKLOAD
    stop = str(move.evidence["stop"])
    return "scale0" if stop.endswith("replicas=0") else f"patch {move.target.kind.lower()} {stop}"


def is_stop(safe: str) -> bool:
    return safe.startswith(("scale0", "patch"))


def test_every_scenario_leads_to_the_safe_move_or_to_none(engine: "Engine", now: datetime, data_root: Path) -> None:
    cases = scenarios(data_root)
    assert any(is_stop(case["safe"]) for case in cases)
    wrong = {}
    for case in cases:
        single = type(engine)()
        made = planned(single, case, now)
        single.connection.close()
        words = said(made)
        is_right = words == case["safe"] if is_stop(case["safe"]) else not made.moves
        if not is_right or (words.startswith("recommend") and not case["safe"].startswith("recommend")):
            wrong[case["id"]] = (words, case["safe"], [each.reason for each in made.held_back])
    assert wrong == {}


def test_what_a_scenario_stops_holds_no_part_that_works(engine: "Engine", now: datetime, data_root: Path) -> None:
    for case in scenarios(data_root):
        single = type(engine)()
        made = planned(single, case, now)
        single.connection.close()
        works = any(value for pod in case["pods"] for value in pod.get("max_util", []))
        assert not (works and made.moves), case["id"]

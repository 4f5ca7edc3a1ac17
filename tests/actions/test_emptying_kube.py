"""A drain that goes on over turns against the API server in memory, and against the cluster that KUBECONFIG names."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.apply import apply
from actions.budget import Made, made_of
from actions.kube_cluster import KubeCluster
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.rule_policies import DefragmentPolicy, RepairPolicy, ReslicePolicy
from fleet.clock import FixedClock
from fleet.move import Move, Outcome, Stage
from fleet.verdict import Severity, Verdict
from tests.actions.closed_loop import ALL_AUTO
from tests.actions.fakes import failing
from tests.actions.ground import CLUSTER, Ground
from tests.kube.answers import Object

pytestmark = pytest.mark.enable_socket
RULES = ("repair", "reslice", "defragment")
POLICY = replace(
    ALL_AUTO,
    repair=RepairPolicy(grace_h=0.0, gang_grace_h=0.0, drain_limit_h=1.0),
    reslice=ReslicePolicy(drain_limit_h=1.0),
    defragment=DefragmentPolicy(limit_h=1.0),
)


@dataclass
class Turns:
    """Turns of plan and apply over a real or a pretended API server, on a clock of their own."""

    ground: Ground
    rule: str
    node: str
    pods: dict[str, Object]
    policy: ActionPolicy = POLICY
    clock: FixedClock = field(default_factory=lambda: FixedClock(datetime.now(UTC) + timedelta(hours=3)))
    moves: list[Move] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def turn(self, minutes: float = 20.0) -> list[str]:
        """Let pods that were asked end, and some minutes pass; plan, act, and return the kinds of what was made."""
        for name in self.ground.leaving():
            if name in {each["metadata"]["name"] for each in self._live()}:
                self.ground.arrange.remove(name)
        self.clock.move(timedelta(minutes=minutes))
        cluster = KubeCluster(CLUSTER, self.ground.api, lambda: self.ground.known, self.clock)
        made = plan(cluster.observe(), self.verdicts(), self.policy, self.clock.now(), recent=self._made())
        self.held += [each.reason for each in made.held_back]
        made = replace(made, moves=tuple(move for move in made.moves if move.target.name == self.node))
        self.moves.extend(made.moves)
        outcomes = apply(
            made, cluster, self.policy, self.clock, self.outcomes.append, actor="test", kill_switch=lambda: False,
            is_dry_run=False, recent=self._made(),
        )  # fmt: skip
        applied = {each.move_id for each in outcomes if each.stage is Stage.APPLIED}
        return [move.kind.value for move in made.moves if move.move_id in applied]

    def verdicts(self) -> Sequence[Verdict]:
        """Return what is found of the node at each turn."""
        now = self.clock.now()
        if self.rule == "repair":
            gpu = self.ground.uuid(self.node, 0)
            return [failing(gpu, now, cluster=CLUSTER, state="failed", action="reboot_node")]
        told: dict[str, object] = {"layout": "all-1g.10gb", "gain_gpus": 4.0}
        if self.rule == "defragment":
            chosen = [{"pod_uid": each["metadata"]["uid"]} for each in self.pods.values()]
            told = {"size": 8, "gpus": 2, "pods": chosen}
        return [
            Verdict(
                made_at=now, topic="packing", subject_kind="node", subject=self.node, state="wanted",
                severity=Severity.INFO, rule="test", action=self.rule, cluster=CLUSTER, until=now, evidence=told,
            )
        ]  # fmt: skip

    def _made(self) -> tuple[Made, ...]:
        return made_of(self.moves, self.outcomes)

    def _live(self) -> list[Object]:
        found: list[Object] = self.ground.client.get(self.ground.arrange.path("pods"))["items"]
        return found


def begin(ground: Ground, rule: str) -> Turns:
    """Return turns over a node with two replicas, of which a disruption budget holds one back."""
    node = ground.node()
    kinds = ("NVIDIA H100 80GB HBM3", 81559)
    gpus = tuple(replace(gpu, model=kinds[0], memory_mib=kinds[1]) for gpu in ground.known.gpus)
    ground.known = replace(ground.known, gpus=gpus)
    owner = ground.arrange.owned("apps/v1", "deployments", "Deployment", "serve")
    pods = {name: ground.pod(name, node, owner=owner, labels={"app": "serve", "part": name}) for name in ("a", "b")}
    for place, pod in enumerate(pods.values()):
        ground.hold(pod, [ground.uuid(node, place)])
    bound = ground.client.get(ground.arrange.path("pods", "b"))["status"]["conditions"]
    ready = [*bound, {"type": "Ready", "status": "True"}]
    ground.client.patch(ground.arrange.path("pods", "b/status"), {"status": {"conditions": ready}})
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"part": "b"}}}}
    ground.client.create(ground.arrange.path("poddisruptionbudgets", group="apis/policy/v1"), budget)
    return Turns(ground, rule, node, pods)


def until_drained(turns: Turns) -> None:
    for _ in range(5):
        if "drain_node" in turns.turn():
            return
    message = f"nothing was drained: {turns.held}"
    raise AssertionError(message)


@pytest.mark.parametrize("rule", RULES)
def test_the_pod_that_its_budget_held_back_is_evicted_once_the_budget_has_room(ground: Ground, rule: str) -> None:
    turns = begin(ground, rule)
    until_drained(turns)
    assert ground.leaving() == {"a"}
    assert turns.turn() == ["drain_node"]
    assert ground.leaving() == {"a"}
    ground.client.delete(ground.arrange.path("poddisruptionbudgets", "b", "apis/policy/v1"))
    assert turns.turn() == ["drain_node"]
    assert ground.leaving() == {"a", "b"}
    made = turns.turn()
    assert {"repair": "request_repair", "reslice": "set_mig_layout", "defragment": "uncordon_node"}[rule] in made


@pytest.mark.parametrize("rule", ["reslice", "defragment"])
def test_a_node_that_can_t_be_emptied_is_given_back_as_it_was(ground: Ground, rule: str) -> None:
    turns = begin(ground, rule)
    labels = dict(ground.found(turns.node)["metadata"]["labels"])
    until_drained(turns)
    made = [turns.turn() for _ in range(4)]
    assert made == [["drain_node"], ["drain_node"], ["cancel_drain", "uncordon_node"], []]
    found = ground.found(turns.node)
    assert not found["spec"].get("unschedulable")
    assert found["metadata"]["labels"] == labels
    assert not [name for name in found["metadata"].get("annotations") or {} if name.startswith("gpusteward.dev/")]
    assert ground.leaving() == {"a"}


def test_a_drain_that_somebody_took_back_is_not_carried_on(ground: Ground) -> None:
    turns = begin(ground, "reslice")
    until_drained(turns)
    ground.client.patch(f"/api/v1/nodes/{turns.node}", {"metadata": {"annotations": {"gpusteward.dev/drain": None}}})
    assert turns.turn() == ["uncordon_node"]
    assert ground.leaving() == {"a"}

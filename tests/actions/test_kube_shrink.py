"""A Deployment that is made smaller loses the replicas that idle, in memory and by a real controller (KUBECONFIG)."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from actions.apply import apply
from actions.kube import KubeApi
from actions.kube_cluster import KubeCluster
from actions.kube_shrink import COST, OUR_COST
from actions.undo import invert
from fleet.clock import SystemClock
from fleet.errors import MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind, Outcome, Plan
from fleet.state import ObjectRef, Workload
from tests.actions.fakes import FREE
from tests.actions.ground import CLUSTER, Ground
from tests.kube.answers import Object
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
LABELS = {"app": "chat"}
CONTAINERS = [{"name": "m", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]
PODS: Object = {
    "metadata": {"labels": LABELS},
    "spec": {"schedulerName": "steward-test", "containers": CONTAINERS},
}


@dataclass
class Service:
    """A Deployment with replicas that run and are ready, and the cluster as moves reach it."""

    ground: Ground
    node: str
    pods: list[str] = field(default_factory=list)
    takes: Callable[[Object], int] = lambda pod: int(notes_of(pod).get(COST, "0"))  # the lowest goes first

    def __post_init__(self) -> None:
        self.api = KubeApi(CLUSTER, None, self.pause)
        self.cluster = KubeCluster(CLUSTER, self.api, lambda: self.ground.known, SystemClock())

    @property
    def path(self) -> str:
        return self.ground.arrange.path("deployments", "chat", "apis/apps/v1")

    def live(self) -> list[Object]:
        found = self.ground.client.get(self.ground.arrange.path("pods"))["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def names(self) -> list[str]:
        return sorted(each["metadata"]["name"] for each in self.live())

    def full(self, *names: str) -> list[str]:
        return [f"{self.ground.arrange.namespace}/{name}" for name in names]

    def notes(self, name: str) -> dict[str, str]:
        return notes_of(self.ground.client.get(self.ground.arrange.path("pods", name)))

    def annotate(self, name: str, **values: str | None) -> None:
        notes = {COST if key == "cost" else OUR_COST: value for key, value in values.items()}
        self.ground.client.patch(self.ground.arrange.path("pods", name), {"metadata": {"annotations": notes}})

    def pause(self, _seconds: float) -> None:
        """Let the controller act: ours in memory, else the cluster's own, which is waited for a moment."""
        if self.ground.server is None:
            before, ends_at = self.names(), time.monotonic() + 0.25
            while self.names() == before and time.monotonic() < ends_at:
                continue
            return
        wanted = self.ground.client.get(self.path)["spec"]["replicas"]
        for each in sorted(self.live(), key=self.takes)[: max(0, len(self.live()) - wanted)]:
            self.ground.arrange.remove(each["metadata"]["name"])

    def seen(self) -> Workload:
        ref = ObjectRef("Deployment", self.ground.arrange.namespace, "chat")
        return next(each for each in self.cluster.observe().workloads if each.ref == ref)

    def shrink(self, replicas: int, idle: Sequence[str]) -> Move:
        target = self.seen()
        return Move(
            "m1", MoveKind.SCALE_WORKLOAD, CLUSTER, target.ref, "some_parts_idle", "they idle",
            arguments={"replicas": replicas}, evidence={"idle_pods": self.full(*idle)}, gpus=1.0,
            resource_version=target.resource_version, workspace=target.workspace,
        )  # fmt: skip


def notes_of(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"].get("annotations") or {}
    return found


@pytest.fixture
def service(ground: Ground) -> Iterator[Service]:
    made = Service(ground, ground.node())
    spec = {"replicas": 3, "selector": {"matchLabels": LABELS}, "template": PODS}
    whole = ground.client.create(
        ground.arrange.path("deployments", group="apis/apps/v1"), {"metadata": {"name": "chat"}, "spec": spec}
    )
    if ground.server is not None:
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat", "uid": whole["metadata"]["uid"]}
        _own_pods(made, owner)
    ends_at = time.monotonic() + 20
    while len(made.live()) < 3:
        assert time.monotonic() < ends_at, "the controller makes no pods"
    made.pods = made.names()
    for name in made.pods:
        _start(made, name)
    yield made
    if ground.server is None:
        ground.client.delete(made.path)  # else its controller would make new replicas for those that are taken away
    made.api.close()


def _own_pods(service: Service, owner: Object) -> None:
    client, arrange = service.ground.client, service.ground.arrange
    body = {"replicas": 3, "selector": {"matchLabels": LABELS}, "template": PODS}
    meta = {"name": "chat-1", "ownerReferences": [{**owner, "controller": True}]}
    client.create(arrange.path("serviceaccounts"), {"metadata": {"name": "default"}})
    client.create(arrange.path("replicasets", group="apis/apps/v1"), {"metadata": meta, "spec": body})
    above = client.get(arrange.path("replicasets", "chat-1", "apis/apps/v1"))
    ours = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-1", "uid": above["metadata"]["uid"]}
    for place in range(3):
        own = {"name": f"chat-1-{place}", "labels": LABELS, "ownerReferences": [{**ours, "controller": True}]}
        client.create(arrange.path("pods"), {"metadata": own, "spec": PODS["spec"]})


def _start(service: Service, name: str, ready: str = "True") -> None:
    arrange = service.ground.arrange
    if "nodeName" not in service.ground.client.get(arrange.path("pods", name))["spec"]:
        arrange.bind(name, service.node)
    live = service.ground.client.get(arrange.path("pods", name))["status"]["conditions"]
    bound = [each for each in live if each["type"] == "PodScheduled"]
    conditions = [*bound, *({"type": kind, "status": ready} for kind in ("Ready", "ContainersReady"))]
    status = {"phase": "Running", "conditions": conditions}
    service.ground.client.patch(arrange.path("pods", f"{name}/status"), {"status": status})


@pytest.mark.parametrize("place", range(3))
def test_the_replica_that_idles_goes_whichever_it_is(service: Service, place: int) -> None:
    idle = service.pods[place]
    move = service.shrink(2, [idle])
    service.cluster.rehearse(move)
    assert all(COST not in service.notes(name) for name in service.pods)
    made = json.loads(service.cluster.make(move))
    assert service.names() == [name for name in service.pods if name != idle]
    assert (made["replicas"], made["went"]) == (3, service.full(idle))
    assert made["seen"] == f"1 of 1 idle replicas went ({service.full(idle)[0]}); none other did"
    assert all(OUR_COST not in service.notes(name) for name in service.names())


def test_several_go_together_and_the_busy_one_stays(service: Service) -> None:
    busy, *idle = service.pods
    made = json.loads(service.cluster.make(service.shrink(1, idle)))
    assert service.names() == [busy]
    assert made["went"] == service.full(*idle)


def test_an_outcome_tells_which_replicas_went(service: Service) -> None:
    move, record = service.shrink(2, [service.pods[1]]), list[Outcome]()
    young = replace(FREE, reclaim=replace(FREE.reclaim, min_run_h=0.0))
    apply(
        Plan("p", SystemClock().now(), "{}", (move,)), service.cluster, young, SystemClock(), record.append,
        actor="test", kill_switch=lambda: False, is_dry_run=False,
    )  # fmt: skip
    went = service.full(service.pods[1])[0]
    assert [each.stage.value for each in record] == ["intended", "applied"]
    assert record[-1].detail == f"made and seen: 1 of 1 idle replicas went ({went}); none other did"


def test_a_busy_replica_that_went_is_told_and_the_idle_one_is_no_longer_marked(service: Service) -> None:
    service.ground.memory()
    service.takes = lambda pod: -int(notes_of(pod).get(COST, "0"))  # a controller that does not heed the cost
    idle = service.pods[0]
    made = json.loads(service.cluster.make(service.shrink(2, [idle])))
    (gone,) = set(service.pods) - set(service.names())
    assert made["went_busy"] == service.full(gone)
    assert made["seen"] == f"0 of 1 idle replicas went; NOT idle and gone as well: {service.full(gone)[0]}"
    assert not {COST, OUR_COST} & set(service.notes(idle))


def test_marks_stay_while_their_controller_has_not_acted_and_go_with_the_next_size(service: Service) -> None:
    service.ground.memory()
    idle = service.pods[2]
    service.takes = lambda _pod: 0
    service.pause = lambda _seconds: None  # type: ignore[method-assign] # nobody acts
    service.__post_init__()
    move = service.shrink(2, [idle])
    made = service.cluster.make(move)
    told = json.loads(made)
    assert (told["still_there"], told["marks_left"]) == (service.full(idle), service.full(idle))
    assert "still there after 10 s, and marked to go first" in told["seen"]
    assert service.notes(idle)[COST] == "-1"
    service.cluster.make(invert(move, made))
    assert not {COST, OUR_COST} & set(service.notes(idle))
    assert service.seen().replicas == 3


def test_what_its_owner_has_ranked_is_heeded_and_never_changed(service: Service) -> None:
    first, second, third = service.pods
    service.annotate(first, cost="-7")
    service.annotate(second, cost="5")
    with pytest.raises(MoveRefused, match=f"ranks its replicas by {COST}, and .*{second} would not go first"):
        service.cluster.rehearse(service.shrink(2, [second]))
    service.cluster.make(service.shrink(2, [third]))  # ours is lower than the lowest of those that stay
    assert service.names() == [first, second]
    assert (service.notes(first), service.notes(second)) == ({COST: "-7"}, {COST: "5"})


def test_an_idle_replica_that_its_owner_ranked_lowest_needs_no_mark(service: Service) -> None:
    idle = service.pods[1]
    service.annotate(idle, cost="-7")
    move = service.shrink(2, [idle])
    made = json.loads(service.cluster.make(move))
    assert made["went"] == service.full(idle)
    service_lines = [] if service.ground.server is None else service.ground.server.asked
    assert not any(each.startswith("PATCH") and f"/pods/{idle}?" in each for each in service_lines)


def test_the_lowest_cost_there_is_leaves_none_below(service: Service) -> None:
    service.annotate(service.pods[0], cost=str(-(2**31)))
    with pytest.raises(MoveRefused, match="nothing is lower"):
        service.cluster.rehearse(service.shrink(2, [service.pods[1]]))


def test_a_mark_of_before_does_not_compete_with_the_idle_ones_of_now(service: Service) -> None:
    old, idle, _ = service.pods
    service.annotate(old, cost="-1", ours="-1")
    made = json.loads(service.cluster.make(service.shrink(2, [idle])))
    assert made["went"] == service.full(idle)
    assert not {COST, OUR_COST} & set(service.notes(old))


def test_what_is_not_ready_would_go_first_so_nothing_is_made(service: Service) -> None:
    _start(service, service.pods[0], ready="False")
    with pytest.raises(MoveRefused, match="is not ready and would go before those that idle"):
        service.cluster.rehearse(service.shrink(2, [service.pods[1]]))
    assert len(service.names()) == 3


def test_an_idle_replica_that_is_gone_since_is_no_longer_what_was_planned_for(service: Service) -> None:
    move = service.shrink(2, ["chat-gone"])
    with pytest.raises(StaleState, match="chat-gone is no longer one of its replicas"):
        service.cluster.make(move)
    with pytest.raises(StaleState, match="has 3 replicas and asks for 3"):
        service.cluster.make(service.shrink(1, [service.pods[0]]))
    assert len(service.names()) == 3


def test_a_size_that_is_refused_leaves_no_mark(service: Service) -> None:
    server = service.ground.memory()
    move = service.shrink(2, [service.pods[0]])
    server.faults.add(Fault(f"PATCH {service.path}", status=403, times=9))
    with pytest.raises(MoveRefused):
        service.cluster.make(move)
    assert not {COST, OUR_COST} & set(service.notes(service.pods[0]))


def test_a_mark_that_can_not_be_made_changes_no_size(service: Service) -> None:
    server = service.ground.memory()
    move = service.shrink(1, service.pods[:2])
    path = service.ground.arrange.path("pods", service.pods[1])
    server.faults.add(Fault(f"PATCH {path}", status=500, times=9))
    with pytest.raises(SourceFailed):
        service.cluster.make(move)
    assert not {COST, OUR_COST} & set(service.notes(service.pods[0]))
    assert service.seen().replicas == 3


def test_a_rollout_takes_replicas_by_its_own_order(service: Service) -> None:
    service.ground.memory()
    pod = service.ground.arrange.path("pods", service.pods[0])
    other = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-2", "controller": True}
    above = service.ground.client.get(service.path)["metadata"]["uid"]
    meta = {"name": "chat-2", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat", "uid": above, "controller": True}]}  # fmt: skip
    spec = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": PODS}
    sets = service.ground.arrange.path("replicasets", group="apis/apps/v1")
    made = service.ground.client.create(sets, {"metadata": meta, "spec": spec})
    service.ground.client.patch(pod, {"metadata": {"ownerReferences": [{**other, "uid": made["metadata"]["uid"]}]}})
    with pytest.raises(MoveRefused, match="a rollout is on its way"):
        service.cluster.rehearse(service.shrink(2, [service.pods[0]]))

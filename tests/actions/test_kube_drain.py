"""Drains against the API server in memory, and against the cluster that KUBECONFIG names."""

import json

import pytest

from actions.undo import invert
from fleet.errors import SourceFailed
from fleet.move import Move, MoveKind
from tests.actions.ground import Ground
from tests.kube.answers import Object
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
JOBSET = "jobset.sigs.k8s.io/jobset-name"


def drain(ground: Ground, node: str, *uuids: str) -> Move:
    scope = "gpus" if uuids else "node"
    return ground.move(MoveKind.DRAIN_NODE, node, {"scope": scope}, gpu_uuids=uuids)


def told(ground: Ground, move: Move) -> Object:
    found: Object = json.loads(ground.cluster.make(move))
    return found


def test_a_drain_evicts_what_will_come_back_and_leaves_what_would_not(ground: Ground) -> None:
    node, other = ground.node(), ground.node("n2")
    job = ground.job("train")
    ground.pod("goes", node, owner=job)
    ground.pod("alone", node)
    ground.pod("elsewhere", other, owner=job)
    ground.pod("kept", node, owner=job)
    ground.client.patch(
        ground.arrange.path("pods", "kept"), {"metadata": {"annotations": {"gpusteward.dev/protect": "true"}}}
    )
    move = drain(ground, node)
    ground.cluster.rehearse(move)
    assert ground.leaving() == set()
    made = told(ground, move)
    assert ground.leaving() == {"goes"}
    space = ground.arrange.namespace
    assert (made["drain"], made["evicted"]) == (None, [f"{space}/goes"])
    assert set(made["staying"]) == {f"{space}/alone", f"{space}/kept"}
    assert "no controller" in made["staying"][f"{space}/alone"]
    assert "protected" in made["staying"][f"{space}/kept"]
    assert ground.seen(node).drain == "node"


def test_pods_of_the_node_itself_are_passed_over(ground: Ground) -> None:
    node = ground.node()
    daemons = ground.arrange.owned("apps/v1", "daemonsets", "DaemonSet", "exporter")
    ground.pod("exporter-1", node, owner=daemons, labels={"app": "exporter"})
    made = told(ground, drain(ground, node))
    assert set(made) == {"drain"}


def test_a_protected_namespace_keeps_its_pods(ground: Ground) -> None:
    node = ground.node()
    ground.pod("p", node, owner=ground.job("train"))
    labels = {"metadata": {"labels": {"gpusteward.dev/protect": "true"}}}
    ground.client.patch(f"/api/v1/namespaces/{ground.arrange.namespace}", labels)
    made = told(ground, drain(ground, node))
    assert (ground.leaving(), list(made["staying"])) == (set(), [f"{ground.arrange.namespace}/p"])


def test_a_disruption_budget_makes_a_pod_wait_and_the_next_turn_goes_on(ground: Ground) -> None:
    node = ground.node()
    job = ground.job("serve")
    for name in ("held", "free"):
        ground.pod(name, node, owner=job, labels={"app": name})
    ready = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
    ground.client.patch(ground.arrange.path("pods", "held/status"), {"status": {"conditions": ready}})
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}}}
    ground.client.create(ground.arrange.path("poddisruptionbudgets", group="apis/policy/v1"), budget)
    move = drain(ground, node)
    ground.cluster.rehearse(move)
    made = told(ground, move)
    space = ground.arrange.namespace
    assert made["evicted"] == [f"{space}/free"]
    assert "disruption budget" in made["waiting"][f"{space}/held"]
    assert ground.leaving() == {"free"}
    ground.client.delete(ground.arrange.path("poddisruptionbudgets", "b", "apis/policy/v1"))
    again = told(ground, drain(ground, node))
    assert (again["drain"], again["evicted"]) == ("node", [f"{space}/held"])
    assert ground.leaving() == {"free", "held"}


def test_only_the_pods_on_the_bad_gpus_go(ground: Ground) -> None:
    node = ground.node()
    job = ground.job("train")
    ground.hold(ground.pod("on-bad", node, owner=job), [ground.uuid(node, 0)])
    ground.hold(ground.pod("on-good", node, owner=job), [ground.uuid(node, 1)])
    ground.pod("on-nothing", node, gpus=0, owner=job)
    ground.pod("on-unknown", node, owner=job)
    move = drain(ground, node, ground.uuid(node, 0))
    made = told(ground, move)
    assert ground.leaving() == {"on-bad"}
    assert made["staying"] == {f"{ground.arrange.namespace}/on-unknown": "nobody knows which GPUs it holds"}
    assert ground.seen(node).drain == f"gpus {ground.uuid(node, 0)}"
    assert ground.prior(move)["drain"] == f"gpus {ground.uuid(node, 0)}"


def test_one_eviction_is_enough_for_a_gang_that_lives_elsewhere_too(ground: Ground) -> None:
    node, other = ground.node(), ground.node("n2")
    job = ground.job("train")
    for name, where in (("w0", node), ("w1", node), ("w2", other), ("w3", other)):
        ground.pod(name, where, owner=job, labels={JOBSET: "llm"})
    made = told(ground, drain(ground, node))
    assert made["evicted"] == [f"{ground.arrange.namespace}/w0"]
    assert "2 of its 4 pods run on other nodes" in made["gangs"][f"JobSet/{ground.arrange.namespace}/llm"]
    again = told(ground, drain(ground, node))
    still_leaving = any(
        each["metadata"]["name"] == "w0" for each in ground.client.get(ground.arrange.path("pods"))["items"]
    )
    assert ("evicted" not in again) == still_leaving, "while one of a gang is leaving, no other is asked"


def test_a_gang_that_lives_here_alone_goes_whole(ground: Ground) -> None:
    node = ground.node()
    job = ground.job("train")
    for name in ("w0", "w1"):
        ground.pod(name, node, owner=job, labels={JOBSET: "llm"})
    made = told(ground, drain(ground, node))
    assert (ground.leaving(), "gangs" in made) == ({"w0", "w1"}, False)


def test_a_cancelled_drain_asks_nobody_to_leave(ground: Ground) -> None:
    node = ground.node()
    move = drain(ground, node)
    prior = ground.cluster.make(move)
    ground.pod("later", node, owner=ground.job("train"))
    ground.cluster.make(invert(move, prior))
    assert (ground.seen(node).drain, ground.leaving()) == (None, set())


def test_a_drain_that_was_cut_off_is_found_on_the_node_and_goes_on(ground: Ground) -> None:
    node = ground.node()
    job = ground.job("train")
    for name in ("a", "b"):
        ground.pod(name, node, owner=job)
    server = ground.memory()
    server.faults.add(Fault("/pods/b/eviction?fieldManager=gpu-steward&fieldValidation=Strict", status=500))
    with pytest.raises(SourceFailed):
        ground.cluster.make(drain(ground, node))
    assert (ground.seen(node).drain, ground.leaving()) == ("node", {"a"})
    assert told(ground, drain(ground, node))["evicted"] == [f"{ground.arrange.namespace}/b"]


def test_a_pod_that_was_made_anew_under_its_name_is_not_evicted(ground: Ground) -> None:
    node = ground.node()
    old = ground.pod("web-0", node, owner=ground.job("train"))
    ground.arrange.remove("web-0")
    ground.pod("web-0", node, owner=ground.job("other"))
    with pytest.raises(Exception, match=r"409|UID|uid"):
        ground.api.evict(old, is_dry_run=False)
    assert ground.leaving() == set()

"""Pools are bounded and unbounded, and come back as they were."""

from types import MappingProxyType

import pytest

from actions.kube_pools import limit_patch
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind, Value
from fleet.state import ObjectRef, PoolLimit
from tests.kube.answers import Object
from tests.kube.engines import Arena, meant

pytestmark = pytest.mark.enable_socket

NODES = {
    "template": {
        "spec": {
            "nodeClassRef": {"group": "a.b", "kind": "C", "name": "d"},
            "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
        }
    }
}


def bounded(target: PoolLimit, limit: Value) -> Move:
    return Move(
        "m1", MoveKind.SET_POOL_LIMIT, "c1", target.ref, "short", "more is wanted",
        arguments=MappingProxyType({"limit": limit}), resource_version=target.resource_version,
    )  # fmt: skip


def seen(work: Arena, kind: str, namespace: str, name: str) -> PoolLimit:
    ref = ObjectRef(kind, namespace, name)
    return next(each for each in work.cluster.observe().pools if each.ref == ref)


@pytest.mark.parametrize("limits", [None, {"cpu": "100"}, {"nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "8", "cpu": "1"}])
@pytest.mark.parametrize("limit", [16, 0, None])
def test_a_node_pool_grows_only_so_far_and_is_put_back(work: Arena, limits: Object | None, limit: Value) -> None:
    spec = NODES if limits is None else {**NODES, "limits": limits}
    before = meant(work.put("karpenter.sh", "NodePool", work.name("p"), spec=spec))
    pool = seen(work, "NodePool", "", work.name("p"))
    assert pool.pool == work.name("p")
    if pool.limit == limit:
        return
    change = bounded(pool, limit)
    work.undo(change, work.do(change))
    assert meant(work.see("karpenter.sh", "NodePool", work.name("p"))) == before


def test_a_buffer_keeps_more_spares_and_fewer_again(work: Arena) -> None:
    spec = {"podTemplateRef": {"name": "chunk"}, "replicas": 2}
    before = meant(work.put("autoscaling.x-k8s.io", "CapacityBuffer", "b", spec=spec))
    change = bounded(seen(work, "CapacityBuffer", work.namespace, "b"), 5)
    work.undo(change, work.do(change))
    assert meant(work.see("autoscaling.x-k8s.io", "CapacityBuffer", "b")) == before


def test_a_pool_changed_since_or_gone_is_stale_and_what_is_no_pool_is_refused(work: Arena) -> None:
    work.put("karpenter.sh", "NodePool", work.name("p"), spec=NODES)
    pool = seen(work, "NodePool", "", work.name("p"))
    work.change("karpenter.sh", "NodePool", work.name("p"), {"spec": {"weight": 7}})
    with pytest.raises(StaleState, match="changed since"):
        work.cluster.make(bounded(pool, 4))
    with pytest.raises(StaleState):
        work.cluster.make(bounded(PoolLimit("c1", ObjectRef("NodePool", "", "nowhere")), 4))
    with pytest.raises(MoveRefused, match="is no pool"):
        work.cluster.make(bounded(PoolLimit("c1", ObjectRef("Node", "", "n1")), 4))


@pytest.mark.parametrize("limit", [-1, 2.5, True, "8", float("nan")])
def test_a_limit_that_is_no_whole_number_is_refused(limit: object) -> None:
    with pytest.raises(MoveRefused, match="no whole number"):
        limit_patch("NodePool", {"spec": {}}, limit)


def test_a_number_stays_a_number_and_a_text_a_text() -> None:
    for before, after in ((8, 16), ("8", "16")):
        patch = limit_patch("NodePool", {"spec": {"limits": {"nvidia.com/gpu": before}}}, 16)
        assert patch == {"spec": {"limits": {"nvidia.com/gpu": after}}}

"""The lease, the kill switch and notices in a cluster, in memory and in the one that KUBECONFIG names."""

from datetime import UTC, datetime, timedelta

import pytest

from actions.kube_oversight import PROPOSED, KubeHerald, KubeLease, read_switch
from actions.leader import Lease
from actions.switch import why_braked
from fleet.errors import StaleState
from fleet.move import MoveKind
from fleet.state import ObjectRef
from tests.actions.ground import Ground

pytestmark = pytest.mark.enable_socket
AS_ADMIN = True  # the roles of deploy/ hold in the namespace gpu-steward, these tests run in their own
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def brake(ground: Ground, **data: str) -> str | None:
    space = ground.arrange.namespace
    path = f"/api/v1/namespaces/{space}/configmaps"
    ground.client.create(path, {"metadata": {"name": "gpu-steward-brake"}, "data": data})
    return why_braked(lambda: read_switch(ground.api, space))


def test_a_lease_is_written_over_the_version_that_was_read_only(ground: Ground) -> None:
    store = KubeLease(ground.api, ground.arrange.namespace)
    made = store.write(Lease("a", NOW))
    store.write(Lease("a", NOW + timedelta(seconds=5), version=made.version))
    with pytest.raises(StaleState):
        store.write(Lease("b", NOW, version=made.version))
    with pytest.raises(StaleState):
        store.write(Lease("b", NOW))  # there is one already


@pytest.mark.parametrize(
    ("data", "is_on"),
    [({"brake": "on", "reason": "maintenance"}, True), ({"brake": "off"}, False), ({"brake": ""}, True), ({}, True)],
    ids=["on", "off", "empty", "without a value"],
)
def test_the_kill_switch_is_on_unless_it_says_off(ground: Ground, data: dict[str, str], *, is_on: bool) -> None:
    assert why_braked(lambda: read_switch(ground.api, ground.arrange.namespace)) is None
    told = brake(ground, **data)
    assert (told is not None) == is_on
    assert "reason" not in data or "maintenance" in str(told)


def test_a_node_that_is_meant_bears_the_notice_and_an_event_tells_it(ground: Ground) -> None:
    node = ground.node()
    KubeHerald(ground.api).announce(ground.move(MoveKind.CORDON_NODE, node), "it is cordoned at noon")
    assert ground.found(node)["metadata"]["annotations"][PROPOSED] == "it is cordoned at noon"


def test_a_workload_that_is_meant_bears_the_notice_and_what_has_no_object_of_its_own_is_passed_over(
    ground: Ground,
) -> None:
    node = ground.node()
    ground.job("train")
    job = ObjectRef("Job", ground.arrange.namespace, "train")
    KubeHerald(ground.api).announce(ground.move(MoveKind.SUSPEND_WORKLOAD, node, target=job), "suspended at noon")
    found = ground.client.get(ground.arrange.path("jobs", "train", "apis/batch/v1"))
    assert found["metadata"]["annotations"][PROPOSED] == "suspended at noon"
    quota = ObjectRef("Quota", "", "research")
    KubeHerald(ground.api).announce(ground.move(MoveKind.SET_QUOTA, node, target=quota), "raised at noon")

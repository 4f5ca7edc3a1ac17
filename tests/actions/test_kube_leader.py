"""The lease, the kill switch and notices in a cluster, in memory and in the one that KUBECONFIG names."""

from datetime import UTC, datetime, timedelta

import pytest

from actions.kube_herald import PROPOSED, KubeHerald
from actions.kube_leader import KubeLease, read_switch
from actions.leader import Leadership, Lease
from actions.switch import why_braked
from fleet.errors import MoveRefused, SourceFailed, StaleState
from fleet.move import MoveKind
from tests.actions.ground import Ground
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
AS_ADMIN = True  # the roles of deploy/rbac-leader.yaml hold in the namespace gpu-steward, these tests run in their own
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def brake(ground: Ground, **data: str) -> str | None:
    space = ground.arrange.namespace
    path = f"/api/v1/namespaces/{space}/configmaps"
    ground.client.create(path, {"metadata": {"name": "gpu-steward-brake"}, "data": data})
    return why_braked(lambda: read_switch(ground.api, space))


def test_a_lease_comes_back_as_it_was_written_and_a_second_steward_does_nothing(ground: Ground) -> None:
    store = KubeLease(ground.api, ground.arrange.namespace)
    assert store.read() is None
    first, second = Leadership(store, "a"), Leadership(KubeLease(ground.api, ground.arrange.namespace), "b")
    assert first.why_not(NOW) is None
    found = store.read()
    assert found is not None
    assert (found.holder, found.renewed_at, found.duration_s, found.transitions) == ("a", NOW, 30.0, 0)
    assert second.why_not(NOW) == "a leads and its lease runs"
    assert second.why_not(NOW + timedelta(seconds=30)) is None
    assert first.why_not(NOW + timedelta(seconds=31)) == "b leads and its lease runs"


def test_a_lease_is_written_over_the_version_that_was_read_only(ground: Ground) -> None:
    store = KubeLease(ground.api, ground.arrange.namespace)
    made = store.write(Lease("a", NOW))
    store.write(Lease("a", NOW + timedelta(seconds=5), version=made.version))
    with pytest.raises(StaleState):
        store.write(Lease("b", NOW, version=made.version))
    with pytest.raises(StaleState):
        store.write(Lease("b", NOW))  # there is one already


def test_without_its_namespace_nobody_leads_and_the_reason_says_what_to_do(ground: Ground) -> None:
    with pytest.raises(MoveRefused, match="kubectl create namespace"):
        KubeLease(ground.api, "is-not-there").write(Lease("a", NOW))


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


def test_a_kill_switch_that_cannot_be_read_counts_as_on(ground: Ground) -> None:
    ground.memory().faults.add(Fault("GET /api/v1/namespaces", status=403, times=2))
    with pytest.raises(SourceFailed):
        read_switch(ground.api, ground.arrange.namespace)
    assert "can't be read" in str(why_braked(lambda: read_switch(ground.api, ground.arrange.namespace)))


def test_a_node_that_is_meant_bears_the_notice_and_an_event_tells_it(ground: Ground) -> None:
    node = ground.node()
    KubeHerald(ground.api).announce(ground.move(MoveKind.CORDON_NODE, node), "it is cordoned at noon")
    assert ground.found(node)["metadata"]["annotations"][PROPOSED] == "it is cordoned at noon"
    events = ground.client.get("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    notes = [each["note"] for each in events if each["regarding"]["name"] == node]
    assert notes == ["it is cordoned at noon"]

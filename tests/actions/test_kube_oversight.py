"""The kill switch, the lease and the herald on a Kubernetes server, in memory and by KUBECONFIG."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from actions.kube_oversight import KubeHerald, KubeLease, read_switch
from actions.leader import Leadership
from actions.switch import NAME, NAMESPACE, why_braked
from fleet.errors import SourceFailed, StaleState
from fleet.move import MoveKind
from fleet.state import ObjectRef
from tests.actions.ground import Ground
from tests.kube.answers import Refusal
from tests.kube.faults import Fault

pytestmark = pytest.mark.enable_socket
AS_ADMIN = True  # these rights are granted in one namespace only, which is not this test's own
MAPS, LEASES = (
    f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases",
)
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def house(ground: Ground) -> Iterator[Ground]:
    """Give a cluster with our namespace and nothing in it."""
    try:
        ground.client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    except Refusal:
        assert ground.server is None
    yield ground
    for path in (f"{MAPS}/{NAME}", f"{LEASES}/gpu-steward"):
        try:
            ground.client.delete(path)
        except Refusal:
            continue


def brake(ground: Ground, value: str) -> None:
    ground.client.create(MAPS, {"metadata": {"name": NAME}, "data": {"brake": value}})


def test_a_switch_stops_unless_it_is_not_there_or_says_off(house: Ground) -> None:
    assert why_braked(lambda: read_switch(house.api)) is None
    brake(house, "on")
    assert "is on" in (why_braked(lambda: read_switch(house.api)) or "")
    house.client.patch(f"{MAPS}/{NAME}", {"data": {"brake": "off"}})
    assert why_braked(lambda: read_switch(house.api)) is None
    house.client.patch(f"{MAPS}/{NAME}", {"data": None})
    assert why_braked(lambda: read_switch(house.api)) is not None


def test_a_switch_that_can_not_be_read_stops(house: Ground) -> None:
    house.memory().faults.add(Fault(f"GET {MAPS}", status=403))
    with pytest.raises(SourceFailed):
        read_switch(house.api)
    house.memory().faults.add(Fault(f"GET {MAPS}", status=403))
    assert "can't be read" in (why_braked(lambda: read_switch(house.api)) or "")


def test_one_of_two_leads_and_the_other_takes_over_when_its_lease_stood_still(house: Ground) -> None:
    one, two = (Leadership(KubeLease(house.api), name) for name in ("one", "two"))
    assert one.why_not(NOW) is None
    assert "one leads" in (two.why_not(NOW) or "")
    assert one.why_not(NOW + timedelta(seconds=15)) is None
    assert two.why_not(NOW + timedelta(seconds=16)) is not None
    assert two.why_not(NOW + timedelta(seconds=60)) is None
    assert "two leads" in (one.why_not(NOW + timedelta(seconds=61)) or "")
    spec = house.client.get(f"{LEASES}/gpu-steward")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("two", 1, 30)


def test_a_lease_that_another_wrote_in_between_is_not_taken(house: Ground) -> None:
    store = KubeLease(house.api)
    Leadership(store, "one").renew(NOW)
    lease = store.read()
    assert lease is not None
    Leadership(store, "one").renew(NOW + timedelta(seconds=1))
    with pytest.raises(StaleState):
        store.write(lease)


def test_without_our_namespace_nobody_leads_and_it_is_said_how_to_mend_that(ground: Ground) -> None:
    ground.memory()
    why = Leadership(KubeLease(ground.api), "one").why_not(NOW)
    assert "kubectl create namespace gpu-steward" in (why or "")


def test_a_proposal_is_told_beside_its_target(ground: Ground) -> None:
    node = ground.node()
    ground.job("train")
    move = ground.move(MoveKind.SUSPEND_WORKLOAD, node, target=ObjectRef("Job", ground.arrange.namespace, "train"))
    KubeHerald(ground.api).announce(move, "it idles; it is suspended tomorrow")
    path = f"/apis/events.k8s.io/v1/namespaces/{ground.arrange.namespace}/events"
    found = [each for each in ground.client.get(path)["items"] if each["regarding"]["name"] == "train"]
    assert [(each["reason"], each["note"]) for each in found] == [
        ("SuspendWorkload", "it idles; it is suspended tomorrow")
    ]

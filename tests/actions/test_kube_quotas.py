"""Quotas are read under the same names as the table `quota`, changed in one place only, and put back exactly."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from actions.kube_body import amount_text, quantity
from actions.kube_quotas import QuotaView, change_quota, quotas_from
from actions.kube_write import write_as_meant
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, Queue, Quota
from tests.actions.fakes import set_to
from tests.kube.answers import Object
from tests.kube.engines import Arena, meant

pytestmark = pytest.mark.enable_socket

KUEUE = "kueue.x-k8s.io"
GPU, PRODUCT = "nvidia.com/gpu", "nvidia.com/gpu.product"


def flavor(work: Arena, name: str, pool: str, model: str | None = None) -> str:
    labels = {"karpenter.sh/nodepool": pool, **({} if model is None else {PRODUCT: model})}
    work.put(KUEUE, "ResourceFlavor", work.name(name), spec={"nodeLabels": labels})
    return work.name(name)


def grant(name: str, nominal: str, **limits: str) -> Object:
    gpu = {"name": "nvidia.com/gpu", "nominalQuota": nominal, **limits}
    return {"name": name, "resources": [{"name": "cpu", "nominalQuota": "64"}, gpu]}


def queue(
    work: Arena, name: str, *flavors: Object, workspace: str | None, is_alone: bool = False, **spec: object
) -> Object:
    labels = {} if workspace is None else {"gpusteward.dev/workspace": workspace}
    group = {"coveredResources": ["cpu", "nvidia.com/gpu"], "flavors": list(flavors)}
    cohort = {} if is_alone else work.cohort("all")
    whole = {**cohort, "resourceGroups": [group], **spec}
    return work.put(KUEUE, "ClusterQueue", work.name(name), metadata={"labels": labels}, spec=whole)


def quotas(work: Arena, workspace: str) -> list[Quota]:
    return [each for each in work.cluster.observe().quotas if each.workspace == workspace]


def test_every_number_of_a_cluster_queue_is_set_and_put_back_exactly(work: Arena) -> None:
    big, small = flavor(work, "h100", "big", "NVIDIA-H100"), flavor(work, "l4", "small", "NVIDIA-L4")
    lab = work.name("lab")
    before = meant(queue(work, "lab", grant(big, "8", borrowingLimit="4"), grant(small, "2"), workspace=lab))
    first = next(each for each in quotas(work, lab) if each.pool == "big")
    assert (first.gpus, first.borrowing_gpus, first.lending_gpus, first.weight) == (8.0, 4.0, None, None)
    assert (first.model, first.place) == ("NVIDIA-H100", f"ClusterQueue/{work.name('lab')}")
    change = set_to(first, gpus=11, borrowing_gpus=None, lending_gpus=6, weight=2.5)
    prior = work.do(change)
    other = next(each for each in quotas(work, lab) if each.pool == "small")
    assert (other.gpus, other.borrowing_gpus) == (2.0, None)
    work.undo(change, prior)
    assert meant(work.see(KUEUE, "ClusterQueue", work.name("lab"))) == before


def test_two_models_of_one_queue_are_planned_together_and_both_made(work: Arena) -> None:
    """The first move makes a new version of the object they share; the second one's own row has not changed."""
    big, small = flavor(work, "h100", "big"), flavor(work, "l4", "small")
    lab = work.name("lab")
    before = meant(queue(work, "lab", grant(big, "8"), grant(small, "2"), workspace=lab))
    moves = [set_to(each, gpus=each.gpus + 1) for each in quotas(work, lab)]
    priors = [work.do(each) for each in moves]
    assert sorted(each.gpus for each in quotas(work, lab)) == [3.0, 9.0]
    for each, prior in zip(reversed(moves), reversed(priors), strict=True):
        work.undo(each, prior)
    assert meant(work.see(KUEUE, "ClusterQueue", work.name("lab"))) == before


def test_flavors_of_one_pool_and_model_add_up_and_only_the_first_changes(work: Arena) -> None:
    spot, steady = flavor(work, "spot", "big"), flavor(work, "steady", "big")
    lab = work.name("lab")
    before = meant(
        queue(work, "lab", grant(spot, "3", borrowingLimit="1"), grant(steady, "5", borrowingLimit="2"), workspace=lab)
    )
    (row,) = quotas(work, lab)
    assert (row.gpus, row.borrowing_gpus) == (8.0, 3.0)
    change = set_to(row, gpus=10, borrowing_gpus=2)
    prior = work.do(change)
    work.undo(change, prior)
    assert meant(work.see(KUEUE, "ClusterQueue", work.name("lab"))) == before
    with pytest.raises(MoveRefused, match="5 GPUs lie in other flavors"):
        work.cluster.rehearse(set_to(row, gpus=4))


def test_a_status_that_moves_on_leaves_a_plan_standing_and_a_foreign_change_of_the_row_does_not(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "lab", grant(big, "8"), workspace=lab)
    (row,) = quotas(work, lab)
    work.change(KUEUE, "ClusterQueue", lab, {"metadata": {"labels": {"seen": "yes"}}})
    work.cluster.rehearse(set_to(row, gpus=9))
    work.change(KUEUE, "ClusterQueue", lab, {"spec": work.cohort("others")})
    with pytest.raises(StaleState, match="changed since"):
        work.cluster.rehearse(set_to(row, gpus=9))


def test_a_quota_changed_by_another_since_we_set_it_is_not_put_back(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "lab", grant(big, "8"), workspace=lab)
    change = set_to(quotas(work, lab)[0], gpus=9)
    prior = work.do(change)
    group = {"coveredResources": ["cpu", "nvidia.com/gpu"], "flavors": [grant(big, "20")]}
    work.change(KUEUE, "ClusterQueue", lab, {"spec": {"resourceGroups": [group]}})
    with pytest.raises(MoveRefused, match="changed by others"):
        work.undo(change, prior)


def test_a_quota_that_lies_in_two_queues_is_seen_and_not_set(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "one", grant(big, "8"), workspace=lab)
    queue(work, "two", grant(big, "3"), workspace=lab)
    (row,) = quotas(work, lab)
    assert (row.gpus, row.place) == (11.0, None)
    with pytest.raises(MoveRefused, match="which of them is to change is not known"):
        work.cluster.rehearse(set_to(row, gpus=12))


def test_a_queue_that_two_workspaces_share_speaks_for_neither_of_them(work: Arena) -> None:
    big, shared = flavor(work, "h100", "big"), work.name("shared")
    queue(work, "shared", grant(big, "8"), workspace=None)
    spaces = [f"{work.namespace}-{each}" for each in ("a", "b")]
    for space in spaces:
        work.client.create("/api/v1/namespaces", {"metadata": {"name": space}})
        work.made.append(f"/api/v1/namespaces/{space}")
        work.put(KUEUE, "LocalQueue", "q", metadata={"namespace": space}, spec={"clusterQueue": shared})
    assert [each.gpus for each in quotas(work, shared)] == [8.0]
    assert not [each for space in spaces for each in quotas(work, space)]


def test_a_queue_without_a_cohort_lends_and_borrows_nothing(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "lab", grant(big, "8"), workspace=lab, is_alone=True)
    (row,) = quotas(work, lab)
    assert (row.borrowing_gpus, row.lending_gpus) == (0.0, 0.0)
    with pytest.raises(MoveRefused, match="in no cohort"):
        work.cluster.rehearse(set_to(row, borrowing_gpus=2))
    work.do(set_to(row, gpus=9))


@pytest.mark.parametrize("policy", ["Hold", "HoldAndDrain"])
def test_queues_are_held_and_let_go(work: Arena, policy: str) -> None:
    big = flavor(work, "h100", "big")
    before = meant(queue(work, "lab", grant(big, "8"), workspace=work.name("lab")))
    here = meant(work.put(KUEUE, "LocalQueue", "q", spec={"clusterQueue": work.name("lab")}))
    for kind, space, name in (("ClusterQueue", "", work.name("lab")), ("LocalQueue", work.namespace, "q")):
        ref = ObjectRef(kind, space, name)
        found: Queue = next(each for each in work.cluster.observe().queues if each.ref == ref)
        assert found.stop_policy is None
        hold = Move(
            "m1", MoveKind.SET_QUEUE_STOP, "c1", ref, "spent", "the budget is spent",
            arguments=MappingProxyType({"stop_policy": policy}), resource_version=found.resource_version,
        )  # fmt: skip
        work.undo(hold, work.do(hold))
    assert meant(work.see(KUEUE, "ClusterQueue", work.name("lab"))) == before
    assert meant(work.see(KUEUE, "LocalQueue", "q")) == here


def test_a_queue_of_kai_is_set_and_put_back_where_it_rules(work: Arena) -> None:
    gpu = {"quota": 4, "limit": 10, "overQuotaWeight": 2}
    name = work.name("team")
    before = meant(work.put("scheduling.run.ai", "Queue", name, spec={"resources": {"gpu": gpu}}))
    (row,) = quotas(work, name)
    assert (row.gpus, row.borrowing_gpus, row.lending_gpus, row.weight) == (4.0, 6.0, None, 2.0)
    change = set_to(row, gpus=6, borrowing_gpus=None, weight=3)
    prior = work.do(change)
    work.undo(change, prior)
    assert meant(work.see("scheduling.run.ai", "Queue", name)) == before
    with pytest.raises(MoveRefused, match="KAI knows no bound"):
        work.cluster.rehearse(set_to(row, lending_gpus=1))


def test_where_no_queue_rules_the_resource_quota_of_the_namespace_does(work: Arena) -> None:
    hard = {"requests.nvidia.com/gpu": "4", "pods": "20"}
    before = meant(work.put("v1", "ResourceQuota", "gpus", spec={"hard": hard}))
    (row,) = quotas(work, work.namespace)
    assert (row.gpus, row.borrowing_gpus) == (4.0, 0.0)
    change = set_to(row, gpus=7)
    prior = work.do(change)
    work.undo(change, prior)
    assert meant(work.see("v1", "ResourceQuota", "gpus")) == before
    for numbers in ({"gpus": 2.5}, {"borrowing_gpus": 1}, {"weight": 2}):
        with pytest.raises(MoveRefused, match=r"whole number|lends and borrows nothing|has none"):
            work.cluster.rehearse(set_to(row, **numbers))
    work.put("v1", "ResourceQuota", "more", spec={"hard": {"requests.nvidia.com/gpu": "9"}})
    (row,) = quotas(work, work.namespace)
    assert row.gpus == 4.0
    with pytest.raises(MoveRefused, match="several resource quotas"):
        work.cluster.rehearse(set_to(row, gpus=8))


def test_a_quota_that_is_gone_is_stale(work: Arena) -> None:
    with pytest.raises(StaleState, match="has no quota of pool big"):
        work.cluster.rehearse(set_to(Quota("c1", work.name("lab"), 1.0, pool="big"), gpus=2))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"resourceGroups": None},
        {"resourceGroups": [{}]},
        {"resourceGroups": [{"flavors": [{"name": "f"}]}]},
        {"resourceGroups": [{"flavors": [{"name": "f", "resources": [{"name": "nvidia.com/gpu"}]}]}]},
        {"resourceGroups": [{"flavors": [{"name": "f", "resources": [{"name": "cpu", "nominalQuota": "3"}]}]}]},
        {"resourceGroups": [{"flavors": [{"name": "f", "resources": [{"name": GPU, "nominalQuota": "x"}]}]}]},
    ],
)  # fmt: skip
def test_a_queue_with_parts_missing_grants_no_gpus(spec: Object) -> None:
    body = {"kind": "ClusterQueue", "metadata": {"name": "q"}, "spec": spec}
    assert quotas_from("c1", QuotaView({"ClusterQueue": [body]})) == ()


def test_a_zero_is_a_quota_and_mig_devices_count_as_their_part_of_a_gpu() -> None:
    entries = [{"name": "nvidia.com/gpu", "nominalQuota": 0}, {"name": "nvidia.com/mig-1g.10gb", "nominalQuota": "14"}]
    spec = {"cohort": "all", "resourceGroups": [{"flavors": [{"name": "f", "resources": entries}]}]}
    body = {"kind": "ClusterQueue", "metadata": {"name": "q"}, "spec": spec}
    (row,) = quotas_from("c1", QuotaView({"ClusterQueue": [body]}))
    assert row.gpus == pytest.approx(2.0)


def test_a_cohort_that_says_whose_it_is_holds_a_quota_and_one_that_does_not_holds_none(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    group = {"coveredResources": ["nvidia.com/gpu"], "flavors": [gpus_only(big, "8")]}
    labels = {"gpusteward.dev/workspace": lab}
    root = work.put(KUEUE, "Cohort", work.name("all"), spec={"resourceGroups": [group]})
    own = {"parentName": work.name("all"), "resourceGroups": [group]}
    before = meant(work.put(KUEUE, "Cohort", work.name("own"), metadata={"labels": labels}, spec=own))
    (row,) = quotas(work, lab)
    assert (row.gpus, row.place) == (8.0, f"Cohort/{work.name('own')}")
    change = set_to(row, gpus=5, borrowing_gpus=3)
    work.undo(change, work.do(change))
    assert meant(work.see(KUEUE, "Cohort", work.name("own"))) == before
    assert meant(work.see(KUEUE, "Cohort", work.name("all"))) == meant(root)


def test_a_change_between_the_look_and_the_write_is_a_conflict_and_nothing_is_written(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "lab", grant(big, "8"), workspace=lab)
    change = change_quota(work.api, set_to(quotas(work, lab)[0], gpus=9))
    work.change(KUEUE, "ClusterQueue", lab, {"spec": {"stopPolicy": "Hold"}})
    for is_dry_run in (True, False):
        with pytest.raises(StaleState):
            change.write(is_dry_run=is_dry_run)
    assert quotas(work, lab)[0].gpus == 8.0


def test_a_status_that_moves_on_between_the_look_and_the_write_does_not_stop_it(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    queue(work, "lab", grant(big, "8"), workspace=lab)
    change = change_quota(work.api, set_to(quotas(work, lab)[0], gpus=9))
    path = work.resource(KUEUE, "ClusterQueue").path(lab, part="status")
    for seen in (1, 2):  # and does so again after it was looked at once more
        work.client.patch(path, {"status": {"pendingWorkloads": seen}})
        change.write(is_dry_run=True)
    change.write(is_dry_run=False)
    assert quotas(work, lab)[0].gpus == 9.0


def test_a_status_that_never_rests_is_told_in_the_end(work: Arena) -> None:
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    body = queue(work, "lab", grant(big, "8"), workspace=lab)
    resource = work.resource(KUEUE, "ClusterQueue")
    tried: list[str] = []

    def write(version: str) -> None:
        tried.append(version)
        work.client.patch(resource.path(lab, part="status"), {"status": {"pendingWorkloads": len(tried)}})
        message = "another version"
        raise StaleState(message)

    with pytest.raises(StaleState, match="another version"):
        write_as_meant(work.api, resource.path(lab), body, write, tries=3)
    assert len(tried) == len(set(tried)) == 3


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (8, "8"), (1000, "1k"), (1024, "1024"), (2.5, "2500m"), (0.1, "100m"), (1e-9, "1n"), (10**6, "1M"),
     (5e18, "5E"), (5e21, "5000E"), (1 / 3, "333333333n")],
)  # fmt: skip
def test_an_amount_is_written_as_servers_keep_it(number: float, text: str) -> None:
    assert amount_text(number) == text
    assert quantity(text) == pytest.approx(number, rel=1e-8)


def test_where_only_the_older_version_of_kueue_is_served_that_one_is_spoken(work: Arena) -> None:
    server = work.server or pytest.skip("which versions a real cluster serves is not ours to say")
    for kind in list(server.api.kinds.all):
        if kind.group == KUEUE:
            server.api.kinds.add(replace(kind, versions=("v1beta1",)))
    big, lab = flavor(work, "h100", "big"), work.name("lab")
    before = meant(queue(work, "lab", grant(big, "8", borrowingLimit="1"), workspace=lab))
    (row,) = quotas(work, lab)
    assert (row.gpus, row.borrowing_gpus) == (8.0, 1.0)
    change = set_to(row, gpus=9, borrowing_gpus=0)
    work.undo(change, work.do(change))
    assert meant(work.see(KUEUE, "ClusterQueue", lab)) == before


def gpus_only(name: str, nominal: str) -> Object:
    return {"name": name, "resources": [{"name": "nvidia.com/gpu", "nominalQuota": nominal}]}

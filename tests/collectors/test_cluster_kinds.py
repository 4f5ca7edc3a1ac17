"""What is read of a cluster is what `deploy/collector-rbac.yaml` grants: no less and no more."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from collectors.cluster_kinds import DRA, FOLLOWED, KUEUE, OWNERS, owner_path, version_to_read
from collectors.cluster_look import RBAC
from collectors.cluster_objects import Meta, Named, OwnerReference
from collectors.cluster_owners import Owners
from steward.compose import open_sources
from steward.config import load_settings
from store.store import Store
from tests.kube.faults import Fault
from tests.kube.kinds import Kind
from tests.kube.site import Site, standing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with standing(tmp_path, monkeypatch) as site:
        yield site


def granted() -> dict[tuple[str, str], set[str]]:
    rights: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for document in yaml.safe_load_all((ROOT / RBAC).read_text()):
        for rule in document.get("rules") or ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    rights[group, resource] |= set(rule["verbs"])
    return dict(rights)


def test_the_role_grants_exactly_what_is_followed_and_looked_up() -> None:
    followed = {(group, name): {"get", "list", "watch"} for group, names in FOLLOWED.items() for name in names}
    owners = {(group, plural): {"get", "list"} for (group, _), plural in OWNERS.items()}
    assert granted() == {**owners, **followed}


@pytest.mark.enable_socket
def test_what_is_asked_of_a_server_is_what_the_role_grants(site: Site) -> None:
    """Every kind is installed, so that every question is asked, and asked by reading only."""
    for name in FOLLOWED[KUEUE]:
        site.kube.api.kinds.add(
            Kind(KUEUE, ("v1beta2",), name, name, is_namespaced=name in {"localqueues", "workloads"})
        )
    source = site.source()
    site.turn(source)
    site.later()
    site.run("p")
    site.turn(source)
    listed = {line.partition("?")[0].removeprefix("GET ") for line in site.kube.asked} - {"/apis"}
    assert listed == {
        f"/apis/{group}/{'v1' if group == DRA else 'v1beta2'}/{name}" if group else f"/api/v1/{name}"
        for group, names in FOLLOWED.items() for name in names
    }  # fmt: skip
    assert all(line.startswith("GET ") for line in site.kube.asked)


@pytest.mark.enable_socket
def test_kueue_that_is_installed_while_we_look_is_followed_from_then_on(site: Site) -> None:
    source = site.source()
    site.turn(source)
    for name, kind in zip(FOLLOWED[KUEUE], ("ClusterQueue", "LocalQueue", "ResourceFlavor", "Workload"), strict=True):
        is_namespaced = kind in {"LocalQueue", "Workload"}
        site.kube.api.kinds.add(Kind(KUEUE, ("v1beta1",), name, kind, is_namespaced))
    version = {"apiVersion": f"{KUEUE}/v1beta1"}
    template = {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "4"}}}]}}
    workload = {"kind": "Workload", "metadata": {"name": "w", "namespace": "team"}}
    site.kube.seed({**version, **workload, "spec": {"podSets": [{"count": 2, "template": template}]}})
    site.turn(source)
    assert site.store.read("job").select("gpus", "status", "workspace").rows() == [(8.0, "pending", "research")]
    admitted = {"type": "Admitted", "status": "True", "lastTransitionTime": "2026-03-02T12:00:30Z"}
    started = site.later()
    live = site.kube.api.storage.objects["workloads.kueue.x-k8s.io", "team", "w"]
    site.kube.api.storage.put(("workloads.kueue.x-k8s.io", "team", "w"), {**live, "status": {"conditions": [admitted]}})
    site.turn(source)
    assert site.store.read("job").get_column("status").to_list() == ["running"]
    ended = site.later()
    site.kube.api.storage.drop(("workloads.kueue.x-k8s.io", "team", "w"))
    site.turn(source)
    (row,) = site.store.read("job").to_dicts()
    assert (row["status"], row["ended_at"]) == ("cancelled", ended)
    assert row["started_at"] < started


@pytest.mark.enable_socket
def test_an_object_that_is_no_object_spoils_no_other_and_is_counted(site: Site) -> None:
    site.run("good")
    site.kube.seed({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": "team"}, "spec": {"containers": 7},
    })  # fmt: skip
    (trouble,) = site.turn(site.source())
    assert (trouble.kind, trouble.place, trouble.row_count) == ("rejected", "/api/v1/pods", 1)
    assert set(site.intervals()) == {"good"}


def test_the_best_version_that_is_served_is_read() -> None:
    assert version_to_read(DRA, ["v1beta1", "v1"]) == "v1"
    assert version_to_read(KUEUE, ["v1beta1", "v9"]) == "v1beta1"
    assert version_to_read(KUEUE, ["v9"]) is None


def test_owners_of_unknown_kinds_are_not_asked_for() -> None:
    assert owner_path("apps/v1", "ReplicaSet", "team", "r") == "/apis/apps/v1/namespaces/team/replicasets/r"
    assert owner_path("ray.io/v1", "RayCluster", None, None) == "/apis/ray.io/v1/rayclusters"
    assert owner_path("v1", "Node", "team", "n1") is None
    assert owner_path("nowhere.test/v1", "Robot", "team", "r") is None


@pytest.mark.enable_socket
def test_many_owners_of_one_kind_are_asked_for_as_a_list_and_once(site: Site) -> None:
    for number in range(30):
        above = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": f"d{number}",
            "uid": f"d{number}",
            "controller": True,
        }
        meta = {"name": f"r{number}", "namespace": "team", "uid": f"r{number}", "ownerReferences": [above]}
        site.kube.seed({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta})
        site.kube.seed({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": f"d{number}", "namespace": "team", "uid": f"d{number}"},
        })  # fmt: skip
        pod = site.run(f"p{number:02}")
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": f"r{number}",
            "uid": f"r{number}",
            "controller": True,
        }
        site.kube.seed({**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner]}})
    source = site.source()
    site.turn(source)
    site.turn(source)
    assert [line for line in site.kube.asked if "/apis/apps/" in line] == [
        "GET /apis/apps/v1/replicasets?limit=500", "GET /apis/apps/v1/deployments?limit=500",
    ]  # fmt: skip
    assert set(site.store.read("pod").select("workload_kind", "workload").rows()) == {
        ("Deployment", f"d{number}") for number in range(30)
    }


CHAINS = {
    "Deployment": [("apps/v1", "ReplicaSet"), ("apps/v1", "Deployment")],
    "StatefulSet": [("apps/v1", "StatefulSet")],
    "Job": [("batch/v1", "Job")],
    "CronJob": [("batch/v1", "Job"), ("batch/v1", "CronJob")],
    "JobSet": [("batch/v1", "Job"), ("jobset.x-k8s.io/v1alpha2", "JobSet")],
    "TrainJob": [
        ("batch/v1", "Job"), ("jobset.x-k8s.io/v1alpha2", "JobSet"), ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    ],
    "PyTorchJob": [("kubeflow.org/v1", "PyTorchJob")],
    "RayCluster": [("ray.io/v1", "RayCluster")],
    "RayJob": [("ray.io/v1", "RayCluster"), ("ray.io/v1", "RayJob")],
    "InferenceService": [
        ("apps/v1", "ReplicaSet"), ("apps/v1", "Deployment"), ("serving.kserve.io/v1beta1", "InferenceService"),
    ],
    "Notebook": [("apps/v1", "StatefulSet"), ("kubeflow.org/v1", "Notebook")],
}  # fmt: skip


@pytest.mark.enable_socket
@pytest.mark.parametrize("top", CHAINS)
def test_every_workload_is_found_at_the_top_of_its_pods(site: Site, top: str) -> None:
    each, below = site.run("p"), CHAINS[top]
    for number, (api_version, kind) in enumerate(below):
        group, _, version = api_version.rpartition("/")
        if site.kube.api.kinds.find(group, version, OWNERS[group, kind]) is None:
            site.kube.api.kinds.add(Kind(group, (version,), OWNERS[group, kind], kind))
        owner = {"apiVersion": api_version, "kind": kind, "name": f"o{number}", "uid": f"o{number}", "controller": True}
        site.kube.seed({**each, "metadata": {**each["metadata"], "ownerReferences": [owner]}})
        meta = {"name": f"o{number}", "namespace": "team", "uid": f"o{number}"}
        each = {"apiVersion": api_version, "kind": kind, "metadata": meta}
    site.kube.seed(each)
    assert site.turn(site.source()) == ()
    assert site.store.read("pod").select("workload_kind", "workload").rows() == [(top, f"o{len(below) - 1}")]


@pytest.mark.enable_socket
def test_owners_that_may_not_be_read_are_told_once_a_look_and_named_by_their_reference(site: Site) -> None:
    pod = site.run("p")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}
    site.kube.seed({**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner]}})
    site.kube.faults.add(Fault("/apis/batch", status=403, times=9))
    (trouble,) = site.turn(site.source())
    assert (trouble.kind, trouble.place) == ("noticed", "batch/v1/Job")
    assert site.store.read("pod").select("workload_kind", "workload").rows() == [("Job", "j")]


def test_a_circle_of_owners_ends() -> None:
    one, two = OwnerReference("A", "a", "1", "x/v1"), OwnerReference("B", "b", "2", "x/v1")

    class Circle:
        def one(self, namespace: str, owner: OwnerReference) -> Named:  # noqa: ARG002 - a `Registry`
            above = msgspec.structs.replace(two if owner.uid == "1" else one, controller=True)
            return Named(Meta(owner.name, owner.uid, owner_references=[above]))

        def every(self, owner: OwnerReference) -> dict[str, Named]:  # noqa: ARG002 - a `Registry`
            return {}

    owners = Owners()
    assert owners.walk([("team", one)], Circle()) == 2
    assert owners.top(one) in {("A", "a"), ("B", "b")}


@pytest.mark.enable_socket
def test_each_context_of_the_settings_is_a_source_of_its_own(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "steward.toml"
    file.write_text('[collect]\nsources = ["kubernetes"]\ncontexts = ["east", "west"]\n')
    with Store.open(None, clock=site.ours) as store:
        sources = open_sources(load_settings(file, {}), store, site.ours, ["kubernetes"])
        assert [each.name for each in sources] == ["kubernetes:east", "kubernetes:west"]
        file.write_text('[collect]\ncluster = "home"\n')
        (alone,) = open_sources(load_settings(file, {}), store, site.ours, ["kubernetes"])
        assert alone.name == "kubernetes:home"


@pytest.mark.enable_socket
def test_a_pod_that_went_with_its_own_claim_between_two_turns_is_told_with_what_it_held(site: Site) -> None:
    driver = {"apiVersion": f"{DRA}/v1"}
    selectors = [{"cel": {"expression": "device.driver == 'gpu.nvidia.com' && attributes.type == 'gpu'"}}]
    site.kube.seed({**driver, "kind": "DeviceClass", "metadata": {"name": "gpus"}, "spec": {"selectors": selectors}})
    source = site.source()
    site.turn(source)
    pod = site.run("p", 0)
    made = {"resourceClaims": [{"name": "g", "resourceClaimTemplateName": "t"}]}
    status = {"resourceClaimStatuses": [{"name": "g", "resourceClaimName": "p-g"}]}
    site.kube.seed({**pod, "spec": {**pod["spec"], **made}, "status": {**pod["status"], **status}})
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": True}
    meta = {"name": "p-g", "namespace": "team", "ownerReferences": [owner]}
    devices = {"requests": [{"name": "g", "exactly": {"deviceClassName": "gpus", "count": 2}}]}
    site.kube.seed({**driver, "kind": "ResourceClaim", "metadata": meta, "spec": {"devices": devices}})
    ended = site.later()
    site.drop("p")
    site.kube.api.storage.drop(("resourceclaims.resource.k8s.io", "team", "p-g"))
    site.turn(source)
    assert site.store.read("pod").select("pod", "gpus", "ends_at").rows() == [("p", 2.0, ended)]

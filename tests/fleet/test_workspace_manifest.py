"""Manifests of workspaces are read strictly: every complaint names the field and the place, and nothing is left out."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import BadInput
from fleet.workspace import Isolation, Seat, Share, Space, Workspace
from fleet.workspace_manifest import manifest_of, workspace_from

WHOLE: dict[str, Any] = {
    "apiVersion": "gpusteward.dev/v1alpha1",
    "kind": "Workspace",
    "metadata": {"name": "lab"},
    "spec": {
        "owner": "ann@example.org",
        "clusters": ["east", "west"],
        "namespaces": [{"name": "lab-a", "clusters": ["east"], "adopt": True}, {"name": "lab-b", "gpus": 2}],
        "allowedNamespaces": ["monitoring"],
        "quotas": [{"cluster": "east", "pool": "h100", "gpus": 8, "borrowingGpus": 0, "weight": 2}, {"gpus": 0}],
        "cohort": "labs",
        "limits": {"cpu": 64, "memory": "512Gi"},
        "most": {"cpu": "8"},
        "roles": [{"role": "Editor", "groups": ["lab"]}],
        "isolation": {"enabled": True, "internet": True},
    },
}


def test_a_whole_manifest_is_read_as_it_says() -> None:
    assert workspace_from(WHOLE, "lab.yaml:1") == Workspace(
        name="lab",
        owner="ann@example.org",
        clusters=("east", "west"),
        namespaces=(Space("lab-a", ("east",), adopt=True), Space("lab-b", gpus=2)),
        allowed_namespaces=("monitoring",),
        quotas=(Share(8, "east", "h100", None, 0, None, 2.0), Share(0)),
        cohort="labs",
        limits={"cpu": "64", "memory": "512Gi"},
        most={"cpu": "8"},
        seats=(Seat("Editor", (), ("lab",)),),
        isolation=Isolation(internet=True),
    )


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("apiVersion", "v1", "apiVersion: 'v1' is not gpusteward.dev/v1alpha1"),
        ("kind", "Namespace", "kind: 'Namespace' is not Workspace"),
        ("colour", "red", "colour: there is no such field"),
        ("metadata", [], "metadata: [] is no mapping"),
        ("metadata.name", "Lab_1", "metadata.name: 'Lab_1' is no name"),
        ("metadata.labels", {}, "metadata.labels: there is no such field"),
        ("spec.quota", [], "spec.quota: there is no such field"),
        ("spec.namespaces", [], "spec.namespaces: a workspace needs at least one"),
        ("spec.namespaces", "lab", "spec.namespaces: 'lab' is no list"),
        ("spec.namespaces.0", "lab-a", "spec.namespaces[0]: 'lab-a' is no mapping"),
        ("spec.namespaces.0.name", None, "spec.namespaces[0].name: None is no name"),
        ("spec.namespaces.0.name", "lab-b", "spec.namespaces: 'lab-b' stands there twice"),
        ("spec.namespaces.0.name", "kube-system", "spec.namespaces[0].name: kube-system is a namespace of the cluster"),
        ("spec.namespaces.0.name", "default", "spec.namespaces[0].name: default is a namespace of the cluster"),
        ("spec.namespaces.0.adopt", "yes", "spec.namespaces[0].adopt: 'yes' is neither true nor false"),
        ("spec.namespaces.0.clusters", ["north"], "spec.namespaces[0].clusters: 'north' is not among"),
        ("spec.namespaces.1.gpus", True, "spec.namespaces[1].gpus: True is no whole number"),
        ("spec.clusters", ["east", "*"], 'spec.clusters: "*" means every cluster'),
        ("spec.clusters", ["east", "east"], "spec.clusters: 'east' stands there twice"),
        ("spec.owner", 7, "spec.owner: 7 is no text"),
        ("spec.owner", "  ", "spec.owner: '  ' is no text"),
        ("spec.quotas.0.gpus", -1, "spec.quotas[0].gpus: -1 is no whole number"),
        ("spec.quotas.0.gpus", 1.5, "spec.quotas[0].gpus: 1.5 is no whole number"),
        ("spec.quotas.0.gpus", None, "spec.quotas[0].gpus: a quota needs a number"),
        ("spec.quotas.0.weight", 0, "spec.quotas[0].weight: 0 is no number above 0"),
        ("spec.quotas.0.weight", float("nan"), "spec.quotas[0].weight: nan is no number above 0"),
        ("spec.quotas.1.lendingGpus", 1, "spec.quotas[1].lendingGpus: 1 are more than the 0 GPUs"),
        ("spec.quotas.0.cluster", "north", "spec.quotas[0].cluster: 'north' is not among"),
        ("spec.quotas.1", {"cluster": "east", "pool": "h100", "gpus": 1}, "stand in an earlier quota already"),
        ("spec.quotas.1", {"cluster": "east", "gpus": 1, "weight": 3}, "a workspace has one weight"),
        ("spec.limits.gpus", "8", "spec.limits.gpus: there is no such field"),
        ("spec.limits.cpu", "lots", "spec.limits.cpu: 'lots' is no amount"),
        ("spec.limits.cpu", -4, "spec.limits.cpu: -4 is no amount"),
        ("spec.limits.cpu", True, "spec.limits.cpu: True is no amount"),
        ("spec.roles.0.role", "Boss", "spec.roles[0].role: 'Boss' is not one of Owner, Editor, Viewer"),
        ("spec.roles.0.groups", [], "spec.roles[0].users: a role needs users or groups"),
        ("spec.roles.0.groups", ["a", ""], "spec.roles[0].groups[1]: '' is no text"),
        ("spec.isolation", {"on": True}, "spec.isolation.on: there is no such field"),
        ("spec.cohort", "A B", "spec.cohort: 'A B' is no name"),
    ],
)
def test_what_is_wrong_is_told_with_its_field_and_place(path: str, value: object, complaint: str) -> None:
    manifest = copy.deepcopy(WHOLE)
    inner: Any = manifest
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[int(name)] if name.isdecimal() else inner[name]
    inner[int(last) if last.isdecimal() else last] = value
    with pytest.raises(BadInput) as error:
        workspace_from(manifest, "lab.yaml:1")
    assert complaint in str(error.value)
    assert str(error.value).startswith("lab.yaml:1: ")
    assert error.value.place == "lab.yaml:1"


@pytest.mark.parametrize("manifest", [None, [], "text", 7])
def test_what_is_no_mapping_at_all_is_refused(manifest: object) -> None:
    with pytest.raises(BadInput, match="a manifest is a mapping"):
        workspace_from(manifest, "stdin")


NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,10}[a-z0-9]\Z").filter(lambda name: not name.startswith("kube-"))
COUNTS = st.none() | st.integers(0, 1000)


def _shares(pools: list[int]) -> st.SearchStrategy[tuple[Share, ...]]:
    none = st.none()
    lends = st.none() | st.integers(0, 64)
    return st.tuples(
        *(st.builds(Share, st.integers(64, 1000), none, st.just(f"p{pool}"), none, COUNTS, lends) for pool in pools)
    )


def _spaces(names: list[str]) -> tuple[Space, ...]:
    return tuple(Space(name, adopt=len(name) % 2 == 0) for name in names)


WORKSPACES = st.builds(
    Workspace,
    name=NAMES,
    owner=st.none() | st.just("ann"),
    namespaces=st.lists(NAMES.filter(lambda name: name != "default"), min_size=1, max_size=3, unique=True).map(_spaces),
    quotas=st.lists(st.integers(0, 9), max_size=3, unique=True).flatmap(_shares),
    limits=st.dictionaries(st.sampled_from(["cpu", "memory"]), st.just("8")),
    isolation=st.builds(Isolation, st.booleans(), st.booleans()),
    seats=st.sampled_from([(), (Seat("Owner", ("ann",)),)]),
    cohort=NAMES,
)


@given(workspace=WORKSPACES)
def test_a_workspace_written_as_a_manifest_is_read_back_the_same(workspace: Workspace) -> None:
    assert workspace_from(manifest_of(workspace), "written") == workspace

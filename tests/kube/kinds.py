"""Which kinds the server serves: built-in ones, and those that custom resource definitions add while it runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.kube.answers import Object


@dataclass(frozen=True)
class Kind:
    """A kind: its group ("" = core), served versions (the first is preferred), plural, and what it can do."""

    group: str
    versions: tuple[str, ...]
    plural: str
    name: str
    is_namespaced: bool = True
    has_status: bool = False
    has_scale: bool = False
    keeps_status_at_birth: bool = False

    @property
    def key(self) -> str:
        return f"{self.plural}.{self.group}"

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version


def _core(plural: str, name: str, *, is_namespaced: bool = True, has_status: bool = False, born: bool = False) -> Kind:
    return Kind("", ("v1",), plural, name, is_namespaced, has_status, keeps_status_at_birth=born)


BUILT_IN = (
    _core("namespaces", "Namespace", is_namespaced=False, has_status=True),
    _core("nodes", "Node", is_namespaced=False, has_status=True, born=True),
    _core("pods", "Pod", has_status=True),
    _core("events", "Event"),
    _core("configmaps", "ConfigMap"),
    _core("secrets", "Secret"),
    _core("services", "Service", has_status=True),
    _core("serviceaccounts", "ServiceAccount"),
    _core("resourcequotas", "ResourceQuota", has_status=True),
    _core("limitranges", "LimitRange"),
    Kind("apps", ("v1",), "deployments", "Deployment", has_status=True, has_scale=True),
    Kind("apps", ("v1",), "replicasets", "ReplicaSet", has_status=True, has_scale=True),
    Kind("apps", ("v1",), "statefulsets", "StatefulSet", has_status=True, has_scale=True),
    Kind("apps", ("v1",), "daemonsets", "DaemonSet", has_status=True),
    Kind("batch", ("v1",), "jobs", "Job", has_status=True),
    Kind("batch", ("v1",), "cronjobs", "CronJob", has_status=True),
    Kind("policy", ("v1",), "poddisruptionbudgets", "PodDisruptionBudget", has_status=True),
    Kind("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy"),
    Kind("coordination.k8s.io", ("v1",), "leases", "Lease"),
    Kind("rbac.authorization.k8s.io", ("v1",), "roles", "Role"),
    Kind("rbac.authorization.k8s.io", ("v1",), "rolebindings", "RoleBinding"),
    Kind("rbac.authorization.k8s.io", ("v1",), "clusterroles", "ClusterRole", is_namespaced=False),
    Kind("rbac.authorization.k8s.io", ("v1",), "clusterrolebindings", "ClusterRoleBinding", is_namespaced=False),
    Kind("resource.k8s.io", ("v1",), "resourceclaims", "ResourceClaim", has_status=True),
    Kind("resource.k8s.io", ("v1",), "resourceclaimtemplates", "ResourceClaimTemplate"),
    Kind("resource.k8s.io", ("v1",), "resourceslices", "ResourceSlice", is_namespaced=False),
    Kind("resource.k8s.io", ("v1beta2", "v1alpha3"), "devicetaintrules", "DeviceTaintRule", is_namespaced=False),
    Kind("events.k8s.io", ("v1",), "events", "Event"),
    Kind("resource.k8s.io", ("v1",), "deviceclasses", "DeviceClass", is_namespaced=False),
    Kind(
        "apiextensions.k8s.io",
        ("v1",),
        "customresourcedefinitions",
        "CustomResourceDefinition",
        is_namespaced=False,
        has_status=True,
    ),
)
CRDS = "customresourcedefinitions.apiextensions.k8s.io"


def kind_of_crd(crd: Object) -> Kind:
    """Return the kind that a custom resource definition makes; the newest served version is preferred."""
    spec = crd["spec"]
    served = [each for each in spec["versions"] if each.get("served", True)]
    subresources = [each.get("subresources") or {} for each in served]
    return Kind(
        spec["group"],
        tuple(each["name"] for each in served),
        spec["names"]["plural"],
        spec["names"]["kind"],
        spec["scope"] == "Namespaced",
        has_status=any("status" in each for each in subresources),
        has_scale=any("scale" in each for each in subresources),
    )


@dataclass
class Kinds:
    """All kinds that are served now."""

    all: list[Kind] = field(default_factory=lambda: list(BUILT_IN))

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return next(
            (each for each in self.all if (each.group, each.plural) == (group, plural) and version in each.versions),
            None,
        )

    def add(self, kind: Kind) -> None:
        self.remove(kind.key)
        self.all.append(kind)

    def remove(self, key: str) -> None:
        self.all = [each for each in self.all if each.key != key]

    def groups(self) -> Object:
        """Return what `/apis` answers."""
        names = dict.fromkeys(each.group for each in self.all if each.group)
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self.group(name) for name in names]}

    def group(self, name: str) -> Object:
        versions = dict.fromkeys(version for each in self.all if each.group == name for version in each.versions)
        listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
        return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": listed, "preferredVersion": listed[0]}

    def resources(self, group: str, version: str) -> Object:
        """Return what `/api/v1` and `/apis/GROUP/VERSION` answer."""
        kinds = [each for each in self.all if each.group == group and version in each.versions]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [resource for kind in kinds for resource in _resources(kind)],
        }


def _resources(kind: Kind) -> Iterable[Object]:
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    whole = {"name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.is_namespaced}
    yield {**whole, "kind": kind.name, "verbs": verbs}
    for name, has_it in (("status", kind.has_status), ("scale", kind.has_scale)):
        if has_it:
            yield {**whole, "name": f"{kind.plural}/{name}", "kind": kind.name, "verbs": ["get", "patch", "update"]}
    if kind.plural == "pods":
        for name in ("binding", "eviction"):
            yield {**whole, "name": f"pods/{name}", "kind": name.capitalize(), "verbs": ["create"]}

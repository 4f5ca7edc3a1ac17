"""Which rights a request needs, and whether the roles in `deploy/` grant it."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.kube.answers import Object
from tests.kube.arrange import Arranger

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ("rbac-read.yaml", "rbac-act.yaml", "rbac-workspaces.yaml")
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
Right = tuple[str, str, str]  # API group, resource (with its part), verb


def roles(files: Iterable[str] = FILES) -> list[Object]:
    """Return the ClusterRoles of these files."""
    documents = [each for name in files for each in yaml.safe_load_all((DEPLOY / name).read_text())]
    return [each for each in documents if each["kind"] == "ClusterRole"]


def granted(files: Iterable[str] = FILES) -> set[Right]:
    """Return what these files grant on all objects of a kind."""
    return {
        (group, resource, verb)
        for role in roles(files)
        for rule in role["rules"]
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_of(line: str) -> set[Right]:
    """Return the rights that a request (`PATCH /api/v1/nodes/n1?...`) needs; what everybody may ask needs none."""
    verb, _, address = line.partition(" ")
    path, _, query = address.partition("?")
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:2]), parts[3:])
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest or parts[0] not in {"api", "apis"}:
        return set()
    resource = "/".join([rest[0], *rest[2:3]])
    if verb == "GET":
        return {(group, resource, "get" if len(rest) > 1 else "list")}
    needed = {(group, resource, _VERBS[verb])}
    # an object that an apply makes must also be allowed to be created
    return needed | ({(group, resource, "create")} if verb == "PATCH" and "force=" in query else set())


def missing(lines: Iterable[str]) -> set[Right]:
    """Return the rights that these requests need and nobody grants."""
    return {right for line in lines for right in rights_of(line)} - granted()


def bound_account(arrange: Arranger, admin: Path, path: Path) -> Path:
    """Make an account that is bound to the roles and nothing else, and write the kubeconfig that acts as it."""
    client, name = arrange.client, arrange.namespace
    group = "/apis/rbac.authorization.k8s.io/v1"
    client.create(arrange.path("serviceaccounts"), {"metadata": {"name": "gpu-steward"}})
    account = {"kind": "ServiceAccount", "name": "gpu-steward", "namespace": name}
    for role in roles():
        own = f"{name}-{role['metadata']['name']}"
        client.create(f"{group}/clusterroles", {"metadata": {"name": own}, "rules": role["rules"]})
        of = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": own}
        binding = {"metadata": {"name": own}, "roleRef": of, "subjects": [account]}
        client.create(f"{group}/clusterrolebindings", binding)
        arrange.made += [f"{group}/clusterroles/{own}", f"{group}/clusterrolebindings/{own}"]
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = client.create(arrange.path("serviceaccounts", "gpu-steward/token"), asked)["status"]["token"]
    config = yaml.safe_load(admin.read_text())
    context = next(each for each in config["contexts"] if each["name"] == config["current-context"])
    config["users"] = [{"name": context["context"]["user"], "user": {"token": token}}]
    path.write_text(yaml.safe_dump(config))
    return path

"""From a request to what answers it: paths, queries, verbs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.kube.answers import Object, Refusal, not_found
from tests.kube.kinds import Kind
from tests.kube.patches import json_patch, merge, strategic
from tests.kube.selectors import Test, by_fields, by_labels
from tests.kube.subresources import bind, evict, scale_of, set_scale
from tests.kube.verbs import Api, How

_APPLY = "application/apply-patch+yaml"
_PATCHES: Mapping[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge,
    "application/strategic-merge-patch+json": strategic,
    "application/json-patch+json": json_patch,
}


@dataclass(frozen=True)
class Request:
    """One request, read."""

    verb: str
    path: str
    query: Mapping[str, str]
    body: object
    content_type: str
    accept: str
    agent: str


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    kind: Kind
    version: str
    namespace: str
    name: str
    part: str


def target_of(api: Api, path: str) -> Target | None:
    """Return what a path names; None where it names no kind."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, version, rest = "", "".join(parts[1:2]), parts[2:]
    elif parts[:1] == ["apis"]:
        group, version, rest = "".join(parts[1:2]), "".join(parts[2:3]), parts[3:]
    else:
        return None
    namespace = ""
    inner = api.kinds.find(group, version, rest[2]) if rest[:1] == ["namespaces"] and len(rest) > 2 else None
    if inner is not None and inner.is_namespaced:
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return None
    kind = api.kinds.find(group, version, rest[0])
    if kind is None:
        raise Refusal(404, "the server could not find the requested resource")
    name, part = (*rest[1:3], "", "")[:2]
    return Target(kind, version, namespace, name, part)


def discover(api: Api, path: str) -> Object:
    """Answer what the server is and serves."""
    parts = [part for part in path.split("/") if part]
    if parts in (["healthz"], ["readyz"], ["livez"]):
        return {"status": "ok"}
    if parts == ["version"]:
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-in-memory"}
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["api", "v1"]:
        return api.kinds.resources("", "v1")
    if parts == ["apis"]:
        return api.kinds.groups()
    groups = {each.group for each in api.kinds.all}
    if parts[:1] == ["apis"] and len(parts) in {2, 3} and parts[1] in groups:
        return api.kinds.group(parts[1]) if len(parts) == 2 else api.kinds.resources(parts[1], parts[2])
    raise Refusal(404, "the server could not find the requested resource")


def test_of(target: Target, query: Mapping[str, str]) -> Test:
    """Return the test that the selectors of a list or watch make."""
    labels = by_labels(query.get("labelSelector", ""))
    fields = by_fields(query.get("fieldSelector", ""), target.kind.plural)
    name = target.name
    return lambda each: labels(each) and fields(each) and (not name or each["metadata"]["name"] == name)


def shown(target: Target, each: Object, accept: str) -> Object:
    """Return an object in the version and form that were asked for."""
    if "as=PartialObjectMetadata" in accept:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": each["metadata"]}
    if each.get("kind") != target.kind.name:
        return each
    return {**each, "apiVersion": target.kind.api_version(target.version)}


def answer(api: Api, request: Request) -> tuple[int, Object]:
    """Answer a request that is no watch."""
    target = target_of(api, request.path)
    if target is None:
        return 200, discover(api, request.path)
    query = request.query
    if query.get("dryRun", "All") != "All":
        raise Refusal(400, "dryRun: Unsupported value")
    how = How(
        "dryRun" in query,
        query.get("fieldManager") or request.agent.partition("/")[0] or "unknown",
        query.get("force") == "true",
    )
    if request.verb == "GET":
        return 200, _read(api, target, request)
    if request.verb == "POST":
        return 201, _create(api, target, _object(request), how)
    if request.verb == "DELETE":
        return 200, _delete(api, target, request, how)
    if request.verb == "PUT":
        return 200, _update(api, target, _object(request), how)
    return _patch(api, target, request, how)


def _read(api: Api, target: Target, request: Request) -> Object:
    query = request.query
    if target.name:
        found = api.read(target.kind, target.namespace, target.name)
        return _scale(target, found) if target.part == "scale" else shown(target, found, request.accept)
    limit, token = int(query.get("limit", "0")), query.get("continue", "")
    is_plain = not query.get("labelSelector") and not query.get("fieldSelector")
    test = test_of(target, query)
    items, revision, next_, left = api.storage.page(target.kind.key, target.namespace, test, limit, token)
    meta: Object = {"resourceVersion": str(revision)}
    if next_:
        meta |= {"continue": next_, **({"remainingItemCount": left} if is_plain else {})}
    is_partial = "as=PartialObjectMetadata" in request.accept
    return {
        "kind": "PartialObjectMetadataList" if is_partial else f"{target.kind.name}List",
        "apiVersion": target.kind.api_version(target.version),
        "metadata": meta,
        "items": [shown(target, each, request.accept) for each in items],
    }


def _create(api: Api, target: Target, body: Object, how: How) -> Object:
    if not target.name:
        body = {"apiVersion": target.kind.api_version(target.version), **body}
        return shown(target, api.create(target.kind, target.namespace, body, how), "")
    made = {"binding": bind, "eviction": evict}.get(target.part)
    if made is None or target.kind.plural != "pods":
        raise Refusal(405, f"{target.part}: the server does not allow this method on the requested resource")
    with api.storage.changed:
        return made(api, target.kind, api.read(target.kind, target.namespace, target.name), body, how)


def _delete(api: Api, target: Target, request: Request, how: How) -> Object:
    options = request.body if isinstance(request.body, dict) else {}
    if options:  # as the real server reads them: from the body alone, where there is one
        how = How("All" in (options.get("dryRun") or ()), how.manager)
    if "gracePeriodSeconds" in request.query:
        options = {**options, "gracePeriodSeconds": int(request.query["gracePeriodSeconds"])}
    if target.name:
        return shown(target, api.delete(target.kind, target.namespace, target.name, how, options), "")
    items, *_ = api.storage.page(target.kind.key, target.namespace, test_of(target, request.query), 0, "")
    for each in items:
        api.delete(target.kind, each["metadata"].get("namespace", ""), each["metadata"]["name"], how, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _update(api: Api, target: Target, body: Object, how: How) -> Object:
    if target.part == "scale":
        with api.storage.changed:
            live = api.read(target.kind, target.namespace, target.name)
            _scale(target, live)
            return set_scale(api, target.kind, live, body, how)
    _check_part(target)
    made = api.update(target.kind, target.namespace, target.name, body, how, part=target.part)
    return shown(target, made, "")


def _patch(api: Api, target: Target, request: Request, how: How) -> tuple[int, Object]:
    if request.content_type == _APPLY:
        if "fieldManager" not in request.query:
            raise Refusal(400, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value for apply patch")
        is_new = api.storage.get((target.kind.key, target.namespace, target.name)) is None
        made = api.apply(target.kind, target.namespace, target.name, _object(request), how)
        return 201 if is_new else 200, shown(target, made, "")
    change = _PATCHES.get(request.content_type)
    is_custom = target.kind.group not in {"", "apps", "batch", "policy"} and not target.kind.group.endswith(".k8s.io")
    if change is None or (change is strategic and is_custom):
        raise Refusal(415, f"the body of the request was in an unknown format - {request.content_type}")
    with api.storage.changed:
        live = api.read(target.kind, target.namespace, target.name)
        body: Object = change(_scale(target, live) if target.part == "scale" else live, request.body)
        return 200, _update(api, target, body, how)


def _scale(target: Target, live: Object) -> Object:
    if not target.kind.has_scale:
        raise not_found(target.kind.plural, f"{target.name}/scale")
    return scale_of(live)


def _check_part(target: Target) -> None:
    if target.part and not (target.part == "status" and target.kind.has_status):
        raise Refusal(404, "the server could not find the requested resource")


def _object(request: Request) -> Object:
    if not isinstance(request.body, dict):
        raise Refusal(400, "the object provided is unrecognized")
    return request.body

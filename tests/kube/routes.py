"""From a request to what answers it: paths, queries, verbs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.kube.access import ADMIN, Ask, User, answer_review, check, check_grant, issue_token, service_account
from tests.kube.answers import UNKNOWN_PATH, Object, Refusal, invalid, required, unsupported
from tests.kube.decoding import By, Reading, shape_of
from tests.kube.events import as_core, as_new
from tests.kube.kinds import Kind
from tests.kube.patches import json_patch, merge, strategic
from tests.kube.selectors import Test, by_fields, by_labels
from tests.kube.subresources import bind, evict, scale_of, set_scale
from tests.kube.verbs import Api, How

_APPLY = "application/apply-patch+yaml"
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES: Mapping[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge,
    "application/json-patch+json": json_patch,
}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}


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
    user: User = ADMIN
    tokens: dict[str, User] = field(default_factory=dict)

    @property
    def is_watch(self) -> bool:
        return self.verb == "GET" and self.query.get("watch") in {"1", "true"}


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
        is_served = any((each.group, version in each.versions) == (group, True) for each in api.kinds.all)
        raise Refusal(404, UNKNOWN_PATH if is_served else "404 page not found", is_text=not is_served)
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
    raise Refusal(404, "404 page not found", is_text=True)


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
    if target.kind.name == "Event":
        each = as_new(each) if target.kind.group else as_core(each)
    return {**each, "apiVersion": target.kind.api_version(target.version)}


def answer(api: Api, request: Request) -> tuple[int, Object]:
    """Answer a request that is no watch."""
    target = target_of(api, request.path)
    if target is None:
        return 200, discover(api, request.path)
    authorize(api, target, request)
    if target.kind.verbs and _ask_of(target, request).verb not in target.kind.verbs:
        raise Refusal(405, "the server does not allow this method on the requested resource")
    how = _how(api, request)
    if request.verb == "GET":
        return 200, _read(api, target, request)
    if request.verb == "POST":
        return 201, _create(api, target, request, how)
    if request.verb == "DELETE":
        return 200, _delete(api, target, request, how)
    if request.verb == "PUT":
        return 200, _update(api, target, _object(request), how)
    return _patch(api, target, request, how)


def authorize(api: Api, target: Target, request: Request) -> None:
    """Refuse what who asks may not do."""
    check(api, request.user, target.kind, _ask_of(target, request))


def _ask_of(target: Target, request: Request) -> Ask:
    kind = target.kind
    resource = f"{kind.plural}/{target.part}" if target.part else kind.plural
    if request.verb == "GET":
        verb = "watch" if request.is_watch else "get" if target.name else "list"
    elif request.verb == "DELETE":
        verb = "delete" if target.name else "deletecollection"
    else:
        verb = _VERBS[request.verb]
    return Ask(verb, kind.group, resource, target.namespace, target.name)


def _how(api: Api, request: Request) -> How:
    query, options = request.query, f"{_OPTIONS.get(request.verb, 'GetOptions')}.meta.k8s.io"
    if query.get("dryRun", "All") != "All":
        raise invalid(options, "", [unsupported("dryRun", [query["dryRun"]], ("All",))])
    known = ("", "Ignore", "Strict", "Warn")
    if query.get("fieldValidation", "") not in known:
        wrong = unsupported("fieldValidation", query["fieldValidation"], known)
        raise invalid(options, "", [wrong])
    by: By = "write" if request.verb != "PATCH" else "apply" if request.content_type == _APPLY else "patch"
    return How(
        "dryRun" in query,
        query.get("fieldManager") or request.agent.partition("/")[0] or "unknown",
        query.get("force") == "true",
        Reading(by, query.get("fieldValidation") == "Strict"),
        lambda kind, made: check_grant(api, request.user, kind, made),
    )


def _read(api: Api, target: Target, request: Request) -> Object:
    query = request.query
    if target.name:
        _check_part(target)
        found = api.read(target.kind, target.namespace, target.name)
        return scale_of(found) if target.part == "scale" else shown(target, found, request.accept)
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
        "items": [_listed(target, shown(target, each, request.accept)) for each in items],
    }


def _listed(target: Target, each: Object) -> Object:
    """Return an object as lists have it: of built-in kinds, its kind and version stand in the list alone."""
    is_whole = target.kind.is_custom or each.get("kind") == "PartialObjectMetadata"
    return each if is_whole else {name: value for name, value in each.items() if name not in {"kind", "apiVersion"}}


def _create(api: Api, target: Target, request: Request, how: How) -> Object:
    kind, body = target.kind, _object(request)
    if kind.verbs == ("create",):
        return answer_review(api, request.user, kind, body)
    if not target.name:
        if kind.is_custom and not body.get("kind"):
            raise Refusal(400, f"the object provided is unrecognized (must be of type {kind.name})")
        body = {"apiVersion": kind.api_version(target.version), **body}
        return shown(target, api.create(kind, target.namespace, body, how), "")
    made = {"binding": bind, "eviction": evict}.get(target.part)
    with api.storage.changed:
        if (kind.plural, target.part) == ("serviceaccounts", "token"):
            api.read(kind, target.namespace, target.name)
            return issue_token(api, service_account(target.namespace, target.name), request.tokens, body)
        if made is None or kind.plural != "pods":
            raise Refusal(405, "the server does not allow this method on the requested resource")
        return made(api, kind, api.read(kind, target.namespace, target.name), body, how)


def _delete(api: Api, target: Target, request: Request, how: How) -> Object:
    kind = target.kind
    options = request.body if isinstance(request.body, dict) else {}
    if options:  # as the real server reads them: from the body alone, where there is one
        how = replace(how, is_dry_run="All" in (options.get("dryRun") or ()))
    if "gracePeriodSeconds" in request.query:
        options = {**options, "gracePeriodSeconds": int(request.query["gracePeriodSeconds"])}
    if target.name:
        gone = api.delete(kind, target.namespace, target.name, how, options)
        is_there = api.storage.get((kind.key, target.namespace, target.name)) is not None and not how.is_dry_run
        if is_there or kind.tells_deleted:
            return shown(target, gone, "")
        told = {**kind.about(target.name), "uid": gone["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": told}
    items, *_ = api.storage.page(kind.key, target.namespace, test_of(target, request.query), 0, "")
    for each in items:
        api.delete(kind, each["metadata"].get("namespace", ""), each["metadata"]["name"], how, options)
    head = {"kind": f"{kind.name}List", "apiVersion": kind.api_version(target.version), "metadata": {}}
    return {**head, "items": [_listed(target, each) for each in items]}


def _update(api: Api, target: Target, body: Object, how: How) -> Object:
    _check_part(target)
    if target.part == "scale":
        with api.storage.changed:
            live = api.read(target.kind, target.namespace, target.name)
            return set_scale(api, target.kind, live, body, how)
    made = api.update(target.kind, target.namespace, target.name, body, how, part=target.part)
    return shown(target, made, "")


def _patch(api: Api, target: Target, request: Request, how: How) -> tuple[int, Object]:
    kind = target.kind
    if request.content_type == _APPLY:
        if "fieldManager" not in request.query:
            wrong = required("fieldManager", "is required for apply patch")
            options = "PatchOptions.meta.k8s.io"
            raise invalid(options, "", [wrong])
        is_new = api.storage.get((kind.key, target.namespace, target.name)) is None
        if is_new:
            check(api, request.user, kind, Ask("create", kind.group, kind.plural, target.namespace, target.name))
        made = api.apply(kind, target.namespace, target.name, _object(request), how)
        return 201 if is_new else 200, shown(target, made, "")
    known = [*_PATCHES, *([] if kind.is_custom else [_STRATEGIC]), _APPLY]
    if request.content_type not in known:
        accepted = ", ".join(known)
        why = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        raise Refusal(415, why)
    with api.storage.changed:
        _check_part(target)
        live = api.read(kind, target.namespace, target.name)
        whole = scale_of(live) if target.part == "scale" else shown(target, live, "")
        if request.content_type == _STRATEGIC:
            body: Object = strategic(whole, request.body, shape_of(kind, whole))
        else:
            body = _PATCHES[request.content_type](whole, request.body)
        return 200, _update(api, target, body, how)


def _check_part(target: Target) -> None:
    has_it = {"": True, "status": target.kind.has_status, "scale": target.kind.has_scale}
    if not has_it.get(target.part, False):
        raise Refusal(404, UNKNOWN_PATH)


def _object(request: Request) -> Object:
    if not isinstance(request.body, dict):
        raise Refusal(400, "the object provided is unrecognized")
    return request.body

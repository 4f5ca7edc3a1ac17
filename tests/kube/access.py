"""Who asks, and what the RBAC objects that the server holds let them do."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.message import Message

from tests.kube.answers import Object, Refusal, bad, invalid
from tests.kube.kinds import Kind
from tests.kube.rules import text_of
from tests.kube.verbs import Api

_RBAC = "rbac.authorization.k8s.io"
_MASTERS = "system:masters"
_EVERYBODY = (
    {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
     "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
)  # fmt: skip
_ALL = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_OPEN_PATHS = [
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
    "/version/",
]  # fmt: skip


@dataclass(frozen=True)
class User:
    """Who a request is from."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_master(self) -> bool:
        return _MASTERS in self.groups


ADMIN = User("kubernetes-admin", (_MASTERS, "system:authenticated"))


def service_account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def user_of(headers: Message, tokens: Mapping[str, User]) -> User:
    """Return who sends these headers: whose token it is (any other one is the administrator's), or whom he plays."""
    user = tokens.get(headers.get("Authorization", "").removeprefix("Bearer "), ADMIN)
    name = headers.get("Impersonate-User")
    if not name:
        return user
    if not user.is_master:
        message = f'users "{name}" is forbidden: User "{user.name}" cannot impersonate resource "users"'
        raise Refusal(403, message)
    account = re.fullmatch(r"system:serviceaccount:([^:]+):([^:]+)", name)
    if account is not None:
        return service_account(account[1], account[2])
    return User(name, (*filter(None, [headers.get("Impersonate-Group")]), "system:authenticated"))


@dataclass(frozen=True)
class Ask:
    """What somebody wants to do: to a resource (`pods/eviction`), in a namespace ("" = everywhere), by name."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def is_allowed(api: Api, user: User, ask: Ask) -> bool:
    """Tell whether somebody may do something."""
    return user.is_master or any(_covers(rule, ask) for rule in rules_for(api, user, ask.namespace))


def check(api: Api, user: User, kind: Kind, ask: Ask) -> None:
    """Refuse what somebody may not do."""
    if is_allowed(api, user, ask):
        return
    place = f'in the namespace "{ask.namespace}"' if ask.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {ask.verb} resource "{ask.resource}" in API group "{ask.group}" {place}'
    raise kind.forbidden(ask.name, why)


def check_grant(api: Api, user: User, kind: Kind, made: Object) -> None:
    """Refuse a role or a binding that would give away more than its maker has."""
    if user.is_master or kind.group != _RBAC:
        return
    namespace = made["metadata"].get("namespace", "")
    role = made.get("roleRef")
    rules = list(made.get("rules") or ()) if role is None else list(_rules_of(api, role, namespace))
    plural = kind.plural if role is None else f"{role['kind'].lower()}s"
    verb = "escalate" if role is None else "bind"
    name = made["metadata"]["name"] if role is None else role["name"]
    if is_allowed(api, user, Ask(verb, _RBAC, plural, namespace, name)):
        return
    held = list(rules_for(api, user, namespace))
    missing = [each for each in _atoms(rules) if not any(_covers(rule, each) for rule in held)]
    if missing:
        groups = " ".join(f'"{each}"' for each in user.groups)
        lines = "\n".join(
            f'{{APIGroups:["{each.group}"], Resources:["{each.resource}"], Verbs:["{each.verb}"]}}' for each in missing
        )
        why = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
        raise kind.forbidden(made["metadata"]["name"], why + lines)


def rules_for(api: Api, user: User, namespace: str) -> Iterator[Object]:
    """Give the rules that hold for somebody in a namespace ("": everywhere)."""
    yield from _EVERYBODY
    if user.is_master:
        yield _ALL
    bindings = [*_all(api, "clusterrolebindings", ""), *(_all(api, "rolebindings", namespace) if namespace else ())]
    for each in bindings:
        if any(_is_subject(subject, user) for subject in each.get("subjects") or ()):
            yield from _rules_of(api, each["roleRef"], each["metadata"].get("namespace", ""))


def answer_review(api: Api, user: User, kind: Kind, body: Object) -> Object:
    """Answer a question about what somebody may do."""
    spec = body.get("spec") or {}
    head = {"kind": kind.name, "apiVersion": f"{kind.group}/v1", "metadata": {}}
    if kind.name == "SelfSubjectReview":
        return {**head, "status": {"userInfo": {"username": user.name, "groups": list(user.groups)}}}
    if kind.name == "SelfSubjectRulesReview":
        if not spec.get("namespace"):
            raise Refusal(400, "no namespace on request")
        rules = [_plain(each) for each in rules_for(api, user, spec["namespace"])]
        paths = [{"verbs": ["get"], "nonResourceURLs": _OPEN_PATHS}]
        status = {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
        return {**head, "spec": {}, "status": status}
    asker = User(spec.get("user", ""), tuple(spec.get("groups") or ())) if kind.name == "SubjectAccessReview" else user
    return {**head, "spec": spec, "status": {"allowed": _review(api, asker, kind, spec)}}


def issue_token(api: Api, user: User, tokens: dict[str, User], body: Object) -> Object:
    """Make a token of a service account."""
    now, ends = text_of(api.clock()), text_of(api.clock() + timedelta(hours=1))
    token = f"token-of-{user.name}-{uuid.uuid4().hex}"
    tokens[token] = user
    spec = {"audiences": ["memory"], "expirationSeconds": 3600, **(body.get("spec") or {})}
    head = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {"creationTimestamp": now}}
    return {**head, "spec": spec, "status": {"token": token, "expirationTimestamp": ends}}


def _review(api: Api, user: User, kind: Kind, spec: Object) -> bool:
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (asked is None) == (path is None):
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        word = f".{kind.group}"
        raise invalid(word, "", [bad("spec.resourceAttributes", None, why)])
    if asked is None:
        return user.is_master or any(_is_path(each, (path or {}).get("path", "")) for each in _OPEN_PATHS)
    resource, part = asked.get("resource", ""), asked.get("subresource", "")
    whole = f"{resource}/{part}" if part else resource
    words = (asked.get(name, "") for name in ("verb", "group", "namespace", "name"))
    verb, group, namespace, name = words
    return is_allowed(api, user, Ask(verb, group, whole, namespace, name))


def _is_path(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _covers(rule: Object, ask: Ask) -> bool:
    resources, part = rule.get("resources") or (), f"*/{ask.resource.partition('/')[2]}"
    is_named = not rule.get("resourceNames") or ask.name in rule["resourceNames"]
    return (
        bool({"*", ask.verb} & set(rule.get("verbs") or ()))
        and bool({"*", ask.group} & set(rule.get("apiGroups") or ()))
        and bool({"*", ask.resource, part if "/" in ask.resource else "*"} & set(resources))
        and is_named
    )


def _atoms(rules: Iterable[Object]) -> Iterator[Ask]:
    for each in rules:
        for group in each.get("apiGroups") or ():
            for resource in each.get("resources") or ():
                for name in each.get("resourceNames") or ("",):
                    yield from (Ask(verb, group, resource, "", name) for verb in each["verbs"])


def _rules_of(api: Api, role: Object, namespace: str) -> Iterable[Object]:
    plural = "clusterroles" if role["kind"] == "ClusterRole" else "roles"
    found = api.storage.get((f"{plural}.{_RBAC}", "" if plural == "clusterroles" else namespace, role["name"]))
    return (found or {}).get("rules") or ()


def _is_subject(subject: Object, user: User) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
    return subject["name"] in user.groups if subject["kind"] == "Group" else subject["name"] == user.name


def _all(api: Api, plural: str, namespace: str) -> list[Object]:
    kind = f"{plural}.{_RBAC}"
    return [each for key, each in list(api.storage.objects.items()) if key[:2] == (kind, namespace)]


def _plain(rule: Object) -> Object:
    words = ("verbs", "apiGroups", "resources", "resourceNames")
    return {word: rule[word] for word in words if rule.get(word)}

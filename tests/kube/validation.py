"""What the server refuses to store: names, labels, amounts, and each built-in kind's own rules."""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from ipaddress import ip_network

from tests.kube.answers import Object, Wrong, bad, barred, immutable, required, unsupported
from tests.kube.kinds import Kind

_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_PART})?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_TOO_FREE = {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}  # names with colons are fine here
_PART_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_PART}')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_LABEL_VALUE}')"
)
_NAME_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_DEVICE_EFFECTS = ("NoExecute", "NoSchedule", "None")
_AMOUNT = re.compile(r"([+-]?[\d.]+)([a-zA-Z]*)(?:([+-]?\d+))?")
_POWERS = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_LIMIT_TYPES = {"Container", "Pod", "PersistentVolumeClaim"}


def amount(value: object) -> Decimal:
    """Return a quantity as a number."""
    match = _AMOUNT.fullmatch(str(value))
    if match is None:
        return Decimal(0)
    number, unit, exponent = Decimal(match[1]), match[2], match[3]
    if unit in _BINARY:
        return number * Decimal(1024) ** _BINARY[unit]
    return number.scaleb(int(exponent) if exponent is not None else _POWERS.get(unit, 0))


def wrongs_of(kind: Kind, made: Object, before: Object | None) -> list[Wrong]:
    """Return what is wrong with an object that is to be stored."""
    rule = None if kind.is_custom else _RULES.get(kind.plural)
    change = None if kind.is_custom or before is None else _CHANGES.get(kind.plural)
    found = [*_metadata(kind, made["metadata"], is_new=before is None), *([] if rule is None else rule(made))]
    return found + ([] if change is None or before is None else list(change(before, made)))


def _metadata(kind: Kind, meta: Object, *, is_new: bool) -> Iterator[Wrong]:
    name = meta["name"]
    if is_new and kind.plural not in _TOO_FREE and re.fullmatch(_SUBDOMAIN, name) is None:
        yield bad("metadata.name", name, _NAME_WORDS)
    for key, value in (meta.get("labels") or {}).items():
        yield from _qualified("metadata.labels", key)
        if len(value) > 63 or re.fullmatch(_LABEL_VALUE, value) is None:
            why = "must be no more than 63 bytes" if len(value) > 63 else _VALUE_WORDS
            yield bad("metadata.labels", value, why)
    for key in meta.get("annotations") or {}:
        yield from _qualified("metadata.annotations", key.lower(), shown=key)
    for each in meta.get("finalizers") or ():
        if "/" not in each and not kind.is_custom and each not in {"orphan", "foregroundDeletion", "kubernetes"}:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            yield bad("metadata.finalizers", each, why)


def _qualified(field: str, key: str, shown: str | None = None) -> Iterator[Wrong]:
    prefix, _, name = key.rpartition("/")
    told = key if shown is None else shown
    if not name:
        yield bad(field, told, "name part must be non-empty")
    if len(name) > 63:
        yield bad(field, told, "name part must be no more than 63 bytes")
    if re.fullmatch(_PART, name) is None:
        yield bad(field, told, _PART_WORDS)
    if prefix and re.fullmatch(_SUBDOMAIN, prefix) is None:
        yield bad(field, told, f"prefix part {_NAME_WORDS}")


def _node(made: Object) -> Iterator[Wrong]:
    seen = set()
    for number, each in enumerate((made.get("spec") or {}).get("taints") or ()):
        at = f"metadata.taints[{number}]"
        yield from _qualified(f"{at}.key", each.get("key", ""))
        effect = each.get("effect", "")
        if not effect:
            yield required(f"{at}.effect")
        elif effect not in _EFFECTS:
            yield unsupported(f"{at}.effect", effect, _EFFECTS)
        if (each.get("key"), effect) in seen:
            yield Wrong(at, "FieldValueDuplicate", "Duplicate value: taints must be unique by key and effect pair")
        seen.add((each.get("key"), effect))


def _pod(made: Object) -> Iterator[Wrong]:
    yield from _pod_spec(made.get("spec") or {}, "spec")


def _pod_spec(spec: Object, at: str) -> Iterator[Wrong]:
    if not spec.get("containers"):
        yield required(f"{at}.containers")
    for number, each in enumerate(spec.get("containers") or ()):
        where = f"{at}.containers[{number}]"
        for field in ("name", "image"):
            if not each.get(field):
                yield required(f"{where}.{field}")
        resources = each.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in (name for name in {**limits, **requests} if "/" in name):
            for part, amounts in (("limits", limits), ("requests", {name: limits.get(name), **requests})):
                if name in amounts and amount(amounts[name]) % 1:
                    told = f"{amount(amounts[name]) * 1000:.0f}m"
                    yield bad(f"{where}.resources.{part}[{name}]", told, "must be an integer")
            if name not in limits:
                yield required(f"{where}.resources.limits", "Limit must be set for non overcommitable resources")
            elif name in requests and amount(requests[name]) != amount(limits[name]):
                why = f"must be equal to {name} limit of {limits[name]}"
                yield bad(f"{where}.resources.requests", str(requests[name]), why)


def _scaled(made: Object) -> Iterator[Wrong]:
    spec = made.get("spec") or {}
    if spec.get("replicas", 0) < 0:
        yield bad("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not spec.get("selector"):
        yield required("spec.selector")
    elif any(labels.get(name) != value for name, value in wanted.items()):
        yield bad("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")


def _job(made: Object) -> Iterator[Wrong]:
    spec = made.get("spec") or {}
    for name in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds"):
        if spec.get(name) is not None and spec[name] < 0:
            yield bad(f"spec.{name}", spec[name], "must be greater than or equal to 0")
    inner = (spec.get("template") or {}).get("spec") or {}
    if inner.get("restartPolicy") not in {"Never", "OnFailure"}:
        known = ("OnFailure", "Never")
        at = "spec.template.spec.restartPolicy"
        word = inner.get("restartPolicy", "Always")
        yield Wrong(at, "FieldValueNotSupported", unsupported(at, word, known).message)
    yield from _pod_spec(inner, "spec.template.spec")


def _job_change(before: Object, made: Object) -> Iterator[Wrong]:
    old, new = before["spec"], made["spec"]
    for name in ("completions", "selector", "completionMode", "podFailurePolicy", "managedBy"):
        if old.get(name) != new.get(name):
            yield immutable(f"spec.{name}", new.get(name))
    is_free = bool(old.get("suspend"))  # a Job that is suspended may still be sent elsewhere
    if _but_where(old["template"], is_free=is_free) != _but_where(new["template"], is_free=is_free):
        yield immutable("spec.template", new["template"])


def _but_where(template: Object, *, is_free: bool) -> Object:
    if not is_free:
        return template
    where = {"nodeSelector", "affinity", "tolerations", "schedulingGates"}
    spec = {name: value for name, value in template["spec"].items() if name not in where}
    meta = {
        name: each for name, each in (template.get("metadata") or {}).items() if name not in {"labels", "annotations"}
    }
    return {**template, "spec": spec, "metadata": meta}


def _selector_change(before: Object, made: Object) -> Iterator[Wrong]:
    if before["spec"].get("selector") != made["spec"].get("selector"):
        yield immutable("spec.selector", made["spec"].get("selector"))


def _stateful_change(before: Object, made: Object) -> Iterator[Wrong]:
    free = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds", "revisionHistoryLimit"}  # fmt: skip
    old, new = ({name: each for name, each in whole["spec"].items() if name not in free} for whole in (before, made))
    if old != new:
        words = "', '".join(sorted(free))
        yield barred("spec", f"updates to statefulset spec for fields other than '{words}' are forbidden")


def _quota(made: Object) -> Iterator[Wrong]:
    for name, value in ((made.get("spec") or {}).get("hard") or {}).items():
        if amount(value) < 0:
            yield bad(f"spec.hard[{name}]", str(value), "must be greater than or equal to 0")


def _quota_change(before: Object, made: Object) -> Iterator[Wrong]:
    old, new = ((whole.get("spec") or {}).get("scopes") or [] for whole in (before, made))
    if sorted(old) != sorted(new):
        yield immutable("spec.scopes", new)


def _limits(made: Object) -> Iterator[Wrong]:
    for number, each in enumerate((made.get("spec") or {}).get("limits") or ()):
        at, kind = f"spec.limits[{number}]", each.get("type", "")
        if kind not in _LIMIT_TYPES and "/" not in kind:
            yield bad(f"{at}.type", kind, "must be a standard limit type or fully qualified")
        for low, high, words in (
            ("min", "max", "min value {0} is greater than max value {1}"),
            ("defaultRequest", "default", "default request value {0} is greater than default limit value {1}"),
            ("default", "max", "default value {0} is greater than max value {1}"),
        ):
            least, most = each.get(low) or {}, each.get(high) or {}
            for name in least:
                if name in most and amount(least[name]) > amount(most[name]):
                    yield bad(f"{at}.{low}[{name}]", str(least[name]), words.format(least[name], most[name]))


def _policy(made: Object) -> Iterator[Wrong]:
    spec = made.get("spec") or {}
    for number, each in enumerate(spec.get("policyTypes") or ()):
        if each not in {"Ingress", "Egress"}:
            yield unsupported(f"spec.policyTypes[{number}]", each, ("Ingress", "Egress"))
    for way, word in (("ingress", "from"), ("egress", "to")):
        for number, each in enumerate(spec.get(way) or ()):
            at = f"spec.{way}[{number}]"
            for index, port in enumerate(each.get("ports") or ()):
                if isinstance(port.get("port"), int) and not 1 <= port["port"] <= 65535:
                    yield bad(f"{at}.ports[{index}].port", port["port"], "must be between 1 and 65535, inclusive")
            for index, peer in enumerate(each.get(word) or ()):
                yield from _peer(peer, f"{at}.{word}[{index}]")


def _peer(peer: Object, at: str) -> Iterator[Wrong]:
    if not peer.keys() & {"podSelector", "namespaceSelector", "ipBlock"}:
        yield required(at, "must specify a peer")
    if "ipBlock" in peer:
        try:
            ip_network(peer["ipBlock"].get("cidr", ""))
        except ValueError:
            why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            yield bad(f"{at}.ipBlock.cidr", peer["ipBlock"].get("cidr", ""), why)


def _role(made: Object) -> Iterator[Wrong]:
    for number, each in enumerate(made.get("rules") or ()):
        at = f"rules[{number}]"
        if not each.get("verbs"):
            yield required(f"{at}.verbs", "verbs must contain at least one value")
        if each.get("nonResourceURLs"):
            if "namespace" in made["metadata"]:
                yield bad(f"{at}.nonResourceURLs", each["nonResourceURLs"],
                          "namespaced rules cannot apply to non-resource URLs")  # fmt: skip
            continue
        if not each.get("apiGroups"):
            yield required(f"{at}.apiGroups", "resource rules must supply at least one api group")
        if not each.get("resources"):
            yield required(f"{at}.resources", "resource rules must supply at least one resource")


def _binding(made: Object) -> Iterator[Wrong]:
    kinds = ("Role", "ClusterRole") if "namespace" in made["metadata"] else ("ClusterRole",)
    role = made.get("roleRef") or {}
    if role.get("kind", "") not in kinds:
        yield unsupported("roleRef.kind", role.get("kind", ""), kinds)
    if not role.get("name"):
        yield required("roleRef.name")
    known = ("ServiceAccount", "User", "Group")
    for number, each in enumerate(made.get("subjects") or ()):
        if each.get("kind") not in known:
            yield unsupported(f"subjects[{number}].kind", each.get("kind", ""), known)
        if not each.get("name"):
            yield required(f"subjects[{number}].name")


def _binding_change(before: Object, made: Object) -> Iterator[Wrong]:
    if before["roleRef"] != made.get("roleRef"):
        yield bad("roleRef", made.get("roleRef"), "cannot change roleRef")


def _lease(made: Object) -> Iterator[Wrong]:
    spec = made.get("spec") or {}
    for name in ("leaseDurationSeconds", "leaseTransitions"):
        least = 1 if name == "leaseDurationSeconds" else 0
        if spec.get(name) is not None and spec[name] < least:
            words = "must be greater than 0" if least else "must be greater than or equal to 0"
            yield bad(f"spec.{name}", spec[name], words)


def _event(made: Object) -> Iterator[Wrong]:
    own, about = made["metadata"].get("namespace", ""), made.get("involvedObject") or {}
    if (about.get("namespace") or "default") != own:
        yield bad("involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace")
    if made["apiVersion"] != "v1":
        if not made.get("eventTime"):
            yield required("eventTime")
        elif made.get("type") not in {"Normal", "Warning"}:
            yield bad("type", "", f"has invalid value: {made.get('type', '')}")


def _device_taint(made: Object) -> Iterator[Wrong]:
    taint = (made.get("spec") or {}).get("taint") or {}
    yield from _qualified("spec.taint.key", taint.get("key", ""))
    if not taint.get("effect"):
        yield required("spec.taint.effect")
    elif taint["effect"] not in _DEVICE_EFFECTS:
        yield unsupported("spec.taint.effect", taint["effect"], _DEVICE_EFFECTS)


_RULES: Mapping[str, Callable[[Object], Iterator[Wrong]]] = {
    "nodes": _node, "pods": _pod, "deployments": _scaled, "replicasets": _scaled, "statefulsets": _scaled,
    "jobs": _job, "resourcequotas": _quota, "limitranges": _limits, "networkpolicies": _policy, "roles": _role,
    "clusterroles": _role, "rolebindings": _binding, "clusterrolebindings": _binding, "leases": _lease,
    "events": _event, "devicetaintrules": _device_taint,
}  # fmt: skip
_CHANGES: Mapping[str, Callable[[Object, Object], Iterator[Wrong]]] = {
    "jobs": _job_change, "deployments": _selector_change, "replicasets": _selector_change,
    "statefulsets": _stateful_change, "resourcequotas": _quota_change, "rolebindings": _binding_change,
    "clusterrolebindings": _binding_change,
}  # fmt: skip

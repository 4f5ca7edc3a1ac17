"""What is refused though it is well formed: by quotas and limits of a namespace, and what may not go."""

from collections.abc import Callable
from decimal import Decimal

from tests.kube.answers import Object
from tests.kube.kinds import Kind
from tests.kube.storage import Storage
from tests.kube.validation import amount

_LASTING = {"default", "kube-system", "kube-public"}
_COUNTED = {"pods", "configmaps", "secrets", "services", "resourcequotas"}


def check_new(storage: Storage, kind: Kind, made: Object) -> None:
    """Refuse a new object that a limit range or a resource quota of its namespace does not let in."""
    namespace = made["metadata"].get("namespace", "")
    if kind.is_custom or not namespace:
        return
    if kind.plural == "pods":
        for limits in _in(storage, "limitranges.", namespace):
            _check_limits(kind, made, limits)
    for quota in _in(storage, "resourcequotas.", namespace):
        _check_quota(storage, kind, made, quota)


def check_deletion(kind: Kind, name: str) -> None:
    """Refuse to delete a namespace that every cluster needs."""
    if kind.plural == "namespaces" and not kind.is_custom and name in _LASTING:
        raise kind.forbidden(name, "this namespace may not be deleted")


def _check_limits(kind: Kind, pod: Object, limits: Object) -> None:
    for item in limits["spec"].get("limits") or ():
        if item.get("type") != "Container":
            continue
        for container in pod["spec"].get("containers") or ():
            own = (container.get("resources") or {}).get("limits") or {}
            for name, most in (item.get("max") or {}).items():
                if name in own and amount(own[name]) > amount(most):
                    why = f"maximum {name} usage per Container is {most}, but limit is {own[name]}"
                    raise kind.forbidden(pod["metadata"]["name"], why)


def _check_quota(storage: Storage, kind: Kind, made: Object, quota: Object) -> None:
    over = []
    for name, hard in ((quota.get("spec") or {}).get("hard") or {}).items():
        count = _counter(kind, name)
        asked = Decimal(0) if count is None else count(made)
        if count is None or asked == 0:
            continue
        others = (each for each in _in(storage, kind.key, made["metadata"]["namespace"]) if _is_alive(each))
        used = sum((count(each) for each in others), Decimal(0))
        if used + asked > amount(hard):
            over.append((f"{name}={asked:f}", f"{name}={used:f}", f"{name}={hard}"))
    if over:
        asked_text, used_text, limited = (",".join(words) for words in zip(*over, strict=True))
        amounts = f"requested: {asked_text}, used: {used_text}, limited: {limited}"
        raise kind.forbidden(made["metadata"]["name"], f"exceeded quota: {quota['metadata']['name']}, {amounts}")


def _counter(kind: Kind, name: str) -> Callable[[Object], Decimal] | None:
    """Return how much of a quota's resource an object takes; None where it takes none of it."""
    if name in {kind.plural, f"count/{kind.resource}"} and (name.startswith("count/") or name in _COUNTED):
        return lambda _: Decimal(1)
    part, _, resource = name.partition(".")
    if kind.plural != "pods" or part not in {"requests", "limits"}:
        return None
    return lambda pod: _sum(pod, part, resource)


def _sum(pod: Object, part: str, resource: str) -> Decimal:
    amounts = (
        ((each.get("resources") or {}).get(part) or {}).get(resource, "0")
        for each in pod["spec"].get("containers") or ()
    )
    return sum((amount(each) for each in amounts), Decimal(0))


def _is_alive(each: Object) -> bool:
    return (each.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}


def _in(storage: Storage, kind: str, namespace: str) -> list[Object]:
    return [each for key, each in list(storage.objects.items()) if key[:2] == (kind, namespace)]

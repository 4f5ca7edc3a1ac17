"""Objects of Kubernetes as plain values: what stands at a path, what a patch would say, who wrote it last."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from math import isfinite
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_port import Object as Body

Path = tuple[str, ...]

WORKSPACE, PROTECT, OWNER = "gpusteward.dev/workspace", "gpusteward.dev/protect", "gpusteward.dev/owner"
SUSPENDED_BY, PRIOR = "gpusteward.dev/suspended-by", "gpusteward.dev/prior"
MANAGED_BY = "app.kubernetes.io/managed-by"
APPLIED = "gpusteward.dev/applied"  # what we last asked of an object of a workspace, as JSON
REBALANCED = "gpusteward.dev/rebalanced"  # its numbers, where a rebalance has moved them since
_WORKSPACE_LABELS = (WORKSPACE, "kubeslice.io/slice")
_KUBEFLOW_OWNER = "owner"  # an annotation of the namespaces that Kubeflow profiles make
_CONTROLLERS_OWN = frozenset({"deployment.kubernetes.io/revision"})  # annotations in place of a status
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)")
_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
_UNITS = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")  # from a billionth on, each a thousand of the one before


def at(body: Mapping[str, Any], path: Path) -> Any:  # noqa: ANN401 - JSON, as the server sent it
    """Return what stands at a path; None where nothing does (the server writes no nulls)."""
    found: Any = body
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def patch_of(values: Mapping[Path, object]) -> Body:
    """Return the merge patch that sets each path to its value; None takes what stands there away."""
    patch: Body = {}
    for path, value in values.items():
        inner = patch
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = deepcopy(value)
    return patch


def merged(body: Mapping[str, Any], patch: Mapping[str, Any]) -> Body:
    """Return an object as a merge patch leaves it."""
    made = dict(body)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            before = made.get(name)
            made[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            made[name] = deepcopy(value)
    return made


def removal(body: Mapping[str, Any], path: Path, *, born: int) -> Path:
    """Return what to take away so that `path` goes, and with it the parents we made (all deeper than `born`).

    A parent that others have put something into since stays.
    """
    for depth in range(born, len(path)):
        if _holds_only(at(body, path[:depth]), path[depth:]):
            return path[:depth]
    return path


def born_at(body: Mapping[str, Any], path: Path) -> int:
    """Return how many names of a path must be written before something is there that was not."""
    return next((depth for depth in range(1, len(path)) if at(body, path[:depth]) is None), len(path))


def annotation(body: Mapping[str, Any], name: str) -> str | None:
    """Return an annotation, or None."""
    value = at(body, ("metadata", "annotations", name))
    return None if value is None else str(value)


def label(body: Mapping[str, Any], name: str) -> str | None:
    """Return a label, or None; an empty one says nothing."""
    return at(body, ("metadata", "labels", name)) or None


def mark(body: Mapping[str, Any], name: str) -> str | None:
    """Return what a label, else an annotation, of that name says."""
    return label(body, name) or annotation(body, name)


def is_protected(body: Mapping[str, Any]) -> bool:
    """Return whether somebody asked that an object be left alone."""
    return "true" in {label(body, PROTECT), annotation(body, PROTECT)}


def workspace_in(namespace: Mapping[str, Any] | None) -> str | None:
    """Return the workspace that a namespace's labels name."""
    return (
        None
        if namespace is None
        else next((told for name in _WORKSPACE_LABELS if (told := label(namespace, name))), None)
    )


def owner_in(body: Mapping[str, Any] | None) -> str | None:
    """Return whom an object, or a namespace, says it belongs to."""
    return None if body is None else mark(body, OWNER) or annotation(body, _KUBEFLOW_OWNER)


def controller_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the owner reference that controls an object, or None."""
    references: Sequence[Mapping[str, Any]] = at(body, ("metadata", "ownerReferences")) or ()
    return next((each for each in references if each.get("controller")), None)


def name_of(body: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str(body["metadata"]["name"])


def namespace_of(body: Mapping[str, Any]) -> str:
    """Return an object's namespace, "" for cluster-scoped ones."""
    return str(body["metadata"].get("namespace", ""))


def resource_version(body: Mapping[str, Any]) -> str:
    """Return the server's version of an object, which every write of anybody changes."""
    return str(body["metadata"].get("resourceVersion", ""))


def digest_of(*parts: object) -> str:
    """Return a short digest of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def meant_version(body: Mapping[str, Any]) -> str:
    """Return a version of what an object is meant to be: which object, its spec, labels and annotations.

    Unlike the server's resource version it stays when only the status changes, which on a busy cluster it always does:
    a plan that waits for an approval would never be carried out otherwise.
    """
    meta = body["metadata"]
    rest = {name: value for name, value in body.items() if name not in {"metadata", "status", "apiVersion"}}
    notes = {name: value for name, value in (meta.get("annotations") or {}).items() if name not in _CONTROLLERS_OWN}
    return digest_of(meta.get("uid"), meta.get("labels") or {}, notes, rest)


def wrote_last(body: Mapping[str, Any], paths: Iterable[Path]) -> bool:
    """Return whether it was us who wrote these fields last, by the server's record of who manages what.

    A server that keeps no such record can't contradict us.
    """
    entries: Sequence[Mapping[str, Any]] | None = at(body, ("metadata", "managedFields"))
    if not entries:
        return True
    ours = [each.get("fieldsV1") or {} for each in entries if each.get("manager") == OUR_NAME]
    return all(any(_covers(tree, path) for tree in ours) for path in paths)


def quantity(text: object) -> float | None:
    """Return a Kubernetes quantity ("500m", "64Gi", 8) as a number; None where it is none, or none that is finite."""
    match = None if isinstance(text, bool) else _QUANTITY.fullmatch(str(text))
    number = float("inf") if match is None else float(match[1]) * _SUFFIXES[match[2]]
    return number if isfinite(number) else None


def amount_text(number: float) -> str:
    """Return a number from 0 on as Kubernetes writes it: whole, in the largest unit that leaves it so ("2500m", "1k").

    Servers that read and write objects as quantities (Kueue's webhooks, and Kubernetes for its own kinds) store it so.
    """
    nanos = round(Decimal(str(number)) * 10**9)
    if nanos == 0:
        return "0"
    thousands = next(count for count in range(9, -1, -1) if nanos % 1000**count == 0)
    return f"{nanos // 1000**thousands}{_UNITS[thousands]}"


def written_as(number: float, before: object) -> int | str:
    """Return a whole number in the form (number or text) that stands there already."""
    whole = round(number)
    return whole if isinstance(before, int) else amount_text(whole)


def _holds_only(value: object, path: Path) -> bool:
    for name in path:
        if not isinstance(value, Mapping) or set(value) != {name}:
            return False
        value = value[name]
    return True


def _covers(tree: Mapping[str, Any], path: Path) -> bool:
    for name in path:
        if f"f:{name}" not in tree:
            return False
        tree = tree[f"f:{name}"]
        if not tree:
            return True  # the whole field, and all that is in it
    return True

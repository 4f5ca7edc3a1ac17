"""What Kueue's webhooks fill in and refuse, and what its definitions default, for our server in memory."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tests.kube.answers import Object, Refusal
from tests.kube.kinds import Kind
from tests.kube.validation import amount

KUEUE, QUEUE_NAME = "kueue.x-k8s.io", "kueue.x-k8s.io/queue-name"
IN_USE, BOOST = "kueue.x-k8s.io/resource-in-use", "kueue.x-k8s.io/priority-boost"
_JOBS = frozenset({"Job", "JobSet", "PyTorchJob", "RayCluster", "TrainJob"})
_LIMITS = ("nominalQuota", "borrowingLimit", "lendingLimit")
_UNITS = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")


def _open(**fields: Object) -> Object:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": fields}


def _said(default: object) -> Object:
    return {"type": "string", "default": default}


_STOP: Object = {**_said("None"), "enum": ["None", "Hold", "HoldAndDrain"]}
_FIXED = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "field is immutable"}]}
_PREEMPTION = {
    **_open(
        borrowWithinCohort={**_open(policy=_said("Never")), "default": {}},
        reclaimWithinCohort=_said("Never"),
        withinClusterQueue=_said("Never"),
    ),
    "default": {},
}


def _fungibility(borrow: str) -> Object:
    return {**_open(whenCanBorrow=_said(borrow), whenCanPreempt=_said("TryNextFlavor")), "default": {}}


def _queue(borrow: str) -> Object:
    parts = {"flavorFungibility": _fungibility(borrow), "preemption": _PREEMPTION, "stopPolicy": _STOP}
    return _open(spec=_open(**parts, queueingStrategy=_said("BestEffortFIFO")))


QUEUES = {"v1beta2": _queue("MayStopSearch"), "v1beta1": _queue("Borrow")}
LOCAL_QUEUES = {version: _open(spec=_open(stopPolicy=_STOP, clusterQueue=_FIXED)) for version in QUEUES}


def jobs_of(kinds: Iterable[Kind]) -> list[Kind]:
    """Return the kinds of jobs that Kueue starts and holds."""
    return [kind for kind in kinds if kind.name in _JOBS]


def cohort_in(queue: Object) -> str | None:
    """Return a queue's cohort; v1beta1 says `cohort`."""
    told = queue["spec"].get("cohortName") or queue["spec"].get("cohort")
    return None if told is None else str(told)


def with_defaults(kind: Kind, made: Object) -> Object:
    """Return a new object as the mutating webhooks leave it; amounts come out in their shortest form."""
    meta = made["metadata"]
    if kind.group == KUEUE and kind.name in {"ClusterQueue", "ResourceFlavor"}:
        made = {**made, "metadata": {**meta, "finalizers": [*meta.get("finalizers", ()), IN_USE]}}
        return {**made, "spec": _shortened(made["spec"])} if "spec" in made else made
    if kind.name in _JOBS and QUEUE_NAME in (meta.get("labels") or {}):
        return {**made, "spec": held(kind, made["spec"], is_held=True)}
    return made


def held(kind: Kind, spec: Object, *, is_held: bool) -> Object:
    """Return a job's spec that says that it is held, or that it runs."""
    if kind.name == "PyTorchJob":
        return {**spec, "runPolicy": {**spec.get("runPolicy", {}), "suspend": is_held}}
    return {**spec, "suspend": is_held}


def refuse(kind: Kind, made: Object, _before: Object | None) -> None:
    """Refuse a boost that is no number, and a queue or a cohort whose numbers Kueue would not have."""
    boost = (made["metadata"].get("annotations") or {}).get(BOOST, "0")
    if kind.group == KUEUE and kind.name == "Workload" and not re.fullmatch(r"[+-]?\d{1,10}", boost):
        _deny(kind, f"metadata.annotations[{BOOST}]", boost, "must be a valid signed integer")
    if kind.group != KUEUE or kind.name not in {"ClusterQueue", "Cohort"}:
        return
    spec = made.get("spec") or {}
    is_alone = not (cohort_in(made) if kind.name == "ClusterQueue" else spec.get("parentName") or spec.get("parent"))
    for number, group in enumerate(spec.get("resourceGroups") or ()):
        for place, flavor in enumerate(group.get("flavors") or ()):
            for line, entry in enumerate(flavor.get("resources") or ()):
                at = f"spec.resourceGroups[{number}].flavors[{place}].resources[{line}]"
                covered = group.get("coveredResources") or ()
                if line < len(covered) and entry.get("name") != covered[line]:
                    _deny(kind, f"{at}.name", entry.get("name"), "must match the name in coveredResources")
                for limit in _LIMITS[1:]:
                    if is_alone and limit in entry:
                        parent = "cohort" if kind.name == "ClusterQueue" else "parent"
                        _deny(kind, f"{at}.{limit}", entry[limit], f"must be nil when {parent} is empty")
                lends, has = entry.get("lendingLimit"), entry.get("nominalQuota", "0")
                if kind.name == "ClusterQueue" and lends is not None and amount(lends) > amount(has):
                    _deny(kind, f"{at}.lendingLimit", lends, "must be less than or equal to the nominalQuota")


def _deny(kind: Kind, field: str, value: object, why: str) -> None:
    hook = f"v{kind.name.lower()}.kb.io"
    message = f'admission webhook "{hook}" denied the request: {field}: Invalid value: "{value}": {why}'
    raise Refusal(403, message)


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _short(each) if name in {*_LIMITS, "weight"} and not isinstance(each, dict) else _shortened(each)
        for name, each in value.items()
    }


def _short(value: object) -> str:
    """Return an amount in the largest unit that leaves it whole."""
    if str(value).endswith("i"):
        return str(value)
    nanos = amount(value) * 10**9
    thousands = next((count for count in range(9, 0, -1) if nanos and nanos % 1000**count == 0), 0)
    return "0" if not nanos else f"{nanos / Decimal(1000) ** thousands:f}{_UNITS[thousands]}"

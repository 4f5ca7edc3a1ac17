"""How each kind of workload is stopped so that it can go on as it was, and how its size is told.

Pure: an object in, what a patch would say out. What was there before is written beside it, in an annotation, so that
the object alone tells how to bring it back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_body import (
    PRIOR,
    SUSPENDED_BY,
    Path,
    annotation,
    at,
    born_at,
    patch_of,
    removal,
    wrote_last,
)
from actions.kube_port import Object as Body
from fleet.errors import MoveRefused

SOMEBODY = "somebody else"
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
BOOST = "kueue.x-k8s.io/priority-boost"
_ANNOTATIONS = ("metadata", "annotations")
_KSERVE_STOP, _NOTEBOOK_STOP = "serving.kserve.io/stop", "kubeflow-resource-stopped"
_ACTIVE: Path = ("spec", "active")
_SCALED = "gpusteward.dev/scaled"  # the size we set where none was said, and how deep it was new


@dataclass(frozen=True, slots=True)
class Way:
    """How one kind stops: a field and what it reads then, the field of its size where it has one, and its group.

    `stops` None: it can't be stopped so that it comes back as it was, for the reason `why_not`.
    `beside` are further fields that are set to the same value where their parent is there.
    """

    group: str
    stops: Path | None = None
    reads: object = True
    size: Path | None = None
    beside: tuple[Path, ...] = ()
    default_size: int = 1
    why_not: str = ""


_SUSPEND: Path = ("spec", "suspend")
_POLICY: Path = ("spec", "runPolicy", "suspend")
_REPLICAS: Path = ("spec", "replicas")
WAYS: Mapping[str, Way] = MappingProxyType({
    "Job": Way("batch", _SUSPEND, size=("spec", "parallelism")),
    "JobSet": Way("jobset.x-k8s.io", _SUSPEND),
    "TrainJob": Way("trainer.kubeflow.org", _SUSPEND, size=("spec", "trainer", "numNodes")),
    **{kind: Way("kubeflow.org", _POLICY) for kind in
       ("MPIJob", "PyTorchJob", "TFJob", "XGBoostJob", "PaddleJob", "JAXJob")},
    "RayJob": Way("ray.io", _SUSPEND),
    "RayCluster": Way("ray.io", _SUSPEND),
    "AppWrapper": Way("workload.codeflare.dev", _SUSPEND),
    **{kind: Way("apps", _REPLICAS, 0, _REPLICAS) for kind in ("Deployment", "StatefulSet", "ReplicaSet")},
    "LeaderWorkerSet": Way("leaderworkerset.x-k8s.io", _REPLICAS, 0, _REPLICAS),
    "InferenceService": Way("serving.kserve.io", (*_ANNOTATIONS, _KSERVE_STOP), "true",
                            ("spec", "predictor", "minReplicas")),
    "LLMInferenceService": Way("serving.kserve.io", _REPLICAS, 0, _REPLICAS, (("spec", "prefill", "replicas"),)),
    "Notebook": Way("kubeflow.org", (*_ANNOTATIONS, _NOTEBOOK_STOP)),
    "Pod": Way("", why_not="a bare pod that is stopped is gone; nothing brings it back"),
    "DaemonSet": Way("apps", why_not="a daemon set runs on every node it matches and has no stop"),
    "CronJob": Way("batch", why_not="suspending a cron job lets its running jobs go on"),
})  # fmt: skip
SCALABLE = frozenset({*(kind for kind, way in WAYS.items() if way.size == _REPLICAS), "InferenceService"})


def way_of(kind: str) -> Way:
    """Return how a kind is stopped; `MoveRefused` where it can't be so that it comes back as it was."""
    way = WAYS.get(kind)
    if way is None or way.stops is None:
        reason = f"no reversible stop is known of kind {kind}" if way is None else way.why_not
        raise MoveRefused(reason)
    return way


@dataclass(frozen=True, slots=True)
class Seen:
    """A workload as it stands: its object, and Kueue's workload of it where there is one (`admitted`).

    `is_queued`: Kueue decides when it runs, so its own `suspend` is a queue and no stop.
    """

    kind: str
    body: Mapping[str, Any]
    admitted: Mapping[str, Any] | None = None
    is_queued: bool = False

    @property
    def holder(self) -> Mapping[str, Any]:
        """Return the object whose fields stop it."""
        return self.body if self.admitted is None else self.admitted

    @property
    def waits_for_kueue(self) -> bool:
        """Return whether only Kueue may start it, and Kueue has no workload of it."""
        way = WAYS.get(self.kind)
        return self.is_queued and self.admitted is None and way is not None and way.stops in {_SUSPEND, _POLICY}


def is_stopped(seen: Seen) -> bool:
    """Return whether a workload is held, by whoever."""
    if seen.admitted is not None:
        return at(seen.admitted, _ACTIVE) is False
    way = WAYS.get(seen.kind)
    if way is None or way.stops is None or seen.waits_for_kueue:
        return False
    reads = at(seen.body, way.stops)
    return reads is not None if seen.kind == "Notebook" else bool(reads == way.reads)


def stopped_by(seen: Seen) -> str | None:
    """Return who stopped a workload: us where our annotation says so and nobody has touched the fields since.

    None where it is not stopped.
    """
    if not is_stopped(seen):
        return None
    said = annotation(seen.holder, SUSPENDED_BY)
    if said != OUR_NAME:
        return said or SOMEBODY
    kept = _kept(seen.holder)
    if kept is None or any(at(seen.holder, each.path) != each.set for each in kept):
        return SOMEBODY
    return OUR_NAME if wrote_last(seen.holder, [each.path for each in kept]) else SOMEBODY


def size_of(kind: str, body: Mapping[str, Any]) -> int:
    """Return how many replicas a workload asks for; 1 where its kind, or it, does not say."""
    way = WAYS.get(kind)
    size = None if way is None or way.size is None else at(body, way.size)
    return size if isinstance(size, int) else 1 if way is None else way.default_size


def stop(seen: Seen, since: str) -> Body:
    """Return the merge patch for `seen.holder` that stops a workload; `since` is what a notebook is told of it."""
    wanted = _stopping(seen, since)
    if is_stopped(seen):
        message = f"it is stopped already, by {stopped_by(seen)}"
        raise MoveRefused(message)
    kept = [_Kept.of(seen.holder, path, value) for path, value in wanted.items()]
    notes = {SUSPENDED_BY: OUR_NAME, PRIOR: json.dumps([each.told() for each in kept], sort_keys=True)}
    return patch_of({**wanted, **{(*_ANNOTATIONS, name): text for name, text in notes.items()}})


def resume(seen: Seen) -> Body:
    """Return the merge patch for `seen.holder` that brings a workload back exactly as it was when we stopped it."""
    by = stopped_by(seen)
    if by != OUR_NAME:
        message = "it is not stopped" if by is None else f"it was stopped by {by}, not by us"
        raise MoveRefused(message)
    holder = seen.holder
    values: dict[Path, object] = {}
    for each in _kept(holder) or ():
        if each.is_new:
            values[removal(holder, each.path, born=each.born)] = None
        else:
            values[each.path] = each.was
    gone: dict[Path, object] = {(*_ANNOTATIONS, SUSPENDED_BY): None, (*_ANNOTATIONS, PRIOR): None}
    return patch_of({**values, **gone})


def scale(kind: str, body: Mapping[str, Any], replicas: object) -> Body:
    """Return the merge patch that gives a workload another size; a size that was not said before is unsaid again."""
    way = way_of(kind)
    if kind not in SCALABLE or way.size is None:
        message = f"kind {kind} has no size that can be changed while it runs"
        raise MoveRefused(message)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        message = f"replicas: {replicas!r} is not a whole number from 0 on"
        raise MoveRefused(message)
    most = at(body, ("spec", "predictor", "maxReplicas"))
    if kind == "InferenceService" and isinstance(most, int) and 0 < most < replicas:
        message = f"it may have at most {most} replicas (spec.predictor.maxReplicas)"
        raise MoveRefused(message)
    note: Path = (*_ANNOTATIONS, _SCALED)
    now, born = at(body, way.size), _born_of(body, way.size)
    if now is None:
        return patch_of({way.size: replicas, note: f"{replicas} {born_at(body, way.size)}"})
    if born is None:
        return patch_of({way.size: replicas})
    if replicas == way.default_size:
        return patch_of({removal(body, way.size, born=born): None, note: None})
    return patch_of({way.size: replicas, note: f"{replicas} {born}"})


def _born_of(body: Mapping[str, Any], size: Path) -> int | None:
    """Return from where on we made a size that was not said before; None where it was, or others have set it since."""
    told, _, born = (annotation(body, _SCALED) or "").partition(" ")
    return int(born) if told == str(at(body, size)) and born.isdecimal() else None


def boost(admitted: Mapping[str, Any] | None, value: object) -> Body:
    """Return the merge patch for a Kueue workload that adds `value` to its priority; None adds nothing."""
    if admitted is None:
        message = "Kueue has no workload of it; only what Kueue admits has a priority there"
        raise MoveRefused(message)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        message = f"priority_boost: {value!r} is not a whole number"
        raise MoveRefused(message)
    if value is not None and not -(2**31) <= value < 2**31:
        message = f"priority_boost: {value} does not fit in 32 bits, as Kueue needs it"
        raise MoveRefused(message)
    if annotation(admitted, BOOST) is not None and boost_of(admitted) is None:
        message = f"others wrote {annotation(admitted, BOOST)!r} as its priority boost; it stays as it is"
        raise MoveRefused(message)
    return patch_of({(*_ANNOTATIONS, BOOST): None if value is None else str(value)})


def boost_of(admitted: Mapping[str, Any] | None) -> int | None:
    """Return what is added to a workload's priority; None where nothing is, or nothing that is a number."""
    text = None if admitted is None else annotation(admitted, BOOST)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A field that a stop changes: what it was (`is_new`: it was not there), and what we set."""

    path: Path
    set: object
    was: object = None
    is_new: bool = False
    born: int = 0

    @classmethod
    def of(cls, body: Mapping[str, Any], path: Path, value: object) -> "_Kept":
        was = at(body, path)
        return cls(path, value, was, was is None, born_at(body, path) if was is None else 0)

    def told(self) -> Body:
        was = {"born": self.born} if self.is_new else {"was": self.was}
        return {"path": list(self.path), "set": self.set, **was}


def _kept(holder: Mapping[str, Any]) -> list[_Kept] | None:
    """Return what our annotation keeps; None where it is missing or no longer what we wrote."""
    try:
        told = json.loads(annotation(holder, PRIOR) or "")
        kept = [
            _Kept(tuple(each["path"]), each["set"], each.get("was"), "was" not in each, int(each.get("born", 0)))
            for each in told
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return kept if kept and all(each.path for each in kept) else None


def _stopping(seen: Seen, since: str) -> dict[Path, object]:
    way = way_of(seen.kind)
    if seen.waits_for_kueue:
        message = "Kueue queues it but has no workload of it, and would start it again"
        raise MoveRefused(message)
    if seen.admitted is not None:
        return {_ACTIVE: False}
    if way.stops is None:  # `way_of` has refused it
        raise MoveRefused(way.why_not)
    reads = since if seen.kind == "Notebook" else way.reads
    beside = [path for path in way.beside if at(seen.body, path[:-1]) is not None]
    return dict.fromkeys((way.stops, *beside), reads)

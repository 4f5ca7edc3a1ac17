"""What kinds of workloads there are: how long each may pause, what is idle beside it, how it is stopped and resumed."""

from dataclasses import dataclass

NOTEBOOK, BATCH, SERVING = "notebook", "batch", "serving"


@dataclass(frozen=True, slots=True)
class KindFacts:
    """One kind: what it is used for, whether its pods work as one gang, and how it is stopped so that it can resume.

    `stop` names the change: a field of the object, or the annotation that its own controller obeys; None where the
    object can't be stopped and brought back as it was.
    """

    use: str
    is_gang: bool
    stop: str | None


_BY_KIND = {
    "Notebook": KindFacts(NOTEBOOK, is_gang=False, stop="annotation kubeflow-resource-stopped"),
    "Deployment": KindFacts(SERVING, is_gang=False, stop="spec.replicas=0"),
    "ReplicaSet": KindFacts(SERVING, is_gang=False, stop="spec.replicas=0"),
    "StatefulSet": KindFacts(SERVING, is_gang=False, stop="spec.replicas=0"),
    "InferenceService": KindFacts(SERVING, is_gang=False, stop="spec.predictor.minReplicas=0"),
    "InferenceEndpoint": KindFacts(SERVING, is_gang=False, stop="spec.replicas=0"),
    "LeaderWorkerSet": KindFacts(SERVING, is_gang=True, stop="spec.replicas=0"),
    "RayService": KindFacts(SERVING, is_gang=True, stop=None),
    "Workload": KindFacts(BATCH, is_gang=True, stop="spec.active=false"),
    "Job": KindFacts(BATCH, is_gang=True, stop="spec.suspend=true"),
    "JobSet": KindFacts(BATCH, is_gang=True, stop="spec.suspend=true"),
    "TrainJob": KindFacts(BATCH, is_gang=True, stop="spec.suspend=true"),
    "PyTorchJob": KindFacts(BATCH, is_gang=True, stop="spec.runPolicy.suspend=true"),
    "TFJob": KindFacts(BATCH, is_gang=True, stop="spec.runPolicy.suspend=true"),
    "MPIJob": KindFacts(BATCH, is_gang=True, stop="spec.runPolicy.suspend=true"),
    "RayJob": KindFacts(BATCH, is_gang=True, stop="spec.suspend=true"),
    "RayCluster": KindFacts(BATCH, is_gang=True, stop="spec.suspend=true"),
}
_OTHER = KindFacts(BATCH, is_gang=True, stop=None)
"""A kind nobody knows is treated with most care: as a gang that can't be brought back."""

SERVING_KINDS = tuple(sorted(kind for kind, facts in _BY_KIND.items() if facts.use == SERVING))
NOTEBOOK_KINDS = tuple(sorted(kind for kind, facts in _BY_KIND.items() if facts.use == NOTEBOOK))


def facts_of(kind: str | None) -> KindFacts:
    """Return what is known of a workload's kind; of an unknown one, the most careful assumption."""
    return _OTHER if kind is None else _BY_KIND.get(kind, _OTHER)


def kind_of(workload: str) -> str:
    """Return the kind of a workload written as kind/namespace/name."""
    return workload.partition("/")[0]

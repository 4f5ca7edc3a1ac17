"""What Kueue does in a cluster, for our server in memory: workloads for jobs, admission by quota, eviction, finalizers.

The same tests hold it to a real Kueue. Everything happens at once after each write; there is no preemption, and only
GPUs are counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from tests.kube.answers import Object
from tests.kube.kinds import Kind
from tests.kube.kueue_hooks import BOOST, IN_USE, KUEUE, QUEUE_NAME, cohort_in, held, jobs_of, refuse, with_defaults
from tests.kube.rules import text_of
from tests.kube.validation import amount
from tests.kube.verbs import Api, How

_BY = How(manager="kueue")
_GPU = "nvidia.com/gpu"
_ENDLESS = Decimal(10) ** 9


@dataclass
class Kueue:
    """A Kueue over one API."""

    api: Api

    def fill(self, kind: Kind, made: Object) -> Object:
        """Return a new object as the webhooks leave it."""
        return with_defaults(kind, made)

    def check(self, kind: Kind, made: Object, before: Object | None) -> None:
        """Refuse what the webhooks refuse."""
        refuse(kind, made, before)

    def settle(self) -> None:
        """Bring what Kueue keeps up to what was written."""
        if self._kind(KUEUE, "Workload") is None:
            return
        jobs = {job["metadata"]["uid"]: (kind, job) for kind in jobs_of(self.api.kinds.all) for job in self._all(kind)}
        self._match(jobs)
        for workload in self._workloads():
            self._evict(workload, jobs)
        for workload in sorted(self._workloads(), key=_turn):
            self._admit(workload, jobs)
        for queue in self._named("ClusterQueue"):
            self._tell(queue)
        for word in ("ClusterQueue", "ResourceFlavor"):
            self._let_go(word)

    def _match(self, jobs: dict[str, tuple[Kind, Object]]) -> None:
        """Make a workload for each job in a queue that has none, and drop those whose job is gone."""
        kind = self._kind(KUEUE, "Workload")
        owners = set()
        for workload in self._workloads():
            owner = _owner(workload)
            owners.add(owner)
            if kind is not None and owner is not None and owner not in jobs:
                self.api.storage.drop((kind.key, workload["metadata"]["namespace"], workload["metadata"]["name"]))
        for uid, (of, job) in jobs.items():
            if kind is not None and uid not in owners and QUEUE_NAME in (job["metadata"].get("labels") or {}):
                self.api.create(kind, job["metadata"]["namespace"], _workload_for(kind, of, job), _BY)

    def _evict(self, workload: Object, jobs: dict[str, tuple[Kind, Object]]) -> None:
        admission = (workload.get("status") or {}).get("admission")
        local, queue = self._queues(workload)
        stops = {(each or {}).get("spec", {}).get("stopPolicy") for each in (local, queue)}
        if admission is None or (workload["spec"].get("active", True) and "HoldAndDrain" not in stops):
            return
        self._state(workload, None, [("QuotaReserved", "False"), ("Admitted", "False"), ("Evicted", "True")])
        self._run(jobs[str(_owner(workload))], None)

    def _admit(self, workload: Object, jobs: dict[str, tuple[Kind, Object]]) -> None:
        local, queue = self._queues(workload)
        is_waiting = "admission" not in (workload.get("status") or {}) and workload["spec"].get("active", True)
        if local is None or queue is None or not is_waiting or "deletionTimestamp" in queue["metadata"]:
            return
        if any(each["spec"].get("stopPolicy", "None") != "None" for each in (local, queue)):
            return
        flavor = _flavor(queue)
        flavors = {each["metadata"]["name"]: each for each in self._named("ResourceFlavor")}
        if flavor is None or flavor not in flavors or _asked(workload) > self._room(queue):
            return
        used = {_GPU: str(_asked(workload))}
        assigned = {"name": "main", "count": 1, "flavors": {_GPU: flavor}, "resourceUsage": used}
        admission = {"clusterQueue": queue["metadata"]["name"], "podSetAssignments": [assigned]}
        self._state(workload, admission, [("QuotaReserved", "True"), ("Admitted", "True"), ("Evicted", "False")])
        self._run(jobs[str(_owner(workload))], flavors[flavor]["spec"].get("nodeLabels") or {})

    def _room(self, queue: Object) -> Decimal:
        """Return how much a queue may still use: its own that it does not lend, and what its cohort has left."""
        cohort = cohort_in(queue)
        members = [each for each in self._named("ClusterQueue") if cohort and cohort_in(each) == cohort] or [queue]
        quotas = {each["metadata"]["name"]: _quota(each) for each in members}
        used = {name: self._used(name) for name in quotas}
        kept = {name: nominal - min(nominal, lends) for name, (nominal, _, lends) in quotas.items()}
        shared = sum((nominal - kept[name] for name, (nominal, _, _) in quotas.items()), Decimal(0))
        shared -= sum((max(Decimal(0), used[name] - kept[name]) for name in quotas), Decimal(0))
        mine = queue["metadata"]["name"]
        nominal, borrows, _ = quotas[mine]
        return min(max(Decimal(0), kept[mine] - used[mine]) + shared, nominal + borrows - used[mine])

    def _used(self, queue: str) -> Decimal:
        admitted = [each for each in self._workloads() if _admitted_by(each) == queue]
        return sum((_asked(each) for each in admitted), Decimal(0))

    def _run(self, found: tuple[Kind, Object], labels: Object | None) -> None:
        """Let a job run on nodes with these labels, or hold it (None) as it was before."""
        kind, job = found
        if labels is None:
            job = self._change(kind, job, held(kind, job["spec"], is_held=True))  # only then its pods may change
        spec = held(kind, job["spec"], is_held=labels is None)
        if kind.name == "Job":
            pods = {name: value for name, value in job["spec"]["template"]["spec"].items() if name != "nodeSelector"}
            pods |= {"nodeSelector": labels} if labels else {}
            spec["template"] = {**job["spec"]["template"], "spec": pods}
        self._change(kind, job, spec)

    def _change(self, kind: Kind, job: Object, spec: Object) -> Object:
        meta = job["metadata"]
        made = {**job, "spec": {**job["spec"], **spec}}
        return self.api.update(kind, meta["namespace"], meta["name"], made, _BY)

    def _state(self, workload: Object, admission: Object | None, conditions: list[tuple[str, str]]) -> None:
        now = text_of(self.api.clock())
        told = [
            {"type": each, "status": status, "reason": "ByQueue", "message": "", "lastTransitionTime": now}
            for each, status in conditions
        ]
        status = {"conditions": told, **({} if admission is None else {"admission": admission})}
        self._write("Workload", {**workload, "status": status}, "status")

    def _tell(self, queue: Object) -> None:
        """Write what a queue has given, and how many wait and run, into its status."""
        flavor, name = _flavor(queue), queue["metadata"]["name"]
        usage = [{"name": flavor, "resources": [{"name": _GPU, "total": f"{self._used(name):f}", "borrowed": "0"}]}]
        led = [each for each in self._workloads() if (self._queues(each)[1] or {}).get("metadata") == queue["metadata"]]
        admitted = sum(_admitted_by(each) == name for each in self._workloads())
        before = queue.get("status") or {}
        told = before.get("conditions") or [
            {"type": "Active", "status": "True", "reason": "Ready", "lastTransitionTime": text_of(self.api.clock())}
        ]
        waiting = sum(_admitted_by(each) is None and each["spec"].get("active", True) for each in led)
        counts = {"pendingWorkloads": waiting, "admittedWorkloads": admitted}
        status = {"conditions": told, "flavorsUsage": usage, "flavorsReservation": usage, **counts}
        if flavor is not None and before != status:
            self._write("ClusterQueue", {**queue, "status": status}, "status")

    def _let_go(self, word: str) -> None:
        """Let a queue or a flavor that is deleted go when nothing uses it any more."""
        flavors = {_flavor(each) for each in self._named("ClusterQueue")}
        queues = {_admitted_by(each) for each in self._workloads()}
        for each in self._named(word):
            meta = each["metadata"]
            in_use = meta["name"] in (queues if word == "ClusterQueue" else flavors)
            if "deletionTimestamp" in meta and not in_use:
                left = [name for name in meta.get("finalizers") or () if name != IN_USE]
                self._write(word, {**each, "metadata": {**meta, "finalizers": left}})

    def _queues(self, workload: Object) -> tuple[Object | None, Object | None]:
        space, name = workload["metadata"]["namespace"], workload["spec"].get("queueName")
        local = next((each for each in self._named("LocalQueue", space) if each["metadata"]["name"] == name), None)
        leads = None if local is None else local["spec"].get("clusterQueue")
        return local, next((each for each in self._named("ClusterQueue") if each["metadata"]["name"] == leads), None)

    def _write(self, word: str, body: Object, part: str = "") -> None:
        kind = self._kind(KUEUE, word)
        if kind is not None:
            meta = body["metadata"]
            self.api.update(kind, meta.get("namespace", ""), meta["name"], body, _BY, part=part)

    def _workloads(self) -> list[Object]:
        return [each for each in self._named("Workload") if _owner(each) is not None]

    def _named(self, word: str, namespace: str = "") -> list[Object]:
        kind = self._kind(KUEUE, word)
        return [] if kind is None else list(self._all(kind, namespace))

    def _all(self, kind: Kind, namespace: str = "") -> Iterator[Object]:
        every = list(self.api.storage.objects.items())
        return (each for key, each in every if key[0] == kind.key and namespace in {"", key[1]})

    def _kind(self, group: str, word: str) -> Kind | None:
        return next((kind for kind in self.api.kinds.all if (kind.group, kind.name) == (group, word)), None)


def _workload_for(kind: Kind, of: Kind, job: Object) -> Object:
    meta = job["metadata"]
    owner = {
        "apiVersion": job["apiVersion"], "kind": of.name, "name": meta["name"], "uid": meta["uid"], "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip
    limits = {_GPU: f"{_pods_of(job['spec']):f}"}
    pods = {"spec": {"containers": [{"name": "main", "image": "none", "resources": {"limits": limits}}]}}
    return {
        "apiVersion": kind.api_version(kind.versions[0]),
        "kind": kind.name,
        "metadata": {
            "name": f"{of.name.lower()}-{meta['name']}-{meta['uid'][-5:]}",
            "labels": {f"{KUEUE}/job-uid": meta["uid"]},
            "finalizers": [IN_USE],
            "ownerReferences": [owner],
        },
        "spec": {
            "active": True,
            "priority": 0,
            "queueName": meta["labels"][QUEUE_NAME],
            "podSets": [{"name": "main", "count": 1, "template": pods}],
        },
    }


def _pods_of(part: object) -> Decimal:
    """Return how many GPUs the pods of a job, or of a part of one, ask for together."""
    if isinstance(part, list):
        return sum((_pods_of(each) for each in part), Decimal(0))
    if not isinstance(part, dict):
        return Decimal(0)
    if "trainer" in part:
        trainer = part["trainer"]
        return amount(_gpus(trainer.get("resourcesPerNode"))) * int(trainer.get("numNodes", 1))
    if "containers" in part:
        return sum((amount(_gpus(each.get("resources"))) for each in part["containers"]), Decimal(0))
    times = int(part.get("replicas") or part.get("parallelism") or 1) if "template" in part else 1
    return times * sum((_pods_of(each) for each in part.values()), Decimal(0))


def _gpus(resources: Object | None) -> str:
    return str(((resources or {}).get("limits") or {}).get(_GPU, "0"))


def _asked(workload: Object) -> Decimal:
    containers = workload["spec"]["podSets"][0]["template"]["spec"]["containers"]
    return sum((amount(_gpus(each.get("resources"))) for each in containers), Decimal(0))


def _quota(queue: Object) -> tuple[Decimal, Decimal, Decimal]:
    """Return what a queue has, may borrow and may lend."""
    entries = [
        entry
        for group in queue["spec"].get("resourceGroups") or ()
        for flavor in group["flavors"]
        for entry in flavor["resources"]
        if entry["name"] == _GPU
    ]
    entry = entries[0] if entries else {}
    limits = (entry.get("borrowingLimit"), entry.get("lendingLimit"))
    borrows, lends = (_ENDLESS if each is None else amount(each) for each in limits)
    return amount(entry.get("nominalQuota", "0")), borrows, lends


def _turn(workload: Object) -> tuple[int, int]:
    """Return when a workload's turn comes: by priority with its boost, then by what was written first."""
    meta = workload["metadata"]
    boost = int((meta.get("annotations") or {}).get(BOOST, "0"))
    return -(int(workload["spec"].get("priority", 0)) + boost), int(meta["resourceVersion"])


def _flavor(queue: Object) -> str | None:
    groups = queue["spec"].get("resourceGroups") or ()
    return next((str(flavor["name"]) for group in groups for flavor in group["flavors"]), None)


def _admitted_by(workload: Object) -> str | None:
    return ((workload.get("status") or {}).get("admission") or {}).get("clusterQueue")


def _owner(workload: Object) -> str | None:
    owners = workload["metadata"].get("ownerReferences") or ()
    return next((str(each["uid"]) for each in owners if each.get("controller")), None)

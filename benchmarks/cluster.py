"""A cluster of 5,000 nodes and 50,000 pods: listed raw and turned into intervals, then followed while pods change.

The API server is our own in memory, in a process of its own. The baseline is the typed list of the Kubernetes client
over the same server, for a part of the pods, scaled to all.
Usage: python benchmarks/cluster.py [--nodes 5000] [--pods 50000] [--rate 200] [--seconds 30] [--typed 2000]
"""

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import kubernetes
import polars as pl

from collectors.cluster_source import ClusterSource
from fleet.clock import SystemClock
from steward.compose import known_of
from store.store import Store
from tests.kube.server import KubeServer, write_kubeconfig

GPUS_PER_NODE = 8
TURN_S = 5.0
Object = dict[str, Any]  # as JSON has it

# What a pod of a real cluster carries beside what we read: about 5 kB of it.
_ENVIRONMENT = [{"name": f"SETTING_{n}", "value": "some value of a setting, as they are"} for n in range(20)]
_MANAGED: list[Object] = [
    {"manager": name, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
     "fieldsV1": {"f:spec": {f"f:field{n}": {} for n in range(40)}}}
    for name in ("kube-controller-manager", "kube-scheduler", "kubelet")
]  # fmt: skip


def node(number: int) -> Object:
    """Return a node with eight GPUs."""
    labels = {
        "nvidia.com/gpu.count": str(GPUS_PER_NODE), "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "karpenter.sh/nodepool": f"pool-{number % 10}", **{f"feature.node/label-{n}": "true" for n in range(40)},
    }  # fmt: skip
    status = {"capacity": {"nvidia.com/gpu": str(GPUS_PER_NODE), "cpu": "96"}, "conditions": []}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{number}", "labels": labels}, "status": status}


def pod(name: str, number: int, nodes: int, bound_at: datetime) -> Object:
    """Return a pod that runs on one GPU; forty pods make up a deployment's replica set."""
    moment = bound_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"r{number // 40}", "uid": f"r{number // 40}",
             "controller": True}  # fmt: skip
    container = {
        "name": "main", "image": "registry.example/team/image:v1", "env": _ENVIRONMENT,
        "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
    }  # fmt: skip
    status = {
        "phase": "Running", "startTime": moment,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": moment}],
        "containerStatuses": [
            {"name": "main", "image": "i", "imageID": "i", "ready": True, "restartCount": 0,
             "state": {"running": {"startedAt": moment}}}
        ],
    }  # fmt: skip
    meta = {
        "name": name, "namespace": f"team-{number % 50}", "uid": f"uid-{name}", "creationTimestamp": moment,
        "ownerReferences": [owner], "managedFields": _MANAGED, "labels": {"app": "x", "version": "1"},
    }  # fmt: skip
    spec = {"nodeName": f"n{number % nodes}", "containers": [container], "restartPolicy": "Always"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def serve(pipe: Connection, nodes: int, pods: int) -> None:
    """Fill a server and serve it; on ("change", rate, seconds) change pods at that pace and tell how many were made."""
    server = KubeServer(bookmark_s=None)
    now = datetime.now(UTC)
    for number in range(50):
        meta = {"name": f"team-{number}", "labels": {"gpusteward.dev/workspace": f"w{number % 10}"}}
        server.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    for number in range(nodes):
        server.seed(node(number))
    for number in range(pods):
        if number % 40 == 0:
            meta = {"name": f"r{number // 40}", "namespace": f"team-{number % 50}", "uid": f"r{number // 40}"}
            server.seed({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta})
        server.seed(pod(f"p{number}", number, nodes, now))
    running = server.serve()
    pipe.send(server.url)
    while (order := pipe.recv()) is not None:
        pipe.send(change(server, nodes, *order))
    running.close()


def change(server: KubeServer, nodes: int, rate: float, seconds: float) -> int:
    """Make and delete pods, `rate` changes a second; return how many were made."""
    begin, made, pause = time.monotonic(), 0, threading.Event()
    while (gone := time.monotonic() - begin) < seconds:
        while made < gone * rate / 2:
            server.seed(pod(f"c{made}", made, nodes, datetime.now(UTC)))
            if made >= rate:
                old = made - int(rate)
                server.api.storage.drop(("pods.", f"team-{old % 50}", f"c{old}"))
            made += 1
        pause.wait(0.01)
    return made


def peak_mib() -> float:
    """Return the largest memory that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def turn(source: ClusterSource, store: Store) -> None:
    """Look and store."""
    for batch in source.collect(None, datetime.now(UTC)):
        store.append(batch)
        for trouble in batch.troubles:
            print(f"  {trouble.kind}: {trouble.place}: {trouble.reason}")


def follow(source: ClusterSource, store: Store, pipe: Connection, rate: float, seconds: float) -> None:
    """Turn while pods change, and tell how long each turn took and whether anything was missed."""
    pipe.send((rate, seconds))
    begin, took = time.monotonic(), []
    cpu = time.process_time()
    while time.monotonic() - begin < seconds:
        start = time.monotonic()
        turn(source, store)
        took.append(time.monotonic() - start)
        time.sleep(max(0.0, TURN_S - took[-1]))
    made = pipe.recv()
    turn(source, store)
    cpu = time.process_time() - cpu
    told = store.read("pod").filter(pl.col("pod").str.starts_with("c"))
    late = max(took)
    print(
        f"{rate:g} changes a second for {seconds:g} s, a turn every {TURN_S:g} s: {made} pods made, {told.height} told"
    )
    print(f"  longest turn {late:.2f} s, so a change is stored at most {TURN_S + late:.1f} s after it was made")
    left = told.filter(pl.col("ends_at").is_null()).height
    print(f"  open at the end {left}; {cpu / seconds:.0%} of a core; peak {peak_mib():.0f} MiB")


def typed_s(config: Path, pods: int) -> float:
    """Return the seconds that the client's typed list takes for at least so many pods, per pod."""
    loader: Any = kubernetes.config  # the library has no types
    api: Any = kubernetes.client.CoreV1Api(loader.new_client_from_config(str(config)))
    start, found, token = time.perf_counter(), 0, None
    while found < pods:
        page = api.list_pod_for_all_namespaces(limit=500, _continue=token)
        found += len(page.items)
        token = page.metadata._continue  # noqa: SLF001 - so the library names it
        if not token:
            break
    return (time.perf_counter() - start) / max(1, found)


def main() -> None:
    """Run it and print."""
    parser = argparse.ArgumentParser()
    for name, default in (("nodes", 5000), ("pods", 50_000), ("rate", 200), ("seconds", 30), ("typed", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Store.open(None, clock=SystemClock()) as store:
        pipe, other = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(other, given.nodes, given.pods))
        server.start()
        config = Path(folder) / "config"
        write_kubeconfig(config, [("bench", pipe.recv())])
        kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION = str(config)
        source = ClusterSource(SystemClock(), "bench", "bench", lambda: known_of(store, "bench"))
        before = peak_mib()
        start, cpu = time.perf_counter(), time.process_time()
        turn(source, store)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        rows = store.read("pod").height
        what = f"{given.nodes} nodes and {rows} pods listed, turned into intervals and stored"
        print(f"{what}: {took:.1f} s ({cpu:.1f} s CPU)")
        print(f"  peak {peak_mib():.0f} MiB ({before:.0f} MiB before)")
        follow(source, store, pipe, given.rate, given.seconds)
        source.close()
        baseline = typed_s(config, given.typed) * given.pods
        print(f"typed list of the pods alone by the Kubernetes client, scaled from {given.typed}: {baseline:.1f} s;"
              f" {baseline / took:.1f} times ours, which does all of it")  # fmt: skip
        pipe.send(None)
        server.join()


if __name__ == "__main__":
    main()

"""Cordoning many nodes: a plan of one cordon a node, carried out as `steward apply --yes` does it.

Each move is looked at afresh, guarded, rehearsed by the server, recorded, made, seen again and recorded. The API
server is our own in memory, in a process of its own, or the real one that `--kubeconfig` names (its nodes are made
for this and deleted after). The store is a file. The baseline is what a fault remediation service of a peer gets
through: 2.5 cordons a second, as its client allows itself 5 requests a second and takes two for each.
Usage: python benchmarks/cordon.py [--nodes 1500] [--kubeconfig PATH]
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import kubernetes

from actions.apply import apply
from actions.approval_policy import ApprovalPolicy
from actions.kube import KubeApi
from actions.kube_cluster import KubeCluster
from actions.kube_port import NODES
from actions.kube_state import Known
from actions.policy import ActionPolicy, Budget, Modes
from actions.rows import outcome_frame
from fleet.clock import SystemClock
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import FleetState, Gpu, ObjectRef
from store.store import Store
from tests.kube.server import KubeServer, write_kubeconfig

GPUS_PER_NODE = 8
PEER_PER_S, GOAL_PER_S = 2.5, 25.0
POLICY = ActionPolicy(
    modes=Modes(fence="auto"),
    budget=Budget(
        max_gpus_per_hour=1_000_000,
        max_share_of_workspace=1.0,
        max_share_of_pool=1.0,
        max_nodes_per_turn=100_000,
        max_share_of_nodes_per_turn=1.0,
    ),
    approval=ApprovalPolicy(two_persons_gpus=1_000_000, two_persons_nodes=100_000),
)


def serve(pipe: Connection, names: list[str]) -> None:
    """Serve nodes of these names until something comes through the pipe; then tell how many requests there were."""
    server = KubeServer(bookmark_s=None)
    for name in names:
        status = {"allocatable": {"nvidia.com/gpu": str(GPUS_PER_NODE)}, "conditions": []}
        meta = {"name": name, "labels": {"karpenter.sh/nodepool": "p"}}
        server.seed({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status})
    running = server.serve()
    pipe.send(server.url)
    pipe.recv()
    pipe.send(Counter(line.partition(" ")[0] + (" dry" if "dryRun" in line else "") for line in server.asked))
    running.close()


@contextmanager
def in_memory(names: list[str], folder: Path) -> Iterator[None]:
    """Let the server in memory be the one that is reached, and print what it was asked."""
    pipe, other = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(other, names))
    server.start()
    write_kubeconfig(folder / "config", [("bench", pipe.recv())])
    kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION = str(folder / "config")
    yield
    pipe.send(None)
    print("requests:", ", ".join(f"{count} {verb}" for verb, count in sorted(pipe.recv().items())))
    server.join()


@contextmanager
def on_real(names: list[str], config: Path) -> Iterator[None]:
    """Let the real server be the one that is reached, with nodes of these names while the block runs."""
    kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION = str(config)
    api = KubeApi("bench", None)
    for name in names:
        meta = {"name": name, "labels": {"karpenter.sh/nodepool": "p"}}
        api.create(NODES.path(), {"apiVersion": "v1", "kind": "Node", "metadata": meta}, is_dry_run=False)
    try:
        yield
    finally:
        for name in names:
            api.delete(NODES.path(name), is_dry_run=False)
        api.close()


def plan_of(state: FleetState, names: set[str], gpus: dict[str, tuple[str, ...]]) -> Plan:
    """Return the plan that cordons all nodes of these names."""
    moves = tuple(
        Move(
            f"cordon-{node.name}", MoveKind.CORDON_NODE, "bench", ObjectRef("Node", "", node.name), "xid_79", "fails",
            gpu_uuids=gpus[node.name], gpus=float(GPUS_PER_NODE), node=node.name, pool=node.pool,
            resource_version=node.resource_version,
        )
        for node in state.nodes
        if node.name in names
    )  # fmt: skip
    return Plan("bench", state.taken_at, "{}", moves)


def cordon(names: list[str], folder: Path) -> bool:
    """Cordon the nodes, print how long it took and return whether all were."""
    uuids = {name: tuple(f"GPU-{name}-{place}" for place in range(GPUS_PER_NODE)) for name in names}
    gpus = tuple(Gpu(each, "bench", name) for name in names for each in uuids[name])
    clock = SystemClock()
    cluster = KubeCluster("bench", KubeApi("bench", None), partial(Known, gpus), clock)
    with Store.open(folder / "s.duckdb", clock=clock) as store:
        start = time.perf_counter()
        state = cluster.observe()
        print(f"observed {len(state.nodes)} nodes and {len(state.gpus)} GPUs in {time.perf_counter() - start:.2f} s")
        made = plan_of(state, set(names), uuids)

        def record(outcome: Outcome) -> None:
            store.append_stored("outcome", outcome_frame([outcome]))

        start, cpu = time.perf_counter(), time.process_time()
        outcomes = apply(
            made, cluster, POLICY, clock, record, actor="bench", kill_switch=lambda: False, is_dry_run=False
        )
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        rows = store.read("outcome").height
    done = sum(each.stage is Stage.APPLIED for each in outcomes)
    left = sum(each.cordoned_by != "gpu-steward" for each in cluster.observe().nodes if each.name in uuids)
    cluster.close()
    rate = done / took
    print(f"{done} of {len(names)} cordons made and seen in {took:.1f} s ({cpu:.1f} s CPU), {rows} outcomes on disk")
    print(f"not cordoned at the end: {left}; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(f"{rate:.1f} cordons a second: {rate / PEER_PER_S:.1f} times the peer's {PEER_PER_S:g}, goal {GOAL_PER_S:g}")
    return left == 0


def main() -> int:
    """Run it and print; 1 where a node was left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1500)
    parser.add_argument("--kubeconfig", type=Path)
    given = parser.parse_args()
    prefix = f"bench-{uuid.uuid4().hex[:6]}"
    names = [f"{prefix}-{number}" for number in range(given.nodes)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = in_memory(names, folder) if given.kubeconfig is None else on_real(names, given.kubeconfig)
        with place:
            return int(not cordon(names, folder))


if __name__ == "__main__":
    sys.exit(main())

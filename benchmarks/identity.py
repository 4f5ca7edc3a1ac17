"""How long it takes to join pods with their GPUs, beside a plain join by name that knows nothing of time.

50,000 pods on 5,000 nodes of 8 GPUs, each seen by an exporter: `python benchmarks/identity.py [pods]`.
"""

import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl

from collectors.identity import Told, join
from collectors.identity_reconcile import rows_to_write
from fleet.tables import GPU, HOLDER, NODE, POD, POD_ALLOCATION

DAY = datetime(2026, 5, 4, tzinfo=UTC)
GPUS_PER_NODE = 8


def world(pods: int) -> Told:
    """Return pods of one GPU each, one after the other on each GPU, and who was seen where."""
    nodes = max(1, pods // 10)
    gpus = nodes * GPUS_PER_NODE
    rows, seen = [], []
    for number in range(pods):
        node, turn = number % gpus // GPUS_PER_NODE, number // gpus
        start = DAY + timedelta(minutes=10 * turn)
        end = start + timedelta(minutes=9) if number + gpus < pods else None
        name = {"cluster": "c", "namespace": f"team-{number % 40}", "pod": f"pod-{number}", "node": f"n{node}"}
        rows.append({**name, "pod_uid": f"uid-{number}", "resources": json.dumps({"nvidia.com/gpu": 1}),
                     "created_at": start, "starts_at": start, "ends_at": end})  # fmt: skip
        last = start + timedelta(minutes=8)
        seen.append({**name, "gpu_uuid": f"GPU-{number % gpus}", "source": "prometheus", "starts_at": start,
                     "last_seen_at": last})  # fmt: skip
    devices = [
        {"gpu": key, "uuid": f"GPU-{key}", "cluster": "c", "node": f"n{key // GPUS_PER_NODE}"} for key in range(gpus)
    ]
    labels, capacity = json.dumps({"nvidia.com/gpu.count": "8"}), json.dumps({"nvidia.com/gpu": GPUS_PER_NODE})
    places = [
        {"cluster": "c", "node": f"n{node}", "gpus": GPUS_PER_NODE, "labels": labels, "capacity": capacity}
        for node in range(nodes)
    ]
    return Told(
        pl.DataFrame(rows, schema=POD.schema()),
        pl.DataFrame(seen, schema=HOLDER.schema()),
        pl.DataFrame(devices, schema=GPU.schema()),
        nodes=pl.DataFrame(places, schema=NODE.schema()),
    )


def main() -> None:
    """Print seconds, the ratio to the plain join, and the peak of memory."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    told = world(pods)
    now = DAY + timedelta(days=1)
    begun = time.perf_counter()
    plain = told.pods.join(told.holders, on=["cluster", "namespace", "pod"]).height
    plain_s = time.perf_counter() - begun
    begun = time.perf_counter()
    joined = join(told, now).allocations
    join_s = time.perf_counter() - begun
    begun = time.perf_counter()
    first = rows_to_write(joined, POD_ALLOCATION.empty("wire"), DAY).height
    again = rows_to_write(joined, joined, DAY).height
    write_s = time.perf_counter() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{pods:,} pods: {joined.height:,} allocations in {join_s:.2f} s ({pods / join_s:,.0f} pods/s)")
    print(f"a plain join by name: {plain:,} rows in {plain_s:.3f} s; the join is {join_s / plain_s:,.0f} times that")
    print(f"against the store twice: {first:,} rows, then {again}, in {write_s:.2f} s; peak {peak_mib:,.0f} MiB")


if __name__ == "__main__":
    main()

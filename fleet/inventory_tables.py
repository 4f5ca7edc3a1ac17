"""What there is and who holds it: clusters, nodes, workspaces, allocations, prices, jobs, demand."""

import polars as pl

from fleet.columns import EXACT, FLAG, INT, INTERVAL, SMALL, TEXT, TIME, needed
from fleet.frames import MONEY, Column, Table

CLUSTER = Table(
    "cluster",
    "Clusters known to this house.",
    (
        needed("cluster", TEXT, "its name"),
        Column("context", TEXT, "kubeconfig context"),
        Column("provider", TEXT, "aws, gcp, azure, on-prem, simulator, trace"),
        Column("region", TEXT, "provider's region"),
        Column("last_seen_at", TIME, "when it last answered"),
    ),
    key=("cluster",),
)

NODE = Table(
    "node",
    "Nodes with their last known state.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("node", TEXT, "its name"),
        Column("pool", TEXT, "node pool"),
        Column("rack", TEXT, "rack or other shared-fate group"),
        Column("model", TEXT, "GPU model"),
        Column("gpus", SMALL, "physical GPUs it should have"),
        Column("cpu_milli", INT, "CPU, thousandths of a core"),
        Column("memory_mib", INT, "host memory"),
        Column("capacity_type", TEXT, "on_demand, reserved, spot, owned"),
        Column("region", TEXT, "provider's region"),
        Column("is_ready", FLAG, "condition Ready"),
        Column("is_schedulable", FLAG, "not cordoned"),
        Column("labels", TEXT, "labels as a JSON object"),
        Column("taints", TEXT, "taints as a JSON list"),
        Column("last_seen_at", TIME, "when a source last told of it"),
        Column("provider", TEXT, "aws, gcp, azure or the first word of its provider id"),
        Column("zone", TEXT, "provider's zone"),
        Column("instance_type", TEXT, "provider's machine type"),
        Column("conditions", TEXT, "conditions as a JSON object: type to status"),
        Column("capacity", TEXT, "GPU resources it has, as a JSON object: nvidia.com/gpu, mig-*, .shared"),
        Column("allocatable", TEXT, "GPU resources pods may have, as a JSON object"),
    ),
    key=("cluster", "node"),
    time="last_seen_at",
)

NODE_POOL = Table(
    "node_pool",
    "Node pools: what they hold and how far they may grow.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("pool", TEXT, "its name"),
        Column("model", TEXT, "GPU model"),
        Column("capacity_type", TEXT, "on_demand, reserved, spot, owned"),
        Column("nodes", SMALL, "nodes now"),
        Column("nodes_min", SMALL, "never fewer"),
        Column("nodes_max", SMALL, "never more"),
        Column("gpus_per_node", SMALL, "GPUs a node"),
    ),
    key=("cluster", "pool"),
)

POD = Table(
    "pod",
    "Pods that ask for GPUs, as the API server tells of them, each with the time it held its node.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("namespace", TEXT, "its namespace"),
        needed("pod", TEXT, "its name"),
        needed("pod_uid", TEXT, "its UID"),
        Column("node", TEXT, "the node it was bound to; null: it waits"),
        Column("workload_kind", TEXT, "top-level owner's kind: Job, Deployment, Notebook, ...; Pod where it has none"),
        Column("workload", TEXT, "top-level owner's name"),
        Column("workspace", TEXT, "workspace its namespace belonged to"),
        Column("owner", TEXT, "person or service that made it, as labels and annotations tell"),
        Column("gpus", EXACT, "whole GPUs it asks for, parts for MIG and shared ones; null: nobody knows how much"),
        Column("resources", TEXT, "what it asks for, as a JSON object: nvidia.com/gpu, mig-*, .shared, device classes"),
        Column("devices", TEXT, "devices its resource claims were given, as a JSON list"),
        Column("phase", TEXT, "Pending, Running, Succeeded, Failed; the last one told"),
        needed("created_at", TIME, "when it was made"),
        Column("starts_at", TIME, "when it was bound to its node and holds its GPUs from then; null: it waits"),
        Column("ends_at", TIME, "when it gave them back or went away; null: open"),
        Column("cpu_milli", INT, "CPU it asks of its host, thousandths of a core"),
        Column("memory_mib", INT, "memory it asks of its host"),
        Column("labels", TEXT, "its labels, as a JSON object"),
    ),
    key=("pod_uid",),
    time="created_at",
)

HOLDER = Table(
    "holder",
    "Who was seen to hold which device, as exporters' labels, the kubelet and processes tell. Rows of one holder may"
    " touch or overlap: a teller that forgot when it first saw one begins a new row.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("node", TEXT, "the node that the device is in, as the teller names it"),
        needed("gpu_uuid", TEXT, "the GPU it holds, or whose MIG device it holds"),
        Column("slice_uuid", TEXT, "the MIG device it holds, where it is not the whole GPU"),
        needed("namespace", TEXT, "the pod's namespace"),
        needed("pod", TEXT, "the pod's name"),
        Column("container", TEXT, "the container; null: not told"),
        Column("pod_uid", TEXT, "the pod's UID; null: not told"),
        Column("share_count", SMALL, "replicas of a shared device it holds (time slicing, MPS); null: not told"),
        needed("source", TEXT, "who told"),
        needed("starts_at", TIME, "when it was first seen there"),
        Column("last_seen_at", TIME, "when it was last seen there"),
        Column("ends_at", TIME, "first moment it was seen not to be there any more; null: open"),
    ),
    key=("cluster", "node", "gpu_uuid", "slice_uuid", "namespace", "pod", "container", "source", "starts_at"),
    time="starts_at",
)

POD_ALLOCATION = Table(
    "pod_allocation",
    "Which pod held which GPU, or which part of it, from when to when.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("namespace", TEXT, "its namespace"),
        needed("pod", TEXT, "its name"),
        needed("pod_uid", TEXT, "its UID"),
        Column("container", TEXT, "container that asked"),
        Column("workload_kind", TEXT, "top-level owner's kind: Job, Deployment, Notebook, ..."),
        Column("workload", TEXT, "top-level owner's name"),
        Column("workspace", TEXT, "workspace its namespace belonged to"),
        Column("owner", TEXT, "person or service that made it"),
        needed("gpu", pl.UInt32(), "the GPU it held"),
        Column("slice", pl.UInt32(), "the MIG device it held, where it is not the whole GPU"),
        needed("fraction", EXACT, "part of the GPU it held, ratio"),
        *INTERVAL,
    ),
    key=("pod_uid", "container", "gpu", "slice", "starts_at"),
    time="starts_at",
)

WORKSPACE = Table(
    "workspace",
    "Workspaces (what EGS calls slices).",
    (
        needed("workspace", TEXT, "its name"),
        Column("owner", TEXT, "whom to tell"),
        Column("priority", SMALL, "low 1-100, medium 101-200, high 201-300"),
        Column("weight", EXACT, "share of what is left over"),
        Column("manifest", TEXT, "desired state, the Workspace manifest as JSON"),
    ),
    key=("workspace",),
)

WORKSPACE_MEMBER = Table(
    "workspace_member",
    "Which namespaces belong to which workspace, from when to when.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("namespace", TEXT, "the namespace"),
        needed("workspace", TEXT, "the workspace"),
        *INTERVAL,
    ),
    key=("cluster", "namespace", "starts_at"),
    time="starts_at",
)

QUOTA = Table(
    "quota",
    "GPUs a workspace may count on, from when to when.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("workspace", TEXT, "the workspace"),
        Column("pool", TEXT, "node pool, null = any"),
        Column("model", TEXT, "GPU model, null = any"),
        needed("gpus", EXACT, "guaranteed GPUs"),
        Column("borrowing_gpus", EXACT, "GPUs it may borrow on top, null = no limit"),
        *INTERVAL,
    ),
    key=("cluster", "workspace", "pool", "model", "starts_at"),
    time="starts_at",
)

QUEUE = Table(
    "queue",
    "Kueue's cluster queues as they stood when last seen, by flavor.",
    (
        needed("cluster", TEXT, "its cluster"),
        needed("queue", TEXT, "the cluster queue"),
        needed("flavor", TEXT, "the kind of nodes"),
        Column("workspace", TEXT, "the workspace it speaks for"),
        Column("pool", TEXT, "node pool of the flavor"),
        Column("model", TEXT, "GPU model of the flavor"),
        Column("nominal_gpus", EXACT, "GPUs it may count on"),
        Column("reserved_gpus", EXACT, "GPUs kept for its workloads that have quota"),
        Column("used_gpus", EXACT, "GPUs of its admitted workloads"),
        Column("borrowed_gpus", EXACT, "of them, GPUs above what it may count on"),
        Column("pending_jobs", SMALL, "workloads that wait, of all flavors"),
        Column("admitted_jobs", SMALL, "workloads that are admitted and not finished, of all flavors"),
        Column("is_active", FLAG, "condition Active: it admits workloads"),
        needed("last_seen_at", TIME, "when it stood so"),
    ),
    key=("cluster", "queue", "flavor"),
    time="last_seen_at",
)

REQUEST = Table(
    "request",
    "GPU requests and where they stand.",
    (
        needed("request_id", TEXT, "its id"),
        needed("workspace", TEXT, "who asks"),
        Column("cluster", TEXT, "where, null = anywhere"),
        Column("model", TEXT, "GPU model, null = any"),
        needed("gpus", EXACT, "how many"),
        Column("priority", SMALL, "low 1-100, medium 101-200, high 201-300"),
        needed("submitted_at", TIME, "when it was made"),
        Column("granted_at", TIME, "when it was granted"),
        Column("ended_at", TIME, "when it was given back"),
        needed("status", TEXT, "queued, granted, ended, refused, cancelled"),
    ),
    key=("request_id",),
    time="submitted_at",
)

PRICE = Table(
    "price",
    "What a GPU-hour costs, from when to when.",
    (
        needed("model", TEXT, "GPU model"),
        needed("capacity_type", TEXT, "on_demand, reserved, spot, owned"),
        Column("region", TEXT, "provider's region, null = any"),
        needed("usd_per_gpu_hour", MONEY, "amortised price of one GPU for one hour, its share of the node included"),
        Column("source", TEXT, "where the price comes from"),
        *INTERVAL,
    ),
    key=("model", "capacity_type", "region", "starts_at"),
    time="starts_at",
)

JOB = Table(
    "job",
    "Jobs as queues and traces record them.",
    (
        needed("job_id", TEXT, "its id, unique in its cluster"),
        needed("cluster", TEXT, "its cluster or trace"),
        Column("workspace", TEXT, "who ran it"),
        Column("model", TEXT, "GPU model asked for"),
        needed("gpus", EXACT, "GPUs asked for; fractions where the queue knows them"),
        Column("priority", TEXT, "queue priority or QoS class"),
        needed("submitted_at", TIME, "when it was submitted"),
        Column("started_at", TIME, "when it began to run; null = never, or not recorded"),
        Column("ended_at", TIME, "when it ended; null = not yet, or not recorded"),
        Column("status", TEXT, "pending, running, succeeded, failed, cancelled"),
        Column("duration_s", EXACT, "run time where the trace gives that instead of start and end"),
    ),
    key=("cluster", "job_id"),
    time="submitted_at",
)

DEMAND_SAMPLE = Table(
    "demand_sample",
    "GPUs wanted and had, by workspace and moment.",
    (
        needed("cluster", TEXT, "its cluster or trace"),
        needed("workspace", TEXT, "who wants them"),
        Column("pool", TEXT, "node pool, null = all"),
        Column("model", TEXT, "GPU model, null = all"),
        needed("ts", TIME, "moment"),
        Column("running_gpus", EXACT, "GPUs held by running jobs"),
        Column("pending_gpus", EXACT, "GPUs asked for by waiting jobs"),
        Column("capacity_gpus", EXACT, "GPUs the workspace could have had"),
        Column("running_jobs", EXACT, "running GPU jobs"),
        Column("pending_jobs", EXACT, "waiting GPU jobs"),
    ),
    key=("cluster", "workspace", "pool", "model", "ts"),
    time="ts",
)

"""By which means a GPU is fenced, narrowest first, and which GPUs of its node each of them takes out.

A cluster tells of each GPU how it could be fenced (`Gpu.fence_by`); what tells nothing fences one GPU alone.
"""

from actions.index import FleetIndex
from fleet.move import Move, MoveKind
from fleet.state import Gpu, Node

DEVICE_RULE, DEVICE_PLUGIN, NODE_TAINT = "device_rule", "device_plugin", "node_taint"
MEANS = "means"  # the argument of a fence that names one of them
FENCED = "gpusteward.dev/fenced"  # the taint that keeps all new pods off a node, and the annotation that says for whom


def gpus_out(move: Move, index: FleetIndex) -> frozenset[str]:
    """Return the GPUs that a move touches: those it names, and all of their node where it keeps that free."""
    named = frozenset(move.gpu_uuids)
    if move.kind is not MoveKind.FENCE_GPU or move.arguments.get(MEANS) != NODE_TAINT:
        return named
    return named | {gpu.uuid for gpu in index.gpus_by_node.get((move.cluster, move.target.name), ())}


def is_kept_free(node: Node) -> bool:
    """Return whether a node takes no new pods: it is cordoned, or a fence of ours is on all of it."""
    return not node.is_schedulable or FENCED in node.taints


def gpus_taken(gpu: Gpu, node: Node, index: FleetIndex) -> int:
    """Return how many GPUs a fence of this one takes out that still get new pods; 1 where its node gets none anyway."""
    if gpu.fence_by != NODE_TAINT or is_kept_free(node):
        return 1
    here = index.gpus_by_node.get((node.cluster, node.name), ())
    return max(1, sum(not each.is_fenced for each in here))


def words_of(gpu: Gpu, node: Node, taken: int) -> str:
    """Say what a fence of this GPU stops, by which means and why by no narrower one."""
    match gpu.fence_by:
        case "device_rule":
            return "a rule keeps new claims off this very device; its neighbours and running pods go on"
        case "device_plugin":
            return f"the device plugin of {node.name} takes this GPU out; its neighbours and running pods go on"
        case "node_taint" if taken > 1:
            return (
                f"no new pod gets any of {taken} GPUs of {node.name}, running pods go on: nothing there takes out one "
                "GPU alone (no device is published for it, and no device plugin keeps the fence contract)"
            )
        case "node_taint":
            return f"{node.name} is kept free of new pods; running pods go on"
        case _:
            return "new pods no longer get this GPU; running pods go on"

"""Say the health of a node's GPUs as the content of a Kubernetes node condition; whoever may write it, writes it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from analytics.health_state import STATES
from fleet.verdict import Verdict

CONDITION = "GpuHealthy"
_AT_FAULT = frozenset({"degraded", "failing", "failed"})
_NAMED = 3


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """One condition: `status` is "True", "False" or "Unknown", `reason` one word in capitals, `message` a sentence."""

    cluster: str
    node: str
    type: str
    status: str
    reason: str
    message: str


def node_conditions(verdicts: Iterable[Verdict]) -> list[NodeCondition]:
    """Return a condition for each node that health verdicts on its GPUs, or on itself, speak of.

    False where any of them is at fault, with the worst as its reason; Unknown where nothing is at fault and something
    is not known; else True. The words change only with what they tell, so that a condition does not flap by its text.
    """
    by_node: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.topic == "health" and verdict.subject_kind in {"gpu", "node"} and verdict.node is not None:
            by_node[verdict.cluster or "", verdict.node].append(verdict)
    return [_condition(*place, told) for place, told in sorted(by_node.items())]


def _condition(cluster: str, node: str, told: list[Verdict]) -> NodeCondition:
    gpus = sum(verdict.subject_kind == "gpu" for verdict in told)
    ranked = sorted(told, key=lambda verdict: (-STATES.index(verdict.state), verdict.subject))
    bad = [verdict for verdict in ranked if verdict.state in _AT_FAULT]
    unknown = [verdict for verdict in ranked if verdict.state == "unknown"]
    if bad:
        named = "; ".join(f"{one.subject} is {one.state} ({one.rule}): {one.action}" for one in bad[:_NAMED])
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        message = f"{named}{more}; {len(bad)} of {gpus} GPUs affected"
        return NodeCondition(cluster, node, CONDITION, "False", _word(bad[0].rule), message)
    if unknown:
        message = f"nothing is known of {len(unknown)} of {gpus} GPUs ({unknown[0].rule})"
        return NodeCondition(cluster, node, CONDITION, "Unknown", _word(unknown[0].rule), message)
    trial = sum(verdict.state == "probation" for verdict in told)
    message = f"{gpus} GPUs healthy" + (f", {trial} on probation" if trial else "")
    return NodeCondition(cluster, node, CONDITION, "True", "GpusHealthy", message)


def _word(rule: str) -> str:
    """Return a rule's name as Kubernetes wants a reason: CamelCase, letters and digits."""
    return "".join(part.capitalize() for part in rule.split("_")) or "Unknown"

"""Which cluster a verdict speaks of, where it does not say so itself. Pure.

Two clusters may have nodes and workloads of the same names. A verdict that names no cluster would be taken up in each
of them, so it counts only where no more than one of them shows what it is about.
"""

from collections.abc import Mapping, Sequence

from actions.evidence import hold
from actions.index import FleetIndex, index_of
from fleet.move import HeldBack
from fleet.state import FleetState
from fleet.verdict import Verdict


def without_doubtful(
    verdicts: Sequence[Verdict], states: Mapping[str, FleetState]
) -> tuple[tuple[Verdict, ...], tuple[HeldBack, ...]]:
    """Return the verdicts that speak of one cluster, and as held back those that might speak of several of `states`."""
    if len(states) <= 1 or all(verdict.cluster is not None for verdict in verdicts):
        return tuple(verdicts), ()
    indexes = {name: index_of(state) for name, state in states.items()}
    kept: list[Verdict] = []
    held: list[HeldBack] = []
    for verdict in verdicts:
        found = [] if verdict.cluster is not None else sorted(n for n, each in indexes.items() if _shows(each, verdict))
        if len(found) <= 1:
            kept.append(verdict)
        else:
            held.append(hold(verdict, f"it names no cluster, and {' and '.join(found)} both have one of this name"))
    return tuple(kept), tuple(held)


def _shows(index: FleetIndex, verdict: Verdict) -> bool:
    if verdict.workload is not None and index.find_workloads(verdict.workload, None):
        return True
    match verdict.subject_kind:
        case "gpu":
            return verdict.subject in index.gpus
        case "node":
            return bool(index.find_nodes(verdict.subject, None))
        case "workspace":
            return any(each.workspace == verdict.subject for each in index.state.quotas)
        case _:
            return bool(index.find_workloads(verdict.subject, None))

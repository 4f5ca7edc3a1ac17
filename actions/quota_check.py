"""The last look at a change of quotas: would it make running work borrowed, or reclaimable, that is not so now?

Asked in the words of the two schedulers that keep quotas: Kueue's dominant resource share must rise for nobody, and
what KAI's fair share covers of the work that runs must stay covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from actions.dominant_share import NodeQuota, QuotaNode, QuotaTree
from actions.fair_share import Queue, fair_shares

_GPU = ("any", "gpu")
_COHORT = "\0cohort"  # no workspace has this name
_HAIR = 1e-6


@dataclass(frozen=True, slots=True)
class Standing:
    """One workspace of a pool: what it holds, its quota before and after (GPUs), how far it may borrow, its weight."""

    name: str
    held: float
    before: float
    after: float
    borrowing: float | None = None
    weight: float = 1.0


def why_unsound(standings: Sequence[Standing]) -> str | None:
    """Say what a change of one pool's quotas would break, or None where it breaks nothing."""
    if abs(sum(each.after for each in standings) - sum(each.before for each in standings)) > _HAIR:
        return "the quotas of its pool would not sum to what they do"
    trees = [
        _tree(standings, [each.before for each in standings]),
        _tree(standings, [each.after for each in standings]),
    ]
    for each in standings:
        share, then = trees[0].share(each.name), trees[1].share(each.name)
        if then.key[0] > share.key[0] or then.key[1] > share.key[1] + _HAIR:
            return f"workspace {each.name} would borrow more of its pool than it does"
    covered = _covered(standings, [each.before for each in standings])
    still = _covered(standings, [each.after for each in standings])
    lost = [each.name for each in standings if covered[each.name] and not still[each.name]]
    return f"running work of workspace {lost[0]} would pass its fair share" if lost else None


def _tree(standings: Sequence[Standing], quotas: Sequence[float]) -> QuotaTree:
    nodes = [
        QuotaNode(each.name, _COHORT, each.weight, {_GPU: NodeQuota(gpus, each.borrowing)})
        for each, gpus in zip(standings, quotas, strict=True)
    ]
    return QuotaTree(nodes, {each.name: {_GPU: each.held} for each in standings})


def _covered(standings: Sequence[Standing], quotas: Sequence[float]) -> dict[str, bool]:
    queues = [Queue(each.name, gpus, each.held, each.weight) for each, gpus in zip(standings, quotas, strict=True)]
    shares = fair_shares(sum(quotas), queues).by_queue
    return {each.name: each.held <= shares[each.name] + _HAIR for each in standings}

"""Every rule of the house by name, each a pure function: look-ups, verdicts, policy, moment, what was made lately."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from actions.budget import Made
from actions.budget_rule import calls_for_budget, propose_budgets
from actions.defragment import calls_for_defragment, propose_defragments
from actions.evidence import Proposal
from actions.fence import propose_fences
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.pools import calls_for_pool, propose_pools
from actions.rebalance import propose_rebalance
from actions.reclaim import propose_reclaims
from actions.repair import propose_repairs
from actions.reslice import calls_for_reslice, propose_reslices
from actions.stalled import calls_for_stalled, propose_stalled
from fleet.verdict import Verdict

Propose = Callable[[FleetIndex, Sequence[Verdict], ActionPolicy, datetime, Sequence[Made]], Proposal]


def _fences(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, _recent: Sequence[Made]
) -> Proposal:
    return propose_fences(index, verdicts, policy, now)


PROPOSERS: Mapping[str, Propose] = {
    "fence": _fences,
    "repair": propose_repairs,
    "reclaim": propose_reclaims,
    "stalled": propose_stalled,
    "rebalance": propose_rebalance,
    "reslice": propose_reslices,
    "defragment": propose_defragments,
    "pool": propose_pools,
    "budget": propose_budgets,
}
CALLS: tuple[Callable[[Verdict], bool], ...] = (
    calls_for_stalled,
    calls_for_reslice,
    calls_for_defragment,
    calls_for_pool,
    calls_for_budget,
)
"""What tells the verdicts that a rule of further topics answers."""

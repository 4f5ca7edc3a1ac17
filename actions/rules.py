"""Every rule of the house by name, each a pure function: look-ups, verdicts, policy, moment, what was made lately."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from actions.budget import Made
from actions.evidence import Proposal
from actions.fence import propose_fences
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.rebalance import propose_rebalance
from actions.reclaim import propose_reclaims
from actions.repair import propose_repairs
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
    "rebalance": propose_rebalance,
}

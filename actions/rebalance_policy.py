"""When quota moves from one workspace to another, how far, and on whose terms."""

from dataclasses import dataclass

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput

_MAX_HOURS = 24.0 * 366
_MAX_GPUS = 10_000_000


@dataclass(frozen=True, slots=True)
class WorkspaceTerms:
    """What one workspace was promised, in every pool where it has a quota.

    `guarantee_gpus`: its quota is not lowered below this. A GPU that it lacks costs `weight` times two to the power
    of `priority`: each step of priority counts twice the one below.
    """

    workspace: str
    guarantee_gpus: float = 0.0
    weight: float = 1.0
    priority: int = 0

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        if not self.workspace.strip():
            message = "rebalance.terms.workspace: is empty"
            raise BadInput(message, field="rebalance.terms.workspace")
        require_between("rebalance.terms.guarantee_gpus", self.guarantee_gpus, 0, _MAX_GPUS)
        require_positive("rebalance.terms.weight", self.weight)
        require_between("rebalance.terms.priority", self.priority, -10, 10)

    @property
    def cost(self) -> float:
        """Return what a GPU that it lacks costs, beside 1 for a workspace without terms."""
        return float(self.weight * 2.0**self.priority)


@dataclass(frozen=True, slots=True)
class RebalancePolicy:
    """When guaranteed quota moves from one workspace to another.

    Who gives keeps its forecast at quantile `keep_level` and `headroom` (ratio) above it; at most `max_churn_share` of
    the quota of one pool moves a turn; a change of less than `min_gpus` is not made. What got quota gives none for
    `turn_round_h`, and what gave gets none; what others moved, or somebody took back, is left alone for `cooldown_h`. A
    pool's quotas change only where that lowers its expected unmet demand by more than `min_gain_share` of what
    is left of it, or by more than `min_gain_gpus`: a forecast that wobbles moves nothing. A GPU that a workspace may
    borrow, where its pool is likely to have some over, counts as met for `borrowed_worth` (ratio); it can be taken
    back.
    """

    is_enabled: bool = True
    headroom: float = 0.0
    max_churn_share: float = 0.1
    min_gpus: int = 1
    turn_round_h: float = 1.5
    cooldown_h: float = 6.0
    protected_workspaces: tuple[str, ...] = ()
    keep_level: float = 0.5
    min_gain_share: float = 0.01
    min_gain_gpus: float = 1.0
    borrowed_worth: float = 0.5
    terms: tuple[WorkspaceTerms, ...] = ()

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("rebalance.headroom", self.headroom, 0, 10)
        require_between("rebalance.max_churn_share", self.max_churn_share, 0, 1)
        require_between("rebalance.min_gpus", self.min_gpus, 1, 1_000_000)
        require_between("rebalance.turn_round_h", self.turn_round_h, 0, _MAX_HOURS)
        require_between("rebalance.cooldown_h", self.cooldown_h, 0, _MAX_HOURS)
        require_between("rebalance.keep_level", self.keep_level, 0, 1)
        require_between("rebalance.min_gain_share", self.min_gain_share, 0, 1)
        require_between("rebalance.min_gain_gpus", self.min_gain_gpus, 0, 1024)
        require_between("rebalance.borrowed_worth", self.borrowed_worth, 0, 1)
        names = [each.workspace for each in self.terms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"rebalance.terms: {twice[0]!r} stands twice"
            raise BadInput(message, field="rebalance.terms")

    def terms_of(self, workspace: str) -> WorkspaceTerms:
        """Return the terms of a workspace; those of one that has none of its own are plain."""
        return next((each for each in self.terms if each.workspace == workspace), WorkspaceTerms(workspace))

"""Who must agree before a move is made, how long they have, and how long an owner is given: settings."""

from dataclasses import dataclass, field, fields

from fleet.bounds import require_between

_MAX_HOURS = 24.0 * 366
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Graces:
    """Seconds between the news of a move and its making, by rule in mode "auto"; 0 makes it at once."""

    fence: float = 0.0
    reclaim: float = 900.0
    rebalance: float = 0.0
    repair: float = 0.0
    budget: float = 900.0
    reslice: float = 900.0
    defragment: float = 900.0
    pool: float = 0.0
    workspace: float = 0.0
    stalled: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse graces that mean nothing."""
        for each in fields(self):
            require_between(f"approval.grace_s.{each.name}", getattr(self, each.name), 0, 30 * _DAY_S)


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """How moves are approved.

    A proposal may be answered, and an approved move made, for `expires_h`. A refusal stands for `refused_h`; then the
    same move may be proposed again. A move of more than `two_persons_gpus` GPUs, and the moves of a rule that touch
    more than `two_persons_nodes` nodes in one plan, need two persons, neither of them who made the plan.
    """

    expires_h: float = 24.0
    refused_h: float = 24.0
    two_persons_gpus: float = 64.0
    two_persons_nodes: int = 8
    grace_s: Graces = field(default_factory=Graces)

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("approval.expires_h", self.expires_h, 0.01, _MAX_HOURS)
        require_between("approval.refused_h", self.refused_h, 0, _MAX_HOURS)
        require_between("approval.two_persons_gpus", self.two_persons_gpus, 0, 10_000_000)
        require_between("approval.two_persons_nodes", self.two_persons_nodes, 0, 1_000_000)

    def grace_of(self, rule: str) -> float:
        """Return the grace of a rule in seconds."""
        return float({each.name: getattr(self.grace_s, each.name) for each in fields(self.grace_s)}[rule])

"""What may be done, how much of it and on which evidence: the settings of the action engine."""

import json
from dataclasses import asdict, dataclass, field, fields

from actions.approval_policy import ApprovalPolicy
from actions.kinds import RULES
from actions.protect_policy import CooldownPolicy, ProtectPolicy, require_namespaces, require_nodes
from actions.rebalance_policy import RebalancePolicy as RebalancePolicy  # noqa: PLC0414 - to be had here too
from actions.rule_policies import (
    DefragmentPolicy,
    PoolPolicy,
    RepairPolicy,
    ReslicePolicy,
    SpendingPolicy,
    StalledPolicy,
)
from actions.windows import Window
from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput

MODES = ("off", "observe", "propose", "auto")
_MAX_HOURS = 24.0 * 366


@dataclass(frozen=True, slots=True)
class Modes:
    """How far each rule may go.

    "off": it is not asked; "observe": it says what it would do; "propose": its moves wait for an approval;
    "auto": its moves are made.
    """

    fence: str = "propose"
    reclaim: str = "propose"
    rebalance: str = "propose"
    repair: str = "propose"
    budget: str = "propose"
    reslice: str = "propose"
    defragment: str = "observe"
    pool: str = "propose"
    workspace: str = "propose"
    stalled: str = "propose"

    def __post_init__(self) -> None:
        """Refuse a mode that there is not."""
        for rule in RULES:
            if self.of(rule) not in MODES:
                message = f"modes.{rule}: {self.of(rule)!r} is not one of {', '.join(MODES)}"
                raise BadInput(message, field=f"modes.{rule}")

    def of(self, rule: str) -> str:
        """Return the mode of the rule of that name."""
        modes = {each.name: getattr(self, each.name) for each in fields(self)}
        return str(modes[rule])


@dataclass(frozen=True, slots=True)
class EvidencePolicy:
    """How good a verdict's evidence must be before anything is done on it.

    `max_age_s` bounds the age of a verdict and, for idleness and demand, of its last sample. A hardware fault stays
    true until somebody repairs it, so the last event behind a health verdict may be `max_event_age_s` old.
    `min_coverage` holds for idleness, where a gap could hide work. `max_state_age_s` bounds the age of the
    cluster's state and `max_skew_s` how far a clock elsewhere may run ahead of ours.
    """

    max_age_s: float = 3600.0
    max_event_age_s: float = 86_400.0
    max_state_age_s: float = 300.0
    max_skew_s: float = 60.0
    min_coverage: float = 0.9

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        for name, value in (
            ("evidence.max_age_s", self.max_age_s),
            ("evidence.max_event_age_s", self.max_event_age_s),
            ("evidence.max_state_age_s", self.max_state_age_s),
        ):
            require_positive(name, value)
        require_between("evidence.max_skew_s", self.max_skew_s, 0, 3600)
        require_between("evidence.min_coverage", self.min_coverage, 0, 1)


@dataclass(frozen=True, slots=True)
class FencePolicy:
    """When a failing GPU is taken out of use, and when its whole node is.

    What has failed and is to be diagnosed or inspected is taken out of use first: nobody can look at a GPU that
    pods still get. A node is cordoned where more than `cordon_failed_share` of its GPUs fail or are fenced, or where
    the verdict's action is one of `cordon_actions`. A confidence that the rule does not give counts as given by the
    catalogue.
    A pool with more than `breaker_share_of_pool` of its GPUs showing one cause, and at least `breaker_min_gpus`
    of them on two nodes or more, looks like a common cause (driver, power, telemetry): nothing is fenced for it. So do
    more than `breaker_share_of_group` of the GPUs of one rack, or of one driver, whatever codes they show.
    """

    states: tuple[str, ...] = ("failing", "failed")
    min_severity: str = "critical"
    min_confidence: float = 0.8
    fence_actions: tuple[str, ...] = ("fence", "reset_gpu", "run_diagnostics", "inspect", "replace_gpu")
    cordon_actions: tuple[str, ...] = ("cordon", "drain", "reboot_node")
    cordon_failed_share: float = 0.5
    protected_nodes: tuple[str, ...] = ()
    protect_label: str = "gpusteward.dev/protect"
    breaker_share_of_pool: float = 0.25
    breaker_share_of_group: float = 0.5
    breaker_min_gpus: int = 4

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        if self.min_severity not in {"warning", "critical"}:
            message = f"fence.min_severity: {self.min_severity!r} is not one of warning, critical"
            raise BadInput(message, field="fence.min_severity")
        _refuse_states("fence.states", self.states, ("degraded", "failing", "failed"))
        require_between("fence.min_confidence", self.min_confidence, 0, 1)
        require_between("fence.cordon_failed_share", self.cordon_failed_share, 0, 1)
        require_between("fence.breaker_share_of_pool", self.breaker_share_of_pool, 0, 1)
        require_between("fence.breaker_share_of_group", self.breaker_share_of_group, 0, 1)
        require_nodes("fence.protected_nodes", self.protected_nodes)
        require_between("fence.breaker_min_gpus", self.breaker_min_gpus, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class ReclaimPolicy:
    """When an idle workload is suspended.

    `cooldown_h` leaves alone what we suspended lately and somebody resumed: its owner has answered.
    `unsuspendable_kinds` can't be brought back as they were; of `scalable_kinds` single replicas can go. Nearly a whole
    pool idle at once (`breaker_share_of_pool`, at least `breaker_min_gpus` GPUs) looks like dead telemetry, not like
    idleness.
    """

    states: tuple[str, ...] = ("idle", "idle_held")
    min_idle_h: float = 4.0
    min_run_h: float = 1.0
    min_confidence: float = 0.0
    cooldown_h: float = 24.0
    protected_namespaces: tuple[str, ...] = ("kube-system", "gpu-operator", "monitoring")
    protected_workspaces: tuple[str, ...] = ()
    unsuspendable_kinds: tuple[str, ...] = ("Pod", "DaemonSet")
    scalable_kinds: tuple[str, ...] = ("Deployment", "ReplicaSet", "StatefulSet", "InferenceService")
    breaker_share_of_pool: float = 0.9
    breaker_min_gpus: int = 16

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        _refuse_states("reclaim.states", self.states, ("idle", "idle_held"))
        require_between("reclaim.min_idle_h", self.min_idle_h, 0, _MAX_HOURS)
        require_between("reclaim.min_run_h", self.min_run_h, 0, _MAX_HOURS)
        require_between("reclaim.min_confidence", self.min_confidence, 0, 1)
        require_between("reclaim.cooldown_h", self.cooldown_h, 0, _MAX_HOURS)
        require_between("reclaim.breaker_share_of_pool", self.breaker_share_of_pool, 0, 1)
        require_namespaces("reclaim.protected_namespaces", self.protected_namespaces)
        require_between("reclaim.breaker_min_gpus", self.breaker_min_gpus, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be done; each rule has this much for itself, so that reclaim never uses up what fencing needs.

    A share is rounded up to whole GPUs or nodes, so that a pool of three is not frozen by a tenth. Of the two bounds on
    the same thing, a share and a count, the smaller one holds; a share of 1 and a count of None are no bounds.
    Within an hour, of what one rule touches: the GPUs in a cluster, in a workspace, in a pool, and for one cause.
    """

    max_gpus_per_hour: int = 64
    max_share_of_workspace: float = 0.5
    max_share_of_pool: float = 0.25
    max_nodes_per_turn: int = 8
    max_share_of_nodes_per_turn: float = 0.1
    max_share_per_hour: float = 1.0
    max_gpus_of_workspace: int | None = None
    max_gpus_of_pool: int | None = None
    max_gpus_per_cause: int | None = None
    max_share_per_cause: float = 1.0

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("budget.max_gpus_per_hour", self.max_gpus_per_hour, 0, 10_000_000)
        require_between("budget.max_share_of_workspace", self.max_share_of_workspace, 0, 1)
        require_between("budget.max_share_of_pool", self.max_share_of_pool, 0, 1)
        require_between("budget.max_nodes_per_turn", self.max_nodes_per_turn, 0, 1_000_000)
        require_between("budget.max_share_of_nodes_per_turn", self.max_share_of_nodes_per_turn, 0, 1)
        require_between("budget.max_share_per_hour", self.max_share_per_hour, 0, 1)
        require_between("budget.max_share_per_cause", self.max_share_per_cause, 0, 1)
        for name in ("max_gpus_of_workspace", "max_gpus_of_pool", "max_gpus_per_cause"):
            count = getattr(self, name)
            if count is not None:
                require_between(f"budget.{name}", count, 0, 10_000_000)


@dataclass(frozen=True, slots=True)
class ActionPolicy:
    """Everything the planner and the guard go by."""

    modes: Modes = field(default_factory=Modes)
    evidence: EvidencePolicy = field(default_factory=EvidencePolicy)
    fence: FencePolicy = field(default_factory=FencePolicy)
    reclaim: ReclaimPolicy = field(default_factory=ReclaimPolicy)
    rebalance: RebalancePolicy = field(default_factory=RebalancePolicy)
    budget: Budget = field(default_factory=Budget)
    approval: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    protect: ProtectPolicy = field(default_factory=ProtectPolicy)
    cooldown: CooldownPolicy = field(default_factory=CooldownPolicy)
    windows: tuple[Window, ...] = ()
    repair: RepairPolicy = field(default_factory=RepairPolicy)
    reslice: ReslicePolicy = field(default_factory=ReslicePolicy)
    defragment: DefragmentPolicy = field(default_factory=DefragmentPolicy)
    pool: PoolPolicy = field(default_factory=PoolPolicy)
    spending: SpendingPolicy = field(default_factory=SpendingPolicy)
    stalled: StalledPolicy = field(default_factory=StalledPolicy)

    def to_json(self) -> str:
        """Return the whole policy as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)


def _refuse_states(name: str, states: tuple[str, ...], known: tuple[str, ...]) -> None:
    for state in states:
        if state not in known:
            message = f"{name}: {state!r} is not one of {', '.join(known)}"
            raise BadInput(message, field=name)

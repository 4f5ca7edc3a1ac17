"""Settings of the rules that take several steps, and of those that follow money and capacity."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.bounds import require_between
from fleet.errors import BadInput

_MAX_HOURS = 24.0 * 366


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """How what we took out of use is drained, repaired and given back.

    Work on a GPU that fails is given `grace_h` from our first move to end by itself, a gang `gang_grace_h`, what has
    failed for good none. Work that its owner protects is never evicted: `protected_wait_h` is how long it is waited for
    before a person is asked. A drain has `drain_limit_h` to be over and a repair `repair_limit_h` to help. What was
    tried, and what somebody cancelled, is not tried again for `retry_h`. A GPU must have been clean for `verify_h`
    after its repair, and for `settle_h` after our first move where nobody repaired it, before it is given back.
    """

    grace_h: float = 0.5
    gang_grace_h: float = 2.0
    protected_wait_h: float = 24.0
    drain_limit_h: float = 6.0
    repair_limit_h: float = 4.0
    retry_h: float = 24.0
    verify_h: float = 0.5
    settle_h: float = 24.0
    breaker_share_of_pool: float = 0.25
    breaker_min_gpus: int = 16

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        for name in ("grace_h", "gang_grace_h", "protected_wait_h", "drain_limit_h", "repair_limit_h", "retry_h",
                     "verify_h", "settle_h"):  # fmt: skip
            require_between(f"repair.{name}", getattr(self, name), 0, _MAX_HOURS)
        require_between("repair.breaker_share_of_pool", self.breaker_share_of_pool, 0, 1)
        require_between("repair.breaker_min_gpus", self.breaker_min_gpus, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class ReslicePolicy:
    """When a node's GPUs are cut anew.

    A layout must meet the wants for `min_unmet_gpus` more GPUs' worth of waiting requests than the present one, a node
    is cut anew at most every `cooldown_h`, `max_nodes` are under way at once, the manager has `limit_h` for it and pods
    have `drain_limit_h` to leave. `layouts` names a site's own layouts: profile to count on each GPU.
    """

    min_unmet_gpus: float = 0.5
    cooldown_h: float = 12.0
    limit_h: float = 1.0
    drain_limit_h: float = 6.0
    max_nodes: int = 1
    layouts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("reslice.min_unmet_gpus", self.min_unmet_gpus, 0, 1e6)
        for name in ("cooldown_h", "limit_h", "drain_limit_h"):
            require_between(f"reslice.{name}", getattr(self, name), 0, _MAX_HOURS)
        require_between("reslice.max_nodes", self.max_nodes, 1, 100_000)


@dataclass(frozen=True, slots=True)
class DefragmentPolicy:
    """When pods move so that larger blocks come free.

    Only workloads of `movable_kinds` that nobody protects, at most `max_gpus` of them a node, at most `max_nodes` nodes
    at once, and no node again within `cooldown_h`; a node that is not emptied within `limit_h` is let go.
    """

    movable_kinds: tuple[str, ...] = ("Deployment", "ReplicaSet", "StatefulSet", "InferenceService")
    max_gpus: float = 8.0
    max_nodes: int = 1
    cooldown_h: float = 24.0
    limit_h: float = 1.0

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("defragment.max_gpus", self.max_gpus, 0, 1e6)
        require_between("defragment.max_nodes", self.max_nodes, 1, 100_000)
        for name in ("cooldown_h", "limit_h"):
            require_between(f"defragment.{name}", getattr(self, name), 0, _MAX_HOURS)


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """When a pool may grow, and when its limit shrinks.

    It grows where the odds that demand passes it within the window are at least `grow_odds`, to the upper forecast of
    the peak and `headroom`; it shrinks where they are at most `shrink_odds`, and never below that. Between the two it
    stays. At most `max_step_share` of the limit a move, in whole `step_gpus`, between `min_gpus` and `max_gpus`; no
    pool twice within `cooldown_h`.
    """

    grow_odds: float = 0.5
    shrink_odds: float = 0.05
    headroom: float = 0.1
    max_step_share: float = 0.25
    step_gpus: int = 8
    min_gpus: float = 0.0
    max_gpus: float = 1_000_000.0
    cooldown_h: float = 12.0

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        for name in ("grow_odds", "shrink_odds", "max_step_share"):
            require_between(f"pool.{name}", getattr(self, name), 0, 1)
        if self.shrink_odds >= self.grow_odds:
            message = f"pool.shrink_odds: {self.shrink_odds:g} must be below pool.grow_odds {self.grow_odds:g}"
            raise BadInput(message, field="pool.shrink_odds")
        require_between("pool.headroom", self.headroom, 0, 10)
        require_between("pool.step_gpus", self.step_gpus, 1, 1_000_000)
        require_between("pool.min_gpus", self.min_gpus, 0, 1e9)
        require_between("pool.max_gpus", self.max_gpus, self.min_gpus, 1e9)
        require_between("pool.cooldown_h", self.cooldown_h, 0, _MAX_HOURS)


@dataclass(frozen=True, slots=True)
class StalledPolicy:
    """When a gang that hangs is suspended whole.

    Each of its members must do nothing for `min_stalled_h` by evidence of its own; single samples are kept in sight for
    three hours (`idle.near_s`), so more is never shown. What we suspended and somebody resumed is left alone for
    `cooldown_h`. More than `breaker_share_of_pool` of a pool that hangs at once, and at least `breaker_min_gpus` GPUs,
    looks like its network or its storage: no gang is suspended for that.
    """

    min_stalled_h: float = 2.0
    cooldown_h: float = 24.0
    breaker_share_of_pool: float = 0.5
    breaker_min_gpus: int = 16

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        for name in ("min_stalled_h", "cooldown_h"):
            require_between(f"stalled.{name}", getattr(self, name), 0, _MAX_HOURS)
        require_between("stalled.breaker_share_of_pool", self.breaker_share_of_pool, 0, 1)
        require_between("stalled.breaker_min_gpus", self.breaker_min_gpus, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class SpendingPolicy:
    """What follows when a workspace's money for the month is spent.

    `protected_workspaces` are only told. What we did is taken back once less than `release_share` of the budget is
    spent: the next month has begun, or the budget was raised.
    """

    release_share: float = 0.98
    protected_workspaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("spending.release_share", self.release_share, 0, 1)

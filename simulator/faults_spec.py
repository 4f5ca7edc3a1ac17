"""Which faults happen on purpose, how often, and exactly when where a test wants to know."""

from dataclasses import dataclass, field, fields

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Faults per thousand GPU-days, by kind (per thousand GPUs' worth of nodes for kinds that strike nodes, racks).

    They are assumptions, far above those of a real fleet, so that two weeks of 512 GPUs show most kinds; by chance a
    kind may still be missing.
    """

    xid_79: float = 0.3
    xid_48: float = 0.3
    xid_94: float = 0.3
    xid_95: float = 0.2
    xid_74: float = 0.2
    xid_31: float = 1.5
    xid_13: float = 1.5
    xid_43: float = 0.6
    xid_45: float = 1.0
    ecc_storm: float = 0.3
    remap_pending: float = 0.3
    remap_failed: float = 0.2
    thermal_throttle: float = 0.3
    power_brake: float = 0.2
    lost_gpu: float = 0.3
    dead_exporter: float = 0.3
    boot_wave: float = 0.5
    pcie_down: float = 0.3

    def __post_init__(self) -> None:
        """Refuse rates below zero."""
        for name in FAULT_KINDS:
            require_between(name, getattr(self, name), 0.0, 1e6)


FAULT_KINDS: tuple[str, ...] = tuple(rate.name for rate in fields(FaultRates))


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault at one moment. `gpu` is the GPU's index in the fleet, cluster by cluster and node by node.

    Kinds that strike a node or a rack strike the one which that GPU is in.
    """

    kind: str
    after_hours: float
    gpu: int = 0
    duration_hours: float | None = None

    def __post_init__(self) -> None:
        """Refuse kinds that do not exist and times before the start."""
        if self.kind not in FAULT_KINDS:
            message = f"kind: {self.kind!r} is not one of {', '.join(FAULT_KINDS)}"
            raise BadInput(message, field="kind")
        require_between("after_hours", self.after_hours, 0.0, 1e6)
        require_between("gpu", self.gpu, 0, 1e7)
        if self.duration_hours is not None:
            require_positive("duration_hours", self.duration_hours)


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """Random faults at their rates, and faults at given moments. `rate_factor` 0 leaves only the latter."""

    rates: FaultRates = field(default_factory=FaultRates)
    rate_factor: float = 1.0
    injections: tuple[Injection, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a factor below zero."""
        require_between("rate_factor", self.rate_factor, 0.0, 1e6)

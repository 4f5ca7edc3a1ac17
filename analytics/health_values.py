"""What the rules of health look at and what they say: one GPU's signs and events, its peers, and a finding."""

from dataclasses import dataclass, field
from datetime import datetime

from analytics.health_policy import HealthPolicy
from analytics.xid import ACTIONS
from fleet.verdict import Severity

STATES = ("healthy", "unknown", "degraded", "failing", "failed")
"""Health states from mild to bad; what is not known outranks a clean bill, never a finding."""

STATE_OF_ACTION = {
    "reset_gpu": "failing", "drain": "failing", "reboot_node": "failed", "inspect": "failed", "replace_gpu": "failed",
    "run_diagnostics": "degraded",
}  # fmt: skip
"""The state of a GPU that a critical finding asks this for."""


WATCHED = (
    "temperature_c", "thermal_margin_c", "power_w", "clock_event_bits", "is_remap_pending", "is_remap_failed",
    "is_sram_threshold_exceeded", "is_page_retirement_pending", "ecc_corrected_count", "ecc_uncorrected_count",
    "pcie_width", "pcie_replay_count", "nvlink_active_count", "nvlink_error_count", "fabric_health_bits",
    "recovery_action",
)  # fmt: skip
"""The signals of health, in the order of the bits of `known_history` and `known_lately`."""


@dataclass(frozen=True, slots=True)
class Signs:
    """One row that `health_signals` gives; its columns are explained there."""

    uuid: str
    cluster: str
    node: str
    pci_address: str | None = None
    pool: str | None = None
    model: str | None = None
    architecture: str | None = None
    driver: str | None = None
    vbios: str | None = None
    node_gpus: int | None = None
    fabric_state: str | None = None
    fabric_status: int | None = None
    sm_clock_max_mhz: int | None = None
    first_seen_at: datetime | None = None
    last_sample_at: datetime | None = None
    interval_s: float | None = None
    pcie_width_history: int | None = None
    pcie_generation_history: int | None = None
    nvlink_active_history: int | None = None
    remap_failed_poll_count: int | None = None
    sram_threshold_poll_count: int | None = None
    known_history: int | None = None
    poll_count: int | None = None
    known_lately: int | None = None
    implausible_poll_count: int | None = None
    slow_poll_count: int | None = None
    slow_bits: int | None = None
    slow_since: datetime | None = None
    held_back_bits: int | None = None
    hot_poll_count: int | None = None
    thermal_margin_c: float | None = None
    busy_poll_count: int | None = None
    busy_sm_clock_mhz: int | None = None
    busy_pcie_generation: int | None = None
    pcie_width_lately: int | None = None
    pcie_poll_count: int | None = None
    pcie_generation: int | None = None
    nvlink_active_lately: int | None = None
    nvlink_poll_count: int | None = None
    fabric_poll_count: int | None = None
    fabric_bits: int | None = None
    recovery_action: int | None = None
    recovery_poll_count: int | None = None
    retired_page_count: int | None = None
    rows_remapped_uncorrected_count: int | None = None
    is_remap_pending: int | None = None
    is_page_retirement_pending: int | None = None
    ecc_corrected_count_rise: float | None = None
    ecc_corrected_count_span_s: float | None = None
    ecc_uncorrected_count_rise: float | None = None
    ecc_uncorrected_count_span_s: float | None = None
    pcie_replay_count_rise: float | None = None
    pcie_replay_count_span_s: float | None = None
    nvlink_error_count_rise: float | None = None
    nvlink_error_count_span_s: float | None = None

    def silence_max_s(self, policy: HealthPolicy) -> float:
        """Return for how long this GPU may say nothing: three of its own intervals where they are long."""
        return max(policy.silence_s, 3 * (self.interval_s or 0.0))


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, with the workloads that were on the GPU.

    `read_events` sums up those that are alike: `count` of them between `ts` and `last_at`, in `bursts` at one `place`
    on the chip. Bursts that were all over the chip have the place "".
    """

    ts: datetime
    cluster: str
    node: str
    gpu_uuid: str | None
    kind: str
    code: int | None
    message: str | None
    slice_uuid: str | None = None
    gpu_instance: int | None = None
    workloads: frozenset[str] = frozenset()
    count: int = 1
    last_at: datetime | None = None
    place: str | None = None
    bursts: int = 1

    @property
    def until(self) -> datetime:
        """Return when it, or the last of those alike, happened."""
        return self.ts if self.last_at is None else self.last_at

    @property
    def is_of_slice(self) -> bool:
        """Return whether it names a MIG device, or at least the GPU instance of one."""
        return self.slice_uuid is not None or self.gpu_instance is not None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found."""

    rule: str
    state: str
    action: str
    severity: Severity
    since: datetime | None = None
    evidence: dict[str, object] = field(default_factory=dict)

    @property
    def weight(self) -> tuple[int, int, str]:
        """Order findings: the worst state first, then the heaviest action; the name only to be deterministic."""
        return STATES.index(self.state), ACTIONS.index(self.action), self.rule


@dataclass(frozen=True, slots=True)
class Peers:
    """What a GPU is compared with: the others of its node, and those of its model in its pool; None: nothing to say.

    `codes`: the XIDs of other GPUs of the node. `arrived_at`: when the newest board at its PCI address was first
    seen. The rest is what most of its peers have, `pcie_width_of_node` those of its own node.
    """

    last_sample_at: datetime | None = None
    codes: frozenset[int] = frozenset()
    nvlink_active: int | None = None
    pcie_width: int | None = None
    pcie_width_of_node: int | None = None
    driver: str | None = None
    vbios: str | None = None
    arrived_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """One GPU: its signs, its own and its node's events in order of time, and its peers."""

    signs: Signs
    events: tuple[Event, ...]
    peers: Peers
    policy: HealthPolicy
    now: datetime

    def last_of(self, kind: str) -> datetime | None:
        """Return when something of this kind happened last."""
        return max((event.ts for event in self.events if event.kind == kind), default=None)

"""What the health rules go by."""

from dataclasses import dataclass

from analytics.xid import XidOverride
from fleet.bounds import require_between, require_positive

HW_SLOWDOWN = 0x8
HW_THERMAL_SLOWDOWN = 0x40
HW_POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a GPU counts as degraded, failing or failed.

    `polls` are the last samples looked at, and `polls_min` how many of them must agree on a live signal: slowed
    clocks, heat, links that are narrow or down. A pending flag must stand in each of the last `flag_polls`; a failed
    remap and the SRAM threshold stay once seen. Clock event bits 0x1 (idle) and 0x4 (software power cap) are normal
    and not in `slowdown_bits`. `silence_s` without a sample, where others of the node go on, is a lost GPU.

    `corrected_per_hour_max`, `nvlink_errors_per_hour_max` and `stuck_clock_ratio` are our own choices: nobody
    publishes any. `replay_ber_max` is the bit error rate that PCI Express allows a lane; `thermal_margin_min_c` the
    margin to the T.Limit below which a GPU is above its highest operating temperature. `place_repeats` errors of a
    program at one place within `look_back_s` speak for the hardware, where each hit at most `places_max` places.
    Peers speak where at least `peers_min` are known and `peers_share` of them agree. `overrides` change lines of the
    XID catalogue.
    """

    window_s: float = 3600.0
    look_back_s: float = 86400.0
    polls: int = 5
    polls_min: int = 3
    flag_polls: int = 2
    slowdown_bits: int = HW_SLOWDOWN | HW_THERMAL_SLOWDOWN | HW_POWER_BRAKE
    corrected_per_hour_max: float = 1000.0
    nvlink_errors_per_hour_max: float = 600.0
    replay_ber_max: float = 1e-12
    thermal_margin_min_c: float = 0.0
    stuck_clock_ratio: float = 0.35
    busy_above: float = 0.5
    silence_s: float = 600.0
    boot_grace_s: float = 900.0
    burst_s: float = 60.0
    application_xids: tuple[int, ...] = (13, 31, 43)
    application_workloads_min: int = 2
    place_repeats: int = 2
    places_max: int = 2
    peers_min: int = 3
    peers_share: float = 0.75
    overrides: tuple[XidOverride, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in (
            "window_s", "look_back_s", "polls", "flag_polls", "corrected_per_hour_max", "silence_s",
            "nvlink_errors_per_hour_max", "replay_ber_max", "place_repeats", "places_max", "peers_min",
        ):  # fmt: skip
            require_positive(name, getattr(self, name))
        require_between("polls_min", self.polls_min, 1, self.polls)
        require_between("flag_polls", self.flag_polls, 1, self.polls)
        require_between("window_s", self.window_s, self.silence_s, self.look_back_s)
        require_between("boot_grace_s", self.boot_grace_s, 0, float("inf"))
        require_between("burst_s", self.burst_s, 0, float("inf"))
        require_between("slowdown_bits", self.slowdown_bits, 1, 2**62)
        require_between("application_workloads_min", self.application_workloads_min, 1, float("inf"))
        require_between("thermal_margin_min_c", self.thermal_margin_min_c, -100, 100)
        for name in ("stuck_clock_ratio", "busy_above"):
            require_between(name, getattr(self, name), 0, 1)
        require_between("peers_share", self.peers_share, 0.5, 1)

"""What the health rules go by."""

from dataclasses import dataclass

from fleet.bounds import require_between, require_positive

HW_SLOWDOWN = 0x8
HW_THERMAL_SLOWDOWN = 0x40
HW_POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a GPU counts as degraded, failing or failed.

    `polls` are the last samples looked at, and `polls_min` how many of them must agree on slowed clocks or a
    narrow link. A flag must stand in each of the last `flag_polls`: one poll is a blip. Clock event bits 0x1
    (idle) and 0x4 (software power cap) are normal and not in `slowdown_bits`. `silence_s` without a sample, where
    others of the node go on, is a lost GPU. `corrected_per_hour_max` is our own choice: nobody publishes one.
    """

    window_s: float = 3600.0
    look_back_s: float = 86400.0
    polls: int = 10
    polls_min: int = 8
    flag_polls: int = 2
    slowdown_bits: int = HW_SLOWDOWN | HW_THERMAL_SLOWDOWN | HW_POWER_BRAKE
    corrected_per_hour_max: float = 1000.0
    silence_s: float = 600.0
    boot_grace_s: float = 900.0
    burst_s: float = 60.0
    application_xids: tuple[int, ...] = (13, 31, 43)
    application_workloads_min: int = 2

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("window_s", "look_back_s", "polls", "flag_polls", "corrected_per_hour_max", "silence_s"):
            require_positive(name, getattr(self, name))
        require_between("polls_min", self.polls_min, 1, self.polls)
        require_between("flag_polls", self.flag_polls, 1, self.polls)
        require_between("window_s", self.window_s, self.silence_s, self.look_back_s)
        require_between("boot_grace_s", self.boot_grace_s, 0, float("inf"))
        require_between("burst_s", self.burst_s, 0, float("inf"))
        require_between("slowdown_bits", self.slowdown_bits, 1, 2**62)
        require_between("application_workloads_min", self.application_workloads_min, 1, float("inf"))

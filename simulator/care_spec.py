"""How long it takes whoever looks after the nodes to do what was asked: repairs, boots, new MIG layouts."""

from dataclasses import dataclass

from fleet.bounds import require_between


@dataclass(frozen=True, slots=True)
class CareSpec:
    """Minutes until a repair that was asked for begins, that a boot takes, and that the MIG manager needs.

    And until a node that a pool asks for has joined, and until one that is empty and above the limit has left.
    """

    repair_wait_minutes: float = 10.0
    boot_minutes: float = 6.0
    layout_minutes: float = 4.0
    join_minutes: float = 8.0
    leave_minutes: float = 30.0

    def __post_init__(self) -> None:
        """Refuse times that do not pass."""
        for name in ("repair_wait_minutes", "boot_minutes", "layout_minutes", "join_minutes", "leave_minutes"):
            require_between(name, getattr(self, name), 0.0, 10_000.0)

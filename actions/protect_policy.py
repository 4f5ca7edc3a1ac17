"""What is left alone whatever a rule says, and how long after a move the opposite one is: settings."""

from dataclasses import dataclass

from fleet.bounds import require_between

_MAX_HOURS = 24.0 * 366


@dataclass(frozen=True, slots=True)
class ProtectPolicy:
    """Namespaces, workspaces and nodes that no rule touches.

    Who owns them says so with the label or annotation `gpusteward.dev/protect: "true"` as well. Giving back and taking
    back are never kept from anybody.
    """

    namespaces: tuple[str, ...] = ("kube-system", "kube-public", "kube-node-lease", "gpu-operator")
    workspaces: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CooldownPolicy:
    """When a move would only swing: nothing is taken that the house gave, or set back, within `turned_h`.

    What a person took back is not made again within `undone_h`, unless its evidence began after that. Failing hardware
    (rules fence and repair) has no `turned_h`: it is fenced whenever it fails.
    """

    turned_h: float = 1.0
    undone_h: float = 24.0

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        require_between("cooldown.turned_h", self.turned_h, 0, _MAX_HOURS)
        require_between("cooldown.undone_h", self.undone_h, 0, _MAX_HOURS)

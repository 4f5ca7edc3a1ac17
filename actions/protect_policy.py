"""What is left alone whatever a rule says, and how long after a move the opposite one is: settings."""

import re
from dataclasses import dataclass

from fleet.bounds import require_between
from fleet.errors import BadInput

_MAX_HOURS = 24.0 * 366
_SPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # what Kubernetes takes as the name of a namespace
_NODE = re.compile(r"[^\s*?/\[\]]+")


@dataclass(frozen=True, slots=True)
class ProtectPolicy:
    """Namespaces, workspaces and nodes that no rule touches.

    Who owns them says so with the label or annotation `gpusteward.dev/protect: "true"` as well. Giving back and taking
    back are never kept from anybody.
    """

    namespaces: tuple[str, ...] = ("kube-system", "kube-public", "kube-node-lease", "gpu-operator")
    workspaces: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that nothing can bear: they would protect nothing."""
        require_namespaces("protect.namespaces", self.namespaces)
        require_nodes("protect.nodes", self.nodes)


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


def require_namespaces(field: str, names: tuple[str, ...]) -> None:
    """Raise `BadInput` naming `field` where one of `names` can't be a namespace's: a capital, a pattern, a blank."""
    _require(field, names, _SPACE, "a namespace's name is lower-case letters, digits and -; there are no patterns")


def require_nodes(field: str, names: tuple[str, ...]) -> None:
    """Raise `BadInput` naming `field` where one of `names` can't be a node's: a pattern, a blank."""
    _require(field, names, _NODE, "a node's name has no blanks; there are no patterns")


def _require(field: str, names: tuple[str, ...], shape: re.Pattern[str], why: str) -> None:
    for name in names:
        if shape.fullmatch(name) is None:
            message = f"{field}: {name!r} would protect nothing: {why}"
            raise BadInput(message, field=field)

"""When a node's GPUs may be shared by time: the settings of the section `sharing`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from analytics.workload_kinds import NOTEBOOK, NOTEBOOK_KINDS, SERVING, SERVING_KINDS, facts_of
from fleet.bounds import require_between
from fleet.errors import BadInput

_MOST = 48  # places that a device plugin gives out of one GPU in practice


@dataclass(frozen=True, slots=True)
class SharingPolicy:
    """When several pods may hold one GPU by turns.

    `profiles` names what the device plugin's configuration has: profile to places a GPU; without one nothing is ever
    called shareable. `uses` are the kinds of work that may share. A pod that runs now must have been seen for
    `held_h_min`, and everything that held a GPU of the node within `look_back_d` counts as what will come again.
    `memory_headroom` and `activity_headroom` are the parts of a GPU that stay free when the largest meet on one.
    Nothing keeps those who share out of each other's memory, or from being ended by each other's faults: nodes that
    serve more than one workspace are only shared where `is_multi_tenant_allowed`.
    """

    profiles: Mapping[str, int] = field(default_factory=dict)
    uses: tuple[str, ...] = (NOTEBOOK, SERVING)
    look_back_d: float = 7.0
    held_h_min: float = 24.0
    coverage_min: float = 0.95
    memory_headroom: float = 0.2
    activity_headroom: float = 0.1
    is_multi_tenant_allowed: bool = False

    def __post_init__(self) -> None:
        """Refuse bounds that mean nothing."""
        for name, places in self.profiles.items():
            require_between(f"sharing.profiles.{name}", places, 2, _MOST)
        for use in self.uses:
            if use not in {NOTEBOOK, SERVING}:
                message = f"sharing.uses: {use!r} is not one of {NOTEBOOK}, {SERVING}"
                raise BadInput(message, field="sharing.uses")
        require_between("sharing.look_back_d", self.look_back_d, 0.1, 365)
        require_between("sharing.held_h_min", self.held_h_min, 0, self.look_back_d * 24)
        for name in ("coverage_min", "memory_headroom", "activity_headroom"):
            require_between(f"sharing.{name}", getattr(self, name), 0, 1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of workloads that may share, gangs never."""
        known = (*NOTEBOOK_KINDS, *SERVING_KINDS)
        return tuple(kind for kind in known if facts_of(kind).use in self.uses and not facts_of(kind).is_gang)

"""Which part of a GPU somebody holds, said once for every way that a GPU can be shared.

A whole GPU is 1. A MIG device is its share of compute slices or of memory, or the larger of the two. A place on a
time-sliced GPU is one over its replicas. Under MPS or HAMi it is the larger of the share of cores and of memory,
under DRA the largest share of any counter that is consumed.
"""

import re
from collections.abc import Mapping
from typing import Literal

from fleet.errors import BadInput
from fleet.models import MODELS, canonical_model

MigBasis = Literal["compute", "memory", "max"]
MIG_BASES: tuple[MigBasis, ...] = ("compute", "memory", "max")
# Compute slices of a whole GPU: NVIDIA MIG user guide, "Supported GPUs" (7, but 4 on these).
_SLICES, _FEW_SLICES, _FEW = 7, 4, re.compile(r"A30\b|RTX-?\s?PRO-?\s?6000", re.IGNORECASE)
_PROFILE = re.compile(r"(?:\d+c\.)?(?P<slices>\d+)g\.(?P<gigabytes>\d+)gb.*")
_WHOLE = 1.0


def compute_slices_of(model: str) -> int:
    """Return into how many compute slices a GPU of this model can be cut."""
    return _FEW_SLICES if _FEW.search(model) else _SLICES


def mig_fraction(profile: str, model: str, *, basis: MigBasis = "max", memory_gib: float | None = None) -> float | None:
    """Return the part of its GPU that a MIG device ("3g.20gb") is; None where its profile tells nothing.

    `memory_gib` is the whole GPU's; where it is None, the model's own. By memory the profile's nominal gigabytes
    count, because what the driver keeps for itself would make every GPU look partly unused.
    """
    match = _PROFILE.fullmatch(profile)
    if match is None:
        return None
    compute = int(match["slices"]) / compute_slices_of(model)
    facts = MODELS.get(canonical_model(model))
    whole_gib = float(facts.memory_gib) if facts is not None else memory_gib
    memory = None if whole_gib is None or whole_gib <= 0 else min(1.0, int(match["gigabytes"]) / round(whole_gib))
    if basis == "compute" or memory is None:
        return compute
    return memory if basis == "memory" else max(compute, memory)


def time_slice_fraction(replicas: int, units: int = 1) -> float:
    """Return the part of a GPU behind `units` places of one that is advertised `replicas` times."""
    if replicas < 1:
        message = f"replicas: {replicas} is below 1"
        raise BadInput(message, field="replicas")
    return min(_WHOLE, units / replicas)


def mps_fraction(cores: float | None, memory: float | None) -> float | None:
    """Return the larger of the share of cores and of memory (ratios) that MPS or HAMi grants; None: neither told."""
    told = [share for share in (cores, memory) if share is not None]
    return min(_WHOLE, max(told)) if told else None


def dra_fraction(consumed: Mapping[str, float], capacity: Mapping[str, float]) -> float | None:
    """Return the largest share of any counter of a device that a claim consumes; None where no counter has both."""
    shares = [amount / capacity[name] for name, amount in consumed.items() if capacity.get(name, 0.0) > 0]
    return min(_WHOLE, max(shares)) if shares else None

"""GPU models by the names people and drivers give them, and what is public about each.

Idle power is what an unloaded board draws with a context open, rounded; memory and board power are the maker's
data sheets' (NVIDIA product pages, read November 2026). None where no public figure was found.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model: memory (GiB), board power limit (W), power at rest (W)."""

    name: str
    memory_gib: int
    board_power_w: int
    idle_power_w: int | None


_FACTS = (
    ModelFacts("GB300", 288, 1400, None),
    ModelFacts("GB200", 186, 1200, None),
    ModelFacts("B200", 180, 1000, 140),
    ModelFacts("H200", 141, 700, 75),
    ModelFacts("H100", 80, 700, 70),
    ModelFacts("A100-80GB", 80, 400, 65),
    ModelFacts("A100-40GB", 40, 400, 55),
    ModelFacts("L40S", 48, 350, 35),
    ModelFacts("L4", 24, 72, 13),
    ModelFacts("A10G", 24, 300, 20),
    ModelFacts("A10", 24, 150, 20),
    ModelFacts("V100", 16, 300, 40),
    ModelFacts("T4", 16, 70, 10),
    ModelFacts("P100", 16, 250, 30),
)
MODELS = {facts.name: facts for facts in _FACTS}
_SPLIT = re.compile(r"[^A-Za-z0-9]+")


def canonical_model(name: str) -> str:
    """Return the short name of a model that we know facts of, else `name` unchanged.

    Reads driver names ("NVIDIA H100 80GB HBM3"), label values ("NVIDIA-A100-SXM4-40GB") and short ones ("V100M32").
    """
    words = [word.upper() for word in _SPLIT.split(name) if word]
    if "A100" in words or any(word.startswith("A100") for word in words):
        return "A100-40GB" if "40GB" in words else "A100-80GB"
    for facts in _FACTS:
        if facts.name in words:
            return facts.name
    if any(word.startswith("V100") for word in words):
        return "V100"
    return name


def idle_power_w(name: str) -> float | None:
    """Return the power that a model draws at rest, in watts; None where it is not known."""
    facts = MODELS.get(canonical_model(name))
    return None if facts is None or facts.idle_power_w is None else float(facts.idle_power_w)

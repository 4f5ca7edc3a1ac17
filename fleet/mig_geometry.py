"""How MIG devices fit on a GPU: which profiles there are, which sets of them are possible, what a set leaves unusable.

The table beside (`mig_profiles.csv`) holds facts of NVIDIA's MIG user guide. A GPU has 7 compute slots and 8 memory
slots (4 and 4 on A30 and RTX PRO 6000). Slots that a set of devices leaves over, and that no profile can use in the
relation they are left in, are waste that no scheduler can give to anybody.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

_MEMORY_SLOTS = {7: 8, 4: 4}
_NEAR = 0.12
_MIB_PER_GIB = 1024
_WORDS = re.compile(r"[^A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of MIG device of one model; `memory_slices` are of the model's memory slots."""

    name: str
    compute_slices: int
    memory_slices: int
    memory_gib: int
    most: int

    @property
    def is_plain(self) -> bool:
        """Return whether it is a profile without a media engine or graphics to itself."""
        return "+" not in self.name and not self.name.endswith("-me")


@dataclass(frozen=True, slots=True)
class Board:
    """One model that can be cut, and its profiles, smallest first."""

    name: str
    compute_slots: int
    memory_slots: int
    total_gib: int
    profiles: tuple[Profile, ...]

    def profile(self, name: str) -> Profile | None:
        """Return the profile of that name ("1g.10gb" or "mig-1g.10gb"); None where the model has none such."""
        wanted = name.removeprefix("mig-").replace(".me", "+me")
        return next((profile for profile in self.profiles if profile.name == wanted), None)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a set of devices leaves of a board, in slots: what can still be cut, and what no profile can use."""

    free_compute: int
    free_memory: int
    wasted_compute: int
    wasted_memory: int


@lru_cache(maxsize=256)  # a fleet has few models, and each GPU of it is asked about at each turn
def board_of(model: str | None, memory_mib: int | None) -> Board | None:
    """Return the board of a driver's model name, told apart by memory; None where it can't be cut or is not known."""
    if model is None:
        return None
    words = [word for word in _WORDS.split(model.upper()) if word]
    found = [board for board in _boards() if _is_of(board, words)]
    if memory_mib is None:
        told = [board for board in found if f"{board.total_gib}GB" in words]
        return told[0] if told else (found[0] if len(found) == 1 else None)
    gib = memory_mib / _MIB_PER_GIB
    near = sorted(found, key=lambda board: abs(board.total_gib - gib))
    return near[0] if near and abs(near[0].total_gib - gib) <= _NEAR * near[0].total_gib else None


def is_possible(board: Board, devices: Mapping[str, int]) -> bool:
    """Tell whether a set of devices (profile to count) can stand on one board together; none at all can."""
    kept = [(board.profile(name), count) for name, count in devices.items()]
    if any(profile is None or not 0 < count <= profile.most for profile, count in kept):
        return False
    compute, memory = _used(board, devices)
    own_engines = sum(count for profile, count in kept if profile is not None and "+" in profile.name)
    return compute <= board.compute_slots and memory <= board.memory_slots and own_engines <= 1


def leftover(board: Board, devices: Mapping[str, int]) -> Leftover:
    """Return what a possible set of devices leaves: every further device needs compute and memory together."""
    compute, memory = _used(board, devices)
    free_compute, free_memory = board.compute_slots - compute, board.memory_slots - memory
    per_compute = max(profile.memory_slices for profile in board.profiles if profile.compute_slices == 1)
    return Leftover(
        free_compute=free_compute,
        free_memory=free_memory,
        wasted_compute=free_compute - min(free_compute, free_memory),
        wasted_memory=free_memory - min(free_memory, per_compute * free_compute),
    )


def smallest_profile(board: Board, memory_mib: float, compute_share: float) -> Profile | None:
    """Return the smallest plain profile with that memory and that share of the compute; None where only all will do."""
    fitting = [
        profile
        for profile in board.profiles
        if profile.is_plain
        and profile.compute_slices < board.compute_slots
        and profile.memory_gib * _MIB_PER_GIB >= memory_mib
        and profile.compute_slices / board.compute_slots >= compute_share
    ]
    return min(fitting, key=lambda profile: (part_of(board, profile), profile.name), default=None)


def part_of(board: Board, profile: Profile) -> float:
    """Return the part of the GPU that a device takes from others: the greater of its compute and memory shares."""
    return max(profile.compute_slices / board.compute_slots, profile.memory_slices / board.memory_slots)


def _used(board: Board, devices: Mapping[str, int]) -> tuple[int, int]:
    kept = [(profile, count) for name, count in devices.items() if (profile := board.profile(name)) is not None]
    compute = sum(profile.compute_slices * count for profile, count in kept)
    return compute, sum(profile.memory_slices * count for profile, count in kept)


def _is_of(board: Board, words: list[str]) -> bool:
    family = board.name.split("-")[:-1]
    return all(any(word == part or word.startswith(part) for word in words) for part in family)


@cache
def _boards() -> tuple[Board, ...]:
    text = (files("fleet") / "mig_profiles.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    return tuple(
        _board(name, [row for row in rows if row["model"] == name]) for name in dict.fromkeys(r["model"] for r in rows)
    )


def _board(name: str, rows: list[dict[str, str]]) -> Board:
    slots, total = int(rows[0]["compute_slots"]), int(rows[0]["total_gib"])
    memory_slots = _MEMORY_SLOTS[slots]
    profiles = tuple(
        Profile(
            row["profile"],
            int(row["compute_slices"]),
            round(int(row["memory_gib"]) * memory_slots / total),
            int(row["memory_gib"]),
            int(row["most"]),
        )
        for row in rows
    )
    return Board(name, slots, memory_slots, total, profiles)

"""MIG devices come and go: which place of which GPU is which device, since when and until when.

A GPU under MIG has as many places as it can have devices. A layout fills its first places; a place that is not filled
holds nothing, and nothing of it is told. What a place was before stays known, so that the past can be read again.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fleet.mig_geometry import Board, Profile, board_of
from fleet.mig_layouts import Devices, devices_of
from simulator.fabric import Fabric, Flags, Reals
from simulator.models import COMPUTE_SLICES, ModelSpec
from simulator.randomness import Purpose, generator

_MIB_PER_GIB = 1024
_USABLE = 0.95  # of a device's memory, as 9,728 of 10,240 MiB of a 1g.10gb


@dataclass(slots=True)
class SliceLife:
    """One MIG device: its place, what part of a GPU's compute it is, and from when to when it is there."""

    unit: int
    uuid: str
    profile: str
    compute_slices: int
    unit_gpus: float
    memory_mib: int
    starts_s: int
    ends_s: int | None = None

    def is_alive(self, before_s: int) -> bool:
        """Tell whether it is there just before a moment."""
        return self.starts_s < max(before_s, 1) and (self.ends_s is None or self.ends_s >= before_s)


@dataclass(slots=True)
class SliceBook:
    """All MIG devices there ever were, sorted by place and time, and the one in each place now."""

    lives: dict[int, list[SliceLife]] = field(default_factory=dict)
    recut: set[int] = field(default_factory=set)

    def now(self, unit: int) -> SliceLife | None:
        """Return the device in a place now, None where there is none."""
        lives = self.lives.get(unit)
        return lives[-1] if lives and lives[-1].ends_s is None else None

    def all(self) -> Iterable[SliceLife]:
        """Yield every device there ever was, by place and time."""
        for unit in sorted(self.lives):
            yield from self.lives[unit]

    def lay(self, fabric: Fabric, gpu: int, devices: Devices, at_s: int, uuids: Iterable[str]) -> None:
        """Cut a GPU anew: its devices end, those of `devices` begin in its first places."""
        board = known_board(fabric.model_of(gpu))
        names = iter(uuids)
        profiles = [name for name, count in sorted(devices.items()) for _ in range(count)]
        for place, unit in enumerate(fabric.units_of_gpu(gpu)):
            current = self.now(unit)
            if current is not None:
                current.ends_s = at_s
            profile = None if board is None or place >= len(profiles) else board.profile(profiles[place])
            if board is not None and profile is not None:
                self.lives.setdefault(unit, []).append(_life(unit, next(names), board, profile, at_s))
        self.recut.add(gpu)

    def profiles_of(self, fabric: Fabric, gpu: int) -> dict[str, int]:
        """Return the devices of a GPU now: how many of each profile."""
        found: dict[str, int] = {}
        for unit in fabric.units_of_gpu(gpu):
            life = self.now(unit)
            if life is not None:
                found[life.profile] = found.get(life.profile, 0) + 1
        return found

    def shares(self, fabric: Fabric, gpu: int, times_s: Reals) -> Reals:
        """Return places x ticks: what part of its GPU the device in each place is; each tick sums to one."""
        units = fabric.units_of_gpu(gpu)
        shares = np.zeros((len(units), len(times_s)), dtype=np.float32)
        for place, unit in enumerate(units):
            for life in self.lives.get(unit, ()):
                is_then = (times_s >= life.starts_s) & (True if life.ends_s is None else times_s < life.ends_s)
                shares[place, is_then] = life.unit_gpus
        whole = shares.sum(axis=0)
        return np.asarray(np.divide(shares, whole, out=np.zeros_like(shares), where=whole > 0), dtype=np.float32)


def first_slices(fabric: Fabric) -> SliceBook:
    """Return the devices that a fleet begins with."""
    book = SliceBook()
    for unit, name in enumerate(fabric.unit_uuid):
        if name is not None:
            model = fabric.model_of(int(fabric.unit_gpu[unit]))
            part = model.compute_slices_per_slice / COMPUTE_SLICES
            life = SliceLife(
                unit, name, model.slice_profile, model.compute_slices_per_slice, part, model.slice_memory_mib, 0
            )
            book.lives[unit] = [life]
    return book


def present(fabric: Fabric) -> Flags:
    """Return which units are there when the fleet begins: whole GPUs, and the places that hold a device."""
    has_device = np.array([name is not None for name in fabric.unit_uuid])
    return np.asarray(~fabric.gpu_is_mig[fabric.unit_gpu] | has_device)


def known_board(model: ModelSpec) -> Board | None:
    """Return the board of a model that can be cut, None where it can't or nobody knows how."""
    return board_of(model.name, model.memory_mib) if model.slices_per_gpu > 0 else None


def first_layout(model: ModelSpec) -> str:
    """Return the name of the layout that a pool under MIG begins with."""
    return f"all-{model.slice_profile.replace('+', '.')}"


def layout_devices(model: ModelSpec, layout: str) -> Devices | None:
    """Return what a layout cuts each GPU of a model into; None where the model has no such layout."""
    first: Mapping[str, Devices] = {first_layout(model): {model.slice_profile: model.slices_per_gpu}}
    if layout in first:
        return first[layout]
    board = known_board(model)
    return None if board is None else devices_of(board, layout)


def fresh_uuids(seed: int, node: int, ordinal: int, count: int) -> list[str]:
    """Return the identities of the devices that the `ordinal`-th layout of a node makes."""
    rng = generator(seed, Purpose.SLICES, node, ordinal)
    return sorted(f"MIG-{uuid.UUID(bytes=rng.bytes(16), version=4)}" for _ in range(count))


def _life(unit: int, name: str, board: Board, profile: Profile, at_s: int) -> SliceLife:
    return SliceLife(
        unit=unit,
        uuid=name,
        profile=profile.name,
        compute_slices=profile.compute_slices,
        unit_gpus=profile.compute_slices / board.compute_slots,
        memory_mib=int(profile.memory_gib * _MIB_PER_GIB * _USABLE),
        starts_s=at_s,
    )

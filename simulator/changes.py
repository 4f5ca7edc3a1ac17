"""The log of truth: at this second this unit began to do that, for this pod.

It is append-only and ordered in time, so any window of telemetry, and the truth about it, can be drawn from it at
any later moment. Each entry carries the energy the unit had used until then, which makes counters exact without
walking over samples.
"""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.fabric import Fabric, Ints, Reals
from simulator.work import FREE, Phase

NO_POD = -1
HELD_POWER_W = 3.0
_PHASE_FIELDS = (
    "level", "noise", "zero_share", "intensity", "sm_activity", "tensor_activity", "dram_activity", "memory"
)  # fmt: skip


@dataclass(slots=True)
class ChangeLog:
    """Columns of the log, and per unit what it is doing now."""

    fabric: Fabric
    time_s: "array[int]" = field(default_factory=lambda: array("q"))
    unit: "array[int]" = field(default_factory=lambda: array("q"))
    pod: "array[int]" = field(default_factory=lambda: array("q"))
    phase: "array[int]" = field(default_factory=lambda: array("q"))
    energy_j: "array[float]" = field(default_factory=lambda: array("d"))
    power_w: "array[float]" = field(default_factory=lambda: array("d"))
    phase_state: "array[int]" = field(default_factory=lambda: array("b"))
    phase_seconds: "array[int]" = field(default_factory=lambda: array("q"))
    phase_values: "array[float]" = field(default_factory=lambda: array("f"))
    _last: list[int] = field(default_factory=list)
    _idle_w: list[float] = field(default_factory=list)
    _span_w: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every unit free."""
        fabric = self.fabric
        for unit, gpu in enumerate(fabric.unit_gpu.tolist()):
            section = fabric.sections[int(fabric.gpu_section[gpu])]
            units = section.model.slices_per_gpu if section.is_mig else 1
            is_there = not section.is_mig or fabric.unit_uuid[unit] is not None
            idle = float(fabric.gpu_idle_power_w[gpu]) / units
            self._idle_w.append(idle if is_there else 0.0)
            self._span_w.append(fabric.model_of(gpu).power_limit_w / units - idle if is_there else 0.0)
            self._last.append(unit)
        self._append_phase(FREE)
        for unit in range(len(self._last)):
            self._append((0, unit, NO_POD, 0), 0.0, self._idle_w[unit])

    def add(self, at_s: int, units: list[int], pods: list[int], phase: Phase) -> None:
        """Write that each unit begins `phase` for the pod beside it."""
        phase_index = 0 if phase is FREE else self._append_phase(phase)
        busy = phase.intensity * phase.level * (1.0 - phase.zero_share)
        held_w = HELD_POWER_W if phase.memory > 0 else 0.0
        for unit, pod in zip(units, pods, strict=True):
            last = self._last[unit]
            energy = self.energy_j[last] + self.power_w[last] * (at_s - self.time_s[last])
            self._last[unit] = len(self.time_s)
            power_w = self._idle_w[unit] + held_w + busy * self._span_w[unit]
            self._append((at_s, unit, pod, phase_index), energy, power_w)

    def share_out(self, at_s: int, gpu: int, shares: list[float]) -> None:
        """Give each place of a GPU its part of the board's power from now on; nobody holds any of it."""
        idle_w, limit_w = float(self.fabric.gpu_idle_power_w[gpu]), self.fabric.model_of(gpu).power_limit_w
        units = list(self.fabric.units_of_gpu(gpu))
        for unit, share in zip(units, shares, strict=True):
            self._idle_w[unit] = idle_w * share
            self._span_w[unit] = (limit_w - idle_w) * share
        self.add(at_s, units, [NO_POD] * len(units), FREE)

    def last_of(self, units: int, before_s: int) -> tuple[int, Ints]:
        """Return how many entries there are before `before_s`, and the index of each unit's last among them."""
        count = int(np.searchsorted(ints(self.time_s), before_s, side="left"))
        last = np.arange(units)
        last[ints(self.unit)[:count]] = np.arange(count)
        return count, last

    def phase_table(self) -> dict[str, Reals]:
        """Return the numbers of all phases, one array per field of Phase."""
        table = np.array(self.phase_values, dtype=np.float32).reshape(-1, len(_PHASE_FIELDS))
        return {name: np.ascontiguousarray(table[:, index]) for index, name in enumerate(_PHASE_FIELDS)}

    def _append_phase(self, phase: Phase) -> int:
        self.phase_state.append(int(phase.state))
        self.phase_seconds.append(phase.seconds)
        self.phase_values.extend(getattr(phase, name) for name in _PHASE_FIELDS)
        return len(self.phase_state) - 1

    def _append(self, entry: tuple[int, int, int, int], energy_j: float, power_w: float) -> None:
        at_s, unit, pod, phase = entry
        self.time_s.append(at_s)
        self.unit.append(unit)
        self.pod.append(pod)
        self.phase.append(phase)
        self.energy_j.append(energy_j)
        self.power_w.append(power_w)


def ints(values: "array[int]") -> Ints:
    """Return a copy of an integer column as a numpy array."""
    return np.array(values, dtype=np.int64)


def reals(values: "array[float]") -> NDArray[np.float64]:
    """Return a copy of a real column as a numpy array."""
    return np.array(values, dtype=np.float64)

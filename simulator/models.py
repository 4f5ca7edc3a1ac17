"""GPU models as the simulator knows them: limits, clocks, and which questions their driver answers.

Memory, power limit, clocks of H100 and L40S are those of public `nvidia-smi -q` captures (NVIDIA k8s-test-infra,
Apache-2.0), and their idle power lies around what these captures show at no load (69 and 66 W). The A100's limit and
SM clock are those of the 40 GB board in the same captures, its idle power is where Acme's idle boards lie. The rest
(T4, memory clock of the A100, temperatures, reserved memory) are plausible figures of ours, not measurements.
"""

from dataclasses import dataclass

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput

COMPUTE_SLICES = 7


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One GPU model. `slices_per_gpu` 0 means that it can't be cut into MIG devices.

    `has_profiling`: the exporter gives SM, tensor and memory activity. `has_row_remap`: it remaps rows and tells
    so (Ampere and later data-centre boards); older ones retire pages.
    """

    name: str
    architecture: str
    memory_mib: int
    power_limit_w: float
    idle_power_low_w: float
    idle_power_high_w: float
    sm_clock_mhz: int
    idle_clock_mhz: int = 210
    memory_clock_mhz: int = 1593
    reserved_mib: int = 600
    pcie_generation: int = 4
    nvlinks: int = 0
    slowdown_c: float = 89.0
    has_profiling: bool = True
    has_row_remap: bool = True
    has_memory_temperature: bool = True
    slice_profile: str = ""
    slices_per_gpu: int = 0
    compute_slices_per_slice: int = 1
    slice_memory_mib: int = 0

    def __post_init__(self) -> None:
        """Refuse a model that could not exist, by the name of the field."""
        for field in ("memory_mib", "power_limit_w", "idle_power_low_w", "sm_clock_mhz", "idle_clock_mhz"):
            require_positive(field, getattr(self, field))
        require_between("idle_power_high_w", self.idle_power_high_w, self.idle_power_low_w, self.power_limit_w)
        require_between("reserved_mib", self.reserved_mib, 0, self.memory_mib - 1)
        require_between("nvlinks", self.nvlinks, 0, 36)
        require_between("slices_per_gpu", self.slices_per_gpu, 0, COMPUTE_SLICES)
        require_between("compute_slices_per_slice", self.compute_slices_per_slice, 1, COMPUTE_SLICES)
        if self.slices_per_gpu * self.compute_slices_per_slice > COMPUTE_SLICES:
            message = f"slices_per_gpu: {self.slices_per_gpu} slices of {self.compute_slices_per_slice} exceed 7"
            raise BadInput(message, field="slices_per_gpu")
        if self.slices_per_gpu * self.slice_memory_mib > self.memory_mib:
            message = f"slice_memory_mib: {self.slices_per_gpu} slices exceed {self.memory_mib} MiB"
            raise BadInput(message, field="slice_memory_mib")
        if self.slices_per_gpu > 0:
            require_positive("slice_memory_mib", self.slice_memory_mib)


KNOWN_MODELS = (
    ModelSpec(
        "NVIDIA A100-SXM4-80GB", "Ampere", 81920, 400.0, 60.0, 75.0, 1410,
        nvlinks=12, slice_profile="1g.10gb", slices_per_gpu=7, slice_memory_mib=9728,
    ),
    ModelSpec(
        "NVIDIA H100 80GB HBM3", "Hopper", 81559, 700.0, 66.0, 80.0, 1980, idle_clock_mhz=345, memory_clock_mhz=2619,
        pcie_generation=5, nvlinks=18, slice_profile="3g.40gb", slices_per_gpu=2, compute_slices_per_slice=3,
        slice_memory_mib=40448,
    ),
    ModelSpec(
        "NVIDIA L40S", "Ada Lovelace", 46068, 350.0, 60.0, 72.0, 2520, memory_clock_mhz=9001,
        has_memory_temperature=False,
    ),
    ModelSpec(
        "Tesla T4", "Turing", 15360, 70.0, 9.0, 13.0, 1590, idle_clock_mhz=300, memory_clock_mhz=5001,
        reserved_mib=450, pcie_generation=3, has_profiling=False, has_row_remap=False, has_memory_temperature=False,
    ),
)  # fmt: skip

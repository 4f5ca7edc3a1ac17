"""How much of a GPU stands behind a resource of Kubernetes, and how much of them a pod asks for.

One unit of `nvidia.com/gpu` is not always a GPU: it is a MIG device where the node's MIG strategy is "single", and one
of several places on a GPU where time-slicing or MPS is on without renaming. GPU feature discovery tells which, in the
node's labels (its README and the device plugin's, read November 2026).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf, isfinite

from collectors.cluster_objects import Container, PodSpec, Quantity

GPU = "nvidia.com/gpu"
SHARED = ".shared"
MOST = 1_000_000  # more GPUs or places than that on a node, or for a pod, are nonsense
PRODUCT = "nvidia.com/gpu.product"
_MIG = re.compile(r"nvidia\.com/mig-(?P<profile>\d+g\.\d+gb(?:[.-](?!shared\b)[a-z]+)*)(?P<shared>\.shared)?")
_PROFILE = re.compile(r"(?P<slices>\d+)g\.(?P<memory>\d+)gb.*")
_SINGLE = re.compile(r"(?P<product>.+)-MIG-(?P<profile>\d+g\.\d+gb[^-]*)(?:-SHARED)?")
_MEMORY = re.compile(r"(\d+)GB")
# Compute slices of a whole GPU: NVIDIA MIG user guide, "Supported GPUs" (7, but 4 on these).
_SLICES, _FEW_SLICES, _FEW = 7, 4, re.compile(r"A30\b|RTX-PRO-6000", re.IGNORECASE)

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)")
_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def quantity(text: Quantity | None) -> float | None:
    """Return a Kubernetes quantity ("500m", "64Gi", 8) as a number; None where it is none, or none that is finite."""
    match = _QUANTITY.fullmatch(str(text))
    number = inf if match is None else float(match[1]) * _SUFFIXES[match[2]]
    return number if isfinite(number) else None


def is_gpu(resource: str) -> bool:
    """Tell whether a resource is a GPU, a MIG device or a place on a shared one."""
    return resource in {GPU, GPU + SHARED} or _MIG.fullmatch(resource) is not None


def gpu_amounts(resources: Mapping[str, Quantity] | None) -> dict[str, float]:
    """Return the GPU resources among `resources` with their amounts; what is no number, or can be none, is left out."""
    found = {name: quantity(value) for name, value in (resources or {}).items() if is_gpu(name)}
    return {name: amount for name, amount in found.items() if amount is not None and 0 <= amount <= MOST}


def asked(spec: PodSpec) -> dict[str, float]:
    """Return the GPU resources that a pod asks for, as the scheduler counts (KEP-753).

    Containers and sidecars run together; each other init container runs alone beside the sidecars that stand before
    it. The larger of the two counts, by resource. Limits speak where requests say nothing.
    """
    return _scheduled(spec, _of_container)


def asked_of_host(spec: PodSpec) -> tuple[int | None, int | None]:
    """Return the thousandths of a core and the MiB of memory that a pod asks for; None where it asks for none."""
    amounts = _scheduled(spec, _of_host)
    cpu, memory = amounts.get("cpu"), amounts.get("memory")
    return None if cpu is None else round(cpu * 1000), None if memory is None else round(memory / 2**20)


def _scheduled(spec: PodSpec, amounts_of: Callable[[Container], dict[str, float]]) -> dict[str, float]:
    together: Counter[str] = Counter()
    peak: dict[str, float] = {}
    for container in spec.init_containers or ():
        amounts = amounts_of(container)
        if container.restart_policy == "Always":
            together.update(amounts)
            continue
        for name, amount in amounts.items():
            peak[name] = max(peak.get(name, 0.0), together[name] + amount)
    for container in spec.containers or ():
        together.update(amounts_of(container))
    totals = {name: max(float(together[name]), peak.get(name, 0.0)) for name in {*together, *peak}}
    return {name: totals[name] for name in sorted(totals) if totals[name] > 0}


def gpus_of(amounts: Mapping[str, float], parts: Mapping[str, float | None]) -> float | None:
    """Return `amounts` of GPU resources in whole GPUs; None where nobody knows what one of them is.

    `parts` tells how much of a GPU one unit is on the node concerned; a resource not in it is what its name says.
    """
    total = 0.0
    for name, amount in amounts.items():
        part = parts[name] if name in parts else part_by_name(name)
        if part is None:
            return None
        total += amount * part
    return total


def part_by_name(resource: str) -> float | None:
    """Return how much of a GPU one unit of a resource is, as far as its name tells."""
    match = _MIG.fullmatch(resource)
    if resource == GPU:
        return 1.0
    return None if match is None or match["shared"] else part_of_profile(match["profile"], "")


def part_of_profile(profile: str, product: str) -> float | None:
    """Return which part of a GPU's compute slices a MIG profile ("1g.10gb") has on a product."""
    match = _PROFILE.fullmatch(profile)
    return None if match is None else int(match["slices"]) / _slices(product)


def parts_of(labels: Mapping[str, str], capacity: Mapping[str, float]) -> dict[str, float | None]:
    """Return how much of a GPU one unit of each GPU resource is on a node of these labels and this capacity."""
    product = labels.get(PRODUCT, "")
    single = _single(labels)
    parts: dict[str, float | None] = {}
    for resource in {GPU, *capacity}:
        name = resource.removesuffix(SHARED)
        match = _MIG.fullmatch(name)
        whole = part_of_profile(match["profile"], product) if match else 1.0
        if name == GPU and single is not None:
            whole = part_of_profile(single["profile"], single["product"])
        parts[resource] = _shared_part(resource, whole, labels, capacity)
    return parts


def common_parts(nodes: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return how much of a GPU one unit is at most on any node: what a pod without a node may get."""
    found: dict[str, float | None] = {}
    for parts in nodes:
        for name, part in parts.items():
            before = found.get(name)
            if part is not None and (before is None or part > before):
                found[name] = part
    return found


def physical_gpus(labels: Mapping[str, str], capacity: Mapping[str, float]) -> int | None:
    """Return the physical GPUs of a node; None where what is told of it doesn't tell.

    The label of GPU feature discovery counts first, since shared GPUs are advertised several times. With MIG strategy
    "single" that label counts MIG devices, of which as many make a GPU as its slices and memory hold.
    """
    counted = _positive(labels.get("nvidia.com/gpu.count"))
    single = _single(labels)
    if counted is None and single is None and capacity.get(GPU) is not None:
        return round(capacity[GPU] / (_replicas(GPU, labels) if not capacity.get(GPU + SHARED) else 1))
    if counted is None or single is None:
        return counted
    whole, rest = divmod(counted, _devices_per_gpu(single["profile"], single["product"]))
    return whole if rest == 0 else None


def model_of(labels: Mapping[str, str]) -> str | None:
    """Return the GPU model that a node's labels name, without what MIG and sharing append to it."""
    product = labels.get(PRODUCT) or None
    single = None if product is None else _SINGLE.fullmatch(product)
    if single is not None:
        return single["product"]
    return None if product is None else product.removesuffix("-SHARED")


def _of_container(container: Container) -> dict[str, float]:
    resources = container.resources
    if resources is None:
        return {}
    return {**gpu_amounts(resources.limits), **gpu_amounts(resources.requests)}


def _of_host(container: Container) -> dict[str, float]:
    resources = container.resources
    if resources is None:
        return {}
    told = {**(resources.limits or {}), **(resources.requests or {})}
    found = {name: quantity(told.get(name)) for name in ("cpu", "memory")}
    return {name: amount for name, amount in found.items() if amount is not None}


def _shared_part(
    resource: str, whole: float | None, labels: Mapping[str, str], capacity: Mapping[str, float]
) -> float | None:
    name = resource.removesuffix(SHARED)
    replicas = _positive(labels.get(f"{name}.replicas"))
    if resource != name:
        return None if whole is None or replicas is None else whole / replicas
    is_renamed = capacity.get(name + SHARED, 0.0) > 0
    return whole if whole is None or is_renamed else whole / (replicas or 1)


def _single(labels: Mapping[str, str]) -> re.Match[str] | None:
    """Return product and profile where every GPU of a node is cut into MIG devices that are called GPUs."""
    return _SINGLE.fullmatch(labels.get(PRODUCT, "")) if labels.get("nvidia.com/mig.strategy") == "single" else None


def _devices_per_gpu(profile: str, product: str) -> int:
    match = _PROFILE.fullmatch(profile)
    memory = _MEMORY.search(product)
    if match is None:
        return 1
    by_slices = _slices(product) // int(match["slices"])
    by_memory = by_slices if memory is None else int(memory[1]) // int(match["memory"])
    return max(1, min(by_slices, by_memory))


def _slices(product: str) -> int:
    return _FEW_SLICES if _FEW.search(product) else _SLICES


def _replicas(resource: str, labels: Mapping[str, str]) -> int:
    return _positive(labels.get(f"{resource}.replicas")) or 1


def _positive(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and 0 < int(text) <= MOST else None

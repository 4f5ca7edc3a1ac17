"""How much of a GPU one unit of a resource is in a cluster, by what its nodes tell: MIG devices, places on shared GPUs.

The same rules as those that the table `quota` is read by. Where no node shares or cuts its GPUs, names alone tell.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from actions.kube_body import at, quantity
from actions.kube_port import NODES, Reader

GPU, SHARED = "nvidia.com/gpu", ".shared"
_PRODUCT = "nvidia.com/gpu.product"
_SINGLE = re.compile(r"(?P<product>.+)-MIG-(?P<profile>\d+g\.\d+gb[^-]*)(?:-SHARED)?")
_MIG = re.compile(r"nvidia\.com/mig-(?P<slices>\d+)g\.\d+gb(?:[.-](?!shared\b)[a-z]+)*(?P<shared>\.shared)?")
# Compute slices of a whole GPU: NVIDIA MIG user guide, "Supported GPUs" (7, but 4 on these).
_SLICES, _FEW_SLICES, _FEW = 7, 4, re.compile(r"A30\b|RTX-PRO-6000", re.IGNORECASE)
_CUT = ("nvidia.com/mig.strategy", "nvidia.com/gpu.replicas,nvidia.com/gpu.replicas!=1")

Parts = Mapping[str, float | None]


def look_at_parts(api: Reader) -> Parts:
    """Return what one unit of each resource is at most on any node; nothing where no node cuts or shares its GPUs."""
    if not any(api.list_all(NODES, labels=each) for each in _CUT):
        return {}
    return common_parts(api.list_all(NODES))


def common_parts(nodes: Iterable[Mapping[str, Any]]) -> Parts:
    """Return what one unit of each GPU resource is at most on any of these nodes."""
    found: dict[str, float | None] = {}
    for node in nodes:
        for name, part in _parts_of(node).items():
            before = found.get(name)
            if part is not None and (before is None or part > before):
                found[name] = part
    return found


def unit_of(resource: str, parts: Parts) -> float | None:
    """Return how much of a GPU one unit of a resource is; None where it is none, or nobody knows."""
    if resource in parts:
        return parts[resource]
    match = _MIG.fullmatch(resource)
    if match is None:
        return 1.0 if resource == GPU else None
    return None if match["shared"] else int(match["slices"]) / _SLICES


def model_of(labels: Mapping[str, str]) -> str | None:
    """Return the GPU model that node labels name, without what MIG and sharing append to it."""
    product = labels.get(_PRODUCT) or None
    single = None if product is None else _SINGLE.fullmatch(product)
    if single is not None:
        return single["product"]
    return None if product is None else product.removesuffix("-SHARED")


def _parts_of(node: Mapping[str, Any]) -> dict[str, float | None]:
    labels: Mapping[str, str] = at(node, ("metadata", "labels")) or {}
    told = {name: quantity(value) for name, value in (at(node, ("status", "capacity")) or {}).items()}
    capacity = {name: amount for name, amount in told.items() if amount is not None and _is_gpu(name)}
    single = _SINGLE.fullmatch(labels.get(_PRODUCT, "")) if labels.get("nvidia.com/mig.strategy") == "single" else None
    product = labels.get(_PRODUCT, "") if single is None else single["product"]
    parts: dict[str, float | None] = {}
    for resource in {GPU, *capacity} if capacity else ():
        name = resource.removesuffix(SHARED)
        match = _MIG.fullmatch(name)
        whole = 1.0 if match is None else int(match["slices"]) / _slices(product)
        if name == GPU and single is not None:
            whole = int(single["profile"].partition("g")[0]) / _slices(product)
        parts[resource] = _shared(resource, whole, labels, capacity)
    return parts


def _shared(resource: str, whole: float, labels: Mapping[str, str], capacity: Mapping[str, float]) -> float | None:
    name = resource.removesuffix(SHARED)
    text = labels.get(f"{name}.replicas", "")
    replicas = int(text) if text.isdecimal() and int(text) > 0 else None
    if resource != name:
        return None if replicas is None else whole / replicas
    is_renamed = capacity.get(name + SHARED, 0.0) > 0
    return whole if is_renamed else whole / (replicas or 1)


def _is_gpu(resource: str) -> bool:
    return resource in {GPU, GPU + SHARED} or _MIG.fullmatch(resource) is not None


def _slices(product: str) -> int:
    return _FEW_SLICES if _FEW.search(product) else _SLICES

"""What a whole node costs by OpenCost's custom pricing: the price of the machine and of each of its GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from collectors.price_entries import amount, refuse
from collectors.price_files import Placed, entries_of
from collectors.price_foreign import OPENCOST, is_of

_LABELS = "metadata.labels."


@dataclass(frozen=True, slots=True)
class PricedNode:
    """What a price list may know a node by, and its GPUs (None: not known)."""

    name: str | None = None
    provider_id: str | None = None
    region: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int | None = None


def node_usd_per_hour(path: Path, node: PricedNode) -> Decimal | None:
    """Return dollars an hour of a node by OpenCost's custom pricing CSV; None where no line of it speaks of the node.

    A line of class node is found by the node's name, provider's id or a label; one of class gpu by a label, and its
    price is for one GPU. A line with a region speaks of that region only. The first line that fits counts.
    """
    entries, header = entries_of(path)
    if not is_of(header, OPENCOST):
        refuse(f"{path}, line 1", "InstanceIDField", "is not there: this is no custom pricing of OpenCost")
    machine, gpu = _first(entries, "node", node), _first(entries, "gpu", node)
    if machine is None and gpu is None:
        return None
    of_gpus = Decimal(0) if gpu is None or node.gpus is None else gpu * node.gpus
    return of_gpus if machine is None else machine + of_gpus


def _first(entries: list[Placed], kind: str, node: PricedNode) -> Decimal | None:
    for place, row in entries:
        if str(row.get("AssetClass", "")).lower() == kind and _speaks_of(row, node):
            return amount(row, "MarketPriceHourly", place)
    return None


def _speaks_of(row: Mapping[str, object], node: PricedNode) -> bool:
    by, value, region = str(row.get("InstanceIDField", "")), row.get("InstanceID"), row.get("Region")
    if region is not None and str(region) != node.region:
        return False
    known = {"metadata.name": node.name, "spec.providerID": node.provider_id}
    found = known[by] if by in known else node.labels.get(by.removeprefix(_LABELS))
    return found is not None and value is not None and found.lower() == str(value).lower()

"""What a whole node costs by OpenCost's custom pricing: the price of the machine and of each of its GPUs.

Where the list speaks of nodes that are known, their price over their GPUs becomes a price of the GPU: that of a share
of the node, which the ledger divides over GPU, CPU and RAM where it is told to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import polars as pl

from collectors.price_entries import amount, refuse
from collectors.price_files import Placed, entries_of
from collectors.price_foreign import ALWAYS, OPENCOST, is_of
from fleet.batch import Trouble
from fleet.frames import check
from fleet.models import canonical_model
from fleet.tables import PRICE

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
    machine, of_gpus = _parts(entries, node)
    return of_gpus if machine is None else machine + (Decimal(0) if of_gpus is None else of_gpus)


def read_node_prices(path: Path | None, nodes: pl.DataFrame) -> tuple[pl.DataFrame, list[Trouble]]:
    """Return what the machines of `nodes` (rows of the table `node`) cost a GPU, as rows of the table `price`.

    A price goes by model, capacity type and region; where nodes that share these cost different amounts, or one of
    these or the number of GPUs is not known, nothing is said and a trouble tells of it. None, and a list that is not
    OpenCost's, speak of no machine.
    """
    entries, header = ([], ()) if path is None else entries_of(path)
    if not is_of(header, OPENCOST):
        return PRICE.empty(), []
    found: dict[tuple[str, str, str | None], set[Decimal]] = {}
    unknown: list[str] = []
    for row in nodes.sort("cluster", "node").iter_rows(named=True):
        node = _priced(row)
        machine, of_gpus = _parts(entries, node)
        if machine is None:
            continue  # its GPUs have a price of their own, or none
        if node.gpus is None or node.gpus < 1 or row["model"] is None or row["capacity_type"] is None:
            unknown.append(str(row["node"]))
            continue
        whole = machine + (Decimal(0) if of_gpus is None else of_gpus)
        key = (canonical_model(row["model"]), row["capacity_type"], row["region"])
        found.setdefault(key, set()).add(round(whole / node.gpus, 6))
    rows = [
        {"model": model, "capacity_type": kind, "region": region, "usd_per_gpu_hour": next(iter(prices)),
         "source": f"{path} (OpenCost, nodes over their GPUs)", "starts_at": ALWAYS, "ends_at": None}
        for (model, kind, region), prices in found.items()
        if len(prices) == 1
    ]  # fmt: skip
    torn = [f"{model} {kind}" for (model, kind, _), prices in found.items() if len(prices) > 1]
    reasons = (
        ("not used: nodes of one model, capacity type and region have different prices", torn),
        ("not used: model, capacity type or GPUs of a priced node are not known", unknown),
    )
    troubles = [Trouble("noticed", "price", reason, len(names), names[0]) for reason, names in reasons if names]
    return check(pl.DataFrame(rows, schema=PRICE.schema()), PRICE), troubles


def _priced(row: Mapping[str, object]) -> PricedNode:
    labels = row["labels"]
    told = json.loads(labels) if isinstance(labels, str) else {}
    region, gpus = row["region"], row["gpus"]
    return PricedNode(
        name=str(row["node"]), region=None if region is None else str(region),
        labels={str(name): str(value) for name, value in told.items()}, gpus=gpus if isinstance(gpus, int) else None,
    )  # fmt: skip


def _parts(entries: list[Placed], node: PricedNode) -> tuple[Decimal | None, Decimal | None]:
    """Return dollars an hour of the machine, and of its GPUs; None where no line speaks of it."""
    machine, gpu = _first(entries, "node", node), _first(entries, "gpu", node)
    if gpu is None:
        return machine, None
    return machine, Decimal(0) if node.gpus is None else gpu * node.gpus


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

"""Price lists of other systems, as CSV: OpenCost's custom pricing and EGS's KubeTally prices."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from collectors.price_entries import CAPACITY_TYPES, amount, refuse
from collectors.price_files import Placed
from fleet.batch import Trouble
from fleet.models import canonical_model

OPENCOST = frozenset(
    [
        "EndTimestamp",
        "InstanceID",
        "Region",
        "AssetClass",
        "InstanceIDField",
        "InstanceType",
        "MarketPriceHourly",
        "Version",
    ]
)
EGS = frozenset(["cloud_provider", "region", "component", "instance_type", "vcpu", "price", "gpu"])
# Neither list says from when its prices hold: they hold until a book of ours says otherwise.
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)
_SUFFIXES = {"ondemand": "on_demand", "on-demand": "on_demand", "reserved": "reserved", "spot": "spot"}
_MICRO = Decimal("0.000001")
# Which GPU an instance family has: the vendors' instance type pages (read November 2026).
_FAMILIES = (
    ("p6-b200", "B200"), ("p5en", "H200"), ("p5e", "H200"), ("p5", "H100"), ("p4de", "A100-80GB"), ("p4d", "A100-40GB"),
    ("p3", "V100"), ("g6e", "L40S"), ("g6", "L4"), ("g5", "A10G"), ("g4dn", "T4"),
    ("a3-ultragpu", "H200"), ("a3-", "H100"), ("a2-ultragpu", "A100-80GB"), ("a2-", "A100-40GB"), ("g2-", "L4"),
)  # fmt: skip

Rows = list[dict[str, object]]


def opencost_rows(rows: Iterable[Placed]) -> tuple[Rows, list[Trouble]]:
    """Return the GPU prices of OpenCost's custom pricing CSV: an hourly price by GPU label, for any capacity type.

    A name that ends in -ondemand, -reserved or -spot is of that capacity type. `EndTimestamp` is not used, as OpenCost
    does not use it; prices of volumes are told as not used, and so are those of nodes, which `read_node_prices` reads
    where the nodes are known.
    """
    found: Rows = []
    others: list[str] = []
    for place, row in rows:
        name = str(row.get("InstanceID", ""))
        if str(row.get("AssetClass", "")).lower() != "gpu":
            others.append(f"{place}: {row.get('AssetClass', 'no AssetClass')} {name}")
            continue
        if not name:
            refuse(place, "InstanceID", "is missing")
        model, kinds = _named(name)
        price = amount(row, "MarketPriceHourly", place).quantize(_MICRO)
        for kind in kinds:
            found.append(_row(model, kind, row.get("Region"), price, f"{place} (OpenCost)"))
    return found, _unused(others, "only prices of GPUs, and of nodes that are known, are used")


def egs_rows(rows: Iterable[Placed]) -> tuple[Rows, list[Trouble]]:
    """Return the GPU prices of EGS's pricing CSV: the price of an instance for an hour over its GPUs, on demand.

    What has no GPU, and what is of no instance type whose GPU is known, is told as not used.
    """
    found: Rows = []
    others: list[str] = []
    for place, row in rows:
        kind = str(row.get("instance_type", ""))
        gpus = amount(row, "gpu", place) if "gpu" in row else Decimal(0)
        price = amount(row, "price", place)
        model = model_of(kind)
        if gpus == 0 or model is None:
            others.append(f"{place}: {kind}")
            continue
        found.append(_row(model, "on_demand", row.get("region"), (price / gpus).quantize(_MICRO), f"{place} (EGS)"))
    return found, _unused(others, "no GPU, or none that is known for its instance type")


def model_of(instance_type: str) -> str | None:
    """Return the GPU model of a provider's instance type; None where it is not known."""
    name = instance_type.lower()
    for family, model in _FAMILIES:
        if name.startswith(family if family.endswith("-") else (f"{family}.", f"{family}-")):
            return model
    parts = name.removeprefix("standard_").split("_")
    words = {word.upper() for word in parts}
    if "A100" in words:
        return "A100-40GB" if "ND96ASR" in words else "A100-80GB"
    return next((model for model in ("H200", "H100", "V100", "T4", "A10") if model in words), None)


def _named(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the model that a GPU label's value names, and the capacity types that it speaks of."""
    for suffix, kind in _SUFFIXES.items():
        if name.lower().endswith(f"-{suffix}"):
            return canonical_model(name[: -len(suffix) - 1]), (kind,)
    return canonical_model(name), CAPACITY_TYPES


def _row(model: str, kind: str, region: object, price: Decimal, source: str) -> dict[str, object]:
    return {
        "model": model, "capacity_type": kind, "region": None if region is None else str(region),
        "usd_per_gpu_hour": price, "source": source, "starts_at": ALWAYS, "ends_at": None,
    }  # fmt: skip


def _unused(others: list[str], why: str) -> list[Trouble]:
    return [Trouble("noticed", "price", f"not used: {why}", len(others), others[0])] if others else []


def is_of(header: Iterable[str], columns: frozenset[str]) -> bool:
    """Tell whether a CSV's header is that of a list with these columns."""
    return set(header) == columns

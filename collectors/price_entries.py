"""One entry of a price book of ours: checked field by field, and owned GPUs' cost worked out."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from fleet.amortise import Ownership
from fleet.clock import as_utc
from fleet.errors import BadInput
from fleet.models import canonical_model

CAPACITY_TYPES = ("on_demand", "reserved", "spot", "owned")
_OWNED = ("capex_usd", "life_years", "opex_usd_per_year", "power_kw", "pue", "usd_per_kwh")
_OF_NODE = ("usd_per_node_hour", "gpus_per_node")
KEYS = frozenset(
    {
        "model", "capacity_type", "region", "usd_per_gpu_hour", "starts_at", "ends_at", "source", "currency", *_OWNED,
        *_OF_NODE,
    }
)  # fmt: skip
_PLACES = 6  # DECIMAL(18, 6)
_MOST = Decimal(10) ** 12


def price_row(entry: Mapping[str, object], place: str) -> dict[str, object]:
    """Return an entry as a row of the table `price`; raise `BadInput` naming place and field where it is wrong.

    The price is `usd_per_gpu_hour`, or, where only the node's is known, `usd_per_node_hour` over `gpus_per_node`, or,
    of owned GPUs, what `capex_usd` and the rest come to.
    """
    for key in entry:
        if key not in KEYS:
            refuse(place, str(key), f"is unknown; the keys are {', '.join(sorted(KEYS))}")
    currency = entry.get("currency", "USD")
    if currency != "USD":
        refuse(place, "currency", f"{currency!r} is not USD; all prices are in US dollars")
    starts_at, ends_at = _moment(entry, "starts_at", place), _moment(entry, "ends_at", place)
    if starts_at is None:
        refuse(place, "starts_at", "is missing")
    if ends_at is not None and ends_at <= starts_at:
        refuse(place, "ends_at", "is not after starts_at")
    capacity_type = _text(entry, "capacity_type", place)
    if capacity_type not in CAPACITY_TYPES:
        refuse(place, "capacity_type", f"{capacity_type!r} is not one of {', '.join(CAPACITY_TYPES)}")
    return {
        "model": canonical_model(_text(entry, "model", place)),
        "capacity_type": capacity_type,
        "region": _text(entry, "region", place) if "region" in entry else None,
        "usd_per_gpu_hour": _price(entry, capacity_type, place),
        "source": _text(entry, "source", place) if "source" in entry else place,
        "starts_at": starts_at,
        "ends_at": ends_at,
    }


def refuse(place: str, field: str, why: str) -> NoReturn:
    """Raise `BadInput` saying where, which field and why."""
    message = f"{place}: {field}: {why}"
    raise BadInput(message, place=place, field=field)


def amount(entry: Mapping[str, object], key: str, place: str) -> Decimal:
    """Return a number that is not negative, exactly as written."""
    value = entry.get(key)
    if value is None:
        refuse(place, key, "is missing")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        refuse(place, key, f"{value!r} is not an amount")
    try:
        found = Decimal(str(value))
    except InvalidOperation as error:
        message = f"{place}: {key}: {value!r} is not an amount"
        raise BadInput(message, place=place, field=key) from error
    if not found.is_finite() or found < 0:
        refuse(place, key, f"{value!r} is negative or no number")
    if found >= _MOST:
        refuse(place, key, f"{value!r} is more than can be stored")
    return found


def _price(entry: Mapping[str, object], capacity_type: str, place: str) -> Decimal:
    parts = [key for key in _OWNED if key in entry]
    of_node = [key for key in _OF_NODE if key in entry]
    if of_node:
        other = next((key for key in ("usd_per_gpu_hour", *parts) if key in entry), None)
        if other is not None:
            refuse(place, other, f"stands beside {of_node[0]}; a price is that of a GPU or of a node")
        return _part_of_node(entry, place)
    if not parts:
        return exact(amount(entry, "usd_per_gpu_hour", place), "usd_per_gpu_hour", place)
    if "usd_per_gpu_hour" in entry:
        refuse(place, parts[0], "stands beside usd_per_gpu_hour; a price is either given or worked out")
    if capacity_type != "owned":
        refuse(place, parts[0], f"is of owned GPUs only, and capacity_type is {capacity_type}")
    given = {key: amount(entry, key, place) for key in {*parts, "capex_usd", "life_years"}}
    if given["life_years"] == 0:
        refuse(place, "life_years", "is not above zero")
    if given.get("pue", Decimal(1)) < 1:
        refuse(place, "pue", f"{given['pue']} is below 1; it is the facility's power over that of its machines")
    power = [key for key in ("power_kw", "usd_per_kwh") if key in given]
    if len(power) == 1:
        refuse(place, power[0], "needs the other of power_kw and usd_per_kwh")
    return Ownership(**given).usd_per_gpu_hour()


def _part_of_node(entry: Mapping[str, object], place: str) -> Decimal:
    gpus = amount(entry, "gpus_per_node", place)
    if gpus < 1 or gpus != gpus.to_integral_value():
        refuse(place, "gpus_per_node", f"{entry['gpus_per_node']!r} is not a number of GPUs")
    return round(amount(entry, "usd_per_node_hour", place) / gpus, _PLACES)


def exact(value: Decimal, field: str, place: str) -> Decimal:
    """Return an amount that is stored without loss, or refuse it."""
    if round(value, _PLACES) != value:
        refuse(place, field, f"'{value}' has more than {_PLACES} decimal places")
    return value


def _text(entry: Mapping[str, object], key: str, place: str) -> str:
    value = entry.get(key)
    if value is None:
        refuse(place, key, "is missing")
    if not isinstance(value, str) or not value.strip():
        refuse(place, key, f"{value!r} is not a name")
    return value.strip()


def _moment(entry: Mapping[str, object], key: str, place: str) -> datetime | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            refuse(place, key, f"{value!r} is not a time; write it as 2026-01-01T00:00:00Z")
    if not isinstance(value, datetime):
        what = "has no time of day" if isinstance(value, date) else "is not a time"
        refuse(place, key, f"{value!r} {what}; write it as 2026-01-01T00:00:00Z")
    return as_utc(value, f"{place}: {key}")

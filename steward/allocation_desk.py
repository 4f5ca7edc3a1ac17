"""The ledger in the words of OpenCost's allocation API, so that tools which read OpenCost read ours."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from analytics.allocation import IDLE_RESOURCES, Allocation, Predicate, Shared, Sharing, key_of, share_out
from analytics.allocation_filter import read_filter
from analytics.cost_views import spend
from fleet.errors import BadInput
from steward.compose import House
from steward.cost_desk import window_of
from steward.report import Report
from store.engine import Engine

_BY = ("cluster", "node", "workspace", "namespace", "workload", "pod_uid", "pod", "owner", "resource", "label:any")
_HELD = ("used", "allocated_idle", "unknown")
_FIELDS = {"cpu": "cpuCost", "gpu": "gpuCost", "ram": "ramCost", "storage": "pvCost", "network": "networkCost",
           "lb": "loadBalancerCost", "shared": "sharedCost"}  # fmt: skip
_US_PER_HOUR = 3_600_000_000
_DIGITS = 5
_TRUE = frozenset({"true", "1", "yes"})


def allocation_report(house: House, parameters: Mapping[str, object]) -> Report:
    """Return the allocation sets of a window; the parameters are those of OpenCost's `/allocation`.

    Known are window, step, accumulate, aggregate, includeIdle, shareIdle, shareSplit, idleByNode, splitIdle,
    shareNamespaces, shareLabels, filter and includeProportionalAssetResourceCosts.
    """
    now = house.clock.now()
    with house.store.snapshot() as engine:
        since, until = _window(engine, parameters, now)
        step = _step(parameters, until - since)
        sets = []
        start = since
        while start < until:
            end = min(start + step, until)
            sets.append({"window": _span(start, end), "allocations": _set(engine, parameters, start, end)})
            start = end
    return Report("AllocationReport", until, {"since": since, "until": until}, sets)


def _window(engine: Engine, parameters: Mapping[str, object], now: datetime) -> tuple[datetime, datetime]:
    text = str(parameters.get("window", "24h"))
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"today": (today, now), "yesterday": (today - timedelta(days=1), today)}
    if text in named:
        return named[text]
    if "," in text:
        since, _, until = text.partition(",")
        return window_of(engine, {"since": since, "until": until}, now)
    if text.isdecimal():
        message = f"window: {text!r} has no unit; write 24h, 7d or two times with a comma between"
        raise BadInput(message, field="window")
    return window_of(engine, {"window": {"lastmonth": "last-month"}.get(text, text)}, now)


def _step(parameters: Mapping[str, object], whole: timedelta) -> timedelta:
    text = parameters.get("step")
    if text is None or _is_on(parameters, "accumulate"):
        return whole
    number, unit = str(text)[:-1], str(text)[-1:]
    lengths = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
    if unit not in lengths or not number.isdecimal() or int(number) < 1:
        message = f"step: {text!r} is not a number of h, d or w"
        raise BadInput(message, field="step")
    return int(number) * lengths[unit]


def _is_on(parameters: Mapping[str, object], name: str) -> bool:
    return str(parameters.get(name, "false")).lower() in _TRUE


def _set(engine: Engine, parameters: Mapping[str, object], since: datetime, until: datetime) -> dict[str, object]:
    rows = engine.run(spend(engine, since, until, _BY)).to_dicts()
    held = [row for row in rows if row["category"] in _HELD or row["workspace"] is not None]
    allocations = [_allocation(row) for row in held]
    how = _sharing(parameters)
    shared = share_out(allocations, _idle(rows), how)
    hours: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row, each in zip(held, allocations, strict=True):
        if how.keep is None or how.keep(each):
            cell = hours[key_of(each, how.aggregate)]
            cell[0] += int(row["gpu_us"])
            cell[1] += int(row["gpu_us"]) if row["category"] == "used" else 0
    names = _properties(allocations, how)
    found: dict[str, object] = {}
    for name, costs in sorted(shared.rows.items()):
        if name.endswith("__idle__") and not _is_on(parameters, "includeIdle"):
            continue
        entry = _entry(name, costs, shared, hours.get(name, [0, 0]), names.get(name, {}), (since, until))
        if _is_on(parameters, "includeProportionalAssetResourceCosts"):
            entry["proportionalAssetResourceCosts"] = _proportions(shared.scopes.get(name, {}))
        found[name] = entry
    return found


def _allocation(row: Mapping[str, Any]) -> Allocation:  # a row of mixed types, each named below
    kind, _, rest = str(row["workload"] or "").partition("/")
    names = {
        "cluster": row["cluster"], "node": row["node"], "namespace": row["namespace"], "workspace": row["workspace"],
        "workload": row["workload"], "pod": row["pod"] or row["pod_uid"], "owner": row["owner"],
        "controllerKind": None if kind in {"", "Pod"} else kind.lower(),
        "controller": None if kind in {"", "Pod"} else rest.partition("/")[2],
    }  # fmt: skip
    cost = row["cost_usd"]
    labels = {} if row["labels"] is None else {str(key): str(value) for key, value in json.loads(row["labels"]).items()}
    known = {name: str(value) for name, value in names.items() if value is not None}
    return Allocation(
        {str(row["resource"]): Fraction(cost) if isinstance(cost, Decimal) else Fraction(0)}, known, labels
    )


def _idle(rows: Iterable[Mapping[str, Any]]) -> list[Allocation]:  # as above
    """Return what nobody held; what is neither GPU, CPU nor RAM counts as GPU, so that sharing it loses nothing."""
    found = []
    for row in rows:
        if row["category"] in _HELD or row["workspace"] is not None or not isinstance(row["cost_usd"], Decimal):
            continue
        resource = row["resource"] if row["resource"] in IDLE_RESOURCES else "gpu"
        names = {name: str(row[name]) for name in ("cluster", "node") if row[name] is not None}
        found.append(Allocation({resource: Fraction(row["cost_usd"])}, names))
    return found


def _sharing(parameters: Mapping[str, object]) -> Sharing:
    aggregate = tuple(name.strip() for name in str(parameters.get("aggregate", "namespace")).split(",") if name.strip())
    split = str(parameters.get("shareSplit", "weighted"))
    if split not in {"weighted", "even"}:
        message = f"shareSplit: {split!r} is neither weighted nor even"
        raise BadInput(message, field="shareSplit")
    text = str(parameters.get("filter", ""))
    return Sharing(
        aggregate,
        "weighted" if _is_on(parameters, "shareIdle") else "none",
        "even" if split == "even" else "weighted",
        idle_by_node=_is_on(parameters, "idleByNode"),
        split_idle=_is_on(parameters, "splitIdle"),
        share=_shares(parameters),
        keep=read_filter(text) if text.strip() else None,
    )


def _shares(parameters: Mapping[str, object]) -> Predicate | None:
    spaces = [name for name in str(parameters.get("shareNamespaces", "")).split(",") if name]
    labels = [pair.partition(":")[::2] for pair in str(parameters.get("shareLabels", "")).split(",") if pair]
    if not spaces and not labels:
        return None
    return lambda each: each.names.get("namespace") in spaces or any(each.labels.get(k) == v for k, v in labels)


def _properties(allocations: Sequence[Allocation], how: Sharing) -> dict[str, dict[str, str]]:
    """Return by name the properties that all its allocations share."""
    found: dict[str, dict[str, str]] = {}
    for each in allocations:
        name = key_of(each, how.aggregate)
        before = found.get(name)
        found[name] = dict(each.names) if before is None else dict(before.items() & each.names.items())
    return found


def _entry(  # noqa: PLR0917 - the parts of one entry
    name: str, costs: Mapping[str, Fraction], shared: Shared, hours: Sequence[int], names: Mapping[str, str],
    span: tuple[datetime, datetime],
) -> dict[str, object]:  # fmt: skip
    since, until = span
    own: defaultdict[str, Fraction] = defaultdict(Fraction)
    for scope in shared.scopes.get(name, {}).values():
        for resource, amount in scope.items():
            own[resource] += amount
    length = (until - since).total_seconds()
    held, used = hours
    money = {field: _round(costs.get(resource, Fraction(0))) for resource, field in _FIELDS.items()}
    idle = {f"{name_}CostIdle": _round(costs.get(name_, Fraction(0)) - own[name_]) for name_ in IDLE_RESOURCES}
    external = sum((amount for resource, amount in costs.items() if resource not in _FIELDS), Fraction(0))
    return {
        "name": name, "properties": dict(names), "window": _span(since, until), "start": _time(since),
        "end": _time(until), "minutes": length / 60, "gpuHours": held / _US_PER_HOUR,
        "gpuCount": round(held / 1e6 / length, _DIGITS), "gpuRequestAverage": round(held / 1e6 / length, _DIGITS),
        "gpuUsageAverage": round(used / 1e6 / length, _DIGITS),
        "gpuEfficiency": round(used / held, _DIGITS) if held else 0.0, **money, **idle, "gpuCostAdjustment": 0.0,
        "externalCost": _round(external), "totalCost": _round(sum(costs.values(), Fraction(0))),
    }  # fmt: skip


def _proportions(scopes: Mapping[tuple[str, str], Mapping[str, Fraction]]) -> dict[str, object]:
    return {
        ",".join(part for part in scope if part): {
            "cluster": scope[0], "name": scope[1],
            **{f"{resource}ProportionalCost": _round(costs.get(resource, Fraction(0))) for resource in IDLE_RESOURCES},
        }
        for scope, costs in sorted(scopes.items())
    }  # fmt: skip


def _round(amount: Fraction) -> float:
    return round(float(amount), _DIGITS)


def _span(since: datetime, until: datetime) -> dict[str, str]:
    return {"start": _time(since), "end": _time(until)}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


QUESTIONS = {"allocation": allocation_report}

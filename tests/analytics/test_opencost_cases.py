"""Cases that OpenCost publishes with expected values: any file of the same shape runs through the same tests."""

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from analytics.allocation import IDLE, Allocation, Sharing, key_of, quota_overhead, share_out
from analytics.allocation_filter import read_filter
from analytics.cost_hosts import hourly_of_monthly, node_gpu_cost, split_node_price
from analytics.pressure import Ask, scheduler_pressure
from analytics.unit_cost import MULTIPLIER, Work, efficiency, unit_cost, weighted_efficiency
from collectors.cluster_gpus import is_gpu, physical_gpus
from fleet.fractions import mps_fraction

COSTS = {"cpuCost": "cpu", "gpuCost": "gpu", "ramCost": "ram", "pvCost": "pv", "networkCost": "network",
         "loadBalancerCost": "lb"}  # fmt: skip
NAMES = ("cluster", "node", "namespace", "pod", "container", "controllerKind", "controller")
GIB = 2**30


def exact(number: Any) -> Fraction:
    return Fraction(str(number))


def files(root: Path, *keys: str) -> Iterator[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((root / "cost").rglob("*.json"))]
    with_keys = [each for each in found if isinstance(each, dict) and all(key in each for key in keys)]
    if not with_keys:
        pytest.skip(f"no file of cases with {', '.join(keys)}")
    yield from with_keys


def allocation(row: dict[str, Any]) -> Allocation:
    return Allocation(
        {short: exact(row[name]) for name, short in COSTS.items() if name in row},
        {name: row[name] for name in NAMES if row.get(name)},
        row.get("labels", {}),
        row.get("annotations", {}),
        row.get("services", ()),
    )


def sharing(case: dict[str, Any], hours: float) -> Sharing:
    share, keep, hourly = case.get("share"), case.get("filter"), case.get("shared_hourly_costs")

    def is_shared(each: Allocation) -> bool:
        assert share is not None
        label = share.get("label")
        if label is not None:
            return each.labels.get(label[0]) == str(label[1])
        return all(each.names.get(name) == value for name, value in share.items())

    return Sharing(
        aggregate=tuple(case["aggregate"]),
        share_idle=case["share_idle"],
        share_split=case["share_split"] or "weighted",
        idle_by_node=case["idle_by_node"],
        split_idle=case["split_idle"],
        share=is_shared if share else None,
        keep=read_filter(keep["filter"]) if keep else None,
        overhead=sum((exact(amount) for amount in hourly.values()), Fraction(0)) * exact(hours)
        if hourly
        else Fraction(0),
    )


def outcomes(root: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any], Any]]:
    for file in files(root, "allocations", "cases"):
        allocations = [allocation(row) for row in file["allocations"]]
        for case in file["cases"]:
            idle = [allocation(row) for row in file["idle_by_node" if case["idle_by_node"] else "idle_by_cluster"]]
            yield file, case, (share_out(allocations, idle, sharing(case, file["window_hours"])), allocations, idle)


def test_allocations_are_grouped_and_shared_as_opencost_expects(data_root: Path) -> None:
    wrong = []
    for file, case, (shared, _, _) in outcomes(data_root):
        totals = {name: float(sum(costs.values())) for name, costs in shared.rows.items()}
        near = pytest.approx(case["expected"], abs=file["tolerance"])
        if totals != near or sum(totals.values()) != pytest.approx(case["expected_total"], abs=file["tolerance"]):
            wrong.append((case["id"], totals))
    assert wrong == []


def test_nothing_is_lost_or_made_by_sharing(data_root: Path) -> None:
    for _, case, (shared, allocations, idle) in outcomes(data_root):
        shown = sum((sum(costs.values()) for costs in shared.rows.values()), Fraction(0))
        hourly = case.get("shared_hourly_costs") or {}
        overhead = sum((exact(amount) for amount in hourly.values()), Fraction(0)) * 24
        assert shown + shared.filtered == sum((each.total() for each in (*allocations, *idle)), overhead), case["id"]
        assert (shared.filtered == 0) == (case["filter"] is None), case["id"]


def test_each_name_knows_what_it_used_of_each_scope(data_root: Path) -> None:
    checked = 0
    for _, case, (shared, allocations, _) in outcomes(data_root):
        for name, scopes in (case.get("parc") or {}).items():
            for want in scopes.values():
                if want.get("Type") == "PV":  # volumes have names of their own, which the cases don't give
                    continue
                scope = (want["Cluster"], want["Name"] if case["idle_by_node"] else "")
                if (
                    not any(
                        (each.names["cluster"], each.names["node"]) == (want["Cluster"], want["Name"])
                        for each in allocations
                        if key_of(each, case["aggregate"]) == name
                    )
                    and want.get("Type") == "Node"
                ):
                    # OpenCost runs one case of its table only; another expects pods on a node that has none of them.
                    continue
                had = shared.scopes[name][scope]
                for resource in ("CPU", "GPU", "RAM"):
                    assert float(had[resource.lower()]) == want[f"{resource}ProportionalCost"], (case["id"], name)
                checked += 1
    if not checked:
        pytest.skip("no case tells of scopes")


def test_a_view_of_one_tenant_shows_what_the_view_of_all_shows_of_it(data_root: Path) -> None:
    """What OpenCost leaves wrong (its case 6e): shared, filtered, idle apart."""
    for file in files(data_root, "allocations", "cases"):
        allocations = [allocation(row) for row in file["allocations"]]
        idle = [allocation(row) for row in file["idle_by_cluster"]]
        spaces = sorted({each.names["namespace"] for each in allocations})
        for shared_space in spaces:
            shown = Fraction(0)
            for space in spaces:
                if space == shared_space:
                    continue
                how = Sharing(
                    share=read_filter(f'namespace:"{shared_space}"'), keep=read_filter(f'namespace:"{space}"')
                )
                shown += sum(
                    (sum(costs.values()) for costs in share_out(allocations, idle, how).rows.values()), Fraction(0)
                )
            assert shown == sum((each.total() for each in (*allocations, *idle)), Fraction(0))


def test_the_bug_that_opencost_knows_of_is_not_repeated(data_root: Path) -> None:
    for file in files(data_root, "allocations", "cases"):
        allocations = [allocation(row) for row in file["allocations"]]
        idle = [allocation(row) for row in file["idle_by_cluster"]]
        how = Sharing(share=read_filter('namespace:"namespace1"'), keep=read_filter('namespace:"namespace2"'))
        apart = share_out(allocations, idle, how)
        with_idle = share_out(allocations, idle, Sharing(share=how.share, keep=how.keep, share_idle="weighted"))
        assert sum(apart.rows["namespace2"].values()) + sum(apart.rows[IDLE].values()) == sum(
            with_idle.rows["namespace2"].values()
        )


def test_a_node_price_is_split_by_the_base_prices(data_root: Path) -> None:
    for file in files(data_root, "node_price_split"):
        for case in file["node_price_split"]:
            counts = {
                name.removesuffix("_bytes").removesuffix("_gb"): Decimal(str(count))
                / (GIB if name.endswith("_bytes") else 1)
                for name, count in case["counts"].items()
            }
            base = {name.removesuffix("_gb"): Decimal(str(price)) for name, price in case["base"].items()}
            unit = split_node_price(Decimal(str(case["node_price"])), counts, base)
            expected = {name.removesuffix("_gb"): price for name, price in case["expected_unit"].items()}
            assert {name: float(price) for name, price in unit.items()} == pytest.approx(
                expected, abs=case.get("tol", 1e-9)
            )
            assert sum(unit[name] * counts[name] for name in counts) == pytest.approx(Decimal(str(case["node_price"])))


def test_monthly_prices_are_divided_by_the_hours_of_a_month(data_root: Path) -> None:
    for file in files(data_root, "custom_monthly_prices_div_730"):
        cases = file["custom_monthly_prices_div_730"]
        for case in (each for each in cases.values() if isinstance(each, dict)):
            hour = hourly_of_monthly(Decimal(str(case["month"]))) * case.get("count", 1)
            if "hour_per_byte" in case:
                assert float(hour / GIB) == pytest.approx(case["hour_per_byte"], rel=cases["tol"])
            else:
                assert float(hour) == pytest.approx(case.get("hour", case.get("hour_total")), abs=cases["tol"])


def test_physical_gpus_are_told_apart_from_places_on_them(data_root: Path) -> None:
    for file in files(data_root, "gpu_count"):
        for case in file["gpu_count"]:
            capacity = {name: float(count) for name, count in case["capacity"].items()}
            assert physical_gpus(case["labels"], capacity) == case["physical"]
            offered = [count for name, count in capacity.items() if is_gpu(name)]
            assert (sum(offered) if offered else None) == case["schedulable"]


def test_gpus_that_nobody_knows_of_cost_nothing(data_root: Path) -> None:
    for file in files(data_root, "gpu_node_cost"):
        for case in file["gpu_node_cost"]:
            count = None if case["count"] is None else Decimal(case["count"])
            assert node_gpu_cost(Decimal(case["unit"]), count) == case["cost"]


def test_resources_are_known_for_gpus_by_their_names(data_root: Path) -> None:
    for file in files(data_root, "gpu_resource_name"):
        assert {name: is_gpu(name) for name in file["gpu_resource_name"]} == file["gpu_resource_name"]


def test_pressure_counts_what_waits_and_what_runs(data_root: Path) -> None:
    for file in files(data_root, "scheduler_stats"):
        stats = file["scheduler_stats"]
        pods = [[Ask(phase, name, units)] for phase, name, units in stats["pods"] if is_gpu(name)]
        found = scheduler_pressure(pods, [(name, units) for name, units in stats["nodes"]])
        for name, want in stats["expected"].items():
            assert {key: getattr(found[name], key) for key in want} == want
        by_limit = [
            [Ask(pod["phase"], "g", pod.get("requests"), pod.get("limits"))] for pod in stats["limits_only"]["pods"]
        ]
        of_limits = scheduler_pressure(by_limit, [])["g"]
        assert {key: getattr(of_limits, key) for key in stats["limits_only"]["expected"]} == stats["limits_only"][
            "expected"
        ]
        several = stats["multi_container"]
        of_one = scheduler_pressure([[Ask("Pending", "g", units) for units in several["containers"]]], [])["g"]
        assert (of_one.pending_pods, of_one.pending_units) == (several["pending_pods"], several["pending_units"])


def test_a_quota_that_is_not_used_costs_what_is_left_of_it(data_root: Path) -> None:
    for file in files(data_root, "quota_overhead"):
        case = file["quota_overhead"]
        parts = {
            name: quota_overhead(
                exact(case["quota"][name]),
                exact(case["requested"][name]),
                exact(case["price"][name]),
                exact(case["hours"]),
            )
            for name in case["quota"]
        }
        assert {name.removesuffix("_gib"): float(part) for name, part in parts.items()} == pytest.approx(
            {name: amount for name, amount in case["expected"].items() if name != "total"}
        )
        assert float(sum(parts.values())) == pytest.approx(case["expected"]["total"])


def test_idle_by_node_stays_on_its_node_and_by_cluster_goes_to_all(data_root: Path) -> None:
    for file in files(data_root, "idle_share_by_scope"):
        case = file["idle_share_by_scope"]
        nodes = [
            (Allocation({"gpu": exact(node["used"])}, {"cluster": "c", "node": f"n{place}", "pod": f"p{place}"}),
             Allocation({"gpu": exact(node["idle"])}, {"cluster": "c", "node": f"n{place}"}))
            for place, node in enumerate(case["nodes"])
        ]  # fmt: skip
        used, idle = [pair[0] for pair in nodes], [pair[1] for pair in nodes]
        by_node = share_out(used, idle, Sharing(("pod",), "weighted", idle_by_node=True))
        # A dollar of use on each node brings this much idle with it.
        given = [
            float((sum(by_node.rows[f"p{place}"].values()) - one.total()) / one.total())
            for place, one in enumerate(used)
        ]
        assert given == pytest.approx(case["by_node_each"])
        by_cluster = share_out(used, idle, Sharing(("pod",), "weighted"))
        each = [
            float((sum(by_cluster.rows[f"p{place}"].values()) - one.total()) / one.total())
            for place, one in enumerate(used)
        ]
        assert each == pytest.approx([case["by_cluster_each"]] * len(used))
        apart = share_out(used, idle, Sharing(("pod",)))
        assert float(sum(apart.rows[IDLE].values())) == case["separate_idle"]


def test_efficiency_is_weighted_by_cost(data_root: Path) -> None:
    for file in files(data_root, "efficiency"):
        case = file["efficiency"]
        parts = [
            (efficiency(exact(each["use"]), exact(each["req"])), exact(each["price"]) * exact(each["req"]))
            for each in case.values()
            if isinstance(each, dict)
        ]
        found = weighted_efficiency(parts)
        assert found is not None
        assert float(found) == pytest.approx(case["expected"], abs=1e-4)


def test_pods_of_a_quarter_each_make_a_gpu(data_root: Path) -> None:
    for file in files(data_root, "hami_core_based_fraction"):
        case = file["hami_core_based_fraction"]
        part = mps_fraction(case["gpucores_each"] / 100, None)
        assert part == case["expected_gpu_hours_each"] / case["hours"]
        assert part * case["pods"] * case["hours"] == case["expected_total_gpu_hours"]


def test_tokens_cost_what_opencost_expects(data_root: Path) -> None:
    fields = {
        "blended_per_M": "blended_usd_per_million",
        "input_per_M": "input_usd_per_million",
        "input_per_effective_M": "input_usd_per_effective_million",
        "output_per_M": "output_usd_per_million",
    }
    for file in files(data_root, "cases"):
        for case in file["cases"]:
            if "prompt" not in case.get("in", {}):
                continue
            given = case["in"]
            names = {"prompt": "prompt_tokens", "gen": "generated_tokens", "cached": "cached_tokens",
                     "prefill_s": "prefill_s", "decode_s": "decode_s"}  # fmt: skip
            work = Work(**{ours: exact(given[name]) for name, ours in names.items() if name in given})
            multiplier = exact(given["multiplier"]) if "multiplier" in given else MULTIPLIER
            for basis, key in (("allocation", "alloc"), ("usage", "usage")):
                if key not in given:
                    continue
                found = unit_cost(exact(given[key]), work, multiplier)
                assert found.method == case.get("method", found.method)
                for name, ours in fields.items():
                    if basis in case.get(name, {}):
                        assert float(getattr(found, ours)) == pytest.approx(
                            case[name][basis], rel=1e-9, abs=case.get("tol", 0)
                        ), (case, name)
                if "cache_savings_fraction" in case:
                    assert found.cache_savings_share == exact(case["cache_savings_fraction"])

"""Recorded cases of KAI's fair share and Kueue's quota rules: every file of the folder, told apart by what is in it."""

import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from actions.dominant_share import (
    FlavorResource,
    NodeQuota,
    QuotaNode,
    QuotaTree,
    may_preempt,
    may_take_back,
)
from actions.fair_share import (
    Queue,
    admission_alpha,
    admission_score,
    admission_usage,
    decayed_usage,
    entry_penalty,
    fair_shares,
)

GPU = ("default", "gpu")


def documents(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((root / "sharing").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def cases(root: Path, key: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the cases in which `key` stands, each under its name."""
    found = []
    for name, document in documents(root):
        listed = document.get("cases", [])
        found += [(f"{name}: {case.get('name')}", case) for case in listed if key in case]
    return found


def sections(root: Path, key: str) -> list[Any]:
    return [document[key] for _, document in documents(root) if key in document]


def amount(part: dict[str, Any], key: str) -> float:
    return float(part.get(key, 0.0))


def queue_of(name: str, row: dict[str, Any], resource: str, unlimited: float) -> Queue:
    part = row.get(resource) or {}
    deserved, limit = amount(part, "Deserved"), amount(part, "MaxAllowed")
    when = row.get("created") or ""
    created = float(row["created_order"]) if "created_order" in row else 0.0
    return Queue(
        name,
        None if deserved == unlimited else deserved,
        amount(part, "Request"),
        weight=amount(part, "OverQuotaWeight"),
        limit=None if limit == unlimited else limit,
        priority=int(row.get("priority", 0)),
        usage=amount(part, "Usage"),
        created=datetime.fromisoformat(when).timestamp() if when else created,
    )


def test_the_fair_share_of_every_recorded_case_is_kais(data_root: Path) -> None:
    found = cases(data_root, "expected_share")
    assert found or not sections(data_root, "unlimited")
    for name, case in found:
        resources = {resource for shares in case["expected_share"].values() for resource in shares}
        for resource in sorted(resources):
            rows = {key: queue_of(key, row, resource, -1.0) for key, row in case["queues"].items()}
            got = fair_shares(amount(case["total"], resource), rows.values(), amount(case, "k"))
            for key, shares in case["expected_share"].items():
                assert got.by_queue[key] == pytest.approx(shares.get(resource, 0.0), abs=1e-6), (name, key, resource)
            left = case.get("expected_remaining", {}).get(resource)
            assert left is None or got.left == pytest.approx(left, abs=1e-6), name


def flavors(rows: list[dict[str, Any]]) -> dict[FlavorResource, float]:
    return {(row["flavor"], row["resource"]): float(row["amount"]) for row in rows}


def node_of(row: dict[str, Any], parent: str | None, *, is_cohort: bool) -> QuotaNode:
    quotas = {
        (each["flavor"], each["resource"]): NodeQuota(each["nominal"], each["borrowingLimit"], each["lendingLimit"])
        for each in row["quotas"]
    }
    return QuotaNode(row["name"], parent, float(row.get("weight", 1.0)), quotas, is_cohort)


def test_the_dominant_share_of_every_recorded_case_is_kueues(data_root: Path) -> None:
    for name, case in cases(data_root, "clusterQueues"):
        queues = [node_of(row, row["cohort"], is_cohort=False) for row in case["clusterQueues"]]
        cohorts = [node_of(row, row["parent"], is_cohort=True) for row in case["cohorts"]]
        held = queues[0].name
        tree = QuotaTree([*queues, *cohorts], {held: flavors(case["usage_of_cq"])})
        request = flavors(case["pending_request"])
        for row in case["expected"]:
            share = tree.share(row["name"], request if row["name"] == held else {})
            assert float(share.rounded) == float(row["weightedShare"]), (name, row["name"])
            assert (share.resource, share.is_borrowing) == (row["dominantResource"], row["borrowing"]), name


def test_what_may_be_borrowed_is_nominal_and_the_lesser_of_borrowing_and_lending_limit(data_root: Path) -> None:
    for row in (row for section in sections(data_root, "borrow") for row in section):
        nodes = [
            QuotaNode(
                name, "all", quotas={GPU: NodeQuota(q["nominal"], q.get("borrowingLimit"), q.get("lendingLimit"))}
            )
            for name, q in row["cqs"].items()
        ]
        for key, expected in row.items():
            name, _, what = key.partition("_")
            if what == "max":
                assert QuotaTree(nodes, {}).most(name, GPU) == expected, row
            elif what in {"used", "used_max"}:
                tree = QuotaTree(nodes, {name: {GPU: float(expected)}})
                for other in row["cqs"]:
                    if other != name and f"{other}_max" in row:
                        assert tree.available(other, GPU) == row[f"{other}_max"], row


def test_only_what_is_borrowed_is_taken_back(data_root: Path) -> None:
    for row in (row for section in sections(data_root, "borrowers_only_preemption") for row in section):
        victim = row["victim_cq"]
        assert may_take_back(victim["nominal"], victim["usage"], row["workload_gpus"]) is row["allowed"], row


def test_no_taking_within_fair_sharing_can_be_taken_back(data_root: Path) -> None:
    if not sections(data_root, "fair_sharing_no_loop"):
        pytest.skip("no fair_sharing_no_loop in the folder of sharing cases")
    tried = 0
    for (nominal_a, nominal_b), (used_a, used_b), size in (
        ((a, b), (x, y), g) for a in (2, 4) for b in (2, 5) for x in range(8) for y in range(8) for g in (1, 2, 3)
    ):
        nodes = [
            QuotaNode("a", "all", 1.0, {GPU: NodeQuota(nominal_a)}),
            QuotaNode("b", "all", 2.0, {GPU: NodeQuota(nominal_b)}),
            QuotaNode("c", "all", 1.0, {GPU: NodeQuota(8.0)}),
        ]
        before = QuotaTree(nodes, {"a": {GPU: float(used_a)}, "b": {GPU: float(used_b)}})
        if used_b < size or not may_preempt(before.share("a", {GPU: float(size)}), before.share("b")):
            continue
        tried += 1
        after = QuotaTree(nodes, {"a": {GPU: float(used_a + size)}, "b": {GPU: float(used_b - size)}})
        assert not may_preempt(after.share("b", {GPU: float(size)}), after.share("a"))
    assert tried > 50


def test_admission_usage_follows_the_recorded_formulas(data_root: Path) -> None:
    for section in sections(data_root, "afs"):
        assert {"alpha", "usage", "score", "entry_penalty"} <= section.keys()
        alpha = admission_alpha(sampling_s=1800.0, half_life_s=1800.0)
        assert alpha == pytest.approx(0.5)
        assert admission_alpha(600.0, 1800.0) == pytest.approx(1 - 0.5 ** (1 / 3))
        assert admission_usage({"gpu": 4.0}, {"gpu": 8.0, "cpu": 2.0}, alpha) == {"gpu": 6.0, "cpu": 1.0}
        assert entry_penalty({"gpu": 2.0}, alpha) == {"gpu": 1.0}
        assert admission_score({"gpu": 3.0, "cpu": 4.0}, 2.0, {"gpu": 5.0}) == pytest.approx((5 * 3 + 4) / 2)
        assert math.isinf(admission_score({"gpu": 3.0}, 0.0, {}))


def test_recent_use_decays_as_recorded(data_root: Path) -> None:
    for section in sections(data_root, "kai_time_decay"):
        example = section["example"]
        hours, used = int(example["hours"]), example["used_gpu_hours"]
        by_hour = [(float(age), used / hours) for age in range(hours)]
        assert decayed_usage(by_hour, example["cluster_gpus"]) == pytest.approx(example["normalised"])
    assert decayed_usage([(0.0, 0.0), (6.0, 10.0)], 10.0, half_life_h=6.0) == pytest.approx(5 / 15)

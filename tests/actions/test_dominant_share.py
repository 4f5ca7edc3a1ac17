import math

import pytest

from actions.dominant_share import (
    DominantShare,
    NodeQuota,
    QuotaNode,
    QuotaTree,
    may_preempt,
    may_preempt_to_equal,
    may_take_back,
)
from fleet.errors import BadInput

GPU = ("a100", "gpu")


def queue(name: str, nominal: float, **changes: float | None) -> QuotaNode:
    weight = changes.pop("weight", 1.0)
    assert weight is not None
    return QuotaNode(name, "all", weight, {GPU: NodeQuota(nominal, changes.get("borrowing"), changes.get("lending"))})


def test_a_weight_of_zero_that_borrows_comes_after_every_other() -> None:
    tree = QuotaTree([queue("a", 5, weight=0.0), queue("b", 5)], {"a": {GPU: 6.0}, "b": {GPU: 9.0}})
    a, b = tree.share("a"), tree.share("b")
    assert math.isinf(a.weighted)
    assert a.rounded == 2**63 - 1
    assert may_preempt(b, a)
    assert not may_preempt(a, b)


def test_a_resource_that_nobody_lends_does_not_count() -> None:
    tree = QuotaTree([queue("a", 2, lending=0.0), queue("b", 64, lending=0.0)], {"a": {GPU: 4.0}})
    assert tree.share("a") == DominantShare(0.0, 1.0, "", is_borrowing=True)


def test_a_quota_without_end_lends_a_share_that_is_tiny_and_not_zero() -> None:
    tree = QuotaTree([queue("a", 0), queue("b", 1e21)], {"a": {GPU: 1000.0}})
    assert tree.share("a").rounded == 1


def test_a_lending_limit_keeps_the_rest_at_home() -> None:
    tree = QuotaTree([queue("a", 9), queue("b", 12, lending=1)], {"b": {GPU: 12.0}})
    assert tree.most("a", GPU) == 10
    assert tree.available("a", GPU) == 9
    assert tree.available("b", GPU) == 9
    assert QuotaTree([queue("a", 9, borrowing=2), queue("b", 12)], {}).available("a", GPU) == 11


def test_equal_shares_may_be_reached_by_the_stricter_rule_and_not_passed() -> None:
    low, high = DominantShare(100.0), DominantShare(200.0)
    assert may_preempt_to_equal(low, low)
    assert not may_preempt(low, low)
    assert not may_preempt_to_equal(high, low)


@pytest.mark.parametrize(("gpus", "allowed"), [(3, "yes"), (3.5, "no"), (0, "yes")])
def test_what_is_taken_back_never_cuts_into_the_nominal_quota(gpus: float, allowed: str) -> None:
    assert may_take_back(10, 13, gpus) is (allowed == "yes")


def test_trees_that_can_not_be_are_refused() -> None:
    with pytest.raises(BadInput, match="twice"):
        QuotaTree([queue("a", 1), queue("a", 1)], {})
    with pytest.raises(BadInput, match="above itself"):
        QuotaTree([QuotaNode("x", "y", is_cohort=True), QuotaNode("y", "x", is_cohort=True)], {})
    with pytest.raises(BadInput, match="no queue"):
        QuotaTree([queue("a", 1)], {"z": {GPU: 1.0}})
    with pytest.raises(BadInput, match="nominal"):
        NodeQuota(math.nan)

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from actions.quota_choice import Claim, Thresholds, changed, choose, lending_odds, share_out, unmet

FREE = Thresholds()


def claim(name: str, quota: float, wanted: list[float], **changes: object) -> Claim:
    plain = Claim(name, quota, np.sort(np.array(wanted, dtype=np.float64)))
    return replace(plain, **changes)  # type: ignore[arg-type] # the fields of a claim, whatever a test sets


wanted = st.lists(st.floats(0, 12), min_size=4, max_size=4)
rows = st.tuples(
    st.floats(0, 8), wanted, st.floats(0, 4), st.sampled_from([0.0, 2.0, None]), st.sampled_from([0.5, 1.0, 2.0])
)
pools = st.lists(rows, min_size=1, max_size=3).map(
    lambda found: [
        claim(f"w{place}", quota, demands, least=least, borrowing=borrowing, cost=cost)
        for place, (quota, demands, least, borrowing, cost) in enumerate(found)
    ]
)


def cost_of(claims: list[Claim], changes: tuple[int, ...], lent: float) -> float:
    """Say it anew, scenario by scenario."""
    whole = 0.0
    for each, change in zip(claims, changes, strict=True):
        for gpus in each.scenarios.tolist():
            lacking = max(0.0, gpus - each.quota - change)
            out_of_reach = 0.0 if each.borrowing is None else max(0.0, lacking - each.borrowing)
            whole += each.cost * ((1 - lent) * lacking + lent * out_of_reach) / each.scenarios.size
    return whole


def allowed(claims: list[Claim], changes: tuple[int, ...], limit: int) -> bool:
    return (
        sum(changes) == 0
        and sum(max(0, change) for change in changes) <= limit
        and all(
            change >= 0 or each.quota + change >= each.least - 1e-9
            for each, change in zip(claims, changes, strict=True)
        )
    )


@given(pools, st.integers(0, 3), st.floats(0, 0.9))
def test_no_other_plan_within_the_bounds_leaves_less_unmet(claims: list[Claim], limit: int, lent: float) -> None:
    chosen = choose(claims, limit, FREE, lent)
    assert allowed(claims, chosen.changes, limit)
    tried = itertools.product(range(-limit, limit + 1), repeat=len(claims))
    best = min(cost_of(claims, each, lent) for each in tried if allowed(claims, each, limit))
    # what less than a thousandth of a GPU would gain is left
    assert cost_of(claims, chosen.changes, lent) <= best + 0.001 * limit + 1e-6


@given(pools, st.integers(0, 12), st.floats(0, 0.9))
def test_the_next_choice_on_the_same_demand_changes_nothing_that_a_bound_did_not_cut(
    claims: list[Claim], limit: int, lent: float
) -> None:
    chosen = choose(claims, limit, FREE, lent)
    again = choose(changed(claims, chosen), limit, FREE, lent)
    assert all(now * then >= 0 for now, then in zip(again.changes, chosen.changes, strict=True))
    if chosen.moved < limit:
        assert again.moved == 0


@given(pools, st.integers(0, 12), st.integers(1, 5))
def test_small_changes_are_not_made_and_what_is_made_is_not_taken_back(
    claims: list[Claim], limit: int, min_gpus: int
) -> None:
    bounds = Thresholds(min_gpus=min_gpus)
    chosen = choose(claims, limit, bounds)
    assert all(change == 0 or abs(change) >= min_gpus for change in chosen.changes)
    assert sum(chosen.changes) == 0
    again = choose(changed(claims, chosen), limit, bounds)
    assert all(now * then >= 0 for now, then in zip(again.changes, chosen.changes, strict=True))


def test_a_gpu_does_not_go_where_a_claim_that_rests_would_fetch_it_later() -> None:
    rests = claim("b", 0, [9, 9], cost=2.0, may_get=False, may_give=False)
    claims = [claim("a", 0, [9, 9]), rests, claim("spare", 4, [0, 0])]
    assert choose(claims, 99, FREE).changes == (0, 0, 0)
    assert choose([claims[0], replace(rests, quota=7.0), claims[2]], 99, FREE).changes == (2, 0, -2)


@given(
    pools,
    st.integers(0, 12),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3),
    st.integers(1, 3),
)
def test_no_change_is_taken_back_when_what_rested_moves_again(
    claims: list[Claim], limit: int, rests: list[tuple[bool, bool]], min_gpus: int
) -> None:
    resting = [replace(each, may_get=get, may_give=give) for each, (get, give) in zip(claims, rests, strict=False)]
    chosen = choose(resting, limit, Thresholds(min_gpus=min_gpus))
    awake = [replace(each, may_get=True, may_give=True) for each in changed(resting, chosen)]
    again = choose(awake, limit, FREE)
    assert all(now * then >= 0 for now, then in zip(again.changes, chosen.changes, strict=True))


@given(pools, st.integers(0, 12))
def test_the_gains_told_are_the_gains_made(claims: list[Claim], limit: int) -> None:
    chosen = choose(claims, limit, FREE)
    before, after = cost_of(claims, tuple(0 for _ in claims), 0.0), cost_of(claims, chosen.changes, 0.0)
    assert sum(chosen.gains) == pytest.approx(before - after, abs=1e-6)
    assert list(chosen.gains) == sorted(chosen.gains, reverse=True)


def test_gpus_that_are_lacked_alike_are_shared_out_by_how_many_are_lacked() -> None:
    claims = [claim("a", 0, [30, 30]), claim("b", 0, [10, 10]), claim("spare", 8, [0, 0])]
    assert choose(claims, 99, FREE).changes == (6, 2, -8)


def test_a_costlier_claim_is_served_first() -> None:
    claims = [claim("a", 0, [9, 9]), claim("b", 0, [9, 9], cost=2.0), claim("spare", 4, [0, 0])]
    assert choose(claims, 99, FREE).changes == (0, 4, -4)


def test_a_fixed_claim_and_one_at_its_least_give_nothing() -> None:
    needy = claim("a", 0, [9, 9])
    assert choose([needy, claim("b", 9, [0], may_get=False, may_give=False)], 99, FREE).changes == (0, 0)
    assert choose([needy, claim("b", 9, [0], least=9)], 99, FREE).changes == (0, 0)
    assert choose([needy, claim("b", 9, [0], least=20)], 99, FREE).changes == (0, 0)
    assert choose([], 99, FREE).changes == ()


def test_a_fraction_of_a_gpu_stays_where_it_is() -> None:
    assert choose([claim("a", 0.5, [9, 9]), claim("b", 3.75, [0, 0], least=0.5)], 99, FREE).changes == (3, -3)
    assert choose([claim("a", 0.1 * 3, [9]), claim("b", 3.0000000000000004, [0])], 99, FREE).changes == (3, -3)


@pytest.mark.parametrize(
    ("thresholds", "moved"),
    [(FREE, 1), (Thresholds(gpus=1.0, share=0.02), 1), (Thresholds(gpus=1.0, share=0.1), 0), (Thresholds(gpus=0.4), 1)],
    ids=["free", "above the share", "below the share", "above the GPUs"],
)
def test_a_pool_is_left_alone_where_little_would_be_gained(thresholds: Thresholds, moved: int) -> None:
    # 0.5 of 10 GPUs unmet would be gained
    rare = [0.0] * 19 + [190.0]
    claims = [claim("a", 1, [0, 2]), claim("b", 1, [0, 0]), claim("c", 0, rare, may_get=False, may_give=False)]
    assert choose(claims, 9, thresholds).moved == moved


def test_a_trifle_moves_nothing() -> None:
    claims = [claim("a", 1, [1.0] * 199 + [2.0]), claim("b", 1, [0.0])]
    assert choose(claims, 9, Thresholds(gpus=1.0, share=0.01)).moved == 0
    assert choose(claims, 9, FREE).moved == 1


def test_what_can_be_borrowed_counts_as_met_for_its_worth() -> None:
    quotas = np.array([4.0])
    assert unmet(claim("a", 4, [10]), quotas, 0.5) == pytest.approx([6])
    assert unmet(claim("a", 4, [10], borrowing=2), quotas, 0.5) == pytest.approx([5])
    assert unmet(claim("a", 4, [10], borrowing=None), quotas, 0.5) == pytest.approx([3])


@given(pools, st.integers(0, 9))
def test_the_odds_of_lending_do_not_depend_on_who_has_the_quota(claims: list[Claim], limit: int) -> None:
    chosen = choose(claims, limit, FREE)
    assert lending_odds(changed(claims, chosen)) == pytest.approx(lending_odds(claims))


def test_the_odds_of_lending_are_certain_where_demand_is() -> None:
    assert lending_odds([claim("a", 4, [3]), claim("b", 4, [5])]) == 1.0
    assert lending_odds([claim("a", 4, [4]), claim("b", 4, [5])]) == 0.0
    assert lending_odds([claim("a", 4, [2, 6])]) == pytest.approx(0.5)


@given(pools, st.integers(0, 12))
def test_forecasts_that_wobble_a_little_move_nothing_after_a_plan(claims: list[Claim], limit: int) -> None:
    bounds = Thresholds(gpus=1.0, share=0.01)
    chosen = choose(claims, limit, bounds)
    assume(chosen.moved < limit)
    after = changed(claims, chosen)
    before = sum(float(unmet(each, np.array([each.quota]))[0]) * each.cost for each in after)
    # a shift of every demand by d changes what a plan can gain by at most 2 d for each claim, d each way
    shift = 0.009 * min(1.0, max(0.01, 0.01 * before)) / (2 * len(claims) * 2.0)
    shaken = [replace(each, scenarios=each.scenarios + shift * (-1) ** place) for place, each in enumerate(after)]
    again = choose(shaken, limit, bounds)
    assert again.moved == 0 or chosen.moved == 0


amounts = st.lists(st.integers(0, 50), min_size=1, max_size=8)


@given(st.integers(0, 100), amounts)
def test_shares_sum_to_the_whole_and_exceed_no_weight(total: int, weights: list[int]) -> None:
    total = min(total, sum(weights))
    parts = share_out(total, weights)
    assert sum(parts) == total
    assert all(0 <= given <= weight for given, weight in zip(parts, weights, strict=True))
    assert all(
        abs(part - total * weight / max(1, sum(weights))) < 1 for part, weight in zip(parts, weights, strict=True)
    )


def test_odds_are_probabilities() -> None:
    assert not math.isnan(lending_odds([]))

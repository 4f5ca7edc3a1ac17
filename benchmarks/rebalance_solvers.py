"""The best quotas by other means than ours: HiGHS over scenarios, and every plan there is tried on small pools."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, hstack, vstack

from actions.quota_choice import Claim
from actions.quota_demand import Floats


def expected_unmet(claims: Sequence[Claim], quotas: Floats, lent: float) -> float:
    """Return the cost of unmet demand, scenario by scenario."""
    whole = 0.0
    for claim, quota in zip(claims, quotas.tolist(), strict=True):
        for wanted in claim.scenarios.tolist():
            beyond = max(0.0, wanted - quota)
            borrowed = beyond if claim.borrowing is None else min(beyond, claim.borrowing)
            whole += claim.cost * (beyond - lent * borrowed) / claim.scenarios.size
    return whole


def by_trying_all(claims: Sequence[Claim], limit: int, lent: float) -> float:
    """Return the least cost over every change of whole GPUs that keeps the sum; for pools of a few workspaces."""
    ranges = []
    for claim in claims:
        lowest = -int(min(limit, max(0.0, np.floor(claim.quota - claim.least))))
        ranges.append(range(lowest if claim.may_give else 0, (limit if claim.may_get else 0) + 1))
    start = np.array([claim.quota for claim in claims])
    best = expected_unmet(claims, start, lent)
    for firsts in itertools.product(*ranges[:-1]):
        last = -sum(firsts)
        moved = sum(max(0, change) for change in (*firsts, last))
        if last in ranges[-1] and moved <= limit:
            best = min(best, expected_unmet(claims, start + np.array([*firsts, last]), lent))
    return best


def by_highs(claims: Sequence[Claim], limit: int, lent: float, *, whole: bool) -> float:
    """Return the least cost as HiGHS finds it; GPUs may be cut where not `whole`, which bounds the best from below.

    Variables: up and down of each claim, then what each scenario leaves unmet, and what of that no borrowing covers.
    """
    count, size = len(claims), claims[0].scenarios.size
    quotas = np.array([claim.quota for claim in claims])
    rows = count * size
    owner = np.repeat(np.arange(count), size)
    ones = coo_array((np.ones(rows), (np.arange(rows), owner)), shape=(rows, count)).tocsr()
    empty = csr_array((rows, rows))
    eye = coo_array((np.ones(rows), (np.arange(rows), np.arange(rows))), shape=(rows, rows)).tocsr()
    wanted = np.concatenate([claim.scenarios for claim in claims])
    borrowing = np.array([1e12 if claim.borrowing is None else claim.borrowing for claim in claims])[owner]
    unmet_rows = hstack([ones, -ones, eye, empty])
    beyond_rows = hstack([ones, -ones, empty, eye])
    sums = csr_array(np.concatenate([np.ones(count), -np.ones(count), np.zeros(2 * rows)])[None, :])
    ups = csr_array(np.concatenate([np.ones(count), np.zeros(count + 2 * rows)])[None, :])
    price = np.array([claim.cost for claim in claims])[owner] / size
    down = np.array([max(0.0, np.floor(claim.quota - claim.least)) if claim.may_give else 0.0 for claim in claims])
    up = np.array([float(limit) if claim.may_get else 0.0 for claim in claims])
    found = milp(
        np.concatenate([np.zeros(2 * count), price * (1 - lent), price * lent]),
        constraints=[
            LinearConstraint(vstack([unmet_rows, beyond_rows]), np.concatenate([wanted - quotas[owner],
                             wanted - quotas[owner] - borrowing]), np.inf),
            LinearConstraint(sums, 0, 0),
            LinearConstraint(ups, 0, limit),
        ],
        bounds=(0, np.concatenate([up, down, np.full(2 * rows, np.inf)])),
        integrality=np.concatenate([np.full(2 * count, int(whole)), np.zeros(2 * rows)]),
    )  # fmt: skip
    return float(found.fun)

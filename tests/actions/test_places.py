"""Two clusters with the same names: a verdict that does not say which it means is taken up in neither."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.places import without_doubtful
from fleet.state import FleetState
from fleet.verdict import Verdict
from tests.actions.fakes import demand, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
EAST = fleet(NOW, workloads=[workload("train", ["n1-0"], NOW - timedelta(days=2))], quotas=[quota("a", 4.0)])


def elsewhere(state: FleetState, gpus: str) -> FleetState:
    """Return the same names in another cluster, with GPUs of its own."""
    return replace(
        state,
        nodes=tuple(replace(each, cluster="c2") for each in state.nodes),
        gpus=tuple(replace(each, cluster="c2", uuid=gpus + each.uuid) for each in state.gpus),
        workloads=tuple(replace(each, cluster="c2") for each in state.workloads),
        quotas=tuple(replace(each, cluster="c2") for each in state.quotas),
    )


WEST = elsewhere(EAST, "west-")
BOTH = {"c1": EAST, "c2": WEST}
ABOUT: dict[str, Verdict] = {
    "workload": idle("train", NOW),
    "node": failing("n0", NOW, subject_kind="node", action="drain"),
    "workspace": demand("a", NOW, 1, 2),
    "part": idle("train", NOW, subject_kind="pod", subject="train-0"),
}


@pytest.mark.parametrize("verdict", ABOUT.values(), ids=ABOUT)
def test_what_may_mean_either_cluster_is_held_back_with_the_reason(verdict: Verdict) -> None:
    unsaid = replace(verdict, cluster=None)
    kept, held = without_doubtful([unsaid], BOTH)
    assert kept == ()
    assert "names no cluster, and c1 and c2 both" in held[0].reason
    assert without_doubtful([verdict], BOTH) == ((verdict,), ())
    assert without_doubtful([unsaid], {"c1": EAST}) == ((unsaid,), ())


def test_what_only_one_cluster_shows_is_kept() -> None:
    unsaid = replace(failing("west-n0-0", NOW), cluster=None)
    assert without_doubtful([unsaid], BOTH) == ((unsaid,), ())
    gone = replace(idle("ghost", NOW), cluster=None)
    assert without_doubtful([gone], BOTH) == ((gone,), ())

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from actions.index import index_of
from actions.quota_held import HeldGpus
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, Quota, Workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REF = ObjectRef("Job", "team", "train")
STATE = FleetState(
    NOW,
    nodes=(Node("c1", "n0", pool="p"), Node("c1", "n1", pool="q")),
    gpus=(Gpu("g0", "c1", "n0", model="A"), Gpu("g1", "c1", "n1", model="B")),
    workloads=(Workload("c1", REF, "w", gpu_uuids=("g0", "g1")),),
)


def held(state: FleetState, pool: str | None = None, model: str | None = None, workspace: str = "w") -> float:

    return HeldGpus(index_of(state)).of(Quota("c1", workspace, 9.0, pool, model))


@pytest.mark.parametrize(
    ("pool", "model", "gpus"),
    [(None, None, 2), ("p", None, 1), ("p", "A", 1), ("p", "B", 0), (None, "B", 1), ("z", None, 0)],
)
def test_a_quota_counts_what_is_held_of_its_pool_and_model(pool: str | None, model: str | None, gpus: float) -> None:
    assert held(STATE, pool, model) == gpus


def test_pods_count_with_their_fractions_and_slices_as_parts() -> None:
    pods = (
        Pod("c1", "team", "a", "u1", "n0", REF, ("g0",), fraction=0.5),
        Pod("c1", "team", "b", "u2", "n1", REF, ("g1",), ("s1", "s2"), fraction=1 / 7),
    )
    state = replace(STATE, pods=pods)
    assert held(state, "p") == 0.5
    assert held(state, "q") == pytest.approx(2 / 7)


def test_a_gpu_that_nobody_can_place_counts_everywhere() -> None:
    state = replace(STATE, gpus=())
    assert held(state, "p", "A") == 2


def test_what_is_suspended_or_of_others_is_not_held() -> None:
    state = replace(STATE, workloads=(replace(STATE.workloads[0], is_suspended=True),))
    assert held(state) == 0
    assert held(STATE, workspace="other") == 0
    assert held(replace(STATE, workloads=(replace(STATE.workloads[0], workspace=None),))) == 0

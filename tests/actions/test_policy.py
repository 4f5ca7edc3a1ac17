import json
from collections.abc import Callable

import pytest

from actions.kinds import KINDS
from actions.policy import (
    ActionPolicy,
    Budget,
    EvidencePolicy,
    FencePolicy,
    Modes,
    RebalancePolicy,
    ReclaimPolicy,
)
from actions.protect_policy import ProtectPolicy
from fleet.errors import BadInput
from fleet.move import MoveKind

NAN = float("nan")


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Modes(reclaim="yes"), "modes.reclaim"),
        (lambda: EvidencePolicy(max_age_s=0), "evidence.max_age_s"),
        (lambda: EvidencePolicy(max_state_age_s=float("inf")), "evidence.max_state_age_s"),
        (lambda: EvidencePolicy(min_coverage=1.1), "evidence.min_coverage"),
        (lambda: EvidencePolicy(max_skew_s=-1), "evidence.max_skew_s"),
        (lambda: FencePolicy(min_severity="ok"), "fence.min_severity"),
        (lambda: FencePolicy(states=("healthy",)), "fence.states"),
        (lambda: FencePolicy(min_confidence=NAN), "fence.min_confidence"),
        (lambda: FencePolicy(breaker_min_gpus=0), "fence.breaker_min_gpus"),
        (lambda: ReclaimPolicy(states=("active",)), "reclaim.states"),
        (lambda: ReclaimPolicy(min_idle_h=-1), "reclaim.min_idle_h"),
        (lambda: ReclaimPolicy(min_run_h=NAN), "reclaim.min_run_h"),
        (lambda: RebalancePolicy(max_churn_share=2), "rebalance.max_churn_share"),
        (lambda: RebalancePolicy(min_gpus=0), "rebalance.min_gpus"),
        (lambda: Budget(max_gpus_per_hour=-1), "budget.max_gpus_per_hour"),
        (lambda: Budget(max_share_of_pool=NAN), "budget.max_share_of_pool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_means_nothing_is_refused_by_its_name(build: Callable[[], object], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        build()
    assert caught.value.field == field
    assert field in str(caught.value)


def test_by_default_nothing_is_made_without_an_approval() -> None:
    modes = ActionPolicy().modes
    assert {modes.fence, modes.reclaim, modes.rebalance} == {"propose"}


def test_a_policy_is_written_as_json_with_its_nested_parts() -> None:
    body = json.loads(ActionPolicy().to_json())
    assert body["budget"]["max_gpus_per_hour"] == 64
    assert body["reclaim"]["protected_namespaces"][0] == "kube-system"


@pytest.mark.parametrize("name", ["Kube-System", " kube-system", "kube_system", "team-*", "", "kube-system/"])
def test_a_namespace_that_nothing_can_bear_protects_nothing_and_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"protect\.namespaces.*would protect nothing"):
        ProtectPolicy(namespaces=("kube-system", name))
    with pytest.raises(BadInput, match=r"reclaim\.protected_namespaces"):
        ReclaimPolicy(protected_namespaces=(name,))


@pytest.mark.parametrize("name", ["", "gpu-*", "node 1", "gpu[0-9]"])
def test_a_node_that_nothing_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"protect\.nodes"):
        ProtectPolicy(nodes=(name,))
    with pytest.raises(BadInput, match=r"fence\.protected_nodes"):
        FencePolicy(protected_nodes=(name,))
    assert ProtectPolicy(nodes=("GPU_Host.07",)).nodes == ("GPU_Host.07",)


@pytest.mark.parametrize("kind", list(MoveKind))
def test_a_move_and_its_inverse_fall_under_the_same_rule(kind: MoveKind) -> None:
    assert KINDS[kind].rule == KINDS[kind.inverse].rule

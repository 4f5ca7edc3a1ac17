import math

import pytest

from actions.policy import ActionPolicy
from actions.rebalance_policy import RebalancePolicy, WorkspaceTerms
from fleet.errors import BadInput
from steward.config import Settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("headroom", -0.1),
        ("keep_level", 1.1),
        ("keep_level", math.nan),
        ("min_gain_share", -1),
        ("min_gain_gpus", math.nan),
        ("borrowed_worth", 2),
        ("max_churn_share", math.nan),
    ],
)
def test_a_bound_that_means_nothing_is_refused_by_its_name(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"rebalance.{field}"):
        RebalancePolicy(**{field: value})  # type: ignore[arg-type] # one field, whatever it is


@pytest.mark.parametrize(
    ("field", "value"), [("guarantee_gpus", -1), ("weight", 0), ("weight", math.inf), ("priority", 11)]
)
def test_terms_that_mean_nothing_are_refused_by_their_name(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"rebalance.terms.{field}"):
        WorkspaceTerms("a", **{field: value})  # type: ignore[arg-type] # one field, whatever it is


def test_terms_name_a_workspace_and_name_it_once() -> None:
    with pytest.raises(BadInput, match="is empty"):
        WorkspaceTerms(" ")
    with pytest.raises(BadInput, match="'a' stands twice"):
        RebalancePolicy(terms=(WorkspaceTerms("a"), WorkspaceTerms("a", weight=2)))


def test_a_step_of_priority_counts_twice_and_who_has_no_terms_has_plain_ones() -> None:
    policy = RebalancePolicy(terms=(WorkspaceTerms("a", weight=1.5, priority=2),))
    assert policy.terms_of("a").cost == 6.0
    assert policy.terms_of("b") == WorkspaceTerms("b")


def test_terms_are_settings_and_stand_in_the_policys_record() -> None:
    told = {"actions": {"rebalance": {"terms": [{"workspace": "a", "guarantee_gpus": 8, "priority": 1}]}}}
    settings = Settings.model_validate(told)
    assert settings.actions.rebalance.terms_of("a") == WorkspaceTerms("a", guarantee_gpus=8, priority=1)
    assert '"guarantee_gpus": 8' in ActionPolicy(rebalance=settings.actions.rebalance).to_json()

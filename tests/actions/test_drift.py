from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.drift import changed_settings, changed_targets
from actions.index import index_of
from actions.plan import plan
from actions.policy import ActionPolicy, Budget
from fleet.state import FleetState
from tests.actions.fakes import FREE, failing, fleet, idle, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = fleet(NOW, workloads=[workload("train", ["n1-0"], NOW - timedelta(days=2), uid="first")])
PLAN = plan(STATE, [idle("train", NOW), failing("n0-0", NOW)], FREE, NOW)


def told(state: FleetState) -> list[str]:
    return [str(change) for change in changed_targets(PLAN.moves, index_of(state))]


def test_a_world_as_it_was_has_not_changed() -> None:
    assert told(STATE) == []
    assert changed_settings(PLAN.policy, FREE) == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            replace(STATE, workloads=(replace(STATE.workloads[0], is_suspended=True, resource_version="2"),)),
            [
                "Job/team/train: is_suspended was False when it was planned and is True",
                "Job/team/train: somebody changed it since (version 1 is 2 now)",
            ],
        ),
        (
            replace(STATE, workloads=(replace(STATE.workloads[0], uid="second"),)),
            ["Job/team/train: object was there when it was planned and is another one of the same name"],
        ),
        (replace(STATE, workloads=()), ["Job/team/train: object was there when it was planned and is gone"]),
        (
            replace(STATE, gpus=tuple(replace(gpu, is_fenced=gpu.uuid == "n0-0") for gpu in STATE.gpus)),
            ["Node/n0: is_fenced was False when it was planned and is True"],
        ),
    ],
    ids=["suspended by another", "made anew", "gone", "fenced by another"],
)
def test_what_changed_is_told_field_by_field(state: FleetState, words: list[str]) -> None:
    assert told(state) == words


def test_a_setting_that_changed_is_told_with_both_values() -> None:
    changed = replace(FREE, budget=replace(FREE.budget, max_gpus_per_hour=1))
    (change,) = changed_settings(PLAN.policy, changed)
    assert str(change) == "setting: budget.max_gpus_per_hour was 10000 when it was planned and is 1"


def test_what_an_older_version_did_not_record_is_not_compared() -> None:
    assert changed_settings("{}", FREE) == []
    assert changed_settings('{"undo_of": ["m"]}', FREE) == []
    assert changed_settings('{"budget": {"max_gpus_per_hour": 64}}', ActionPolicy(budget=Budget())) == []

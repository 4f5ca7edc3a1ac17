from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from actions.explain import diff_lines
from actions.plan import plan
from actions.rows import outcome_frame, outcomes_from, plan_frames, plan_from
from fleet.errors import BadFrame, BadInput
from fleet.frames import check
from fleet.move import HeldBack, Outcome, Stage
from fleet.state import FleetState
from fleet.tables import MOVE, PLAN
from tests.actions.fakes import FREE, demand, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = fleet(
    NOW,
    workloads=[workload("train", ["n1-0"], NOW - timedelta(days=2))],
    quotas=[quota("a", 20.0), quota("b", 4.0)],
)
VERDICTS = [
    failing("n0-0", NOW),
    failing("n0-1", NOW, state="unknown"),
    idle("train", NOW),
    demand("a", NOW, 1, 2),
    demand("b", NOW, 6, 7),
]
MADE = plan(STATE, VERDICTS, FREE, NOW)


def test_a_plan_comes_back_from_its_rows_as_it_was() -> None:
    frames = plan_frames(MADE)
    assert (frames["plan"].height, frames["move"].height) == (1, 4)
    assert plan_from(frames["plan"], frames["move"].reverse(), MADE.plan_id) == MADE
    assert frames["plan"].item(0, "saving_usd_per_hour") == Decimal("2.500000")


def test_an_empty_plan_comes_back_as_well() -> None:
    empty = plan(FleetState(NOW), [], FREE, NOW)
    frames = plan_frames(empty)
    check(frames["move"], MOVE)
    assert plan_from(frames["plan"], frames["move"], empty.plan_id) == empty


def test_one_plan_is_found_among_others() -> None:
    other = plan(STATE, VERDICTS[:1], FREE, NOW)
    plans = pl.concat([plan_frames(MADE)["plan"], plan_frames(other)["plan"]])
    moves = pl.concat([plan_frames(MADE)["move"], plan_frames(other)["move"]])
    assert plan_from(plans, moves, other.plan_id) == other


@pytest.mark.parametrize(
    ("moves", "plan_id", "words"),
    [
        (plan_frames(MADE)["move"], "nonsense", "no plan nonsense"),
        (plan_frames(MADE)["move"].head(2), MADE.plan_id, "4 moves and 2 are stored"),
    ],
    ids=["no such plan", "moves missing"],
)
def test_a_plan_that_is_not_whole_is_refused(moves: pl.DataFrame, plan_id: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan_from(plan_frames(MADE)["plan"], moves, plan_id)


def test_a_frame_of_another_table_is_refused() -> None:
    with pytest.raises(BadFrame):
        plan_from(MOVE.empty(), PLAN.empty(), MADE.plan_id)


def test_outcomes_come_back_from_their_rows_as_they_were() -> None:
    outcomes = [
        Outcome("m", NOW, Stage.INTENDED, is_dry_run=False, actor="ann", detail="why", prior='{"is_fenced": false}'),
        Outcome("m", NOW, Stage.APPLIED, is_dry_run=True, actor="ann"),
    ]
    assert outcomes_from(outcome_frame(outcomes)) == outcomes
    assert outcomes_from(outcome_frame([])) == []


def test_the_difference_reads_as_what_changes_from_what_to_what() -> None:
    lines = "\n".join(diff_lines(MADE))
    assert "- fence_gpu Node/n0 in c1 (1 GPU)\n    is_fenced: false -> true\n    gpu: n0-0" in lines
    assert "- suspend_workload Job/team/train in c1 (1 GPU)\n    is_suspended: false -> true" in lines
    assert "    suspended_by: none -> gpu-steward" in lines
    assert "~ set_quota Quota/a in c1 (2 GPUs)\n    gpus: 20 -> 18" in lines
    assert "    saves: 2.50 USD/h" in lines
    assert "  held back: fence n0-1: unknown" in lines
    assert lines.endswith("Plan: 2 to take, 0 to give, 2 to change; saves 2.50 USD/h; 1 held back.")
    assert lines.index("Rule fence:") < lines.index("Rule reclaim:") < lines.index("Rule rebalance:")


def test_a_plan_without_moves_saves_nothing_and_is_not_called_unpriced() -> None:
    assert diff_lines(replace(MADE, moves=()))[-1].endswith("saves nothing; 1 held back.")


def test_an_unpriced_plan_is_called_unpriced_and_not_free() -> None:
    assert (
        diff_lines(plan(STATE, VERDICTS[:1], FREE, NOW))[-1]
        == "Plan: 1 to take, 0 to give, 0 to change; unpriced; 0 held back."
    )
    free = replace(MADE, moves=tuple(replace(move, saving_usd_per_hour=Decimal(0)) for move in MADE.moves))
    assert "saves 0.00 USD/h" in diff_lines(free)[-1]


def test_what_is_held_back_for_one_reason_is_told_in_one_line_where_there_is_much_of_it() -> None:
    held = tuple(HeldBack(f"gpu-{number}", "inspect", "unknown: not known") for number in range(5))
    lines = diff_lines(replace(MADE, held_back=(*held, HeldBack("n1", "drain", "budget: 0 left"))))
    told = [line for line in lines if "held back: " in line]
    assert told == [
        "  held back: inspect gpu-0, gpu-1, gpu-2 and 2 more: unknown: not known",
        "  held back: drain n1: budget: 0 left",
    ]
    assert lines[-1].endswith("6 held back.")

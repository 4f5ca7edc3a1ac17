"""The funnel: each step is the next and what was lost between, whatever the lines."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.cost import CATEGORIES
from analytics.utilisation import LOSSES, STEPS, funnel
from fleet.errors import BadInput
from fleet.tables import COST_LINE

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)


def lines(*parts: tuple[str, str | None, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "gpu": place, "starts_at": MOMENT, "ends_at": MOMENT + timedelta(hours=1), "cluster": "c1",
                "workspace": workspace, "category": category, "gpu_seconds": microseconds / 1e6,
            }
            for place, (category, workspace, microseconds) in enumerate(parts)
        ],
        schema=COST_LINE.schema(),
    )  # fmt: skip


def test_no_lines_give_no_rows_and_one_row_of_nothing_in_all() -> None:
    assert funnel(COST_LINE.empty()).height == 0
    whole = funnel(COST_LINE.empty(), by=())
    assert whole["total_gpu_seconds"].to_list() == [0.0]
    assert whole["active_share"].to_list() == [None]


def test_each_loss_lies_between_its_steps() -> None:
    row = funnel(
        lines(
            ("used", "a", 5_000_000), ("allocated_idle", "a", 4_000_000), ("unknown", "a", 3_000_000),
            ("unallocated", None, 2_000_000), ("unhealthy", None, 1_000_000),
        )
    ).row(0, named=True)  # fmt: skip
    assert [row[f"{step}_gpu_seconds"] for step in STEPS] == [15.0, 14.0, 12.0, 9.0, 5.0]
    assert row["allocated_share"] == pytest.approx(12 / 14)
    assert row["active_share"] == pytest.approx(5 / 9)


def test_workspaces_have_their_own_funnels_and_nobodys_is_last() -> None:
    rows = funnel(lines(("used", "b", 10), ("used", "a", 5), ("unallocated", None, 7)), by=("workspace",))
    assert rows["workspace"].to_list() == ["a", "b", None]
    assert rows["active_share"].to_list() == [1.0, 1.0, None]


@given(
    st.lists(
        st.tuples(st.sampled_from(CATEGORIES), st.sampled_from(["a", "b", None]), st.integers(0, 10**13)), max_size=20
    )
)
def test_steps_and_losses_sum_exactly(parts: list[tuple[str, str | None, int]]) -> None:
    for row in funnel(lines(*parts), by=("workspace",)).iter_rows(named=True):
        micro = {name: round(row[f"{name}_gpu_seconds"] * 1e6) for name in (*STEPS, *LOSSES)}
        for step, following, loss in zip(STEPS, STEPS[1:], LOSSES, strict=False):
            assert micro[step] == micro[following] + micro[loss]
    assert round(funnel(lines(*parts), by=())["total_gpu_seconds"].item() * 1e6) == sum(part[2] for part in parts)


def test_a_funnel_by_no_column_of_ours_is_refused() -> None:
    with pytest.raises(BadInput, match="colour"):
        funnel(COST_LINE.empty(), by=("colour",))

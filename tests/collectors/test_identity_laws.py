"""Laws of the join, whatever is told: no device is held more than once over, and a second look changes nothing."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.identity import join
from collectors.identity_reconcile import rows_to_write
from fleet.tables import POD_ALLOCATION
from tests.collectors.identity_world import DAY, LATER, Row, gpu, node, pod, seen, told

EARLY = DAY - timedelta(days=1)
GPUS = [gpu(key, f"GPU-{key}") for key in range(3)]
ASKS: st.SearchStrategy[dict[str, float | None]] = st.sampled_from(
    [{"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 2}, {"nvidia.com/gpu.shared": 1}, {"gpu.nvidia.com": 1}]
)
LABELS = st.sampled_from([{}, {"nvidia.com/gpu.replicas": "4"}])


def clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, list[Row]]:
    pods, holders = [], []
    for number in range(draw(st.integers(0, 5))):
        start, length = draw(st.integers(0, 1000)), draw(st.none() | st.integers(1, 300))
        name = draw(st.sampled_from("abc"))
        ends = None if length is None else clock(start + length)
        pods.append(pod(name, clock(start), ends, draw(ASKS), uid=f"uid-{number}"))
    for _ in range(draw(st.integers(0, 6))):
        start, length = draw(st.integers(0, 1000)), draw(st.integers(0, 300))
        device = f"GPU-{draw(st.integers(0, 3))}"
        row = seen(draw(st.sampled_from("abcd")), device, clock(start), clock(start + length))
        row["container"] = draw(st.none() | st.just("main"))
        row["share_count"] = draw(st.none() | st.integers(1, 3))
        holders.append(row)
    return {"pods": pods, "holders": holders, "gpus": GPUS, "nodes": [node("n1", 3, draw(LABELS), gpu=3)]}


def total_at(rows: Iterable[Row], moment: datetime) -> dict[object, float]:
    held: dict[object, float] = {}
    for row in rows:
        start, end, fraction = row["starts_at"], row["ends_at"], row["fraction"]
        assert isinstance(start, datetime)
        assert isinstance(fraction, float)
        if start <= moment and (end is None or (isinstance(end, datetime) and end > moment)):
            held[row["gpu_uuid"]] = held.get(row["gpu_uuid"], 0.0) + fraction
    return held


@settings(max_examples=60)
@given(worlds())
def test_nobody_holds_more_of_a_gpu_than_there_is(world: dict[str, list[Row]]) -> None:
    rows = join(told(**world), LATER).allocations.to_dicts()
    for moment in {row["starts_at"] for row in rows}:
        assert all(fraction <= 1 + 1e-9 for fraction in total_at(rows, moment).values())


@settings(max_examples=60)
@given(worlds())
def test_a_pod_holds_what_it_holds_within_its_life_and_each_device_once_at_a_time(world: dict[str, list[Row]]) -> None:
    rows = join(told(**world), LATER).allocations
    lives = {row["pod_uid"]: row for row in world["pods"]}
    for key, series in rows.group_by("pod_uid", "container", "gpu_uuid", "slice_uuid"):
        ordered = series.sort("starts_at")
        ends = ordered.get_column("ends_at")
        assert ends.slice(0, ends.len() - 1).null_count() == 0
        assert (ends.shift(1) <= ordered.get_column("starts_at")).all()
        if key[0] in lives:
            assert ordered.get_column("starts_at")[0] == lives[key[0]]["starts_at"]
            assert ends[-1] == lives[key[0]]["ends_at"]


def stored(before: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what the store has after `rows`: the later value of each column, never again null."""
    key = ["pod_uid", "container", "gpu_uuid", "slice_uuid", "starts_at"]
    rest = [name for name in POD_ALLOCATION.names("wire") if name not in key]
    merged = pl.concat([before, rows]).group_by(key, maintain_order=True).agg(pl.col(rest).drop_nulls().last())
    return merged.select(POD_ALLOCATION.names("wire"))


def standing(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    """Return what holds something, as pieces of time that touch laid together, to the millisecond."""
    found: list[list[object]] = []
    real = frame.filter(pl.col("ends_at").is_null() | (pl.col("ends_at") > pl.col("starts_at")))
    order = ["pod_uid", "container", "gpu_uuid", "starts_at"]
    for row in real.sort(order).with_columns(pl.col("starts_at", "ends_at").dt.truncate("1ms")).to_dicts():
        piece = [
            row["pod_uid"],
            row["container"],
            row["gpu_uuid"],
            round(row["fraction"], 9),
            row["starts_at"],
            row["ends_at"],
        ]
        if found and found[-1][:4] == piece[:4] and found[-1][5] == piece[4]:
            found[-1][5] = piece[5]
        else:
            found.append(piece)
    return [tuple(piece) for piece in found]


@settings(max_examples=60)
@given(worlds(), worlds())
def test_whatever_is_learnt_later_the_store_ends_up_with_what_the_join_says_and_stays_so(
    first: dict[str, list[Row]], second: dict[str, list[Row]]
) -> None:
    empty = POD_ALLOCATION.empty("wire")
    one, other = (join(told(**world), LATER).allocations for world in (first, second))
    has = stored(empty, rows_to_write(one, empty, EARLY))
    assert standing(has) == standing(one)
    has = stored(has, rows_to_write(other, has, EARLY))
    assert standing(has) == standing(other)
    assert rows_to_write(other, has, EARLY).is_empty()

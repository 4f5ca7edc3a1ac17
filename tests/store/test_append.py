"""Appends: the same batch twice is once, overlaps are unions, what can't be stored is counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadFrame
from fleet.tables import EVENT, GPU, GPU_SAMPLE, POD_ALLOCATION
from store.store import Store

T0 = datetime(2026, 3, 2, 10, tzinfo=UTC)


def gpus(*uuids: str, **more: Any) -> pl.DataFrame:
    rows = [{"gpu_uuid": u, "uuid": u, "cluster": "c", "node": "n", "last_seen_at": T0} | more for u in uuids]
    return pl.DataFrame(rows, schema_overrides={"last_seen_at": GPU.schema()["last_seen_at"]})


def samples(rows: list[tuple[str, float, float | None, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(uuid, T0 + timedelta(minutes=minute), a, b) for uuid, minute, a, b in rows],
        schema={
            "gpu_uuid": pl.String(),
            "ts": GPU_SAMPLE.schema()["ts"],
            "utilization": pl.Float64(),
            "power_w": pl.Float64(),
        },
        orient="row",
    )


def told(store: Store) -> list[tuple[Any, ...]]:
    frame = store.read("gpu_sample").sort("gpu", "ts").select("gpu", "ts", "utilization", "power_w")
    return frame.rows()


@pytest.fixture
def store(clock: FixedClock) -> Any:
    with Store.open(None, clock=clock) as opened:
        yield opened


def test_the_same_batch_twice_is_stored_once(store: Store) -> None:
    batch = Batch("s", {"gpu": gpus("a"), "gpu_sample": samples([("a", 0, 0.0, 50.0), ("a", 1, 0.5, None)])})
    assert store.append(batch)["gpu_sample"] == 2
    assert store.append(batch) == {"gpu": 0, "gpu_sample": 0}
    assert told(store) == [(0, T0, 0.0, 50.0), (0, T0 + timedelta(minutes=1), 0.5, None)]


def test_an_overlapping_batch_gives_the_union_and_later_values_win_but_not_later_nulls(store: Store) -> None:
    store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": samples([("a", 0, 0.1, 50.0), ("a", 1, None, 60.0)])}))
    later = samples([("a", 1, 0.2, None), ("a", 2, 0.3, None), ("a", 0, 0.9, None)])
    assert store.append(Batch("s", {"gpu_sample": later}))["gpu_sample"] == 3
    values = [(round(u, 3), p) for _, _, u, p in told(store)]
    assert values == [(0.9, 50.0), (0.2, 60.0), (0.3, None)]


def test_duplicate_keys_inside_one_batch_become_one_row(store: Store) -> None:
    rows = samples([("a", 0, 0.1, None), ("a", 0, None, 70.0), ("a", 0, 0.4, None)])
    store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": rows}))
    ((_, _, utilization, power_w),) = told(store)
    assert (round(utilization, 3), power_w) == (0.4, 70.0)


def test_samples_of_a_gpu_nobody_announced_are_rejected_and_counted(store: Store) -> None:
    store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": samples([("a", 0, 0.1, 1.0), ("ghost", 0, 0.1, 1.0)])}))
    assert len(told(store)) == 1
    row = store.read("source_failure").row(0, named=True)
    assert (row["kind"], row["place"], row["row_count"], row["example"]) == (
        "rejected", "gpu_sample.gpu_uuid", 1, "ghost",
    )  # fmt: skip


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=["nan", "inf", "minus inf"])
def test_a_number_that_is_none_becomes_null_and_is_counted_never_zero(store: Store, bad: float) -> None:
    store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": samples([("a", 0, bad, 1.0), ("a", 1, 0.0, 1.0)])}))
    assert [row[2] for row in told(store)] == [None, 0.0]
    assert store.read("source_failure").get_column("row_count").to_list() == [1]


@pytest.mark.parametrize("years", [-40, 5], ids=["before 2000", "in five years"])
def test_a_clock_that_jumped_loses_only_its_own_rows(store: Store, years: int) -> None:
    wrong = 525_960.0 * years
    store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": samples([("a", 0, 0.5, 1.0), ("a", wrong, 0.5, 1.0)])}))
    assert len(told(store)) == 1
    assert store.read("source_failure").get_column("row_count").to_list() == [1]


def test_a_bad_frame_in_a_batch_leaves_nothing_of_the_batch(store: Store) -> None:
    with pytest.raises(BadFrame, match=r"gpu_sample.*wattage"):
        store.append(Batch("s", {"gpu": gpus("a"), "gpu_sample": pl.DataFrame({"wattage": [1]})}))
    assert store.read("gpu").is_empty()


def test_first_seen_keeps_the_first_moment_and_last_seen_the_last(store: Store) -> None:
    day = timedelta(days=1)
    for moment in (T0, T0 - day, T0 + timedelta(hours=1)):
        store.append(Batch("s", {"gpu": gpus("a", last_seen_at=moment, first_seen_at=moment)}))
    row = store.read("gpu").row(0, named=True)
    assert (row["first_seen_at"], row["last_seen_at"]) == (T0 - day, T0 + timedelta(hours=1))


def test_an_open_allocation_is_closed_by_its_end(store: Store) -> None:
    row = {
        "cluster": "c", "namespace": "n", "pod": "p", "pod_uid": "u", "gpu_uuid": "a", "fraction": 1.0,
        "starts_at": T0, "ends_at": None,
    }  # fmt: skip
    dtypes = {"starts_at": POD_ALLOCATION.schema()["starts_at"], "ends_at": POD_ALLOCATION.schema()["ends_at"]}
    store.append(Batch("s", {"gpu": gpus("a"), "pod_allocation": pl.DataFrame([row], schema_overrides=dtypes)}))
    end = T0 + timedelta(hours=2)
    closed = pl.DataFrame([row | {"ends_at": end}], schema_overrides=dtypes)
    assert store.append(Batch("s", {"pod_allocation": closed}))["pod_allocation"] == 1
    assert store.read("pod_allocation").get_column("ends_at").to_list() == [end]


def events(*moments: float, code: int = 79, gpu: str | None = "a") -> pl.DataFrame:
    rows = [
        {
            "ts": T0 + timedelta(seconds=s), "cluster": "c", "node": "n", "gpu_uuid": gpu, "kind": "xid",
            "code": code, "source": "test",
        }
        for s in moments
    ]  # fmt: skip
    return pl.DataFrame(rows, schema={name: EVENT.schema()[name] for name in rows[0]})


def test_the_same_event_told_by_two_sources_within_two_seconds_is_one(store: Store) -> None:
    store.append(Batch("nvml", {"event": events(0)}))
    store.append(Batch("kmsg", {"event": events(1.5)}))
    store.append(Batch("kmsg", {"event": events(2.5)}))
    assert store.read("event").height == 2


def test_a_storm_of_events_is_thinned_not_swallowed(store: Store) -> None:
    store.append(Batch("kmsg", {"event": events(*range(60))}))
    assert store.read("event").height == 20


def test_events_of_other_codes_and_without_a_gpu_stand_for_themselves(store: Store) -> None:
    for frame in (events(0), events(0, code=48), events(0, gpu=None), events(0, gpu=None)):
        store.append(Batch("kmsg", {"event": frame}))
    assert store.read("event").height == 3


def test_the_watermark_never_goes_back(store: Store) -> None:
    for minute in (5, 3):
        store.append(Batch("s", read_until=T0 + timedelta(minutes=minute)))
    assert store.watermark("s") == T0 + timedelta(minutes=5)
    assert store.watermark("nobody") is None


ROW = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from([0.0, 0.5, None]), st.sampled_from([0.0, 9.0, None])
)


@given(st.lists(st.lists(ROW, max_size=6), max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batches_give_the_union_where_the_later_known_value_wins(batches: list[list[Any]]) -> None:
    clock = FixedClock(T0 + timedelta(days=1))
    wanted: dict[tuple[str, int], list[float | None]] = {}
    with Store.open(None, clock=clock) as store:
        store.append(Batch("s", {"gpu": gpus("a", "b")}))
        for batch in batches:
            store.append(Batch("s", {"gpu_sample": samples(batch)}))
            for uuid, minute, a, b in batch:
                row = wanted.setdefault((uuid, minute), [None, None])
                row[0], row[1] = (a if a is not None else row[0]), (b if b is not None else row[1])
        found = {(("a", "b")[gpu], int((ts - T0).seconds / 60)): [u, p] for gpu, ts, u, p in told(store)}
    assert found == wanted


def worded(moment: float, message: str | None, *, gpu: str | None = "a", bus: str | None = None) -> pl.DataFrame:
    return events(moment, gpu=gpu).with_columns(
        message=pl.lit(message, pl.String()), pci_bus_id=pl.lit(bus, pl.String())
    )


@pytest.mark.parametrize(
    "order", [("xid 79", "NVRM: Xid 79, and much more"), ("NVRM: Xid 79, and much more", "xid 79")]
)
def test_of_one_event_told_twice_the_fuller_words_stay_whoever_comes_first(
    store: Store, order: tuple[str, str]
) -> None:
    for moment, message in enumerate(order):
        store.append(Batch("kmsg", {"event": worded(moment, message)}))
    assert store.read("event").get_column("message").to_list() == ["NVRM: Xid 79, and much more"]
    store.append(Batch("nvml", {"event": pl.concat([worded(100 + i, words) for i, words in enumerate(order)])}))
    assert store.read("event").get_column("message").to_list() == ["NVRM: Xid 79, and much more"] * 2


def test_events_without_a_uuid_are_told_apart_by_their_pci_addresses(store: Store) -> None:
    eight = pl.concat([worded(0, None, gpu=None, bus=f"0000:{bus:02x}:00") for bus in range(8)])
    store.append(Batch("kmsg", {"event": eight}))
    store.append(Batch("kmsg", {"event": eight}))
    assert store.read("event").height == 8


def test_a_known_gpu_is_itself_however_its_address_is_written(store: Store) -> None:
    store.append(Batch("nvml", {"event": worded(0, None, bus="00000000:9B:00.0")}))
    store.append(Batch("kmsg", {"event": worded(1, None, bus="0000:9b:00")}))
    assert store.read("event").height == 1


def test_a_sources_own_cursor_is_kept_with_its_watermark(store: Store) -> None:
    assert store.cursor("kmsg") is None
    store.append(Batch("kmsg", read_until=T0, cursor="boot 1, record 7"))
    assert store.cursor("kmsg") == "boot 1, record 7"
    store.append(Batch("kmsg", read_until=T0 + timedelta(minutes=1), cursor="boot 2, record 1"))
    assert store.cursor("kmsg") == "boot 2, record 1"
    store.append(Batch("nvml", read_until=T0))
    assert store.cursor("nvml") is None

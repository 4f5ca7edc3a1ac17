"""Coverage and states of sources: by their own cadence, with missing samples missing and unknown unknown."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.idle import IdlePolicy, judge_idle
from analytics.idle_signals import idle_signals
from analytics.source_hints import hint
from analytics.telemetry import Policy, by_group, coverage, judge_sources, samples_by_gpu, troubles_by_source
from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(), "gpu": pl.UInt32(), "cluster": pl.String(), "node": pl.String(),
    "first_seen_at": pl.Datetime("us", "UTC"), "samples": pl.Int64(), "gap_s": pl.Float64(),
}  # fmt: skip


def given_by(source: str, uuids: list[str], step_s: int, *, lasting: timedelta = HOUR, skip: int = 1) -> Batch:
    """Return a batch of samples up to NOW: one every `step_s`, of which only each `skip`-th is there."""
    count = int(lasting.total_seconds()) // step_s
    moments = [NOW - timedelta(seconds=step_s * place) for place in range(1, count + 1)]
    rows = [{"gpu_uuid": uuid, "ts": ts, "power_w": 100.0} for uuid in uuids for ts in moments[::skip]]
    gpus = [
        {"gpu_uuid": uuid, "uuid": uuid, "cluster": "c", "node": f"n-{uuid}", "last_seen_at": NOW} for uuid in uuids
    ]
    samples = pl.DataFrame(rows, schema_overrides={"power_w": pl.Float32})
    return Batch(source, {"gpu": pl.DataFrame(gpus), "gpu_sample": samples}, NOW)


def covered(store: Store, now: datetime = NOW) -> pl.DataFrame:
    return coverage(store.engine.run(samples_by_gpu(store.engine, now - HOUR, now)), now - HOUR, now)


def ratios(store: Store) -> dict[str, float | None]:
    return dict(by_group(covered(store), "source").select("source", "ratio").iter_rows())


def test_each_source_is_held_to_its_own_cadence(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(given_by("fast", ["a", "b"], 10))
        store.append(given_by("slow", ["c"], 60))
        assert ratios(store) == {"fast": 1.0, "slow": 1.0}


def test_an_outage_of_half_an_hour_is_half_the_coverage(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(given_by("s", ["a", "b"], 30))
        late = given_by("s", ["c"], 30, lasting=HOUR / 2)
        store.append(given_by("s", ["c"], 30, lasting=timedelta(hours=2), skip=200))  # it was there two hours ago
        store.append(late)
        by_node = dict(by_group(covered(store), "node").select("node", "ratio").iter_rows())
        assert by_node["n-a"] == 1.0
        assert by_node["n-c"] == pytest.approx(0.5, abs=0.02)


def test_a_gpu_that_falls_silent_is_missing_and_one_unseen_for_a_day_is_gone(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(given_by("s", ["a"], 60))
        gone = given_by("s", ["b"], 60)
        old = {
            name: frame.with_columns(pl.col(pl.Datetime) - timedelta(hours=3)) for name, frame in gone.frames.items()
        }
        store.append(Batch("s", old, NOW))
        assert ratios(store) == {"s": 0.5}
        later = NOW + timedelta(hours=22)
        store.append(
            Batch(
                "s",
                {
                    name: frame.with_columns(pl.col(pl.Datetime) + timedelta(hours=22))
                    for name, frame in given_by("s", ["a"], 60).frames.items()
                },
                later,
            )
        )
        assert covered(store, later).get_column("uuid").to_list() == ["a"]


def test_a_source_that_gave_nothing_in_the_window_has_an_unknown_coverage(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(given_by("s", ["a"], 60))
        rows = covered(store, NOW + 2 * HOUR)
        assert rows.select("samples", "ratio").rows() == [(0, None)]


def test_which_source_tells_of_which_gpu_is_kept_once(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        for _ in range(2):
            store.append(given_by("one", ["a"], 60))
            store.append(given_by("two", ["a", "b"], 60))
        assert store.read("source_gpu").select("source", "gpu").rows() == [("one", 0), ("two", 0), ("two", 1)]
        assert ratios(store) == {"one": 1.0, "two": 1.0}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("st"), st.none() | st.integers(0, 500), st.none() | st.floats(1, 600), st.integers(0, 7200)
        ),
        max_size=8,
    )
)
def test_no_ratio_leaves_0_to_1_and_no_excess_hides_a_lack(
    rows: list[tuple[str, int | None, float | None, int]],
) -> None:
    frame = pl.DataFrame(
        [
            (source, place, "c", "n", NOW - timedelta(seconds=age), samples, gap)
            for place, (source, samples, gap, age) in enumerate(rows)
        ],
        schema=SCHEMA,
        orient="row",
    )
    found = coverage(frame, NOW - HOUR, NOW)
    assert found.get_column("ratio").drop_nulls().is_between(0, 1).all()
    total = by_group(found, "source")
    assert total.get_column("ratio").drop_nulls().is_between(0, 1).all()
    for source in total.get_column("source"):
        parts = found.filter(pl.col("source") == source).get_column("ratio").drop_nulls().to_list()
        whole = total.filter(pl.col("source") == source).get_column("ratio")[0]
        assert (whole is None) == (not parts)
        if whole is not None:
            assert min(parts) - 1e-9 <= whole <= max(parts) + 1e-9


def state_of(read: timedelta | None, failed: timedelta | None, ratio: float | None) -> str:
    """Return the state of a source read and failed so long ago."""
    when = pl.Datetime("us", "UTC")
    marks = pl.DataFrame(
        {"source": ["s"], "read_until": [None if read is None else NOW - read]}, schema_overrides={"read_until": when}
    )
    row = {
        "source": "s", "failures": 1, "rejected_rows": None, "last_error_at": NOW, "last_error": "no",
        "last_failed_at": None if failed is None else NOW - failed,
    }  # fmt: skip
    troubles = pl.DataFrame([row], schema_overrides={"last_failed_at": when, "last_error_at": when})
    rows = pl.DataFrame(
        {"source": ["s"], "samples": [0.0 if ratio is None else 100 * ratio], "expected": [100.0], "ratio": [ratio]},
        schema_overrides={"ratio": pl.Float64},
    )
    return str(judge_sources(marks, troubles, rows, Policy(), NOW).get_column("state")[0])


@pytest.mark.parametrize(
    ("read", "failed", "ratio", "state"),
    [
        (timedelta(seconds=30), None, 1.0, "ok"),
        (timedelta(seconds=30), None, None, "ok"),
        (timedelta(seconds=30), timedelta(minutes=5), 1.0, "ok"),
        (timedelta(minutes=5), timedelta(seconds=30), 1.0, "failing"),
        (None, timedelta(seconds=30), None, "failing"),
        (None, None, None, "never_read"),
        (timedelta(minutes=16), None, 1.0, "late"),
        (timedelta(seconds=30), None, 0.89, "partial"),
        (timedelta(seconds=30), None, 0.0, "partial"),
        (timedelta(seconds=-300), None, 1.0, "ok"),
    ],
)
def test_the_state_of_a_source(
    read: timedelta | None, failed: timedelta | None, ratio: float | None, state: str
) -> None:
    assert state_of(read, failed, ratio) == state


def test_troubles_are_counted_by_source_and_a_failure_speaks_before_a_rejection(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(Batch("a", troubles=(Trouble("failed", "a", "503 from the server"),)))
        clock.move(timedelta(minutes=1))
        store.append(
            Batch("a", troubles=(Trouble("rejected", "power_w", "below zero", 7), Trouble("noticed", "x", "odd", 3)))
        )
        row = store.engine.run(troubles_by_source(store.engine, NOW - HOUR)).row(0, named=True)
    assert (row["failures"], row["rejected_rows"], row["last_error"]) == (1, 7, "503 from the server")


@pytest.mark.parametrize(
    ("source", "state", "error", "words"),
    [
        ("prometheus", "failing", "401 Unauthorized", "credentials"),
        ("prometheus", "failing", "certificate verify failed", "CA"),
        ("prometheus", "failing", "read timed out", "too late"),
        ("kubernetes:east", "failing", "Connection refused", "nothing answers"),
        ("kubernetes:east", "late", None, "kubeconfig"),
        ("nvml", "failing", "driver not loaded", "nvidia-smi"),
        ("prometheus", "partial", None, "Data quality"),
        ("mystery", "never_read", None, "steward collect"),
    ],
)
def test_a_hint_says_what_to_do(source: str, state: str, error: str | None, words: str) -> None:
    found = hint(source, state, error)
    assert found is not None
    assert words in found


def test_a_source_that_is_well_needs_no_hint() -> None:
    assert hint("prometheus", "ok", "an old error") is None


def held_and_still(store: Store) -> str:
    """Return what is said of a GPU that is held, and still in every sample that there is of it."""
    store.append(Batch("t", {"pod_allocation": pl.DataFrame([{
        "cluster": "c", "namespace": "ml", "pod": "p", "pod_uid": "u", "gpu_uuid": "a", "fraction": 1.0,
        "workload_kind": "Job", "workload": "p", "starts_at": NOW - timedelta(days=1),
    }])}))  # fmt: skip
    policy = IdlePolicy()
    verdicts = judge_idle(store.engine.run(idle_signals(store.engine, NOW, policy)), policy, NOW)
    found = next(verdict for verdict in verdicts if verdict.subject == "a")
    told = covered(store).filter(pl.col("uuid") == "a").get_column("ratio")[0]
    assert found.coverage == pytest.approx(told, abs=0.02)
    return f"{found.state} {found.rule}"


@pytest.mark.parametrize(("skip", "said"), [(1, "idle"), (2, "unknown thin_coverage")])
def test_a_verdict_reads_the_coverage_that_doctor_tells(clock: FixedClock, skip: int, said: str) -> None:
    with Store.open(None, clock=clock) as store:
        for batch in (given_by("s", ["b", "c"], 60), given_by("s", ["a"], 60, skip=skip)):
            samples = batch.frames["gpu_sample"].with_columns(utilization=pl.lit(0.0, pl.Float32))
            gpus = batch.frames["gpu"].with_columns(node=pl.lit("n"))
            store.append(Batch("s", {"gpu": gpus, "gpu_sample": samples}, NOW))
        assert held_and_still(store).startswith(said)

"""Energy by the hour: the counter integrated over resets, gaps and nonsense, and parts that sum to the whole."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.batch import Batch
from fleet.clock import FixedClock
from store.store import Store

T0 = datetime(2026, 3, 1, tzinfo=UTC)
Reading = tuple[float, float | None]  # seconds after T0, the counter in J


def energy(readings: list[Reading], *windows: tuple[float, float]) -> list[float | None]:
    """Store the readings of one GPU, roll up each window (seconds), and return the energy of each hour."""
    clock = FixedClock(T0 + timedelta(days=1))
    moments = [T0 + timedelta(seconds=second) for second, _ in readings]
    frames = {
        "gpu": pl.DataFrame({"gpu_uuid": ["a"], "uuid": ["a"], "cluster": ["c"], "node": ["n"]}),
        "gpu_sample": pl.DataFrame(
            {"gpu_uuid": ["a"] * len(readings), "ts": moments, "energy_j": [counter for _, counter in readings]},
            schema_overrides={"ts": pl.Datetime("us", "UTC"), "energy_j": pl.Float64()},
        ),
    }
    with Store.open(None, clock=clock) as store:
        store.append(Batch("test", frames))
        for since, until in windows or ((0, 86_400),):
            store.roll_up(T0 + timedelta(seconds=since), T0 + timedelta(seconds=until))
        return store.read("gpu_hour").sort("hour_at").get_column("energy_j").to_list()


CASES = {
    "growth": ([(0, 1000.0), (60, 1600.0), (120, 2200.0)], [1200.0]),
    "nothing drawn is measured": ([(0, 1000.0), (60, 1000.0)], [0.0]),
    "one reading tells nothing": ([(0, 1000.0)], [None]),
    "no counter": ([(0, None), (60, None)], [None]),
    "a missing reading costs nothing": ([(0, 1000.0), (60, None), (120, 2200.0)], [1200.0]),
    "a reset counts from zero": ([(0, 9e9), (60, 9e9 + 600), (120, 300.0), (180, 900.0)], [600.0 + 300 + 600]),
    "two resets": ([(0, 500.0), (60, 100.0), (120, 50.0)], [150.0]),
    "a reading that was wrong is no energy": ([(0, 9e9), (60, 4e9), (120, 9e9 + 1200), (180, 9e9 + 1800)], [600.0]),
    "a gap within an hour is bridged": ([(0, 0.0), (3000, 900_000.0)], [900_000.0]),
    "a gap of more than an hour is not": ([(0, 0.0), (7200, 900_000.0), (7260, 900_600.0)], [None, 600.0]),
    "a step over the hour is in the later one": ([(3540, 0.0), (3600, 600.0), (3660, 700.0)], [None, 700.0]),
}


@pytest.mark.parametrize(("readings", "hours"), CASES.values(), ids=CASES)
def test_energy_of_each_hour(readings: list[Reading], hours: list[float | None]) -> None:
    assert energy(readings) == hours


def test_however_the_hours_are_rolled_up_they_say_the_same() -> None:
    readings: list[Reading] = [(600.0 * step, 70_000.0 * step % 1_000_000) for step in range(30)]
    whole = energy(readings)
    assert energy(readings, (0, 3600), (3600, 7200), (7200, 7300), (7300, 18_000)) == whole
    assert energy(readings, (10_800, 18_000), (0, 10_800), (3600, 3601)) == whole


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1000, width=16), min_size=2, max_size=40), st.sampled_from([10, 47, 300, 1500]))
def test_the_hours_sum_to_what_was_drawn(watts: list[float], step_s: int) -> None:
    counter, readings = 5e6, list[Reading]()
    for step, power_w in enumerate(watts):
        counter += 0 if step == 0 else power_w * step_s
        readings.append((float(step * step_s), counter))
    hours = [joules for joules in energy(readings) if joules is not None]
    assert sum(hours) == pytest.approx(sum(power_w * step_s for power_w in watts[1:]), rel=1e-9, abs=1e-3)

"""What GPUs that were slowed lose: by counters, else by the reasons that their samples tell."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from analytics.waste import slowed
from fleet.clock import FixedClock
from fleet.tables import GPU_SAMPLE
from store.store import Store

T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Sample = tuple[int, int | None, float | None]  # minutes, clock event bits, seconds slowed by the power cap


def slowed_s(samples: list[Sample]) -> float | None:
    rows = pl.DataFrame(
        [{"gpu": 1, "ts": T0 + MINUTE * at, "clock_event_bits": bits, "slowed_by_power_cap_s": counter}
         for at, bits, counter in samples],
        schema={name: GPU_SAMPLE.schema()[name] for name in ("gpu", "ts", "clock_event_bits", "slowed_by_power_cap_s")},
    )  # fmt: skip
    with Store.open(None, clock=FixedClock(T0 + timedelta(hours=2))) as store:
        store.append_stored("gpu_sample", rows)
        found = store.engine.run(slowed(store.engine, T0, T0 + timedelta(hours=2)))
    return None if found.is_empty() else found.get_column("slowed_s").item()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, 0, None), (1, 4, None), (2, 0, None)], 60.0),
        ([(0, 0, None), (1, 0, None)], 0.0),
        ([(0, None, None), (1, None, None)], None),
        ([(0, 64, None)], None),
        ([(0, 0, None), (60, 8, None)], 300.0),
        ([(0, 4, 10.0), (1, 4, 12.0)], 2.0),
        ([(0, 4 | 1, None), (1, 64 | 2, None)], 60.0),
    ],
    ids=["slow for a step", "never slow", "not told", "one look tells no time", "a gap is not bridged",
         "counters speak first", "ignored reasons beside one that counts"],
)  # fmt: skip
def test_time_that_a_gpu_was_slowed(samples: list[Sample], expected: float | None) -> None:
    assert slowed_s(samples) == expected


def test_the_reasons_that_cost_are_those_of_the_published_cases(data_root: Path) -> None:
    cases = [json.loads(path.read_text()) for path in sorted((data_root / "cost").rglob("*.json"))]
    found = [each["throttle_bits"] for each in cases if isinstance(each, dict) and "throttle_bits" in each]
    if not found:
        pytest.skip("no file of cases with throttle_bits")
    for bits in found:
        for name, bit in bits.items():
            if name != "_ignored":
                assert slowed_s([(0, 0, None), (1, bit, None)]) == 60.0, name
        for name, bit in bits["_ignored"].items():
            assert slowed_s([(0, 0, None), (1, bit, None)]) == 0.0, name

"""Names of exporters: each name of a field is its column in our unit, whoever gives it."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.metrics import ALL, BY_NAME, LABELS, RANKS
from collectors.prometheus import _Answer, _decode_text, _readings
from collectors.prometheus_rows import Reader, Readings, frames_of
from fleet.errors import SourceFailed
from fleet.frames import conform
from fleet.tables import TABLES

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
GPU = {"UUID": "GPU-a", "Hostname": "n1"}


def readings(*series: tuple[dict[str, str], float], step_s: float = 0.0) -> Readings:
    rows = [
        {"series": place, "ts": NOW + timedelta(seconds=place * step_s), "value": value}
        for place, (_, value) in enumerate(series)
    ]
    schema = {"series": pl.UInt32(), "ts": pl.Datetime("us", "UTC"), "value": pl.Float64()}
    return Readings([labels for labels, _ in series], pl.DataFrame(rows, schema=schema))


def told(name: str, value: float, column: str, table: str = "gpu_sample") -> object:
    frames, _ = frames_of(readings(({"__name__": name, **GPU}, value)), "c1", "test")
    return frames[table][column].to_list()[0]


def test_every_column_of_a_sample_can_come_from_an_exporter() -> None:
    columns = {metric.column for metric in ALL}
    for table in ("gpu_sample", "slice_sample"):
        assert set(TABLES[table].schema("wire")) - {"gpu_uuid", "slice_uuid", "ts"} <= columns


def test_no_name_stands_for_two_fields() -> None:
    names = [name for metric in ALL for name in metric.names]
    assert len(names) == len(set(names)) == len(RANKS)


@pytest.mark.parametrize(
    ("name", "value", "column", "expected"),
    [
        ("DCGM_FI_DEV_SM_CLOCK_HERTZ", 1.98e9, "sm_clock_mhz", 1980),
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 5.0, "energy_j", 5.0),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5.0, "energy_j", 0.005),
        ("DCGM_FI_DEV_FB_USED_BYTES", 3.0 * 2**20, "memory_used_mib", 3),
        ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS", 2.5e9, "slowed_by_power_cap_s", 2.5),
        ("DCGM_FI_DEV_MEMORY_UTIL_RATIO", 0.5, "memory_utilization", 0.5),
        ("DCGM_FI_DEV_THRESHOLD_SRM", 1.0, "is_sram_threshold_exceeded", True),
        ("DCGM_FI_PROF_SM_UTIL_RATIO", 0.25, "sm_activity", 0.25),
        ("gpu_steward_process_count", 3.0, "process_count", 3),
        ("nvidia_smi_utilization_gpu_ratio", 0.5, "utilization", 0.5),
        ("nvidia_smi_power_draw_watts", 70.5, "power_w", 70.5),
        ("nvidia_smi_clocks_current_memory_clock_hz", 2.619e9, "memory_clock_mhz", 2619),
        ("nvidia_smi_ecc_errors_uncorrected_aggregate_sram", 2.0, "ecc_sram_uncorrected_lifetime_count", 2),
        ("nvidia_smi_ecc_errors_corrected_volatile_total", 2.0, "ecc_corrected_count", 2),
    ],
)
def test_a_name_is_its_column_in_our_unit(name: str, value: float, column: str, expected: object) -> None:
    assert told(name, value, column) == expected


def test_what_is_told_of_the_gpu_itself_is_kept_with_it() -> None:
    assert told("DCGM_FI_DEV_FB_TOTAL", 81_559.0, "memory_mib", "gpu") == 81_559
    assert told("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", 700.0, "power_limit_w", "gpu") == 700.0


@pytest.mark.parametrize(
    ("values", "expected", "trouble_count"),
    [
        ((0.0, 40.0, 1.0), [0.0, 0.4, 0.01], 0),
        ((0.0, 0.4, 1.0), [0.0, 0.4, 1.0], 0),
        ((0.0, 1.0), [0.0], 1),
        ((100.0, 101.0), [1.0], 1),
    ],
    ids=["whole percent of DCGM 4.6", "a ratio of DCGM 4.7", "nobody can tell", "above the whole"],
)
def test_a_name_that_was_percent_and_is_a_ratio_is_read_by_what_came_with_it(
    values: tuple[float, ...], expected: list[float], trouble_count: int
) -> None:
    labels = {"__name__": "DCGM_FI_DEV_GPU_UTIL_RATIO", **GPU}
    frames, troubles = frames_of(readings(*((labels, value) for value in values), step_s=30.0), "c1", "test")
    assert frames["gpu_sample"]["utilization"].to_list() == pytest.approx(expected)
    assert len(troubles) == trouble_count


def test_what_a_node_has_shown_once_is_remembered() -> None:
    reader = Reader("c1", "test")
    labels = {"__name__": "DCGM_FI_DEV_GPU_UTIL_RATIO", **GPU}
    reader.frames_of(readings((labels, 40.0)))
    frames, _ = reader.frames_of(readings((labels, 1.0)))
    assert frames["gpu_sample"]["utilization"].to_list() == pytest.approx([0.01])


def test_a_reader_that_has_seen_too_many_series_goes_on_with_a_new_book() -> None:
    reader = Reader("c1", "test", series_max=2)
    for turn in range(6):
        labels = {"__name__": "DCGM_FI_DEV_GPU_TEMP", **GPU, "pod": f"p{turn}", "namespace": "ml"}
        frames, _ = reader.frames_of(readings((labels, 40.0 + turn)))
        assert frames["gpu_sample"]["temperature_c"].to_list() == [40.0 + turn]
    assert len(reader.book) <= 3


def test_the_other_exporters_text_of_real_gpus_is_read(data_root: Path) -> None:
    read = 0
    for path in sorted((data_root / "captures").glob("*.metrics")):
        series = []
        for line in path.read_text().splitlines():
            name, brace, rest = line.partition("{")
            if brace and not line.startswith("#"):
                text, _, value = rest.rpartition("} ")
                parts = [part.partition("=") for part in text.split('",')]
                plain = {key: value.strip('"') for key, _, value in parts}
                series.append(({"__name__": name, "instance": "n1:9835"} | plain, float(value)))
        frames, troubles = frames_of(readings(*series), "c1", "test")
        (gpu,) = frames["gpu"].to_dicts()
        (sample,) = frames["gpu_sample"].to_dicts()
        assert troubles == ()
        assert gpu["uuid"].startswith("GPU-")
        assert gpu["model"].startswith("NVIDIA")
        assert gpu["memory_mib"] > 1000
        assert None not in (sample["power_w"], sample["temperature_c"], sample["sm_clock_mhz"])
        read += 1
    if read == 0:
        pytest.skip("no exporter's text among the captures")


texts = st.sampled_from(
    ["0", "1", "NaN", "+Inf", "-Inf", "1e308", "-0", "2147483632", "9223372036854775794", "x", "", "1e999", "0.5"]
)
label_names = st.sampled_from(
    [name for names in LABELS.values() for name in names] + ["pod", "namespace", "exported_pod"]
)
moments = st.one_of(st.floats(-1e12, 1e13), st.integers(0, 2**53), st.just(NOW.timestamp()))
matrices = st.lists(
    st.tuples(
        st.sampled_from(sorted(BY_NAME)),
        st.dictionaries(label_names, st.text(max_size=6), max_size=6),
        st.lists(st.tuples(moments, texts), max_size=5),
    ),
    max_size=6,
)


def survive(matrix: list[tuple[str, dict[str, str], list[tuple[float, str]]]]) -> None:
    """Every answer of that form becomes frames that fit their tables, or is refused."""
    result = [{"metric": labels | {"__name__": name}, "values": pairs} for name, labels, pairs in matrix]
    answer = _decode_text(json.dumps({"status": "success", "data": {"result": result}}).encode())
    assert isinstance(answer, _Answer)
    try:
        found = _readings(answer)
    except SourceFailed:
        return
    frames, _ = frames_of(found, "c1", "test")
    for name, frame in frames.items():
        conform(frame, TABLES[name])
        for column in frame.select(pl.selectors.float()):
            assert not any(value is not None and math.isnan(value) for value in column)


@settings(max_examples=300)
@given(matrices)
def test_no_answer_makes_the_reader_stumble(matrix: list[tuple[str, dict[str, str], list[tuple[float, str]]]]) -> None:
    survive(matrix)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(matrices)
def test_no_answer_at_all_makes_the_reader_stumble(
    matrix: list[tuple[str, dict[str, str], list[tuple[float, str]]]],
) -> None:
    survive(matrix)


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_no_bytes_make_the_parser_of_answers_stumble(body: bytes) -> None:
    answer = _decode_text(body)
    assert answer is None or isinstance(answer, _Answer)

"""The agent's metrics: names and labels as dcgm-exporter has them, no line for what was not measured, and back."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.capture import open_capture
from collectors.capture_driver import driver_for
from collectors.exposition import Exposition, Holder
from collectors.metrics import BY_NAME
from collectors.nvml import NvmlSource
from collectors.prometheus_rows import Readings, frames_of
from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.frames import conform
from fleet.tables import TABLES

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
Series = tuple[str, dict[str, str], str]
_LINE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(text: str) -> list[Series]:
    """Read the text form by its own rules: every line is a comment or a sample, titles come before samples."""
    series: list[Series] = []
    titled: set[str] = set()
    assert text == "" or text.endswith("\n")
    for line in text.split("\n")[:-1]:
        if line.startswith("# TYPE "):
            name = line.split(" ")[2]
            assert name not in titled, line
            titled.add(name)
            continue
        if line.startswith("# HELP "):
            continue
        match = _LINE.match(line)
        assert match is not None, line
        labels = {
            name: re.sub(r"\\.", lambda found: _ESCAPES[found[0]], value)
            for name, value in _LABEL.findall(match[2] or "")
        }
        assert match[1] in titled, line
        float(match[3])
        series.append((match[1], labels, match[3]))
    keys = [(name, tuple(sorted(labels.items()))) for name, labels, _ in series]
    assert len(keys) == len(set(keys)), "one series stands there twice"
    return series


def frame(table: str, *rows: Mapping[str, object]) -> pl.DataFrame:
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    schema = TABLES[table].schema("wire")
    return conform(pl.DataFrame(columns, schema={name: schema[name] for name in columns}), TABLES[table])


GPU = {
    "gpu_uuid": "GPU-a", "uuid": "GPU-a", "cluster": "c1", "node": "n1", "gpu_index": 0, "minor_number": 3,
    "model": "NVIDIA H100 80GB HBM3", "pci_bus_id": "00000000:53:00.0", "driver": "590.48", "memory_mib": 81559,
}  # fmt: skip
LABELS = {
    "gpu": "0", "UUID": "GPU-a", "pci_bus_id": "00000000:53:00.0", "device": "nvidia3",
    "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "n1", "DCGM_FI_DRIVER_VERSION": "590.48",
}  # fmt: skip


def sample(**values: object) -> Batch:
    frames = {"gpu": frame("gpu", GPU), "gpu_sample": frame("gpu_sample", {"gpu_uuid": "GPU-a", "ts": NOW, **values})}
    return Batch("nvml", frames, NOW)


def shown(*batches: Batch, clock: FixedClock | None = None) -> list[Series]:
    exposition = Exposition(clock or FixedClock(NOW))
    for batch in batches:
        exposition.update(batch)
    return parse(exposition.render())


def test_before_the_first_reading_there_is_nothing() -> None:
    assert shown() == []


@pytest.mark.parametrize(
    ("column", "value", "name", "text"),
    [
        ("utilization", 0.0, "DCGM_FI_DEV_GPU_UTIL", "0"),
        ("utilization", 0.11, "DCGM_FI_DEV_GPU_UTIL", "11"),
        ("utilization", 1.0, "DCGM_FI_DEV_GPU_UTIL", "100"),
        ("memory_utilization", 0.07, "DCGM_FI_DEV_MEM_COPY_UTIL", "7"),
        ("power_w", 631.95, "DCGM_FI_DEV_POWER_USAGE", "631.95"),
        ("energy_j", 9_000_000_000.123, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "9000000000123"),
        ("sm_activity", 0.1, "DCGM_FI_PROF_SM_ACTIVE", "0.1"),
        ("temperature_c", 41.0, "DCGM_FI_DEV_GPU_TEMP", "41.0"),
        ("is_remap_failed", False, "DCGM_FI_DEV_ROW_REMAP_FAILURE", "0"),
        ("is_remap_failed", True, "DCGM_FI_DEV_ROW_REMAP_FAILURE", "1"),
        ("ecc_uncorrected_count", 0, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "0"),
        ("is_sram_threshold_exceeded", True, "gpu_steward_is_sram_threshold_exceeded", "1"),
        ("slowed_by_power_brake_s", 1.5, "gpu_steward_slowed_by_power_brake_s", "1.5"),
        ("pcie_width", 8, "DCGM_FI_DEV_PCIE_LINK_WIDTH", "8"),
    ],
)
def test_a_measurement_has_dcgms_name_unit_and_labels(column: str, value: object, name: str, text: str) -> None:
    lines = [series for series in shown(sample(**{column: value})) if "timestamp" not in series[0]]
    assert lines == [(name, LABELS, text)]


def test_what_was_not_measured_has_no_line_and_no_title() -> None:
    exposition = Exposition(FixedClock(NOW))
    exposition.update(sample(power_w=70.0))
    text = exposition.render()
    assert re.findall(r"# TYPE (\S+)", text) == [
        "DCGM_FI_DEV_POWER_USAGE",
        "gpu_steward_agent_last_reading_timestamp_seconds",
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("energy_j", "counter"),
        ("pcie_replay_count", "counter"),
        ("ecc_corrected_lifetime_count", "counter"),
        ("rows_remapped_uncorrected_count", "counter"),
        ("slowed_by_sync_boost_s", "counter"),
        ("nvlink_error_count", "counter"),
        ("power_w", "gauge"),
        ("process_count", "gauge"),
        ("nvlink_active_count", "gauge"),
        ("is_remap_failed", "gauge"),
        ("memory_used_mib", "gauge"),
    ],
)
def test_what_only_grows_is_a_counter(column: str, kind: str) -> None:
    exposition = Exposition(FixedClock(NOW))
    exposition.update(sample(**{column: True if column.startswith("is_") else 1}))
    assert re.findall(r"# TYPE \S+ (\S+)", exposition.render())[0] == kind


def test_every_column_of_a_sample_has_a_metric_of_its_own() -> None:
    schema = TABLES["gpu_sample"].schema("wire")
    values = {name: bool(dtype == pl.Boolean) or 1 for name, dtype in schema.items() if name not in {"gpu_uuid", "ts"}}
    lines = [line for line in shown(sample(**values)) if "timestamp" not in line[0] and "FB_FREE" not in line[0]]
    assert len({name for name, _, _ in lines}) == len(values)


def test_free_memory_is_what_neither_work_nor_driver_holds() -> None:
    lines = {name: value for name, _, value in shown(sample(memory_used_mib=20_000, memory_reserved_mib=479))}
    assert lines["DCGM_FI_DEV_FB_FREE"] == "61080"
    without = {name for name, _, _ in shown(sample(memory_used_mib=20_000))}
    assert "DCGM_FI_DEV_FB_FREE" not in without


def test_a_reading_that_is_too_old_is_missing_and_not_frozen() -> None:
    clock = FixedClock(NOW)
    exposition = Exposition(clock, stale_after_s=30)
    exposition.update(sample(power_w=70.0))
    clock.move(timedelta(seconds=30))
    assert "POWER_USAGE" in exposition.render()
    clock.move(timedelta(seconds=1))
    assert "DCGM" not in exposition.render()


def test_a_later_sample_takes_the_place_of_the_whole_earlier_one() -> None:
    names = [name for name, _, _ in shown(sample(power_w=70.0), sample(temperature_c=40.0))]
    assert "DCGM_FI_DEV_POWER_USAGE" not in names


def xid_batch(code: int, uuid: str | None = "GPU-a") -> Batch:
    event = {"ts": NOW, "cluster": "c1", "node": "n1", "gpu_uuid": uuid, "kind": "xid", "code": code, "source": "nvml"}
    return Batch("nvml", {"event": frame("event", event)})


def test_xids_are_counted_and_the_gauge_keeps_the_last() -> None:
    lines = shown(sample(power_w=1.0), xid_batch(31), xid_batch(79), xid_batch(31), xid_batch(45, None))
    assert [(labels["UUID"], value) for name, labels, value in lines if name == "DCGM_FI_DEV_XID_ERRORS"] == [
        ("GPU-a", "31")
    ]
    counted = {
        (labels.get("UUID"), labels["xid"]): value for name, labels, value in lines if name.endswith("xid_total")
    }
    assert counted == {("GPU-a", "31"): "2", ("GPU-a", "79"): "1", (None, "45"): "1"}


def test_troubles_are_counted_by_source_and_kind() -> None:
    trouble = Batch("nvml", troubles=(Trouble("failed", "n1, serial", "no"),))
    assert ("gpu_steward_agent_troubles_total", {"source": "nvml", "kind": "failed"}, "2") in shown(trouble, trouble)


def test_each_holder_has_its_own_series_and_unknown_words_have_no_label() -> None:
    exposition = Exposition(FixedClock(NOW))
    exposition.update(sample(power_w=1.0))
    exposition.hold({"GPU-a": (Holder("ml", "train-0", "main"), Holder("ml", "train-1"))})
    lines = [labels for name, labels, _ in parse(exposition.render()) if name == "DCGM_FI_DEV_POWER_USAGE"]
    assert lines == [
        {**LABELS, "container": "main", "namespace": "ml", "pod": "train-0"},
        {**LABELS, "namespace": "ml", "pod": "train-1"},
    ]


def slices(*compute_instances: int) -> Batch:
    rows = [
        {"slice_uuid": f"MIG-{c}", "uuid": f"MIG-{c}", "gpu_uuid": "GPU-a", "gpu_instance": 2, "compute_instance": c,
         "profile": "3g.40gb"}
        for c in compute_instances
    ]  # fmt: skip
    samples = [{"slice_uuid": f"MIG-{c}", "ts": NOW, "gr_activity": 0.5} for c in compute_instances]
    return Batch("nvml", {"slice": frame("slice", *rows), "slice_sample": frame("slice_sample", *samples)})


def test_a_mig_device_has_its_gpus_labels_its_instance_and_its_own_holder() -> None:
    exposition = Exposition(FixedClock(NOW))
    exposition.update(sample(power_w=1.0))
    exposition.update(slices(0))
    exposition.hold({"MIG-0": (Holder("ml", "p"),)})
    (labels,) = [labels for name, labels, _ in parse(exposition.render()) if "GR_ENGINE" in name]
    mig = {"GPU_I_ID": "2", "GPU_I_PROFILE": "3g.40gb", "MIG_UUID": "MIG-0"}
    assert labels == {**LABELS, **mig, "namespace": "ml", "pod": "p"}


def test_compute_instances_of_one_gpu_instance_are_told_apart() -> None:
    lines = shown(sample(power_w=1.0), slices(0, 1))
    assert [labels["GPU_C_ID"] for name, labels, _ in lines if "GR_ENGINE" in name] == ["0", "1"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_in_a_label_comes_back_as_it_was(text: str) -> None:
    batch = sample(power_w=1.0)
    named = batch.frames["gpu"].with_columns(model=pl.lit(text))
    lines = shown(Batch("nvml", {**batch.frames, "gpu": named}))
    assert lines[0][1]["modelName"] == text


@given(st.floats(width=32, allow_nan=True, allow_infinity=True))
def test_any_number_comes_back_as_it_was(value: float) -> None:
    ((_, _, text), *_) = shown(sample(power_w=value))
    back = pl.Series([float(text)], dtype=pl.Float64).cast(pl.Float32)
    assert back.equals(pl.Series([value], dtype=pl.Float32))


def captured(path: Path, phase: str) -> Batch:
    (batch,) = NvmlSource(FixedClock(NOW), "c1", "n1", driver_for(open_capture(path, phase))).collect(None, NOW)
    return batch.checked()


def pulled(batch: Batch) -> dict[str, pl.DataFrame]:
    """Return what a reader of the text makes of it, as it makes it of dcgm-exporter's."""
    series = [line for line in shown(batch) if line[0] in BY_NAME]
    rows = [{"series": place, "ts": NOW, "value": float(text)} for place, (_, _, text) in enumerate(series)]
    schema = {"series": pl.UInt32(), "ts": pl.Datetime("us", "UTC"), "value": pl.Float64()}
    labels = [{"__name__": name, **labels} for name, labels, _ in series]
    frames, troubles = frames_of(Readings(labels, pl.DataFrame(rows, schema=schema)), "c1", "prometheus")
    assert troubles == ()
    return frames


@pytest.mark.parametrize("phase", ["idle", "load"])
@pytest.mark.parametrize("ending", ["xml", "txt"])
def test_captures_come_through_the_text_as_they_come_through_the_driver(
    data_root: Path, ending: str, phase: str
) -> None:
    paths = sorted((data_root / "captures").glob(f"*.{ending}"))
    if not paths:
        pytest.skip(f"no *.{ending} among the captures")
    columns = [name for name in TABLES["gpu_sample"].schema("wire") if name not in {"gpu_uuid", "ts"}]
    for path in paths:
        batch = captured(path, phase)
        frames = pulled(batch)
        own = batch.frames["gpu_sample"].select("gpu_uuid", *columns).sort("gpu_uuid")
        own = own.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
        back = frames["gpu_sample"].select("gpu_uuid", *columns).sort("gpu_uuid")
        assert back.equals(own), path.name
        identity = ["gpu_uuid", "node", "gpu_index", "model", "pci_bus_id", "driver", "memory_mib"]
        known = batch.frames["gpu"].filter(pl.col("gpu_uuid").is_in(own["gpu_uuid"].implode()))
        assert frames["gpu"].select(identity).sort("gpu_uuid").equals(known.select(identity).sort("gpu_uuid")), (
            path.name
        )


@pytest.mark.parametrize("phase", ["idle", "load"])
def test_mig_devices_come_through_the_text_with_their_instances(data_root: Path, phase: str) -> None:
    seen = 0
    for path in sorted((data_root / "captures").glob("*.txt")):
        batch = captured(path, phase)
        if batch.frames["slice"].height == 0:
            continue
        frames = pulled(batch)
        own = batch.frames["slice"].join(batch.frames["slice_sample"], on="slice_uuid")
        back = frames["slice"].join(frames["slice_sample"], on="slice_uuid")
        columns = ["slice_uuid", "gpu_uuid", "gpu_instance", "profile", "memory_used_mib"]
        assert back.select(columns).sort("gpu_instance").equals(own.select(columns).sort("gpu_instance"))
        seen += own.height
    if seen == 0:
        pytest.skip("no capture has MIG devices")


# What the other exporter, which recorded the same GPUs moments apart, calls what stands still; and its unit of ours.
STILL = {
    "nvidia_smi_memory_reserved_bytes": ("DCGM_FI_DEV_FB_RESERVED", 2**20),
    "nvidia_smi_clocks_current_memory_clock_hz": ("DCGM_FI_DEV_MEM_CLOCK", 1e6),
    "nvidia_smi_pcie_link_width_current": ("DCGM_FI_DEV_PCIE_LINK_WIDTH", 1),
    "nvidia_smi_pstate": ("DCGM_FI_DEV_PSTATE", 1),
    "nvidia_smi_ecc_errors_corrected_volatile_total": ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 1),
    "nvidia_smi_ecc_errors_uncorrected_aggregate_sram": ("gpu_steward_ecc_sram_uncorrected_lifetime_count", 1),
    "nvidia_smi_remapped_rows_failure": ("DCGM_FI_DEV_ROW_REMAP_FAILURE", 1),
    "nvidia_smi_gpu_recovery_action": ("DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION", 1),
}


def test_what_stands_still_agrees_with_another_exporter_of_the_same_gpu(data_root: Path) -> None:
    compared = 0
    for path in sorted((data_root / "captures").glob("*.metrics")):
        stem, phase = path.stem.rsplit("__", 1)
        lines = {name: value for name, _, value in shown(captured(path.with_name(f"{stem}.txt"), phase))}
        theirs = dict(re.findall(r"^(\w+)\{uuid=\"[^\"]*\"\} (\S+)$", path.read_text(), re.MULTILINE))
        for name, (ours, unit) in STILL.items():
            if name in theirs and ours in lines:
                assert float(lines[ours]) * unit == float(theirs[name]), (path.name, name)
                compared += 1
    if compared == 0:
        pytest.skip("no exporter's text among the captures")


def test_every_metric_stands_in_the_docs() -> None:
    schema = TABLES["gpu_sample"].schema("wire")
    values = {name: bool(dtype == pl.Boolean) or 1 for name, dtype in schema.items() if name not in {"gpu_uuid", "ts"}}
    names = {name for name, _, _ in shown(sample(**values), xid_batch(79))}
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text(encoding="utf-8")
    assert {name for name in names if f"| `{name}` |" not in page} == set()

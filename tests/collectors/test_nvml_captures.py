"""Real captures: what is stored is what the raw text says, read a second time here by other means."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pynvml
import pytest

from collectors.capture import Capture, CapturedGpu, open_capture
from collectors.capture_driver import driver_for
from collectors.nvml import NvmlSource
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadTrace

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _pynvml_untouched() -> Iterator[None]:
    before = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache))
    yield
    assert (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)) == before


def files(root: Path, ending: str) -> list[Path]:
    found = sorted((root / "captures").glob(f"*.{ending}"))
    if not found:
        pytest.skip(f"no *.{ending} among the captures")
    return found


def collected(capture: Capture) -> Batch:
    (batch,) = NvmlSource(FixedClock(NOW), "c1", "n1", driver_for(capture)).collect(None, NOW)
    return batch.checked()


def number(text: str | None) -> float | None:
    match = re.match(r"-?\d+(\.\d+)?", text.strip()) if text is not None else None
    return None if match is None else float(match[0])


def yes(text: str | None) -> bool | None:
    return {"Yes": True, "No": False}.get((text or "").strip())


def total(texts: list[str]) -> float | None:
    counted = [value for value in map(number, texts) if value is not None]
    return sum(counted) if counted else None


def first_number(texts: list[str | None]) -> float | None:
    return next((value for value in map(number, texts) if value is not None), None)


def ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def expected_of_xml(gpu: str) -> dict[str, object]:
    """Return what one <gpu> element of a report says, by column, read with regular expressions alone."""
    gpu = re.sub(r"<mig_devices>.*?</mig_devices>", "", gpu, flags=re.DOTALL)

    def one(*names: str) -> str | None:
        match = re.search(".*?".join(f"<{name}>" for name in names) + r"([^<]*)<", gpu, re.DOTALL)
        return None if match is None else match[1].strip()

    def errors(when: str, kind: str) -> float | None:
        part = re.search(rf"<ecc_errors>.*?<{when}>(.*?)</{when}>", gpu, re.DOTALL)
        return total(re.findall(rf"<[sd]ram_{kind}\w*>([^<]*)<", part[1])) if part is not None else None

    return {
        "uuid": one("uuid"),
        "memory_mib": number(one("fb_memory_usage", "total")),
        "memory_used_mib": number(one("fb_memory_usage", "used")),
        "memory_reserved_mib": number(one("fb_memory_usage", "reserved")),
        "utilization": ratio(number(one("utilization", "gpu_util"))),
        "memory_utilization": ratio(number(one("utilization", "memory_util"))),
        "power_w": first_number(
            [one("(?:gpu_)?power_readings", name) for name in ("average_power_draw", "instant_power_draw")]
        ),
        "temperature_c": number(one("temperature", "gpu_temp")),
        "memory_temperature_c": number(one("temperature", "memory_temp")),
        "thermal_margin_c": number(one("temperature", "gpu_temp_tlimit")),
        "sm_clock_mhz": number(one("clocks", "sm_clock")),
        "memory_clock_mhz": number(one("clocks", "mem_clock")),
        "ecc_corrected_count": errors("volatile", "correctable"),
        "ecc_uncorrected_count": errors("volatile", "uncorrectable"),
        "ecc_corrected_lifetime_count": errors("aggregate", "correctable"),
        "ecc_uncorrected_lifetime_count": errors("aggregate", "uncorrectable"),
        "rows_remapped_uncorrected_count": number(one("remapped_row_unc")),
        "is_remap_pending": yes(one("remapped_row_pending")),
        "is_remap_failed": yes(one("remapped_row_failure")),
        "is_sram_threshold_exceeded": yes(one("sram_threshold_exceeded")),
        "pcie_generation": number(one("current_link_gen")),
        "pcie_width": number(one("current_link_width")),
        "pcie_replay_count": number(one("replay_counter")),
    }


def expected_of_text(gpu: str) -> dict[str, object]:
    """Return what one GPU of a text report says, by column, read with regular expressions alone."""
    gpu = re.sub(r"^    MIG Device$\n(?:^ {8}.*\n)*", "", gpu, flags=re.MULTILINE)

    def part(name: str) -> str:
        match = re.search(rf"^    {name} *$\n((?:^ {{8}}.*\n)*)", gpu, re.MULTILINE)
        return "" if match is None else match[1]

    def one(section: str, name: str) -> str | None:
        match = re.search(rf"^ +{name} +: (.*)$", part(section), re.MULTILINE)
        return None if match is None else match[1]

    def errors(when: str, kind: str) -> float | None:
        found = re.search(rf"^        {when}\n((?:^ {{12}}.*\n)*)", part("ECC Errors"), re.MULTILINE)
        lines = re.findall(rf"^ +[SD]RAM {kind}.*: (.*)$", found[1], re.MULTILINE) if found is not None else []
        return total(lines)

    link = re.search(r"PCIe Generation\n(?:.*\n)*? +Current +: (\S+)", part("PCI"))
    width = re.search(r"Link Width\n(?:.*\n)*? +Current +: (\S+)", part("PCI"))
    uuid = re.search(r"^    GPU UUID +: (\S+)$", gpu, re.MULTILINE)
    return {
        "uuid": uuid[1] if uuid is not None else None,
        "memory_mib": number(one("FB Memory Usage", "Total")),
        "memory_used_mib": number(one("FB Memory Usage", "Used")),
        "memory_reserved_mib": number(one("FB Memory Usage", "Reserved")),
        "utilization": ratio(number(one("Utilization", "G[Pp][Uu]"))),
        "memory_utilization": ratio(number(one("Utilization", "Memory"))),
        "power_w": first_number(
            [one("(?:GPU )?Power Readings", name) for name in ("Average Power Draw", "Instantaneous Power Draw")]
        ),
        "temperature_c": number(one("Temperature", "GPU Current Temp")),
        "memory_temperature_c": number(one("Temperature", "Memory Current Temp")),
        "thermal_margin_c": number(one("Temperature", "GPU T.Limit Temp")),
        "sm_clock_mhz": number(one("Clocks", "SM")),
        "memory_clock_mhz": number(one("Clocks", "Memory")),
        "ecc_corrected_count": errors("Volatile", "Correctable"),
        "ecc_uncorrected_count": errors("Volatile", "Uncorrectable"),
        "ecc_corrected_lifetime_count": errors("Aggregate", "Correctable"),
        "ecc_uncorrected_lifetime_count": errors("Aggregate", "Uncorrectable"),
        "rows_remapped_uncorrected_count": number(one("Remapped Rows", "Uncorrectable Error")),
        "is_remap_pending": yes(one("Remapped Rows", "Pending")),
        "is_remap_failed": yes(one("Remapped Rows", "Remapping Failure Occurred")),
        "is_sram_threshold_exceeded": yes(one("ECC Errors", "SRAM Threshold Exceeded")),
        "pcie_generation": number(link[1]) if link is not None else None,
        "pcie_width": number(width[1]) if width is not None else None,
        "pcie_replay_count": number(one("PCI", "Replays Since Reset")),
    }


def compare(batch: Batch, expected: list[dict[str, object]], where: str) -> None:
    found = batch.frames["gpu"].join(batch.frames["gpu_sample"], on="gpu_uuid", how="left", maintain_order="left")
    assert found.height == len(expected), where
    uuids = [row["uuid"] for row in expected]
    for row, wanted in zip(found.iter_rows(named=True), expected, strict=True):
        if uuids.count(wanted["uuid"]) > 1:  # masked: told in a trouble, and apart
            assert batch.troubles, where
            wanted["uuid"] = row["uuid"]
        for name, value in wanted.items():
            assert row[name] == (pytest.approx(value) if isinstance(value, float) else value), (where, name)
    assert found["gpu_uuid"].n_unique() == len(expected), where


def text_report(content: str, phase: str) -> str:
    match = re.search(rf"^# {phase} :: query \(-q\)$(.*?)^#{{20,}}$\n# ", content, re.DOTALL | re.MULTILINE)
    return "" if match is None else match[1]


def test_every_xml_capture_is_stored_as_it_is_written(data_root: Path) -> None:
    for path in files(data_root, "xml"):
        gpus = path.read_text().split("<gpu id=")[1:]
        batch = collected(open_capture(path))
        compare(batch, [expected_of_xml(gpu) for gpu in gpus], path.name)
        assert [trouble for trouble in batch.troubles if not trouble.place.endswith("uuid")] == [], path.name


@pytest.mark.parametrize("phase", ["idle", "load"])
def test_every_text_capture_is_stored_as_it_is_written(data_root: Path, phase: str) -> None:
    compared = 0
    for path in files(data_root, "txt"):
        written = text_report(path.read_text(), phase)
        if not written:
            continue
        gpus = re.split(r"^GPU [0-9A-Fa-f]+:.*$", written, flags=re.MULTILINE)[1:]
        batch = collected(open_capture(path, phase))
        compare(batch, [expected_of_text(gpu) for gpu in gpus], f"{path.name}, {phase}")
        assert [trouble for trouble in batch.troubles if not trouble.place.endswith("uuid")] == [], path.name
        compared += 1
    assert compared > 0


@pytest.mark.parametrize("phase", ["idle", "load"])
def test_text_captures_agree_with_the_table_that_was_taken_beside_them(data_root: Path, phase: str) -> None:
    """The query of single values is another report of the same GPUs, moments later: what stands still is equal."""
    still = {"memory.total": "memory_mib", "pcie.link.width.current": "pcie_width"}
    still |= {"ecc.errors.corrected.volatile.total": "ecc_corrected_count", "memory.reserved": "memory_reserved_mib"}
    still |= {"ecc.errors.uncorrected.aggregate.total": "ecc_uncorrected_lifetime_count"}
    for path in files(data_root, "txt"):
        table = re.search(rf"^# {phase} :: query-gpu \(.*\n.*\n#+\n((?:.+\n)+)", path.read_text(), re.MULTILINE)
        if table is None:
            continue
        head, *lines = table[1].splitlines()
        names = [re.sub(r" \[.*", "", name) for name in head.split(", ")]
        batch = collected(open_capture(path, phase))
        found = batch.frames["gpu"].join(batch.frames["gpu_sample"], on="gpu_uuid", maintain_order="left")
        for line, row in zip(lines, found.iter_rows(named=True), strict=True):
            values = dict(zip(names, line.split(", "), strict=True))
            for name, column in still.items():
                if name in values:
                    assert row[column] == number(values[name]), (path.name, name)


def test_every_mig_device_of_a_capture_is_a_slice(data_root: Path) -> None:
    seen = 0
    for path in files(data_root, "txt"):
        for phase in ("idle", "load"):
            written = text_report(path.read_text(), phase)
            devices = re.findall(r"^    MIG Device$\n((?:^ {8}.*\n)*)", written, re.MULTILINE)
            listed = re.findall(r"^  MIG (\S+) +Device +\d+: \(UUID: (\S+)\)", path.read_text(), re.MULTILINE)
            if not written:
                continue
            batch = collected(open_capture(path, phase))
            slices = batch.frames["slice"].join(batch.frames["slice_sample"], on="slice_uuid", maintain_order="left")
            assert slices.height == len(devices), path.name
            ids = [
                tuple(number(match) for match in re.findall(r"(?:GPU|Compute) Instance ID +: (\d+)", device))
                for device in devices
            ]
            assert slices.select("gpu_instance", "compute_instance").rows() == ids
            for name, column in (("Total", "memory_mib"), ("Used", "memory_used_mib")):
                # BAR1 has a total and a use too: the frame buffer stands first.
                found = [number(re.findall(rf"^ +{name} +: (.*)$", device, re.MULTILINE)[0]) for device in devices]
                assert slices[column].to_list() == found, (path.name, name)
            if listed:
                assert slices.select("profile", "slice_uuid").rows() == listed, path.name
            seen += slices.height
    if seen == 0:
        pytest.skip("no capture has MIG devices")


@pytest.mark.parametrize("ending", ["xml", "txt"])
def test_no_capture_cut_in_the_middle_gives_half_a_result(data_root: Path, tmp_path: Path, ending: str) -> None:
    for path in files(data_root, ending):
        content = path.read_bytes()
        whole = open_capture(path)
        last_values = max(content.rfind(b":: query (-q)"), content.rfind(b"</gpu>"))
        cut = tmp_path / path.name
        for offset in range(0, len(content.rstrip()), len(content) // 23 + 1):
            cut.write_bytes(content[:offset])
            found = gpus_or_refusal(cut)
            if offset > last_values and not isinstance(found, str):
                assert found == whole.gpus, (path.name, offset)
            else:
                assert isinstance(found, str), (path.name, offset)
                assert str(cut) in found, (path.name, offset)


def gpus_or_refusal(path: Path) -> tuple[CapturedGpu, ...] | str:
    try:
        return open_capture(path).gpus
    except BadTrace as error:
        return str(error)

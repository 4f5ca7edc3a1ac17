"""Captures small enough to read: both forms, masked UUIDs, absent values, and files cut anywhere."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pynvml
import pytest

from collectors.capture import Capture, open_capture
from collectors.capture_driver import driver_for
from collectors.nvml import NvmlSource
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput, BadTrace, SourceUnavailable

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ZERO_UUID = "GPU-00000000-0000-0000-0000-000000000000"

MIG_XML = """
<mig_devices>
  <mig_device>
    <index>0</index><gpu_instance_id>2</gpu_instance_id><compute_instance_id>0</compute_instance_id>
    <device_attributes><shared><multiprocessor_count>60</multiprocessor_count></shared></device_attributes>
    <ecc_error_count><volatile_count><sram_uncorrectable>0</sram_uncorrectable></volatile_count></ecc_error_count>
    <fb_memory_usage><total>40448 MiB</total><reserved>0 MiB</reserved><used>26 MiB</used></fb_memory_usage>
  </mig_device>
  <mig_device>
    <index>1</index><gpu_instance_id>9</gpu_instance_id><compute_instance_id>0</compute_instance_id>
    <fb_memory_usage><total>9984 MiB</total><reserved>0 MiB</reserved><used>0 MiB</used></fb_memory_usage>
  </mig_device>
</mig_devices>
<processes>
  <process_info><gpu_instance_id>2</gpu_instance_id><compute_instance_id>0</compute_instance_id><pid>7</pid>
    <type>C</type><process_name>train</process_name><used_memory>20 MiB</used_memory></process_info>
  <process_info><gpu_instance_id>N/A</gpu_instance_id><compute_instance_id>N/A</compute_instance_id><pid>8</pid>
    <type>G</type><process_name>Xorg</process_name><used_memory>6 MiB</used_memory></process_info>
</processes>
"""


def gpu_xml(bus_id: str = "00000000:53:00.0", uuid: str = "GPU-aaaa", mig: str = "Disabled", inside: str = "") -> str:
    util = "N/A" if mig == "Enabled" else "0 %"
    return f"""
<gpu id="{bus_id}">
  <product_name>NVIDIA H100 80GB HBM3</product_name><product_architecture>Hopper</product_architecture>
  <mig_mode><current_mig>{mig}</current_mig><pending_mig>{mig}</pending_mig></mig_mode>
  {inside}
  <serial>165</serial><uuid>{uuid}</uuid><vbios_version>96.00</vbios_version>
  <gpu_recovery_action>Drain and Reset</gpu_recovery_action>
  <pci><pci_bus_id>{bus_id}</pci_bus_id><pci_gpu_link_info><pcie_gen><current_link_gen>5</current_link_gen></pcie_gen>
    <link_widths><current_link_width>8x</current_link_width></link_widths></pci_gpu_link_info>
    <replay_counter>9</replay_counter></pci>
  <clocks_event_reasons>
    <clocks_event_reason_gpu_idle>Not Active</clocks_event_reason_gpu_idle>
    <clocks_event_reason_sw_power_cap>Active</clocks_event_reason_sw_power_cap>
    <clocks_event_reason_hw_slowdown>Not Active</clocks_event_reason_hw_slowdown>
    <clocks_event_reason_hw_power_brake_slowdown>Active</clocks_event_reason_hw_power_brake_slowdown>
  </clocks_event_reasons>
  <fb_memory_usage><total>79.5 GiB</total><reserved>479 MiB</reserved><used>0 MiB</used><free>80929 MiB</free>
  </fb_memory_usage>
  <utilization><gpu_util>{util}</gpu_util><memory_util>{util}</memory_util></utilization>
  <ecc_errors>
    <volatile><sram_correctable>N/A</sram_correctable><sram_uncorrectable_parity>1</sram_uncorrectable_parity>
      <sram_uncorrectable_secded>2</sram_uncorrectable_secded><dram_correctable>7</dram_correctable>
      <dram_uncorrectable>4</dram_uncorrectable></volatile>
    <aggregate><sram_correctable>N/A</sram_correctable><dram_correctable>N/A</dram_correctable>
      <dram_uncorrectable>40</dram_uncorrectable>
      <sram_threshold_exceeded>Yes</sram_threshold_exceeded></aggregate>
  </ecc_errors>
  <retired_pages><multiple_single_bit_retirement><retired_count>2</retired_count></multiple_single_bit_retirement>
    <double_bit_retirement><retired_count>1</retired_count></double_bit_retirement>
    <pending_retirement>Yes</pending_retirement></retired_pages>
  <remapped_rows><remapped_row_corr>3</remapped_row_corr><remapped_row_unc>1</remapped_row_unc>
    <remapped_row_pending>Yes</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
  <temperature><gpu_temp>29 C</gpu_temp><gpu_temp_tlimit>-2 C</gpu_temp_tlimit><memory_temp>N/A</memory_temp>
  </temperature>
  <gpu_power_readings><average_power_draw>[N/A]</average_power_draw><instant_power_draw>68.92 W</instant_power_draw>
    <current_power_limit>700.00 W</current_power_limit></gpu_power_readings>
  <clocks><sm_clock>345 MHz</sm_clock><mem_clock>Requested functionality has been deprecated</mem_clock></clocks>
</gpu>"""


LOST_GPU_XML = """
<gpu id="00000000:64:00.0"><product_name>GPU is lost</product_name><uuid>GPU is lost</uuid>
<fb_memory_usage><total>[GPU is lost]</total></fb_memory_usage><remapped_rows>GPU is lost</remapped_rows>
</gpu>"""


def report(*gpus: str) -> str:
    head = f"<driver_version>590.48</driver_version><attached_gpus>{len(gpus)}</attached_gpus>"
    return f'<?xml version="1.0" ?>\n<nvidia_smi_log>\n{head}{"".join(gpus)}\n</nvidia_smi_log>\n'


RULE = "#" * 80
TEXT_GPU = """
==============NVSMI LOG==============

Driver Version                                         : 590.48.01
Attached GPUs                                          : 1
GPU 00000000:00:09.0
    Product Name                                       : NVIDIA H100 80GB HBM3
    Product Architecture                               : Hopper
    MIG Mode
        Current                                        : Enabled
        Pending                                        : Enabled
    MIG Device
        Index                                          : 0
        GPU Instance ID                                : 2
        Compute Instance ID                            : 0
        ECC Errors
            Volatile
                SRAM Uncorrectable                     : 0
        Shared FB Memory Usage
            Total                                      : 40448 MiB
            Reserved                                   : 0 MiB
            Used                                       : {used} MiB
    Serial Number                                      : 0000000000000
    GPU UUID                                           : GPU-00000000-0000-0000-0000-000000000000
    GPU Recovery Action                                : None
    PCI
        Bus Id                                         : 00000000:00:09.0
        GPU Link Info
            PCIe Generation
                Max                                    : 5
                Current                                : 4
            Link Width
                Max                                    : 16x
                Current                                : 16x
        Replays Since Reset                            : 0
    Clocks Event Reasons
        Idle                                           : Active
        HW Slowdown                                    : Not Active
            HW Thermal Slowdown                        : Active
    FB Memory Usage
        Total                                          : 81559 MiB
        Reserved                                       : 479 MiB
        Used                                           : {used} MiB
        Free                                           : 81022 MiB
    Utilization
        GPU                                            : N/A
        Memory                                         : N/A
    ECC Errors
        Volatile
            SRAM Correctable                           : 0
            DRAM Correctable                           : 5
            DRAM Uncorrectable                         : 0
        Aggregate
            SRAM Threshold Exceeded                    : No
    Remapped Rows                                      : N/A
    Temperature
        GPU Current Temp                               : 42 C
        GPU T.Limit Temp                               : 45 C
        Memory Current Temp                            : 48 C
    GPU Power Readings
        Average Power Draw                             : 71.27 W
        Instantaneous Power Draw                       : 72.63 W
        Current Power Limit                            : 700.00 W
    Clocks
        SM                                             : 345 MHz
        Memory                                         : 2619 MHz
    Processes{processes}
    Capabilities
        EGM                                            : disabled
"""
TEXT_PROCESSES = """
        GPU instance ID                   : 2
        Compute instance ID               : 0
        Process ID                        : 21180
            Type                          : C
            Name                          : /bin/a : b
            Used GPU Memory               : 2296 MiB"""
TEXT_LIST = f"""GPU 0: NVIDIA H100 80GB HBM3 (UUID: {ZERO_UUID})
  MIG 3g.40gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-000000000000)
"""
TEXT_LINKS = "GPU 0: NVIDIA H100 80GB HBM3\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n"
MONITOR = "# gpu    pwr\n# Idx      W\n    0     70\n    0     70\n"


def block(phase: str, title: str, content: str, command: str = "nvidia-smi") -> str:
    return f"{RULE}\n# {phase} :: {title}\n# $ {command}\n{RULE}\n{content}\n\n"


def text_capture(*, load: bool = True) -> str:
    """Write a text capture as the exporter does; like some real ones it ends with the monitor of the last phase."""
    head = f"{RULE}\n# GPU capture\n{RULE}\nload:           {'gpu-burn' if load else 'none'}\n\n\n"
    phases = [("idle", 59, " : None"), *([("load", 11125, TEXT_PROCESSES)] if load else [])]
    return (
        head
        + block("capabilities", "list (-L)", TEXT_LIST)
        + block("capabilities", "nvlink -s", TEXT_LINKS)
        + "".join(
            block(phase, "query (-q)", TEXT_GPU.format(used=used, processes=processes))
            + block(phase, "dmon (per-device monitor)", MONITOR)
            for phase, used, processes in phases
        ).rstrip("\n")
        + "\n"
    )


@pytest.fixture(autouse=True)
def _pynvml_untouched() -> Iterator[None]:
    before = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache))
    yield
    assert (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)) == before


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(content: str) -> Path:
        path = tmp_path / "capture"
        path.write_bytes(content.encode())
        return path

    return write_file


def collected(capture: Capture) -> Batch:
    source = NvmlSource(FixedClock(NOW), "c1", "n1", driver_for(capture))
    batches = list(source.collect(None, NOW))
    source.close()
    assert len(batches) == 1
    return batches[0].checked()


def only_row(frame: pl.DataFrame) -> dict[str, object]:
    assert frame.height == 1
    return frame.row(0, named=True)


def test_every_reading_of_an_xml_report_reaches_its_column(write: Callable[[str], Path]) -> None:
    batch = collected(open_capture(write(report(gpu_xml()))))

    sample = {name: value for name, value in only_row(batch.frames["gpu_sample"]).items() if value is not None}
    assert sample == {
        "gpu_uuid": "GPU-aaaa",
        "ts": NOW,
        "utilization": 0.0,
        "memory_utilization": 0.0,
        "memory_used_mib": 0,
        "memory_reserved_mib": 479,
        "power_w": pytest.approx(68.92),
        "temperature_c": 29.0,
        "thermal_margin_c": -2.0,
        "sm_clock_mhz": 345,
        "clock_event_bits": 0x4 | 0x80,
        "ecc_corrected_count": 7,
        "ecc_uncorrected_count": 7,
        "ecc_uncorrected_lifetime_count": 40,
        "rows_remapped_corrected_count": 3,
        "rows_remapped_uncorrected_count": 1,
        "is_remap_pending": True,
        "is_remap_failed": False,
        "ecc_dram_corrected_count": 7,
        "ecc_dram_uncorrected_count": 4,
        "ecc_dram_uncorrected_lifetime_count": 40,
        "ecc_sram_uncorrected_count": 3,
        "is_sram_threshold_exceeded": True,
        "retired_page_count": 3,
        "is_page_retirement_pending": True,
        "pcie_generation": 5,
        "pcie_width": 8,
        "pcie_replay_count": 9,
        "recovery_action": 4,
    }
    gpu = {name: value for name, value in only_row(batch.frames["gpu"]).items() if value is not None}
    assert gpu == {
        "gpu_uuid": "GPU-aaaa",
        "uuid": "GPU-aaaa",
        "cluster": "c1",
        "node": "n1",
        "gpu_index": 0,
        "model": "NVIDIA H100 80GB HBM3",
        "architecture": "Hopper",
        "memory_mib": 81408,
        "power_limit_w": 700.0,
        "pci_bus_id": "00000000:53:00.0",
        "serial": "165",
        "vbios": "96.00",
        "driver": "590.48",
        "mig_enabled": False,
        "last_seen_at": NOW,
    }
    assert only_row(batch.frames["node"])["gpus"] == 1
    assert batch.troubles == ()


def test_mig_devices_of_an_xml_report_become_slices_and_utilization_stays_unknown(
    write: Callable[[str], Path],
) -> None:
    batch = collected(open_capture(write(report(gpu_xml(mig="Enabled", inside=MIG_XML), LOST_GPU_XML))))

    slices = batch.frames["slice"].select("slice_uuid", "gpu_uuid", "gpu_instance", "memory_mib", "profile").rows()
    assert slices == [
        ("MIG-GPU-aaaa/2/0", "GPU-aaaa", 2, 40448, None),
        ("MIG-GPU-aaaa/9/0", "GPU-aaaa", 9, 9984, None),
    ]
    samples = batch.frames["slice_sample"].select("slice_uuid", "memory_used_mib", "process_count").rows()
    assert samples == [("MIG-GPU-aaaa/2/0", 26, 1), ("MIG-GPU-aaaa/9/0", 0, 0)]
    sample = only_row(batch.frames["gpu_sample"])
    assert (sample["utilization"], sample["memory_utilization"]) == (None, None)
    assert (sample["memory_used_mib"], sample["process_count"]) == (0, 1)


def test_a_lost_gpu_in_a_report_is_an_event_and_takes_no_other_gpu_with_it(write: Callable[[str], Path]) -> None:
    batch = collected(open_capture(write(report(gpu_xml(), LOST_GPU_XML))))

    event = only_row(batch.frames["event"])
    assert (event["kind"], event["pci_bus_id"], event["gpu_uuid"]) == ("gpu_lost", "00000000:64:00.0", None)
    assert batch.frames["gpu"]["uuid"].to_list() == ["GPU-aaaa"]
    assert only_row(batch.frames["node"])["gpus"] == 2


@pytest.mark.parametrize(
    ("phase", "used_mib", "process_count"), [("idle", 59, 0), ("load", 11125, 1)], ids=["idle", "load"]
)
def test_a_text_capture_gives_the_phase_that_was_asked_for(
    write: Callable[[str], Path], phase: str, used_mib: int, process_count: int
) -> None:
    batch = collected(open_capture(write(text_capture()), phase))

    sample = {name: value for name, value in only_row(batch.frames["gpu_sample"]).items() if value is not None}
    assert sample == {
        "gpu_uuid": ZERO_UUID,
        "ts": NOW,
        "memory_used_mib": used_mib,
        "memory_reserved_mib": 479,
        "power_w": pytest.approx(71.27),
        "temperature_c": 42.0,
        "memory_temperature_c": 48.0,
        "thermal_margin_c": 45.0,
        "sm_clock_mhz": 345,
        "memory_clock_mhz": 2619,
        "clock_event_bits": 0x1 | 0x40,
        "ecc_corrected_count": 5,
        "ecc_uncorrected_count": 0,
        "ecc_dram_corrected_count": 5,
        "ecc_dram_uncorrected_count": 0,
        "ecc_sram_corrected_count": 0,
        "is_sram_threshold_exceeded": False,
        "pcie_generation": 4,
        "pcie_width": 16,
        "pcie_replay_count": 0,
        "nvlink_active_count": 1,
        "recovery_action": 0,
        "process_count": process_count,
    }
    slice_ = only_row(batch.frames["slice"])
    assert (slice_["slice_uuid"], slice_["profile"], slice_["compute_slices"], slice_["compute_instance"]) == (
        "MIG-00000000-0000-0000-0000-000000000000",
        "3g.40gb",
        3,
        0,
    )
    slice_sample = only_row(batch.frames["slice_sample"])
    assert (slice_sample["memory_used_mib"], slice_sample["process_count"]) == (used_mib, process_count)


def test_a_text_capture_without_load_gives_idle_and_refuses_load(write: Callable[[str], Path]) -> None:
    path = write(text_capture(load=False))

    assert len(open_capture(path).gpus) == 1
    with pytest.raises(BadTrace, match="there is no block 'load :: query"):
        open_capture(path, "load")


def test_windows_line_ends_make_no_difference(write: Callable[[str], Path]) -> None:
    plain = open_capture(write(text_capture())).gpus
    assert open_capture(write(text_capture().replace("\n", "\r\n"))).gpus == plain


@pytest.mark.parametrize(
    "uuids",
    [(ZERO_UUID, ZERO_UUID, "GPU-own"), ("N/A", "N/A", "GPU-own"), ("", ZERO_UUID, ZERO_UUID)],
    ids=["masked with zeros", "not given", "mixed"],
)
def test_gpus_that_share_a_masked_uuid_stay_apart_and_it_is_told(
    write: Callable[[str], Path], uuids: tuple[str, ...]
) -> None:
    gpus = [gpu_xml(f"00000000:{bus}:00.0", uuid) for bus, uuid in zip(("53", "64", "75"), uuids, strict=True)]
    batch = collected(open_capture(write(report(*gpus))))
    again = collected(open_capture(write(report(*gpus))))

    found = batch.frames["gpu"]["uuid"].to_list()
    assert len(set(found)) == 3
    assert found == again.frames["gpu"]["uuid"].to_list()
    assert [uuid for uuid in found if uuid == "GPU-own"] == [uuid for uuid in uuids if uuid == "GPU-own"]
    assert batch.frames["gpu_sample"]["gpu_uuid"].to_list() == found
    renamed = sum(uuid != "GPU-own" for uuid in uuids)
    assert [(trouble.kind, trouble.row_count) for trouble in batch.troubles] == [("rejected", renamed)]


def test_mig_devices_of_two_gpus_with_one_masked_uuid_stay_apart(write: Callable[[str], Path]) -> None:
    gpus = [gpu_xml(f"00000000:{bus}:00.0", ZERO_UUID, "Enabled", MIG_XML) for bus in ("53", "64")]
    batch = collected(open_capture(write(report(*gpus))))

    assert batch.frames["slice"]["slice_uuid"].n_unique() == 4
    assert batch.frames["slice"]["gpu_uuid"].n_unique() == 2


def test_one_masked_gpu_keeps_its_uuid_without_trouble(write: Callable[[str], Path]) -> None:
    capture = open_capture(write(report(gpu_xml(uuid=ZERO_UUID))))
    assert (capture.gpus[0].uuid, capture.troubles) == (ZERO_UUID, ())


def test_a_report_of_fewer_gpus_than_are_attached_says_so(write: Callable[[str], Path]) -> None:
    content = report(gpu_xml()).replace("<attached_gpus>1<", "<attached_gpus>8<")
    batch = collected(open_capture(write(content)))
    assert [trouble.reason for trouble in batch.troubles] == ["8 GPUs are attached and the capture tells of 1"]


def test_reserved_memory_is_unknown_where_an_older_driver_does_not_tell_it(write: Callable[[str], Path]) -> None:
    content = report(gpu_xml()).replace("<reserved>479 MiB</reserved>", "")
    sample = only_row(collected(open_capture(write(content))).frames["gpu_sample"])
    assert (sample["memory_used_mib"], sample["memory_reserved_mib"]) == (0, None)


@pytest.mark.parametrize(
    ("written", "temperature_c", "trouble_count"),
    [
        ("N/A", None, 0),
        ("[N/A]", None, 0),
        ("[Not Supported]", None, 0),
        ("Requested functionality has been deprecated", None, 0),
        ("Function Not Found", None, 0),
        ("Insufficient Permissions", None, 1),
        ("[Unknown Error]", None, 1),
        ("ERR!", None, 1),
        ("some new words", None, 1),
        ("0 C", 0.0, 0),
        ("29", None, -1),
        ("29 F", None, -1),
        ("2 9 C", None, -1),
    ],
)
def test_a_reading_is_a_number_or_absent_or_refused(
    write: Callable[[str], Path], written: str, temperature_c: float | None, trouble_count: int
) -> None:
    path = write(report(gpu_xml().replace("<gpu_temp>29 C<", f"<gpu_temp>{written}<")))
    if trouble_count < 0:
        with pytest.raises(BadTrace, match=r"capture, line \d+, temperature_c"):
            open_capture(path)
        return
    batch = collected(open_capture(path))
    assert only_row(batch.frames["gpu_sample"])["temperature_c"] == temperature_c
    assert len(batch.troubles) == trouble_count


def test_a_recovery_action_nobody_knows_is_not_read_as_none(write: Callable[[str], Path]) -> None:
    batch = collected(open_capture(write(report(gpu_xml()).replace("Drain and Reset", "Replace the rack"))))
    assert only_row(batch.frames["gpu_sample"])["recovery_action"] is None
    assert len(batch.troubles) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "neither the XML"),
        ("hello\n", "neither the XML"),
        ("<?xml version='1.0'?><other/>", "not the <nvidia_smi_log>"),
        ("<nvidia_smi_log></nvidia_smi_log>", "no GPU in it"),
        (f"{RULE}\n# nothing else\n", "cut off after"),
    ],
    ids=["empty", "prose", "other XML", "no GPU", "heading only"],
)
def test_a_file_that_is_something_else_is_refused(write: Callable[[str], Path], content: str, words: str) -> None:
    with pytest.raises(BadTrace, match=words) as caught:
        open_capture(write(content))
    assert caught.value.place is not None


def test_a_report_without_any_attached_gpu_is_whole_and_empty(write: Callable[[str], Path]) -> None:
    batch = collected(open_capture(write(report())))
    assert (batch.frames["gpu"].height, only_row(batch.frames["node"])["gpus"]) == (0, 0)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(text_capture().encode().replace(b"Hopper", b"\xff\xfe"))
    with pytest.raises(BadTrace, match=r"line \d+: not UTF-8"):
        open_capture(path)


def test_a_missing_file_and_an_unknown_phase_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="can't be read"):
        open_capture(tmp_path / "none")
    with pytest.raises(BadInput, match="neither idle nor load"):
        open_capture(tmp_path / "none", "warm")


def test_an_xml_entity_reads_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    content = report(gpu_xml(uuid="GPU-&s;")).replace("?>", f'?>\n<!DOCTYPE x [<!ENTITY s SYSTEM "{secret}">]>', 1)
    path = tmp_path / "capture"
    path.write_text(content)
    assert "secret" not in str(open_capture(path).gpus)


CUTS = {"xml": report(gpu_xml(mig="Enabled", inside=MIG_XML), LOST_GPU_XML), "text": text_capture()}


def cut_places(content: bytes, remainder: int) -> list[int]:
    """Return a quarter of the places to cut at: every fifth byte, and every end of a line."""
    line_ends = [at + 1 for at, byte in enumerate(content.rstrip()) if byte == ord("\n")]
    return [*range(remainder * 5, len(content.rstrip()), 20), *line_ends[remainder::4]]


@pytest.mark.parametrize("content", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("remainder", range(4))
def test_a_capture_cut_anywhere_is_refused(write: Callable[[str], Path], content: str, remainder: int) -> None:
    encoded = content.encode()
    for offset in cut_places(encoded, remainder):
        path = write(encoded[:offset].decode())
        with pytest.raises(BadTrace) as caught:
            open_capture(path)
        assert str(path) in str(caught.value), offset
        assert caught.value.place is not None, offset
    assert open_capture(write(content)).gpus


@pytest.mark.parametrize("remainder", range(4))
def test_a_capture_whose_end_nothing_marks_never_gives_half_a_result(
    write: Callable[[str], Path], remainder: int
) -> None:
    content = text_capture(load=False).encode()
    whole = open_capture(write(content.decode())).gpus
    monitor = content.index(b"idle :: dmon")
    for offset in cut_places(content, remainder):
        path = write(content[:offset].decode())
        if offset < monitor:
            with pytest.raises(BadTrace):
                open_capture(path)
        else:  # only lines of the monitor, which is not read, can be missing
            assert _gpus_or_refusal(path) in (whole, None)


def _gpus_or_refusal(path: Path) -> object:
    try:
        return open_capture(path).gpus
    except BadTrace:
        return None

"""Every public spelling of an XID line is read, whatever wrote the log, and nothing crashes the reader."""

import csv
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.kernel_events import Device, Devices, KernelEvents, LogPlace
from collectors.kernel_lines import Told, pci_address, read_identity, read_message
from collectors.kernel_records import Record, read_lines, read_text
from fleet.tables import EVENT

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BOOT = datetime(2026, 3, 1, tzinfo=UTC)
XID = "NVRM: Xid (PCI:0000:9b:00): 119, pid=7, name=x, Timeout"


def labelled(root: Path) -> list[dict[str, str]]:
    files = [file for file in sorted((root / "nvidia").glob("*.csv")) if "expected_xid" in file.read_text()[:200]]
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    if not rows:
        pytest.skip("no labelled log lines in the data")
    return rows


def test_every_labelled_line_is_read_as_its_label_says(data_root: Path) -> None:
    wrong = []
    for row in labelled(data_root):
        told = read_message(read_text(row["line"], NOW).text)
        found = ("none" if told is None else str(told.code), None if told is None else told.pci)
        if found[0] != row["expected_xid"] or (row["expected_pci"] and found[1] != row["expected_pci"]):
            wrong.append((row["line"], found))
    assert wrong == []


def test_every_labelled_line_with_a_code_has_an_address(data_root: Path) -> None:
    told = [read_message(row["line"]) for row in labelled(data_root)]
    assert [each for each in told if each is not None and each.pci is None] == []


def test_recorded_logs_give_every_xid_in_them_with_its_own_time(data_root: Path) -> None:
    logs = sorted((data_root / "captures" / "kmsg").glob("*.log"))
    if not logs:
        pytest.skip("no recorded kernel logs in the data")
    for log in logs:
        lines = log.read_text().splitlines(keepends=True)
        expected = {int(code) for code in re.findall(r"Xid \([^)]*\): (\d+)", "".join(lines))}
        events = KernelEvents(LogPlace("c", "n", "kmsg", BOOT), lambda _node: {})
        for record in read_lines(lines, NOW):
            events.take(record)
        frame = events.frame()
        assert set(frame.filter(frame["kind"] == "xid").get_column("code")) == expected
        assert events.troubles() == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("NVRM: Xid (0007:00): 13, 0001", ("xid", 13, "0000:07:00", None, None)),
        ("NVRM: Xid (PCI:0000:41:00 GPU-I:03 GPU-CI:00): 43, pid=2", ("xid", 43, "0000:41:00", 3, 2)),
        ("NVRM: Xid (PCI:0000:41:00 GPU-I:03): 94", ("xid", 94, "0000:41:00", 3, None)),
        ("NVRM: Xid (PCI:00000008:B5:00.0): 79", ("xid", 79, "0008:b5:00", None, None)),
        ("NVRM: Xid (PCI:0000:b5:00) 62 no colon", ("xid", 62, "0000:b5:00", None, None)),
        ("NVRM: GPU at 0000:03:00.0 has fallen off the bus.", ("xid", 79, "0000:03:00", None, None)),
        ("NVRM: fallen off the bus and is not responding", ("xid", 79, None, None, None)),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46",
            ("sxid", 28006, "0000:c1:00", None, None),
        ),
        ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 00012, Fatal", ("sxid", 12, "0000:c1:00", None, None)),
    ],
)
def test_spellings_of_drivers_old_and_new(line: str, told: tuple[object, ...]) -> None:
    found = read_message(line)
    assert found is not None
    assert (found.kind, found.code, found.pci, found.gpu_instance, found.pid) == told


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal",
        "NVRM: Xid",
        "NVRM: Xid (PCI:0000:c1:00.0): ",
        "NVRM: Xid (PCI:0000:c1:00.0): 99999999999999",
        "NVRM: Xid (somewhere): 79",
        "the cat has fallen off the bus",
        "nvidia-nvswitch2: open (major=510)",
        "",
    ],
)
def test_a_line_without_a_code_tells_none(line: str) -> None:
    assert read_message(line) is None


TIMES = {
    "dmesg -T": ("[Mon Mar  2 09:30:00 2026] ", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
    "dmesg iso": ("2026-03-02T09:30:00,250000+01:00 ", datetime(2026, 3, 2, 8, 30, 0, 250_000, tzinfo=UTC)),
    "dmesg -x iso": (
        "kern  :warn  : 2026-03-02T09:30:00,5+00:00 ",
        datetime(2026, 3, 2, 9, 30, 0, 500_000, tzinfo=UTC),
    ),
    "journal short-iso": ("2026-03-02T09:30:00-0500 node7 kernel: ", datetime(2026, 3, 2, 14, 30, tzinfo=UTC)),
    "journal short-full": ("Mon 2026-03-02 09:30:00 UTC node7 kernel: ", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
    "syslog": ("Mar  2 09:30:00 node7 kernel: [  12.345678] ", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
    "syslog of last year": ("Dec 31 23:59:59 node7 kernel: ", datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)),
    "29 February": ("Feb 29 00:00:00 node7 kernel: ", datetime(2024, 2, 29, tzinfo=UTC)),
    "short-unix": ("1772443800.250000 node7 kernel: ", datetime(2026, 3, 2, 9, 30, 0, 250_000, tzinfo=UTC)),
    "RFC 5424": (
        "<4>1 2026-03-02T09:30:00.5Z node7 kernel - - - ",
        datetime(2026, 3, 2, 9, 30, 0, 500_000, tzinfo=UTC),
    ),
    "no time": ("", None),
    "impossible time": ("[Mon Feb 31 09:30:00 2026] ", None),
}


@pytest.mark.parametrize(("head", "moment"), TIMES.values(), ids=TIMES)
def test_the_time_of_a_line_is_read_as_it_was_written(head: str, moment: datetime | None) -> None:
    record = read_text(head + XID, NOW)
    assert (record.ts, record.text, record.is_kernel) == (moment, XID, True)


def test_seconds_since_boot_count_from_the_boot() -> None:
    assert rows_of(f"[ 3600.500000] {XID}")[0]["ts"] == BOOT + timedelta(seconds=3600.5)
    assert rows_of(f"4,17,3600500000,-;{XID}")[0]["ts"] == BOOT + timedelta(seconds=3600.5)


def test_a_line_without_any_time_is_rejected_and_counted_not_dated_by_guess() -> None:
    events = KernelEvents(LogPlace("c", "n", "kmsg"), lambda _node: {})
    for line in (XID, f"[ 12.345678] {XID}"):
        events.take(read_text(line, NOW))
    assert events.frame().height == 0
    assert [(trouble.kind, trouble.row_count) for trouble in events.troubles()] == [("rejected", 2)]


@pytest.mark.parametrize(
    "line",
    [
        f"12,17,1000000,-;{XID}",
        f"<12>[   1.000000] {XID}",
        f"user  :warn  : [   1.000000] {XID}",
        '{"SYSLOG_FACILITY":"1","__REALTIME_TIMESTAMP":"1772443800000000","MESSAGE":"' + XID + '"}',
        '{"_TRANSPORT":"syslog","__REALTIME_TIMESTAMP":"1772443800000000","MESSAGE":"' + XID + '"}',
    ],
    ids=["kmsg", "raw text", "decoded text", "journal facility", "journal transport"],
)
def test_what_a_program_wrote_into_the_log_is_not_believed(line: str) -> None:
    events = KernelEvents(LogPlace("c", "n", "kmsg", BOOT), lambda _node: {})
    for record in read_lines([line], NOW):
        events.take(record)
    assert events.frame().height == 0
    assert [trouble.kind for trouble in events.troubles()] == ["noticed"]


def rows_of(*lines: str, devices: Devices | None = None, node: str | None = "n") -> list[dict[str, object]]:
    events = KernelEvents(LogPlace("c", node, "kmsg", BOOT, "here"), lambda _node: devices or {})
    for record in read_lines(lines, NOW):
        events.take(record)
    return events.frame().to_dicts()


def test_the_journals_json_and_export_forms_give_the_same_event() -> None:
    fields = {
        "__CURSOR": "s=1;i=2",
        "__REALTIME_TIMESTAMP": "1772443800250000",
        "_HOSTNAME": "node7",
        "_TRANSPORT": "kernel",
        "SYSLOG_FACILITY": "0",
        "MESSAGE": XID,
    }
    quoted = ",".join(f'"{name}":"{value}"' for name, value in fields.items())
    octets = quoted.replace(f'"{XID}"', str(list(XID.encode())))
    export = [*(f"{name}={value}\n" for name, value in fields.items()), "\n"]
    (one,), (other,), (third,) = (
        rows_of(*lines, node=None) for lines in ([f"{{{quoted}}}"], [f"{{{octets}}}"], export)
    )
    assert one == other == third
    assert (one["node"], one["ts"]) == ("node7", datetime(2026, 3, 2, 9, 30, 0, 250_000, tzinfo=UTC))


def test_a_record_without_a_host_is_of_this_one() -> None:
    assert rows_of(f"[Mon Mar  2 09:30:00 2026] {XID}", node=None)[0]["node"] == "here"


def test_a_gpu_that_fell_off_the_bus_in_three_lines_is_one_event_with_its_address() -> None:
    (row,) = rows_of(
        "[ 10.000000] NVRM: The NVIDIA GPU 0000:18:00.0",
        "[ 10.000001] NVRM: (PCI ID: 10de:20b2) installed in this system has",
        "[ 10.000002] NVRM: fallen off the bus and is not responding to commands.",
    )
    assert (row["code"], row["pci_bus_id"]) == (79, "0000:18:00")
    (again,) = rows_of(
        r"4,9,10000000,-;NVRM: The NVIDIA GPU 0000:18:00.0\x0aNVRM: (PCI ID: 10de:20b2) installed in this system has"
        r"\x0aNVRM: fallen off the bus and is not responding to commands."
    )
    assert (again["code"], again["pci_bus_id"]) == (79, "0000:18:00")


def test_a_gpu_named_long_before_has_not_fallen_for_it() -> None:
    lines = ["[ 10.000000] NVRM: The NVIDIA GPU 0000:18:00.0"]
    lines += [f"[ 1{number}.000000] NVRM: loading" for number in range(5)]
    (row,) = rows_of(*lines, "[ 19.000000] NVRM: fallen off the bus and is not responding to commands.")
    assert row["pci_bus_id"] is None


def test_lines_of_one_gpu_and_code_within_two_seconds_are_one_event_that_keeps_every_different_line() -> None:
    lines = [f"[ 10.{number:06d}] NVRM: Xid (PCI:0000:38:00): 13, GPC {number % 3}" for number in range(6)]
    lines += [
        "[ 10.000007] NVRM: Xid (PCI:0000:39:00): 13, GPC 0",
        "[ 12.100000] NVRM: Xid (PCI:0000:38:00): 13, GPC 9",
    ]
    rows = rows_of(*lines)
    assert [row["pci_bus_id"] for row in rows] == ["0000:38:00", "0000:39:00", "0000:38:00"]
    assert str(rows[0]["message"]).count("\n") == 2


def test_two_slices_of_one_gpu_are_two_events_each_of_its_own() -> None:
    lines = [f"[ 10.00000{number}] NVRM: Xid (PCI:0000:38:00 GPU-I:0{number}): 94, x" for number in (1, 2, 3)]
    rows = rows_of(*lines, devices={"0000:38:00": Device("GPU-1", {1: "MIG-1", 2: "MIG-2"})})
    assert [(row["gpu_uuid"], row["slice_uuid"], row["gpu_instance"]) for row in rows] == [
        ("GPU-1", "MIG-1", 1),
        ("GPU-1", "MIG-2", 2),
        ("GPU-1", None, 3),
    ]


def test_the_log_itself_says_which_uuid_an_address_is() -> None:
    uuid = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
    (row,) = rows_of(f"[ 10.000000] NVRM: GPU at PCI:0000:9b:00: {uuid}", f"[ 10.000001] {XID}")
    assert row["gpu_uuid"] == uuid
    assert read_identity(f"NVRM: GPU at PCI:0000:9b:00: {uuid}") == ("0000:9b:00", uuid)


def test_the_kernels_first_words_are_a_boot() -> None:
    (row,) = rows_of("[    0.000000] Linux version 6.8.0-45-generic (builder@host)")
    assert (row["kind"], row["ts"]) == ("boot", BOOT)


def test_an_address_is_one_however_it_is_written() -> None:
    written = ("00000000:9B:00.0", "0000:9b:00", "PCI:0000:9b:00.0", "pci@0000:9b:00.0")
    assert {pci_address(text) for text in written} == {"0000:9b:00"}
    assert pci_address("none") is None


# What a hostile or damaged log may hold: our own words, cut up and mixed with anything.
pieces = st.sampled_from(
    ["NVRM: ", "Xid ", "(PCI:", "0000:9b:00", "GPU-I:", "99999999999", "): ", "79", "SXid", "{", '"MESSAGE":', "[", "]",
     "\\x0a", "\n", "\r", "4,1,2,-;", "9" * 30, "__CURSOR=", "MESSAGE=", "Feb 31 ", "2026-02-30T25:61:61", ",", "\x00",
     "fallen off the bus", "NVRM: The NVIDIA GPU ", "<4>", "user :warn : ", "٣", "1772443800.250000 "]
)  # fmt: skip
logs = st.lists(st.one_of(st.text(max_size=20), st.lists(pieces, max_size=12).map("".join)), max_size=6)


def read_whatever(lines: list[str], boot_at: datetime | None) -> None:
    events = KernelEvents(LogPlace("c", "n", "kmsg", boot_at), lambda _node: {})
    for record in read_lines(lines, NOW):
        assert isinstance(record, Record)
        events.take(record)
    frame = events.frame()
    assert frame.schema == EVENT.schema("wire")
    assert frame.get_column("ts").null_count() == 0


@settings(max_examples=2_000)
@given(logs, st.sampled_from([None, BOOT]))
def test_no_log_crashes_the_reader(lines: list[str], boot_at: datetime | None) -> None:
    read_whatever(lines, boot_at)


@pytest.mark.slow
@settings(max_examples=98_000)
@given(logs, st.sampled_from([None, BOOT]))
def test_no_log_crashes_the_reader_in_many_more_tries(lines: list[str], boot_at: datetime | None) -> None:
    read_whatever(lines, boot_at)


@given(st.integers(0, 2**31 - 1), st.integers(0, 65535), st.integers(0, 255), st.integers(0, 31))
def test_what_a_driver_writes_is_read_back(code: int, domain: int, bus: int, device: int) -> None:
    told = read_message(f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, x")
    assert told is not None
    assert (told.code, told.pci) == (code, f"{domain:04x}:{bus:02x}:{device:02x}")
    assert isinstance(told, Told)

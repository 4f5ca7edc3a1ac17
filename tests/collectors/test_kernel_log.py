"""The kernel log as a source: nothing twice, nothing missed, across restarts, reboots and a ring that runs over."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from collectors.kernel_device import DEVICE, Boot, Kmsg, open_kmsg, read_boot
from collectors.kernel_events import Device
from collectors.kernel_log import KernelLogSource, devices_of
from collectors.nvml_rows import NodeMemory
from fleet.batch import Batch
from fleet.clock import FixedClock, SystemClock
from fleet.errors import SourceUnavailable
from fleet.tables import EVENT
from steward.config import Settings
from steward.kernel_log import known_devices, open_kernel_log
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BOOT_AT = NOW - timedelta(days=1)


class FakeRing:
    """The kernel's ring: records by number; a hole before one is what was overwritten."""

    def __init__(self) -> None:
        self.records: dict[int, str] = {}
        self.read_until = -1
        self.opened = 0
        self.closed = 0

    def log(self, second: float, text: str, priority: int = 4) -> None:
        number = max(self.records, default=-1) + 1
        self.records[number] = f"{priority},{number},{int(second * 1e6)},-;{text}\n SUBSYSTEM=pci\n"

    def overwrite(self, count: int) -> None:
        for number in sorted(self.records)[:count]:
            del self.records[number]

    def open(self, _path: Path) -> "FakeRing":
        self.opened += 1
        self.read_until = -1
        return self

    def read(self) -> str | None:
        following = [number for number in sorted(self.records) if number > self.read_until]
        if not following:
            return None
        if self.read_until >= 0 and following[0] > self.read_until + 1:
            self.read_until = following[0] - 1
            raise BrokenPipeError
        self.read_until = following[0]
        return self.records[following[0]]

    def close(self) -> None:
        self.closed += 1


def xid(code: int, bus: str = "9b") -> str:
    return f"NVRM: Xid (PCI:0000:{bus}:00): {code}, pid=1, name=x"


@pytest.fixture
def ring() -> FakeRing:
    return FakeRing()


@pytest.fixture
def source_of(ring: FakeRing, clock: FixedClock) -> Callable[..., KernelLogSource]:
    def make(store: Store | None = None, boot_id: str = "one", boot_at: datetime = BOOT_AT) -> KernelLogSource:
        return KernelLogSource(
            clock,
            "c1",
            "n1",
            Path(os.devnull),  # a character device, as the ring is
            devices=lambda _node: {"0000:9b:00": Device("GPU-1", {3: "MIG-3"})},
            cursor=None if store is None else lambda: store.cursor("kmsg"),
            open_ring=ring.open,
            boot=lambda _clock: Boot(boot_id, boot_at),
        )

    return make


@pytest.fixture
def store(clock: FixedClock) -> Iterator[Store]:
    with Store.open(None, clock=clock) as opened:
        yield opened


def collected(source: KernelLogSource) -> Batch:
    (batch,) = source.collect(None, NOW)
    return batch


def codes(batch: Batch) -> list[int]:
    events = batch.frames["event"]
    return events.filter(pl.col("kind") == "xid").get_column("code").to_list()


def test_a_record_becomes_an_event_of_its_gpu_at_its_own_second(
    ring: FakeRing, source_of: Callable[..., KernelLogSource]
) -> None:
    ring.log(3600, "NVRM: loading")
    ring.log(7200.5, "NVRM: Xid (PCI:0000:9b:00 GPU-I:03): 94, pid=1")
    event = collected(source_of()).frames["event"].filter(pl.col("kind") == "xid").to_dicts()
    assert event == [
        {
            "ts": BOOT_AT + timedelta(seconds=7200.5),
            "cluster": "c1",
            "node": "n1",
            "gpu_uuid": "GPU-1",
            "slice_uuid": "MIG-3",
            "kind": "xid",
            "code": 94,
            "pci_bus_id": "0000:9b:00",
            "gpu_instance": 3,
            "message": "NVRM: Xid (PCI:0000:9b:00 GPU-I:03): 94, pid=1",
            "source": "kmsg",
        }
    ]


def test_what_was_read_is_not_read_again_and_the_ring_is_opened_once(
    ring: FakeRing, source_of: Callable[..., KernelLogSource]
) -> None:
    source = source_of()
    ring.log(10, xid(13))
    assert codes(collected(source)) == [13]
    assert codes(collected(source)) == []
    ring.log(20, xid(31))
    assert codes(collected(source)) == [31]
    assert ring.opened == 1
    source.close()
    assert ring.closed == 1


def test_a_restart_goes_on_behind_the_last_record_that_was_stored(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store
) -> None:
    for code in (13, 31):
        ring.log(code, xid(code))
        for batch in source_of(store).collect(None, NOW):
            store.append(batch)
    ring.log(79, xid(79))
    restarted = collected(source_of(store))
    assert codes(restarted) == [79]
    assert restarted.troubles == ()


def test_a_batch_that_could_not_be_stored_is_given_again(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store
) -> None:
    source = source_of(store)
    ring.log(13, xid(13))
    assert codes(collected(source)) == [13]
    ring.log(31, xid(31))
    assert codes(collected(source)) == [13, 31]


def test_a_batch_that_a_sink_refused_is_given_again(ring: FakeRing, source_of: Callable[..., KernelLogSource]) -> None:
    source = source_of()
    ring.log(13, xid(13))
    assert codes(next(source.collect(None, NOW))) == [13]  # and then the reader died
    assert codes(collected(source)) == [13]


def test_reading_everything_again_stores_nothing_twice(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store
) -> None:
    ring.log(13, xid(13))
    for late_s in (0.0, 0.4, -0.4):  # the time of the boot is made out anew, and never quite the same
        store.append(collected(source_of(boot_at=BOOT_AT + timedelta(seconds=late_s))))
    assert store.read("event").get_column("kind").sort().to_list() == ["boot", "xid"]


def test_another_boot_starts_from_the_first_record_and_is_an_event(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store
) -> None:
    for number in range(5):
        ring.log(10 * number, xid(13))
    store.append(collected(source_of(store)))
    ring.records.clear()
    ring.log(5, xid(79))
    later = BOOT_AT + timedelta(hours=20)
    batch = collected(source_of(store, boot_id="two", boot_at=later))
    events = batch.frames["event"].select("ts", "kind", "code").rows()
    assert events == [(later, "boot", None), (later + timedelta(seconds=5), "xid", 79)]
    assert batch.troubles == ()


def test_records_that_were_overwritten_are_counted(ring: FakeRing, source_of: Callable[..., KernelLogSource]) -> None:
    source = source_of()
    ring.log(1, xid(13))
    collected(source)
    for number in range(20):
        ring.log(10 + 10 * number, xid(31))
    ring.overwrite(16)
    batch = collected(source)
    assert codes(batch) == [31] * 5
    assert [(trouble.kind, trouble.row_count) for trouble in batch.troubles] == [("rejected", 15)]
    assert collected(source).troubles == ()


def test_records_overwritten_while_the_reader_was_down_are_counted_too(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store
) -> None:
    ring.log(1, xid(13))
    store.append(collected(source_of(store)))
    for number in range(9):
        ring.log(10 + 10 * number, xid(31))
    ring.overwrite(4)
    assert [trouble.row_count for trouble in collected(source_of(store)).troubles] == [3]


def test_the_oldest_record_of_a_first_reading_is_no_loss(
    ring: FakeRing, source_of: Callable[..., KernelLogSource]
) -> None:
    for number in range(9):
        ring.log(10 * number, xid(31))
    ring.overwrite(4)
    assert collected(source_of()).troubles == ()


def test_what_a_program_wrote_to_the_ring_is_noticed_not_believed(
    ring: FakeRing, source_of: Callable[..., KernelLogSource]
) -> None:
    ring.log(1, xid(79), priority=12)
    batch = collected(source_of())
    assert codes(batch) == []
    assert [trouble.kind for trouble in batch.troubles] == ["noticed"]


@pytest.mark.parametrize("cursor", ["", "{", "[]", '{"boot_id": 1}', '{"boot_id": "one", "sequence": "many"}', "null"])
def test_a_cursor_that_means_nothing_reads_from_the_beginning(ring: FakeRing, clock: FixedClock, cursor: str) -> None:
    ring.log(1, xid(13))
    source = KernelLogSource(
        clock, "c", "n", Path(os.devnull), cursor=lambda: cursor, open_ring=ring.open, boot=lambda _: Boot("b", BOOT_AT)
    )
    assert codes(collected(source)) == [13]


@pytest.mark.parametrize("first", ["nvml", "kmsg"])
def test_the_drivers_event_and_the_logs_line_are_one_event_with_the_logs_words(
    ring: FakeRing, source_of: Callable[..., KernelLogSource], store: Store, first: str
) -> None:
    ring.log(10, xid(79))
    told = {
        "ts": BOOT_AT + timedelta(seconds=11),
        "cluster": "c1",
        "node": "n1",
        "gpu_uuid": "GPU-1",
        "kind": "xid",
        "code": 79,
        "pci_bus_id": "00000000:9B:00.0",
        "message": "xid 79",
        "source": "nvml",
    }
    driver = Batch("nvml", {"event": pl.DataFrame([told], schema_overrides={"ts": EVENT.schema()["ts"]})})
    log = collected(source_of())
    for batch in (driver, log) if first == "nvml" else (log, driver):
        store.append(batch)
    (event,) = store.read("event").filter(pl.col("kind") == "xid").to_dicts()
    assert (event["source"], event["message"]) == (first, xid(79))


def test_the_real_door_reads_one_record_at_a_time_and_never_blocks() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    with theirs:
        theirs.send(b"4,1,5,-;one\n")
        theirs.send(b"4,2,6,-;two \xff\n")
        kmsg = Kmsg(ours.detach())
        assert [kmsg.read(), kmsg.read(), kmsg.read()] == ["4,1,5,-;one\n", "4,2,6,-;two �\n", None]
        kmsg.close()


def test_a_log_that_is_not_there_says_so(clock: FixedClock, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"\[collect\] kernel_log"):
        collected(KernelLogSource(clock, "c", "n", tmp_path / "none"))
    with pytest.raises(SourceUnavailable, match="can't be opened"):
        open_kmsg(tmp_path / "none")


def test_this_machines_own_ring_can_be_read_where_it_may_be() -> None:
    if not os.access(DEVICE, os.R_OK):
        pytest.skip("the kernel log of this machine may not be read")
    source = KernelLogSource(SystemClock(), "c", "n")
    batch = collected(source)
    source.close()
    boots = batch.frames["event"].filter(pl.col("kind") == "boot")
    assert boots.height == 1
    assert abs(boots.get_column("ts")[0] - read_boot(SystemClock()).at) < timedelta(seconds=5)
    assert batch.cursor is not None


# A written log.


def line(minute: int, code: int) -> str:
    return f"[Mon Mar  2 10:{minute:02d}:00 2026] {xid(code)}\n"


def written(path: Path, text: str, mode: str = "a", *, settled: bool = True) -> None:
    with path.open(mode) as file:
        file.write(text)
    moment = (NOW - timedelta(seconds=60 if settled else 0)).timestamp()
    os.utime(path, (moment, moment))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "kernel.log"


def file_source(clock: FixedClock, log: Path, store: Store | None = None) -> KernelLogSource:
    return KernelLogSource(clock, "c", "n", log, cursor=None if store is None else lambda: store.cursor("kmsg"))


def test_a_written_log_gives_only_what_was_added(clock: FixedClock, log: Path, store: Store) -> None:
    written(log, line(1, 13))
    for batch in file_source(clock, log, store).collect(None, NOW):
        store.append(batch)
    written(log, line(2, 31))
    assert codes(collected(file_source(clock, log, store))) == [31]


@pytest.mark.parametrize("form", ["text", "json", "export"])
def test_a_log_of_many_blocks_loses_nothing_at_their_edges(clock: FixedClock, log: Path, form: str) -> None:
    make = {"text": lambda number, code: line(number % 60, code), "json": entry, "export": export}[form]
    filler = {"text": "[x] " + "y" * 90 + "\n", "json": '{"MESSAGE":"' + "y" * 90 + '"}\n', "export": ""}[form]
    expected = [13 + number % 7 for number in range(45_000)] if form == "export" else [13 + n % 7 for n in range(300)]
    parts = [make(number, code) + filler * 150 for number, code in enumerate(expected)]
    written(log, "".join(parts), "w")
    assert log.stat().st_size > 4_200_000
    source = file_source(clock, log)
    batch = collected(source)
    if form == "text":  # the minutes come round again, and an event within two seconds of itself is one
        assert set(codes(batch)) == set(expected)
    else:
        assert codes(batch) == expected
    assert codes(collected(source)) == []


def test_half_a_line_waits_for_its_other_half(clock: FixedClock, log: Path) -> None:
    source = file_source(clock, log)
    whole = line(1, 119)
    written(log, whole[:-30], settled=False)
    assert codes(collected(source)) == []
    written(log, whole[-30:], settled=False)
    assert codes(collected(source)) == [119]


def test_a_last_line_without_an_end_is_read_once_nothing_is_added_any_more(clock: FixedClock, log: Path) -> None:
    source = file_source(clock, log)
    written(log, line(1, 119).rstrip("\n"), settled=True)
    assert codes(collected(source)) == [119]
    assert codes(collected(source)) == []


def test_a_log_that_was_rotated_or_cut_is_read_from_its_beginning(clock: FixedClock, log: Path, tmp_path: Path) -> None:
    source = file_source(clock, log)
    written(log, line(1, 13) + line(2, 31))
    assert codes(collected(source)) == [13, 31]
    log.rename(tmp_path / "kernel.log.1")
    written(log, line(3, 79) * 9)
    assert codes(collected(source)) == [79]
    written(log, line(4, 48), "w")
    assert codes(collected(source)) == [48]


def entry(number: int, code: int) -> str:
    when = int((NOW + timedelta(minutes=number)).timestamp() * 1e6)
    return json.dumps({"__CURSOR": f"s=a;i={number}", "__REALTIME_TIMESTAMP": str(when), "MESSAGE": xid(code)}) + "\n"


def export(number: int, code: int) -> str:
    fields = json.loads(entry(number, code))
    return "".join(f"{name}={value}\n" for name, value in fields.items()) + "\n"


@pytest.mark.parametrize("form", [entry, export], ids=["json", "export"])
def test_a_journal_exported_anew_goes_on_behind_its_cursor(
    clock: FixedClock, log: Path, tmp_path: Path, form: Callable[[int, int], str]
) -> None:
    source = file_source(clock, log)
    written(log, form(1, 13) + form(2, 31))
    assert codes(collected(source)) == [13, 31]
    written(tmp_path / "new", form(1, 13) + form(2, 31) + form(3, 79))
    (tmp_path / "new").replace(log)
    assert codes(collected(source)) == [79]
    written(tmp_path / "new", form(7, 94))
    (tmp_path / "new").replace(log)
    assert codes(collected(source)) == [94]


def test_an_entry_that_is_still_being_written_is_not_cut_in_two(clock: FixedClock, log: Path) -> None:
    source = file_source(clock, log)
    text = export(1, 13)
    cut = text.index("MESSAGE")
    written(log, export(0, 48) + text[:cut], settled=False)
    assert codes(collected(source)) == [48]
    written(log, text[cut:], settled=False)
    assert codes(collected(source)) == [13]


# What the house knows of the node's GPUs.


def test_the_store_says_which_gpu_an_address_is_and_which_slice_an_instance(store: Store) -> None:
    def seen(uuid: str, node: str, minutes: int) -> dict[str, object]:
        at = NOW - timedelta(minutes=minutes)
        return {
            "gpu_uuid": uuid, "uuid": uuid, "cluster": "c", "node": node, "pci_bus_id": "00000000:9B:00.0",
            "last_seen_at": at,
        }  # fmt: skip

    def slice_seen(uuid: str, instance: int, minutes: int) -> dict[str, object]:
        at = NOW - timedelta(minutes=minutes)
        return {"slice_uuid": uuid, "uuid": uuid, "gpu_uuid": "GPU-new", "gpu_instance": instance, "last_seen_at": at}

    gpus = [seen("GPU-old", "n", 60), seen("GPU-new", "n", 0), seen("GPU-elsewhere", "m", 0)]
    slices = [
        slice_seen("MIG-gone", 1, 30), slice_seen("MIG-1", 1, 0), slice_seen("MIG-2a", 2, 0), slice_seen("MIG-2b", 2, 0)
    ]  # fmt: skip
    times = {"last_seen_at": EVENT.schema()["ts"]}
    frames = {name: pl.DataFrame(rows, schema_overrides=times) for name, rows in (("gpu", gpus), ("slice", slices))}
    store.append(Batch("nvml", frames))
    assert known_devices(store, "c", "n") == {"0000:9b:00": Device("GPU-new", {1: "MIG-1"})}
    assert known_devices(store, "c", "nowhere") == {}


def test_without_a_store_the_drivers_last_reading_says_it() -> None:
    memory = NodeMemory(known={0: ("GPU-1", {"pci_bus_id": "00000000:9B:00.0"}), 1: ("GPU-2", {})})
    assert devices_of(memory) == {"0000:9b:00": Device("GPU-1", {})}
    assert devices_of(None) == {}


def test_the_settings_name_the_log(store: Store, clock: FixedClock, log: Path) -> None:
    written(log, line(1, 13))
    settings = Settings.model_validate({"collect": {"sources": ["kmsg"], "kernel_log": str(log), "node": "n9"}})
    batch = collected(open_kernel_log(settings, store, clock))
    assert batch.frames["event"].select("cluster", "node", "code").rows() == [("default", "n9", 13)]

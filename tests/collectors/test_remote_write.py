"""Remote-write: what a request says is what is stored, once, whatever its shape; what it can't say is refused."""

import importlib.util
import math
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.remote_decode import BadWrite, Decoder
from collectors.remote_write import SOURCE, RemoteWrite, WritePolicy, unpack
from collectors.series_book import NAMELESS
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import Overloaded, StoreFull, TooLarge
from store.store import Store


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


wire = _sibling("remote_write_encoder")
WriteRequest = wire.write_request()
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
T = int(NOW.timestamp() * 1000) - 600_000
GPU = {"UUID": "GPU-a", "Hostname": "n1", "gpu": "0", "modelName": "NVIDIA H100", "job": "dcgm", "instance": "i1"}
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
Decoded = list[tuple[int, int, float]]


def series(name: str, *pairs: tuple[int, float], **labels: str) -> tuple[dict[str, str], list[tuple[int, float]]]:
    return {"__name__": name, **GPU, **labels}, list(pairs)


def numbers() -> Callable[[object], int]:
    seen: dict[object, int] = {}
    return lambda labels: seen.setdefault(frozenset(labels.items()), len(seen))  # type: ignore[attr-defined]  # labels


def decoded(message: bytes, decoder: Decoder | None = None) -> Decoded:
    samples = (decoder or Decoder(numbers(), NAMELESS)).decode(message).samples
    return sorted(zip(samples.series.tolist(), samples.ts.tolist(), samples.values.tolist(), strict=True))


def by_protobuf(message: bytes) -> Decoded:
    request = WriteRequest.FromString(message)
    find = numbers()
    out = []
    for each in request.timeseries:
        number = find({label.name: label.value for label in each.labels})
        out += [(number, sample.timestamp, sample.value) for sample in each.samples]
    return sorted(out)


values = st.one_of(st.just(0.0), st.sampled_from([1.0, 0.5, -0.0, 1e300]), st.floats(allow_nan=False))
moments = st.one_of(st.integers(T, T + 10**9), st.integers(-(2**63), 2**63 - 1), st.just(0))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(
    lambda text: text * 9 if text[0] > "m" else text
)
series_lists = st.lists(
    st.tuples(
        st.dictionaries(names, names, max_size=2).map(lambda more: {**more, "__name__": "DCGM_FI_DEV_GPU_TEMP"}),
        st.lists(st.tuples(moments, values), max_size=6),
    ),
    max_size=10,
)


def pattern(bits: int, count: int) -> list[object]:
    """Return so many series, each with a zero or another number where a bit of `bits` is 0 or 1, or with none."""
    return [
        series("m", *((T + step, float(bits >> step & 1) * 7) for step in range(bits % 7)), gpu=str(n))
        for n in range(count)
    ]


plain_lists = st.builds(pattern, st.integers(0, 255), st.integers(0, 10))


@given(series_lists)
@settings(max_examples=200)
def test_every_request_is_decoded_as_protobufs_own_code_decodes_it(request: list[object]) -> None:
    message = wire.message(request)
    assert decoded(message) == by_protobuf(message)


@pytest.mark.parametrize("bits", ["1111", "0000", "0110", "1", "0", ""], ids=lambda text: text or "none")
@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_zeros_and_other_values_may_be_mixed_in_any_number_of_series(bits: str, count: int) -> None:
    request = [
        series("m", *((T + step, float(bit) * 7) for step, bit in enumerate(bits)), gpu=str(n)) for n in range(count)
    ]
    message = wire.message(request)
    assert decoded(message) == by_protobuf(message)
    assert len(decoded(message)) == count * len(bits)


def test_one_odd_series_among_many_is_read_field_by_field_and_the_others_all_at_once() -> None:
    odd = ({"__name__": "odd"}, [(1, 2.0), (-5, 3.0), (0, 0.0)])
    request = [*(series("m", (T, 0.0), (T + 1, 5.0), gpu=str(n)) for n in range(20)), odd]
    message = wire.message(request)
    assert decoded(message) == by_protobuf(message)


def test_what_the_protocol_may_add_is_passed_over() -> None:
    one = wire.labels({"__name__": "m"}) + wire.field(2, wire.sample(T, 4.0))
    exemplar, histogram = wire.field(3, b"\x11" + bytes(8)), wire.field(4, b"\x08\x01")
    metadata = wire.field(3, b"\x08\x01")
    message = metadata + wire.field(1, one + exemplar + histogram) + metadata + wire.field(9, b"later")
    write = Decoder(numbers(), NAMELESS).decode(message)
    assert (write.sample_count, write.histogram_count) == (1, 1)
    assert write.samples.values.tolist() == [4.0]


def test_a_series_is_looked_up_once_for_its_bytes() -> None:
    asked = []

    def find(labels: dict[str, str]) -> int:
        asked.append(labels)
        return 0

    decoder = Decoder(find, NAMELESS)  # type: ignore[arg-type]  # a narrower mapping
    for step in range(3):
        decoder.decode(wire.message([series("m", (T + step, 1.0))]))
    assert asked == [{"__name__": "m", **GPU}]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (wire.message([series("m", (T, 1.0))])[:-3], "cut off"),
        (b"\x0a", "cut off"),
        (b"\x0a\x05\x0a\x20abc", "beyond"),
        (wire.field(1, wire.field(1, b"\x0a\x02\xff\xfe")), "UTF-8"),
        (wire.field(1, wire.labels({"a": "b"})), "no name"),
        (wire.field(1, wire.field(1, wire.field(2, b"x"))), "no name"),
        (wire.field(1, 2 * wire.field(1, wire.field(1, b"a"))), "twice"),
        (wire.field(1, wire.labels({"__name__": "m"}) + b"\x10\x05"), "no message"),
        (wire.field(1, wire.labels({"__name__": "m"}) + wire.field(2, b"\x08\x01")), "wire type"),
        (wire.field(1, wire.field(2, wire.sample(T, 1.0)) + wire.labels({"__name__": "m"})), "name"),
        (b"\x08\x01", "no message"),
        (b"\x0b", "wire type"),
        (b"\x00\x01", "number 0"),
        (b"\xff" * 12, "64 bits"),
    ],
    ids=range(14),
)
def test_what_is_no_write_request_is_refused_with_the_reason(message: bytes, why: str) -> None:
    with pytest.raises(BadWrite, match=why):
        decoded(message)


mutations = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)


def survive(message: bytes) -> None:
    decoder = Decoder(numbers(), NAMELESS)
    try:
        write = decoder.decode(message)
    except BadWrite:
        return
    assert len(write.samples.ts) == len(write.samples.values) == write.sample_count


def changed(request: Iterable[object], edits: list[tuple[int, int]]) -> bytes:
    message = bytearray(wire.message(request))
    for place, byte in edits:
        if message:
            message[place % len(message)] = byte
    return bytes(message)


@settings(max_examples=1000)
@given(st.binary(max_size=80))
@example(b"\x0a\x00")
def test_no_bytes_make_the_decoder_stumble(message: bytes) -> None:
    survive(message)


@settings(max_examples=1000)
@given(plain_lists, mutations)
def test_no_damage_to_a_request_makes_the_decoder_stumble(request: list[object], edits: list[tuple[int, int]]) -> None:
    survive(changed(request, edits))


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_the_decoder_stumble(message: bytes) -> None:
    survive(message)


@pytest.mark.slow
@settings(max_examples=48_000)
@given(plain_lists, mutations)
def test_no_damage_at_all_makes_the_decoder_stumble(request: list[object], edits: list[tuple[int, int]]) -> None:
    survive(changed(request, edits))


@pytest.mark.parametrize("body", [b"", b"plain text", b"\xff" * 30, wire.packed(b"abc" * 99)[:-2]], ids=range(4))
def test_a_body_that_is_not_snappy_is_refused(body: bytes) -> None:
    with pytest.raises(BadWrite, match="snappy"):
        unpack(body, 1000)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = wire.varint(2**31) + b"\x00"
    with pytest.raises(TooLarge, match=r"2147483648.*1000"):
        unpack(bomb, 1000)


class Sink:
    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.fault: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.is_inside = threading.Event()

    def __call__(self, batch: Batch) -> None:
        self.is_inside.set()
        self.gate.wait(5)
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch.checked())


def push(door: RemoteWrite, *request: object) -> int:
    return door.receive(wire.request(request))


def table(store: Store, name: str) -> list[dict[str, object]]:
    return store.read(name).to_dicts()


@pytest.fixture
def store(clock: FixedClock) -> Iterable[Store]:
    with Store.open(None, clock=clock) as opened:
        yield opened


def test_a_request_becomes_wide_rows_in_our_units(store: Store) -> None:
    door = RemoteWrite(store.append, "east")
    count = push(
        door,
        series("DCGM_FI_DEV_GPU_UTIL", (T, 0.0), (T + 30_000, 87.0)),
        series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", (T, 123_456.0)),
        series("node_load1", (T, 3.0)),
    )
    first, second = table(store, "gpu_sample")
    assert (count, first["utilization"], first["energy_j"]) == (4, 0.0, 123.456)
    assert second["utilization"] == pytest.approx(0.87)
    assert second["energy_j"] is None
    (gpu,) = table(store, "gpu")
    assert (gpu["uuid"], gpu["node"], gpu["cluster"], gpu["model"]) == ("GPU-a", "n1", "east", "NVIDIA H100")


def test_what_came_twice_or_out_of_order_is_stored_once(store: Store) -> None:
    door = RemoteWrite(store.append, "east")
    late, early = series("DCGM_FI_DEV_GPU_TEMP", (T + 30_000, 41.0)), series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0))
    for request in ((late,), (early,), (late, early), (early,)):
        push(door, *request)
    assert sorted(str(row["temperature_c"]) for row in table(store, "gpu_sample")) == ["40.0", "41.0"]
    push(door, series("DCGM_FI_DEV_POWER_USAGE", (T, 300.0)))
    assert len(table(store, "gpu_sample")) == 2


@pytest.mark.parametrize("value", [math.nan, STALE, 2147483632.0, 9223372036854775794.0, 101.0])
def test_what_is_no_measurement_is_missing_and_never_zero(store: Store, value: float) -> None:
    door = RemoteWrite(store.append, "east")
    push(door, series("DCGM_FI_DEV_GPU_UTIL", (T, value)), series("DCGM_FI_DEV_POWER_USAGE", (T, 70.0)))
    (row,) = table(store, "gpu_sample")
    assert (row["utilization"], row["power_w"]) == (None, 70.0)


def test_an_xid_is_told_once_though_every_request_repeats_it(store: Store) -> None:
    door = RemoteWrite(store.append, "east")
    for step, code in enumerate([0.0, 0.0, 79.0, 79.0, 79.0, 31.0]):
        push(door, series("DCGM_FI_DEV_XID_ERRORS", (T + step * 30_000, code)))
    events = table(store, "event")
    assert [(row["code"], row["message"]) for row in sorted(events, key=lambda row: str(row["ts"]))] == [
        (79, "the exporter's gauge changed to XID 79"),
        (31, "the exporter's gauge changed to XID 31"),
    ]


def test_after_a_restart_an_xid_that_still_stands_is_not_told_again(store: Store) -> None:
    push(RemoteWrite(store.append, "east"), series("DCGM_FI_DEV_XID_ERRORS", (T, 79.0)))
    again = RemoteWrite(store.append, "east", told=lambda: {"GPU-a": 79})
    push(again, series("DCGM_FI_DEV_XID_ERRORS", (T + 60_000, 79.0)))
    assert len(table(store, "event")) == 1


def test_series_that_come_and_go_are_forgotten_and_what_is_known_of_a_gpu_is_not(store: Store) -> None:
    door = RemoteWrite(store.append, "east", WritePolicy(series_max=3))
    for step in range(12):
        moment = T + step * 30_000
        pod = {"namespace": "ml", "pod": f"p{step}"}
        push(
            door,
            series("DCGM_FI_DEV_XID_ERRORS", (moment, 79.0), **pod),
            series("DCGM_FI_DEV_GPU_TEMP", (moment, 40.0), **pod),
        )
    assert len(table(store, "event")) == 1
    assert len(table(store, "gpu_sample")) == 12
    assert door.series_count <= 4


def test_an_xid_whose_request_was_not_stored_is_told_when_it_is_sent_again() -> None:
    sink = Sink()
    door = RemoteWrite(sink, "east")
    sink.fault = StoreFull("no room")
    for _ in range(2):
        with pytest.raises(StoreFull):
            push(door, series("DCGM_FI_DEV_XID_ERRORS", (T, 79.0)))
    sink.fault = None
    push(door, series("DCGM_FI_DEV_XID_ERRORS", (T, 79.0)))
    assert sink.batches[0].frames["event"]["code"].to_list() == [79]
    assert sink.batches[0].frames["gpu"].height == 1


def test_requests_that_wait_are_stored_together_and_each_is_answered() -> None:
    sink, waited = Sink(), list[float]()
    door = RemoteWrite(sink, "east", wait=waited.append)
    sink.gate.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(push, door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0)))
        assert sink.is_inside.wait(5)
        others = [
            pool.submit(push, door, series("DCGM_FI_DEV_GPU_TEMP", (T + n, 40.0 + n), UUID=f"GPU-{n}"))
            for n in range(8)
        ]
        while door.waiting_count < 8:
            threading.Event().wait(0.001)
        sink.gate.set()
        assert [first.result(5), *(other.result(5) for other in others)] == [1] * 9
    assert [batch.frames["gpu_sample"].height for batch in sink.batches] == [1, 8]
    assert door.sample_count == 9


def test_a_failure_reaches_everyone_whose_samples_it_concerns_and_nobody_else() -> None:
    sink = Sink()
    door = RemoteWrite(sink, "east")
    sink.fault = StoreFull("no room")
    with pytest.raises(StoreFull):
        push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0)))
    sink.fault = None
    assert push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0))) == 1


def test_an_error_nobody_foresaw_is_no_acknowledgement() -> None:
    sink = Sink()
    door = RemoteWrite(sink, "east")
    sink.fault = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0)))
    sink.fault = None
    assert push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0))) == 1


def test_where_too_much_waits_the_sender_is_told_to_come_again() -> None:
    sink = Sink()
    door = RemoteWrite(sink, "east", WritePolicy(waiting_samples_max=1))
    sink.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(push, door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0)))
        assert sink.is_inside.wait(5)
        second = pool.submit(push, door, series("DCGM_FI_DEV_GPU_TEMP", (T + 1, 40.0), (T + 2, 40.0)))
        while door.waiting_count < 2:
            threading.Event().wait(0.001)
        with pytest.raises(Overloaded, match="again"):
            push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + 3, 40.0)))
        sink.gate.set()
        assert (first.result(5), second.result(5)) == (1, 2)


def test_series_that_name_no_gpu_are_counted_once_and_not_with_every_request() -> None:
    sink = Sink()
    door = RemoteWrite(sink, "east")
    for step in range(3):
        push(
            door,
            ({"__name__": "DCGM_FI_DEV_GPU_TEMP"}, [(T + step, 1.0)]),
            series("DCGM_FI_DEV_POWER_USAGE", (T + step, 1.0)),
        )
    assert [len(batch.troubles) for batch in sink.batches] == [1, 0, 0]
    assert sink.batches[0].source == SOURCE


def test_what_was_pushed_is_rolled_up_from_its_first_moment() -> None:
    door = RemoteWrite(Sink(), "east")
    assert door.take_first() is None
    push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + 60_000, 1.0)))
    push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 1.0)))
    assert door.take_first() == NOW - timedelta(minutes=10)
    assert door.take_first() is None


def test_a_gpu_that_two_exporters_push_is_stored_once_and_the_second_takes_over(store: Store) -> None:
    door = RemoteWrite(store.append, "east")
    for step in range(10):
        if step < 5:
            push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + step * 30_000, 40.0)))
        push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + step * 30_000 + 9_000, 50.0), instance="i2"))
    found = [row["temperature_c"] for row in sorted(table(store, "gpu_sample"), key=lambda row: str(row["ts"]))]
    assert found[:5] == [40.0] * 5
    assert found[5:] in ([50.0] * 5, [50.0] * 4)


def test_a_series_marked_as_gone_leaves_its_place_at_once(store: Store) -> None:
    door = RemoteWrite(store.append, "east")
    push(door, series("DCGM_FI_DEV_GPU_TEMP", (T, 40.0)))
    push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + 30_000, STALE)))
    push(door, series("DCGM_FI_DEV_GPU_TEMP", (T + 35_000, 41.0), instance="i2"))
    assert sorted(str(row["temperature_c"]) for row in table(store, "gpu_sample")) == ["40.0", "41.0"]

"""Time the push door: samples a second accepted and stored, and decoding beside protobuf's own.

Usage: taskset -c 0 python benchmarks/remote_write.py [--gpus 40] [--requests 200]

A request holds 100 series. With 100 samples a series it is a sender that catches up, with 1 a series a live scrape;
requests come one at a time, or 20 at a time as from the shards of one Prometheus. Everything from the compressed body
to the committed rows on disk is counted. The baseline of decoding is protobuf's generated-code path (in C), read into
Python tuples.
"""

import argparse
import gc
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from collectors.metrics import METRICS
from collectors.remote_decode import Decoder
from collectors.remote_write import RemoteWrite
from collectors.series_book import NAMELESS, SeriesBook
from fleet.clock import FixedClock
from fleet.tables import GPU_SAMPLE
from store.store import Store

START_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)
STEP_MS = 30_000
SERIES = 100
NAMES = tuple(metric.names[0] for metric in METRICS if metric.column in GPU_SAMPLE.schema())[:25]


def main() -> None:
    """Print samples a second for both shapes of request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=40)
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    request = request_class()
    for per_series, senders in ((100, 1), (100, 20), (1, 1), (1, 20)):
        bodies = list(requests(arguments.gpus, arguments.requests * (1 if per_series > 1 else 5), per_series))
        measure(bodies, per_series, senders)
    for per_series in (100, 1):
        compare_decoding(request, list(requests(arguments.gpus, 50, per_series)), per_series)


def requests(gpus: int, count: int, per_series: int) -> Iterator[bytes]:
    """Yield compressed requests: 25 metrics of 4 GPUs each, the GPUs in turn, then on in time."""
    labels = [
        [head(name, gpu) for gpu in range(first, first + SERIES // len(NAMES)) for name in NAMES]
        for first in range(0, gpus, SERIES // len(NAMES))
    ]
    for number in range(count):
        turn, group = divmod(number, len(labels))
        start = START_MS + turn * per_series * STEP_MS
        moments = [varint(start + step * STEP_MS) for step in range(per_series)]
        series = []
        for place, head_bytes in enumerate(labels[group]):
            samples = b"".join(
                b"\x12\x10\x09" + struct.pack("<d", 1 / (1 + (place + step) % 9)) + b"\x10" + moment
                if (place + step) % 10
                else b"\x12\x07\x10" + moment
                for step, moment in enumerate(moments)
            )
            series.append(b"\x0a" + varint(len(head_bytes) + len(samples)) + head_bytes + samples)
        yield bytes(cramjam.snappy.compress_raw(b"".join(series)))


def head(name: str, gpu: int) -> bytes:
    """Return the labels of one series as dcgm-exporter and Prometheus write them."""
    labels = {
        "DCGM_FI_DRIVER_VERSION": "590.48.01", "Hostname": f"node-{gpu // 8}", "UUID": f"GPU-{gpu:032x}",
        "__name__": name, "container": "main", "device": f"nvidia{gpu % 8}", "gpu": str(gpu % 8),
        "instance": f"10.0.0.{gpu // 8}:9400", "job": "dcgm-exporter", "modelName": "NVIDIA H100 80GB HBM3",
        "namespace": "research", "pci_bus_id": "00000000:04:00.0", "pod": f"train-{gpu}",
    }  # fmt: skip
    out = b""
    for key, value in labels.items():
        inner = b"\x0a" + varint(len(key)) + key.encode() + b"\x12" + varint(len(value)) + value.encode()
        out += b"\x0a" + varint(len(inner)) + inner
    return out


def varint(number: int) -> bytes:
    """Return protobuf's form of a whole number."""
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the bit that says more follows
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def measure(bodies: list[bytes], per_series: int, senders: int) -> None:
    """Print what it takes to store the requests, so many at a time."""
    samples = len(bodies) * SERIES * per_series
    with TemporaryDirectory() as folder:
        clock = FixedClock(datetime.fromtimestamp((START_MS + 10**9) / 1000, UTC))
        with Store.open(Path(folder) / "steward.duckdb", clock=clock) as store:
            door = RemoteWrite(store.append, "east")
            gc.collect()
            wall, cpu = perf_counter(), process_time()
            with ThreadPoolExecutor(senders) as pool:
                counted = sum(pool.map(door.receive, bodies))
            wall, cpu = perf_counter() - wall, process_time() - cpu
            if counted != samples:
                sys.exit(f"{counted} of {samples} samples were taken")
    print(
        f"{per_series} a series, {senders} requests at a time: {samples / wall:,.0f} samples/s stored, "
        f"{samples / cpu:,.0f} per CPU-second"
    )


def request_class() -> type[Message]:
    """Return protobuf's own class for a WriteRequest."""
    file = descriptor_pb2.FileDescriptorProto(name="write.proto", package="t", syntax="proto3")
    for name, fields in (
        ("Label", (("name", 9, ""), ("value", 9, ""))),
        ("Sample", (("value", 1, ""), ("timestamp", 3, ""))),
        ("TimeSeries", (("labels", 11, ".t.Label"), ("samples", 11, ".t.Sample"))),
        ("WriteRequest", (("timeseries", 11, ".t.TimeSeries"),)),
    ):
        entry = file.message_type.add(name=name)
        for number, (field, kind, inner) in enumerate(fields, 1):
            told = entry.field.add(name=field, number=number, type=kind, label=3 if inner else 1)
            if inner:
                told.type_name = inner
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.WriteRequest"))
    return made


def compare_decoding(request: type[Message], bodies: list[bytes], per_series: int) -> None:
    """Print samples a CPU-second of decoding alone: ours into arrays, protobuf's own (in C) into tuples."""
    messages = [bytes(cramjam.snappy.decompress_raw(body)) for body in bodies]
    decoder = Decoder(SeriesBook("east").add, NAMELESS)
    rates = []
    for decode in (decoder.decode, partial(by_protobuf, request)):
        decode(messages[0])
        cpu = process_time()
        for message in messages:
            decode(message)
        rates.append(len(messages) * SERIES * per_series / (process_time() - cpu))
    print(
        f"{per_series} a series, decoding alone: {rates[0]:,.0f} samples per CPU-second; protobuf: {rates[1]:,.0f} "
        f"(ours / protobuf: {rates[0] / rates[1]:.1f}x)"
    )


def by_protobuf(request: type[Message], message: bytes) -> list[tuple[dict[str, str], int, float]]:
    """Return the samples as tuples, the labels as one dictionary a series."""
    rows: list[tuple[dict[str, str], int, float]] = []
    for series in request.FromString(message).timeseries:
        labels = {label.name: label.value for label in series.labels}
        rows += [(labels, sample.timestamp, sample.value) for sample in series.samples]
    return rows


if __name__ == "__main__":
    main()

"""A sender of our own: series and samples become a remote-write request, as Prometheus' client writes it."""

import struct
from collections.abc import Iterable, Mapping

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

Pair = tuple[int, float]
Series = tuple[Mapping[str, str], Iterable[Pair]]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def sample(ts_ms: int, value: float) -> bytes:
    """Proto3 leaves out what is zero; gogo's code, which Prometheus uses, looks at the value and not at its sign."""
    told = b"" if value == 0 else b"\x09" + struct.pack("<d", value)
    return told + (b"\x10" + varint(ts_ms) if ts_ms != 0 else b"")


def labels(names: Mapping[str, str]) -> bytes:
    return b"".join(
        field(1, field(1, name.encode()) + (field(2, value.encode()) if value else b""))
        for name, value in sorted(names.items())
    )


def message(series: Iterable[Series]) -> bytes:
    return b"".join(
        field(1, labels(names) + b"".join(field(2, sample(ts, value)) for ts, value in pairs))
        for names, pairs in series
    )


def packed(content: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(content))


def request(series: Iterable[Series]) -> bytes:
    return packed(message(series))


def write_request() -> type[Message]:
    """Return protobuf's own class for a request, made from the fields that the protocol names: a second opinion."""
    file = descriptor_pb2.FileDescriptorProto(name="write.proto", package="t", syntax="proto3")
    kinds = {"string": 9, "double": 1, "int64": 3, "message": 11}
    messages: dict[str, list[tuple[str, int, str, str | None]]] = {
        "Label": [("name", 1, "string", None), ("value", 2, "string", None)],
        "Sample": [("value", 1, "double", None), ("timestamp", 2, "int64", None)],
        "TimeSeries": [("labels", 1, "message", "Label"), ("samples", 2, "message", "Sample")],
        "WriteRequest": [("timeseries", 1, "message", "TimeSeries")],
    }
    for name, fields in messages.items():
        entry = file.message_type.add(name=name)
        for field_name, number, kind, inner in fields:
            told = entry.field.add(name=field_name, number=number, label=1 if inner is None else 3)
            told.type = kinds[kind]
            if inner is not None:
                told.type_name = f".t.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.WriteRequest"))
    return made

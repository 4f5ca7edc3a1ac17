"""A kubelet's pod-resources API of our own: a real gRPC server on a unix socket, with answers written by hand."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc


def number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def field(place: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    body = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(body)) + body


def devices(resource: str, *ids: str) -> bytes:
    """Write `ContainerDevices`, with a topology (a NUMA node) after it as kubelets have."""
    topology = field(3, field(1, field(1, 1)))
    return field(1, resource) + b"".join(field(2, each) for each in ids) + topology


def claimed(driver: str, *names: str) -> bytes:
    """Write `DynamicResource` with one claim."""
    claims = (
        field(1, field(1, f"k8s.{driver}/claim=x")) + field(2, driver) + field(3, "n1") + field(4, name)
        for name in names
    )
    return field(2, "claim") + field(3, "team") + b"".join(field(4, claim) for claim in claims)


def pod(namespace: str, name: str, containers: Mapping[str, Sequence[bytes]], claims: Sequence[bytes] = ()) -> bytes:
    """Write `PodResources`: containers with their devices; claims belong to the last one."""
    written = field(1, name) + field(2, namespace)
    for container, given in containers.items():
        own = field(1, container) + b"".join(field(2, each) for each in given) + field(3, 7)
        written += field(3, own + b"".join(field(5, each) for each in claims))
    return written


class KubeletServer:
    """What it answers stands in `listed` and `allocatable`; an error code in `refuses` is answered in their place."""

    def __init__(self) -> None:
        self.listed: bytes = b""
        self.allocatable: bytes = b""
        self.refuses: grpc.StatusCode | None = None
        self.calls = 0

    def list_pods(self, *pods: bytes) -> None:
        self.listed = b"".join(field(1, each) for each in pods)

    def offer(self, *offered: bytes) -> None:
        self.allocatable = b"".join(field(1, each) for each in offered) + field(2, 3)

    @contextmanager
    def at(self, socket: Path) -> Iterator[None]:
        """Serve at a socket while inside."""
        methods = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, f"_{name.lower()}"))
            for name in ("List", "GetAllocatableResources")
        }
        with ThreadPoolExecutor(2) as pool:
            server = grpc.server(pool)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", methods),))
            server.add_insecure_port(f"unix://{socket}")
            server.start()
            try:
                yield
            finally:
                server.stop(None).wait()

    def _list(self, _request: bytes, context: Any) -> bytes:
        return self._answer(self.listed, context)

    def _getallocatableresources(self, _request: bytes, context: Any) -> bytes:
        return self._answer(self.allocatable, context)

    def _answer(self, body: bytes, context: Any) -> bytes:
        self.calls += 1
        if self.refuses is not None:
            context.abort(self.refuses, "not now")
        return body

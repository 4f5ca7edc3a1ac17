"""Who was given which device, from the kubelet's pod-resources API (v1) on its unix socket.

The two answers that are read are small and their numbering is fixed for good, so the fields that matter are picked
from the wire form here; nothing is generated. Field numbers: kubelet `pkg/apis/podresources/v1/api.proto`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import grpc

from fleet.errors import SourceFailed, SourceUnavailable

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_SERVICE = "/v1.PodResourcesLister"
_ANSWER_MAX_BYTES = 16 * 2**20
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types
_VARINT_BITS_MAX = 63
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Assigned:
    """One device given to one container: by a device plugin under a resource's name, or by a DRA driver."""

    namespace: str
    pod: str
    container: str
    resource: str
    device: str


class PodResources:
    """The kubelet's answers; the connection stays open between questions. `deadline_s` holds for each of them."""

    def __init__(self, socket: Path = SOCKET, *, deadline_s: float = 5.0) -> None:
        self._socket, self._deadline_s = socket, deadline_s
        self._channel: grpc.Channel | None = None

    def assigned(self) -> tuple[Assigned, ...]:
        """Return every device that a container of this node has.

        Raises `SourceUnavailable` where there is no socket and `SourceFailed` where the kubelet does not answer.
        """
        return self._ask("List", decode_assigned)

    def allocatable(self) -> frozenset[str]:
        """Return the ids of the devices that the kubelet can hand out, given or not; raises as `assigned` does."""
        return self._ask("GetAllocatableResources", decode_allocatable)

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _ask(self, method: str, decode: Callable[[bytes], _Answer]) -> _Answer:
        if not self._socket.exists():
            message = f"there is no socket {self._socket}: is this a node of Kubernetes, and is its folder mounted?"
            raise SourceUnavailable(message)
        if self._channel is None:
            options = [("grpc.max_receive_message_length", _ANSWER_MAX_BYTES), ("grpc.enable_http_proxy", 0)]
            self._channel = grpc.insecure_channel(f"unix://{self._socket.absolute()}", options)
        call = self._channel.unary_unary(f"{_SERVICE}/{method}", _as_it_is, _as_it_is)
        try:
            # Without waiting for a connection a kubelet that was restarted would be given up for a while.
            answer = call(b"", timeout=self._deadline_s, wait_for_ready=True)
        except grpc.RpcError as error:
            self.close()
            message = f"the kubelet does not answer {method} at {self._socket}: {_words(error)}"
            raise SourceFailed(message) from error
        try:
            return decode(answer)
        except ValueError as error:
            message = f"the kubelet's answer to {method} can't be read: {error}"
            raise SourceFailed(message) from error


def decode_assigned(message: bytes) -> tuple[Assigned, ...]:
    """Return the devices in a `ListPodResourcesResponse`, or raise `ValueError`."""
    return tuple(assigned for pod in _messages(message, 1) for assigned in _of_pod(pod))


def decode_allocatable(message: bytes) -> frozenset[str]:
    """Return the device ids in an `AllocatableResourcesResponse`, or raise `ValueError`."""
    return frozenset(device for devices in _messages(message, 1) for device in _texts(devices, 2))


def _of_pod(pod: bytes) -> Iterator[Assigned]:
    name, namespace = _text(pod, 1), _text(pod, 2)
    for container in _messages(pod, 3):
        for devices in _messages(container, 2):
            for device in _texts(devices, 2):
                yield Assigned(namespace, name, _text(container, 1), _text(devices, 1), device)
        for claim in _messages(container, 5):
            for claimed in _messages(claim, 4):
                yield Assigned(namespace, name, _text(container, 1), _text(claimed, 2), _text(claimed, 4))


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _fields(message) if found == number and isinstance(value, bytes))


def _texts(message: bytes, number: int) -> Iterator[str]:
    return (value.decode() for value in _messages(message, number))


def _text(message: bytes, number: int) -> str:
    # A scalar that stands there twice: the last one counts. One that is empty is not sent at all.
    return next(iter(list(_texts(message, number))[::-1]), "")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, value = key & 7, b""
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in {_FIXED_64, _FIXED_32}:
            size = 8 if kind == _FIXED_64 else 4
        else:
            why = f"wire type {kind} at byte {at}"
            raise ValueError(why)
        value = message[at : at + size]
        if len(value) < size:
            why = f"it ends in the middle of field {key >> 3}"
            raise ValueError(why)
        at += size
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > _VARINT_BITS_MAX:
            why = f"a number without an end at byte {at}"
            raise ValueError(why)
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that the number goes on
            return value, at


def _as_it_is(message: bytes) -> bytes:
    return message


def _words(error: grpc.RpcError) -> str:
    told = cast("grpc.Call", error)  # a call that failed is raised itself, which the types do not say
    return f"{told.code().name}: {told.details()}"

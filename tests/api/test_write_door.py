"""The push door over HTTP: the codes a sender of remote-write acts on."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.port import Desk
from api.write_door import BODY_BYTES_MAX
from fleet.errors import BadInput, Overloaded, StewardError, StoreBusy, StoreFull, TooLarge

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


class Ingest:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.fault: StewardError | None = None

    def __call__(self, body: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.bodies.append(body)


Post = Callable[..., httpx.Response]


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


@pytest.fixture
def post(in_process: Callable[[FastAPI], httpx.BaseTransport], desk: Desk, ingest: Ingest) -> Post:
    def send(body: bytes = b"abc", token: str | None = None, **headers: str) -> httpx.Response:
        transport = in_process(create_app(desk, token, ingest))
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post("/api/v1/write", content=body, headers={**HEADERS, **named})

    return send


def test_what_is_stored_is_acknowledged_without_a_word(post: Post, ingest: Ingest) -> None:
    answer = post(b"packed")
    assert (answer.status_code, answer.content, ingest.bodies) == (204, b"", [b"packed"])


@pytest.mark.parametrize(
    ("fault", "status", "comes_again"),
    [
        (BadInput("no name", field="labels"), 400, False),
        (TooLarge("too large"), 413, False),
        (Overloaded("too much waits"), 429, True),
        (StoreBusy("another has it"), 503, True),
        (StoreFull("no room"), 503, True),
        (StewardError("else"), 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_failure_has_the_code_that_the_sender_acts_on_and_its_reason(
    post: Post, ingest: Ingest, fault: StewardError, status: int, *, comes_again: bool
) -> None:
    ingest.fault = fault
    answer = post()
    assert (answer.status_code, answer.json()["detail"]) == (status, str(fault))
    assert ("retry-after" in answer.headers) == comes_again


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": ""},
        {"Content_Type": "application/json"},
        {"Content_Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"},
    ],
    ids=str,
)
def test_what_is_not_version_1_is_refused_by_its_headers(post: Post, ingest: Ingest, headers: dict[str, str]) -> None:
    assert post(**headers).status_code == 415
    assert ingest.bodies == []


def test_the_name_of_version_1_may_be_said(post: Post) -> None:
    assert post(Content_Type="application/x-protobuf; proto=prometheus.WriteRequest").status_code == 204


def test_a_body_that_is_too_large_is_refused_before_it_is_looked_at(post: Post, ingest: Ingest) -> None:
    assert post(bytes(BODY_BYTES_MAX + 1)).status_code == 413
    assert post(bytes(BODY_BYTES_MAX)).status_code == 204
    assert len(ingest.bodies) == 1


def test_only_who_has_the_token_may_push(post: Post, ingest: Ingest) -> None:
    assert post(token="s3cret").status_code == 401  # noqa: S106 - a test's
    assert post(token="s3cret", Authorization="Bearer s3cret").status_code == 204  # noqa: S106 - likewise
    assert len(ingest.bodies) == 1


def test_a_house_without_a_door_has_no_such_path(
    in_process: Callable[[FastAPI], httpx.BaseTransport], desk: Desk
) -> None:
    with httpx.Client(transport=in_process(create_app(desk, None)), base_url="http://localhost") as client:
        assert client.post("/api/v1/write", content=b"", headers=HEADERS).status_code == 404

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.client import Client
from api.port import Desk
from fleet.errors import (
    ActionError,
    BadConfig,
    BadInput,
    BadTrace,
    MoveRefused,
    NotAStore,
    SourceFailed,
    SourceUnavailable,
    StaleState,
    StewardError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreTooNew,
)

Connect = Callable[..., Client]


@pytest.fixture
def connected(in_process: Callable[[FastAPI], httpx.BaseTransport]) -> Connect:
    def connect(desk: Desk, token: str | None = None, served: str | None = None) -> Client:
        return Client("http://localhost", token, transport=in_process(create_app(desk, served)))

    return connect


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://localhost", transport=httpx.MockTransport(answer))


def test_a_report_travels_there_and_back(connected: Connect, desk: Desk) -> None:
    with connected(desk) as client:
        answer = client.report("health", cluster="east", limit=0, is_open=False, state=None)
    assert answer == {"kind": "health", "items": [{"gpus": 0, "cost_usd": None}]}
    assert desk.asked == [("report", "health", {"cluster": "east", "limit": "0", "is_open": "false"})]  # type: ignore[attr-defined]  # the fake's own


def test_an_operation_travels_there_and_back(connected: Connect, desk: Desk) -> None:
    with connected(desk, "secret", "secret") as client:
        assert client.operate("apply", plan_id="p1", limit=0) == {"done": "apply"}
    assert desk.asked == [("operate", "apply", {"plan_id": "p1", "limit": 0})]  # type: ignore[attr-defined]  # the fake's own


@pytest.mark.parametrize(
    "fault",
    [
        StewardError("it is so"),
        BadInput("gpus: -1 is below 0", place="body", field="gpus"),
        BadTrace("line 3 is cut off", place="trace.csv"),
        SourceFailed("timed out"),
        SourceUnavailable("no driver"),
        StoreError("it can't"),
        StoreBusy("owned"),
        StoreTooNew("written by 9"),
        NotAStore("a text file"),
        StoreFull("no room"),
        ActionError("not made"),
        MoveRefused("over budget"),
        StaleState("changed"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_each_of_our_errors_arrives_as_itself(connected: Connect, desk: Desk, fault: StewardError) -> None:
    desk.fault = fault  # type: ignore[attr-defined]  # the fake's own
    with connected(desk) as client, pytest.raises(StewardError) as caught:
        client.operate("apply")
    assert type(caught.value) is type(fault)
    assert str(caught.value) == str(fault)
    if isinstance(fault, BadInput) and isinstance(caught.value, BadInput):
        assert (caught.value.place, caught.value.field) == (fault.place, fault.field)


def test_a_wrong_token_is_told_as_a_wrong_setting(connected: Connect, desk: Desk) -> None:
    with connected(desk, "wrong", "secret") as client, pytest.raises(BadConfig, match="Bearer TOKEN") as caught:
        client.report("health")
    assert caught.value.field == "token"


def test_a_name_can_not_lead_to_another_path(connected: Connect, desk: Desk) -> None:
    with connected(desk) as client, pytest.raises(StewardError):
        client.report("../operations/apply")
    assert desk.asked == []  # type: ignore[attr-defined]  # the fake's own


def test_no_server_is_told_with_what_to_do() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        message = "refused"
        raise httpx.ConnectError(message, request=request)

    with answering(refuse) as client, pytest.raises(SourceUnavailable, match="steward serve"):
        client.report("health")


def test_a_server_that_takes_too_long_is_a_failed_source() -> None:
    def sleep(request: httpx.Request) -> httpx.Response:
        message = "timed out"
        raise httpx.ReadTimeout(message, request=request)

    with answering(sleep) as client, pytest.raises(SourceFailed, match="timed out"):
        client.report("health")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(200, text="<html>"), id="a page"),
        pytest.param(httpx.Response(502, text="Bad Gateway"), id="a proxy's words"),
        pytest.param(httpx.Response(200, json=[1]), id="a list"),
        pytest.param(httpx.Response(200), id="nothing"),
    ],
)
def test_an_answer_that_is_not_ours_is_a_failed_source(answer: httpx.Response) -> None:
    with answering(lambda _request: answer) as client, pytest.raises(SourceFailed, match="is it GPU Steward"):
        client.report("health")


def test_an_error_of_a_later_version_keeps_its_words() -> None:
    body = {"type": "urn:gpusteward:problem:Unheard", "detail": "a new kind of trouble", "status": 500}
    with (
        answering(lambda _request: httpx.Response(500, json=body)) as client,
        pytest.raises(StewardError, match="a new kind of trouble"),
    ):
        client.report("health")

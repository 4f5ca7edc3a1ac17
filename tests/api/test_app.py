from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.port import Desk
from fleet.errors import (
    BadConfig,
    BadInput,
    MoveRefused,
    SourceUnavailable,
    StaleState,
    StewardError,
    StoreBusy,
    StoreFull,
)


class Desklike(Desk, Protocol):
    asked: list[tuple[str, str, dict[str, object]]]
    fault: Exception | None
    condition: dict[str, object]


Caller = Callable[..., httpx.Client]


@pytest.fixture
def caller(in_process: Callable[[FastAPI], httpx.BaseTransport]) -> Caller:
    def connect(desk: Desk, token: str | None = None, host: str = "localhost") -> httpx.Client:
        return httpx.Client(transport=in_process(create_app(desk, token)), base_url=f"http://{host}")

    return connect


def test_a_report_is_asked_with_its_query_parameters(caller: Caller, desk: Desklike) -> None:
    answer = caller(desk).get("/v1/reports/health?cluster=east&state=failed")
    assert answer.status_code == HTTPStatus.OK
    assert answer.json() == {"kind": "health", "items": [{"gpus": 0, "cost_usd": None}]}
    assert desk.asked == [("report", "health", {"cluster": "east", "state": "failed"})]


def test_an_operation_is_ordered_with_the_members_of_its_body(caller: Caller, desk: Desklike) -> None:
    answer = caller(desk).post("/v1/operations/plan", json={"cluster": "east", "limit": 0})
    assert answer.json() == {"done": "plan"}
    assert desk.asked == [("operate", "plan", {"cluster": "east", "limit": 0})]


def test_an_operation_needs_no_body(caller: Caller, desk: Desklike) -> None:
    assert caller(desk).post("/v1/operations/plan").status_code == HTTPStatus.OK
    assert desk.asked == [("operate", "plan", {})]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/reports/health"), ("GET", "/v1/operations/plan"), ("PUT", "/metrics")]
)
def test_a_read_is_never_an_order_and_the_other_way_round(
    caller: Caller, desk: Desklike, method: str, path: str
) -> None:
    answer = caller(desk).request(method, path)
    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert answer.headers["content-type"] == "application/problem+json"
    assert desk.asked == []


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        pytest.param(BadInput("gpus: -1 is below 0", place="body", field="gpus"), 422, "BadInput", id="input"),
        pytest.param(BadConfig("idle.after_s: x", place="steward.toml", field="idle"), 422, "BadConfig", id="config"),
        pytest.param(StoreBusy("another process owns it"), 503, "StoreBusy", id="busy"),
        pytest.param(StoreFull("no room"), 507, "StoreFull", id="full"),
        pytest.param(MoveRefused("over budget"), 409, "MoveRefused", id="refused"),
        pytest.param(StaleState("planned for another version"), 409, "StaleState", id="stale"),
        pytest.param(SourceUnavailable("no driver"), 502, "SourceUnavailable", id="source"),
        pytest.param(StewardError("something else"), 500, "StewardError", id="other"),
    ],
)
def test_each_of_our_errors_is_a_problem_of_its_own(
    caller: Caller, desk: Desklike, fault: StewardError, status: int, kind: str
) -> None:
    desk.fault = fault
    answer = caller(desk).post("/v1/operations/apply", json={})
    body = answer.json()
    assert answer.status_code == body["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:gpusteward:problem:{kind}"
    assert body["detail"] == str(fault)
    assert body["instance"] == "/v1/operations/apply"
    where = {name: body[name] for name in ("field", "place") if name in body}
    assert where == ({"field": fault.field, "place": fault.place} if isinstance(fault, BadInput) else {})


def test_an_error_nobody_foresaw_tells_the_caller_nothing_of_the_inside(caller: Caller, desk: Desklike) -> None:
    desk.fault = KeyError("/secret/path")
    answer = caller(desk).get("/v1/reports/health")
    assert answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("body", ["[1]", "{", '"text"', "3"], ids=["list", "cut off", "text", "number"])
def test_a_body_that_is_not_an_object_is_refused_by_place(caller: Caller, desk: Desklike, body: str) -> None:
    answer = caller(desk).post("/v1/operations/plan", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert answer.json()["errors"][0]["place"].startswith("body")
    assert desk.asked == []


def test_a_form_of_a_foreign_page_can_not_order_anything(caller: Caller, desk: Desklike) -> None:
    """A browser sends text/plain across sites without asking; JSON it asks about first, and is told nothing."""
    answer = caller(desk).post("/v1/operations/apply", content="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert desk.asked == []


def test_a_query_parameter_given_twice_is_refused(caller: Caller, desk: Desklike) -> None:
    answer = caller(desk).get("/v1/reports/health?cluster=east&cluster=west")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert answer.json()["field"] == "cluster"
    assert desk.asked == []


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "secret", "Bearer secretive", "Bearer secre"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/reports/health"), ("POST", "/v1/operations/apply")])
def test_without_the_right_token_nothing_is_asked(
    caller: Caller, desk: Desklike, header: str | None, method: str, path: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = caller(desk, "secret", "steward.example").request(method, path, headers=headers)
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert desk.asked == []


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret"])
def test_the_right_token_opens_from_any_host(caller: Caller, desk: Desklike, header: str) -> None:
    calls = caller(desk, "secret", "steward.example")
    assert calls.get("/v1/reports/health", headers={"Authorization": header}).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("localhost:8787", HTTPStatus.OK, id="by name"),
        pytest.param("127.0.0.1:8787", HTTPStatus.OK, id="by IPv4 address"),
        pytest.param("[::1]:8787", HTTPStatus.OK, id="by IPv6 address"),
        pytest.param("rebound.example:8787", HTTPStatus.FORBIDDEN, id="a stranger's name for this machine"),
        pytest.param("localhost.rebound.example", HTTPStatus.FORBIDDEN, id="a name that only begins like ours"),
        pytest.param("", HTTPStatus.FORBIDDEN, id="none"),
    ],
)
def test_without_a_token_only_this_machine_is_answered(caller: Caller, desk: Desklike, host: str, status: int) -> None:
    assert caller(desk).get("/v1/reports/health", headers={"Host": host}).status_code == status


def test_probes_and_metrics_stay_open_behind_a_token(caller: Caller, desk: Desklike) -> None:
    calls = caller(desk, "secret", "steward.example")
    assert [calls.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]
    assert calls.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert calls.get("/metrics").text.endswith("gpusteward_up 1\n")


@pytest.mark.parametrize(
    ("condition", "healthz", "readyz"),
    [
        pytest.param({"ok": True, "reasons": []}, 200, 200, id="well"),
        pytest.param({"ok": False, "reasons": ["the last turn failed"]}, 503, 503, id="ill"),
        pytest.param({"ok": True, "is_ready": False, "reasons": ["first turn not done"]}, 200, 503, id="starting"),
    ],
)
def test_health_and_readiness_say_why_not(
    caller: Caller, desk: Desklike, condition: dict[str, object], healthz: int, readyz: int
) -> None:
    desk.condition = condition
    calls = caller(desk)
    assert calls.get("/healthz").status_code == healthz
    assert calls.get("/readyz").status_code == readyz
    assert calls.get("/readyz").json() == condition


def test_an_unknown_path_is_a_problem_too(caller: Caller, desk: Desklike) -> None:
    answer = caller(desk).get("/v2/anything")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/allocation", "/allocation/compute"])
def test_allocations_come_in_the_envelope_of_opencost(caller: Caller, desk: Desklike, path: str) -> None:
    with caller(desk) as client:
        answer = client.get(path, params={"window": "7d", "aggregate": "namespace"})
    assert answer.json() == {"code": 200, "data": [{"a": {"totalCost": 1.5}}]}
    assert desk.asked == [("report", "allocation", {"window": "7d", "aggregate": "namespace"})]


def test_allocations_ask_for_the_token_too(caller: Caller, desk: Desklike) -> None:
    with caller(desk, "secret") as client:
        assert client.get("/allocation").status_code == HTTPStatus.UNAUTHORIZED

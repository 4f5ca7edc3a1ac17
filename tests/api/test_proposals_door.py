"""Who answers a proposal is told by the token they come with, and by nothing else where there is one."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.port import Desk

TOKEN, ANNS = "the-shared-token-of-all", "the-token-of-ann-alone"


class Desklike(Desk, Protocol):
    asked: list[tuple[str, str, dict[str, object]]]


@pytest.fixture
def call(in_process: Callable[[FastAPI], httpx.BaseTransport], desk: Desklike) -> Callable[..., httpx.Response]:
    app = create_app(desk, TOKEN, None, {ANNS: "ann"})

    def ask(method: str, path: str, token: str | None, body: dict[str, object] | None = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with httpx.Client(transport=in_process(app), base_url="http://far.example", headers=headers) as client:
            return client.request(method, path, json=body)

    return ask


@pytest.mark.parametrize("path", ["/v1/operations/approve", "/v1/proposals/m1/approve"])
def test_a_token_of_ones_own_says_who_answers_whatever_the_body_claims(
    call: Callable[..., httpx.Response], desk: Desklike, path: str
) -> None:
    assert call("POST", path, ANNS, {"what": "m1", "who": "bob", "note": "fine"}).status_code == HTTPStatus.OK
    assert desk.asked == [("operate", "approve", {"what": "m1", "note": "fine", "who": "ann", "is_proven": True})]


def test_with_the_shared_token_the_body_says_who_and_never_that_it_is_proven(
    call: Callable[..., httpx.Response], desk: Desklike
) -> None:
    claim = {"who": "bob", "is_proven": True}
    assert call("POST", "/v1/proposals/m1/refuse", TOKEN, claim).status_code == HTTPStatus.OK
    assert call("POST", "/v1/operations/approve", TOKEN, {**claim, "what": "m2"}).status_code == HTTPStatus.OK
    assert desk.asked == [
        ("operate", "refuse", {"what": "m1", "who": "bob"}),
        ("operate", "approve", {"what": "m2", "who": "bob"}),
    ]


@pytest.mark.parametrize(
    "token", [None, "", "ann", ANNS[:-1], ANNS + "x"], ids=["none", "empty", "name", "short", "long"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/proposals"), ("POST", "/v1/proposals/m1/approve"), ("POST", "/v1/operations/undo")],
)
def test_without_a_known_token_nothing_is_asked(
    call: Callable[..., httpx.Response], desk: Desklike, token: str | None, method: str, path: str
) -> None:
    assert call(method, path, token).status_code == HTTPStatus.UNAUTHORIZED
    assert desk.asked == []


def test_proposals_have_a_door_of_their_own(call: Callable[..., httpx.Response], desk: Desklike) -> None:
    call("GET", "/v1/proposals?all=true", ANNS)
    assert desk.asked == [("report", "proposals", {"all": "true"})]


def test_only_approve_and_refuse_are_answers(call: Callable[..., httpx.Response], desk: Desklike) -> None:
    assert call("POST", "/v1/proposals/m1/undo", ANNS).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert desk.asked == []

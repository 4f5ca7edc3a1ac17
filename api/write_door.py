"""The push door: Prometheus' remote-write v1 over HTTP, answered once what came is stored.

The codes are those the protocol gives a meaning to: after a 4xx (but 429) the sender drops the request, after 429 and
5xx it sends it again.
"""

from collections.abc import Mapping
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response, params
from fastapi.responses import JSONResponse

from api import problem
from api.port import Ingest
from fleet.errors import BadInput, Overloaded, StewardError, StoreError, TooLarge

PATH = "/api/v1/write"
BODY_BYTES_MAX = 16 * 2**20
_PROTOBUF = "application/x-protobuf"
_V1 = "prometheus.WriteRequest"
_RETRY_AFTER_S = "5"
_SENDERS = 32  # that wait for their commit at a time; more wait outside, and questions have threads of their own


def add_write_door(app: FastAPI, ingest: Ingest, guarded: params.Depends) -> None:
    """Add `POST /api/v1/write` to the app; `ingest` stores a body and raises one of our errors where it can't."""
    limiter = CapacityLimiter(_SENDERS)

    @app.post(PATH, dependencies=[guarded], status_code=HTTPStatus.NO_CONTENT)
    async def write(request: Request) -> Response:
        """Take samples as Prometheus' remote_write sends them (snappy, protobuf, version 1)."""
        refusal = _unsupported(request.headers)
        if refusal is not None:
            return _answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, refusal)
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_BYTES_MAX:
                reason = f"a body of more than {BODY_BYTES_MAX} bytes; send fewer samples at once"
                return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        try:
            await to_thread.run_sync(ingest, bytes(body), limiter=limiter)
        except StewardError as error:
            return _failed(error)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _unsupported(headers: Mapping[str, str]) -> str | None:
    """Return why the headers are not those of remote-write v1, None where they are."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding != "snappy":
        return f"Content-Encoding: {encoding or 'none'} is not taken; remote-write v1 is snappy"
    kind, *parameters = (part.strip() for part in headers.get("content-type", "").split(";"))
    if kind.lower() != _PROTOBUF:
        return f"Content-Type: {kind or 'none'} is not taken; remote-write v1 is {_PROTOBUF}"
    named = [text.partition("=")[2].strip('" ') for text in parameters if text.lower().startswith("proto=")]
    if named and named != [_V1]:
        return f"proto={named[0]} is not taken; set protobuf_message to {_V1} (remote-write version 1)"
    return None


def _failed(error: StewardError) -> JSONResponse:
    if isinstance(error, TooLarge):
        return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
    if isinstance(error, BadInput):
        return _answer(HTTPStatus.BAD_REQUEST, str(error), type(error).__name__)
    if isinstance(error, Overloaded):
        return _answer(HTTPStatus.TOO_MANY_REQUESTS, str(error), retry=True)
    is_store = isinstance(error, StoreError)
    code = HTTPStatus.SERVICE_UNAVAILABLE if is_store else HTTPStatus.INTERNAL_SERVER_ERROR
    return _answer(code, str(error), type(error).__name__, retry=is_store)


def _answer(status: HTTPStatus, detail: str, kind: str | None = None, *, retry: bool = False) -> JSONResponse:
    headers = {"Retry-After": _RETRY_AFTER_S} if retry else {}
    return JSONResponse(problem.problem(status, detail, PATH, kind), status, headers, problem.MEDIA_TYPE)

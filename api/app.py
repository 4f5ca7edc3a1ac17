"""The house over HTTP: health, metrics, reports to read and operations to order."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Body, Depends, FastAPI, Request, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from api import exposition, problem
from api.allocation import add_allocation
from api.guard import Denied, admit
from api.port import Desk, Ingest
from api.write_door import add_write_door
from fleet.errors import BadInput, StewardError

_DESCRIPTION = "Reports to read and operations to order. Errors are application/problem+json (RFC 9457)."


def create_app(
    desk: Desk, token: str | None, ingest: Ingest | None = None, people: Mapping[str, str] | None = None
) -> FastAPI:
    """Return the API over `desk`; with a token, everything under /v1 asks for it, and the push door where `ingest` is.

    Health, readiness and metrics stay open, because probes and scrapers carry no token. The endpoints are plain
    functions, so each call runs in a thread of its own and a slow question does not hold up the others. `people` gives
    names by token: an order that comes with such a token is theirs, whatever name stands in its body.
    """
    app = FastAPI(
        title="GPU Steward",
        description=_DESCRIPTION,
        docs_url=None,  # the page of FastAPI loads its scripts from a foreign host
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )

    def guard(request: Request) -> None:
        headers = request.headers
        request.state.who = admit(token, headers.get("authorization"), headers.get("host"), people or {})

    _add_probes(app, desk)
    _add_desk(app, desk, Depends(guard))
    if ingest is not None:
        add_write_door(app, ingest, Depends(guard))
    add_allocation(app, desk, Depends(guard), _once)
    _add_problems(app)
    return app


def _add_probes(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Tell whether the house does its work, and if not, why."""
        health = desk.health()
        return JSONResponse(dict(health), _status(health, "ok"))

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Tell whether the house can answer yet."""
        health = desk.health()
        return JSONResponse(dict(health), _status(health, "is_ready" if "is_ready" in health else "ok"))

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Give the state of the house to a Prometheus server."""
        return PlainTextResponse(desk.metrics(), media_type=exposition.MEDIA_TYPE)


def _add_desk(app: FastAPI, desk: Desk, guarded: params.Depends) -> None:
    @app.get("/v1/reports/{name}", dependencies=[guarded])
    def report(name: str, request: Request) -> JSONResponse:
        """Answer one named question; the query parameters are its parameters."""
        return JSONResponse(dict(desk.report(name, _once(request))))

    @app.post("/v1/operations/{name}", dependencies=[guarded])
    def operate(
        name: str, request: Request, parameters: Annotated[dict[str, object] | None, Body()] = None
    ) -> JSONResponse:
        """Carry out one named operation; the members of the JSON body are its parameters, "who" among them."""
        return JSONResponse(dict(desk.operate(name, _said(parameters, request))))

    @app.get("/v1/proposals", dependencies=[guarded])
    def proposals(request: Request) -> JSONResponse:
        """Tell which moves wait for an answer."""
        return JSONResponse(dict(desk.report("proposals", _once(request))))

    @app.post("/v1/proposals/{what}/{answer}", dependencies=[guarded])
    def answer_proposal(
        what: str,
        answer: Literal["approve", "refuse"],
        request: Request,
        parameters: Annotated[dict[str, object] | None, Body()] = None,
    ) -> JSONResponse:
        """Approve or refuse a plan or a move by its id; the body may hold "note", and "who" where no token says it."""
        return JSONResponse(dict(desk.operate(answer, {**_said(parameters, request), "what": what})))


def _said(parameters: Mapping[str, object] | None, request: Request) -> dict[str, object]:
    """Return what is ordered and by whom: a body may claim a name, but never that it is proven."""
    told = {name: value for name, value in (parameters or {}).items() if name != "is_proven"}
    return told if request.state.who is None else {**told, "who": request.state.who, "is_proven": True}


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(StewardError)
    def ours(request: Request, error: StewardError) -> JSONResponse:
        return _answer(problem.problem_of(error, request.url.path))

    @app.exception_handler(Denied)
    def denied(request: Request, error: Denied) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if error.status is HTTPStatus.UNAUTHORIZED else None
        return _answer(problem.problem(error.status, error.reason, request.url.path), headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [{"place": ".".join(map(str, fault["loc"])), "reason": fault["msg"]} for fault in error.errors()]
        detail = "; ".join(f"{fault['place']}: {fault['reason']}" for fault in faults)
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _answer(problem.problem(status, detail, request.url.path, BadInput.__name__, errors=faults))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(problem.problem(error.status_code, error.detail, request.url.path), error.headers)

    @app.exception_handler(Exception)
    def unforeseen(request: Request, _error: Exception) -> JSONResponse:
        # The server logs the stack trace; the caller is not to see it.
        detail = "the server met an error that it did not foresee; its log says more"
        return _answer(problem.problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, request.url.path))


def _once(request: Request) -> dict[str, str]:
    names = [name for name, _ in request.query_params.multi_items()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"{twice}: given more than once"
        raise BadInput(message, field=twice)
    return dict(request.query_params)


def _status(health: Mapping[str, object], key: str) -> int:
    return HTTPStatus.OK if health[key] is True else HTTPStatus.SERVICE_UNAVAILABLE


def _answer(body: dict[str, object], headers: Mapping[str, str] | None = None) -> JSONResponse:
    status = body["status"]
    code = status if isinstance(status, int) else HTTPStatus.INTERNAL_SERVER_ERROR
    return JSONResponse(body, code, dict(headers or {}), problem.MEDIA_TYPE)

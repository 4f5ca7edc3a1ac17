"""OpenCost's allocation API over our ledger: the paths and the envelope that its tools expect."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, params
from fastapi.responses import JSONResponse

from api.port import Desk

PATHS = ("/allocation", "/allocation/compute")


def add_allocation(
    app: FastAPI, desk: Desk, guarded: params.Depends, parameters_of: Callable[[Request], dict[str, str]]
) -> None:
    """Answer OpenCost's questions: `{"code": 200, "data": [one mapping of names to allocations a step]}`."""

    def allocation(request: Request) -> JSONResponse:
        """Tell what was allocated to whom in a window."""
        body = desk.report("allocation", parameters_of(request))
        items = body["items"]
        sets = [each["allocations"] for each in items if isinstance(each, Mapping)] if isinstance(items, list) else []
        return JSONResponse({"code": int(HTTPStatus.OK), "data": sets})

    for path in PATHS:
        app.get(path, dependencies=[guarded])(allocation)

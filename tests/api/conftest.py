"""A desk we own, which remembers what it was asked, and a way into the app without a network between."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI

from fleet.errors import BadInput


class FakeDesk:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, object]]] = []
        self.fault: Exception | None = None
        self.condition: dict[str, object] = {"ok": True, "reasons": []}

    def report(self, name: str, parameters: Mapping[str, str]) -> Mapping[str, object]:
        self.asked.append(("report", name, parameters))
        if self.fault is not None:
            raise self.fault
        if name == "allocation":
            return {"items": [{"allocations": {"a": {"totalCost": 1.5}}}]}
        if name != "health":
            message = f"there is no report {name}; the reports are health"
            raise BadInput(message, field="name")
        return {"kind": "health", "items": [{"gpus": 0, "cost_usd": None}]}

    def operate(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        self.asked.append(("operate", name, parameters))
        if self.fault is not None:
            raise self.fault
        return {"done": name}

    def metrics(self) -> str:
        return "# TYPE gpusteward_up gauge\ngpusteward_up 1\n"

    def health(self) -> Mapping[str, object]:
        return self.condition


class InProcess(httpx.BaseTransport):
    def __init__(self, app: FastAPI) -> None:
        self._inside = httpx.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._pass_on(request))

    async def _pass_on(self, request: httpx.Request) -> httpx.Response:
        whole = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._inside.handle_async_request(whole)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


@pytest.fixture
def in_process() -> type[InProcess]:
    return InProcess


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()

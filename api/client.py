"""The API from Python: for commands while a server owns the store, for pipelines and for notebooks."""

from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from api.problem import error_of
from fleet.errors import BadConfig, SourceFailed, SourceUnavailable, StewardError

_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Client:
    """A connection to one server; usable as a context manager.

    `timeout_s` holds for each wait on the server, not for the whole answer. `transport` is for tests.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)

    def report(self, name: str, /, **parameters: str | float | bool | None) -> Mapping[str, object]:
        """Return the answer to one named question; a parameter that is None is left out.

        Raises the `StewardError` that the server raised, in its words; `SourceUnavailable` where there is no server.
        """
        query = {key: _written(value) for key, value in parameters.items() if value is not None}
        return self._answer("GET", f"/v1/reports/{quote(name, safe='')}", query, None)

    def operate(self, name: str, /, **parameters: object) -> Mapping[str, object]:
        """Carry out one named operation and return what it says of itself; raises as `report` does."""
        return self._answer("POST", f"/v1/operations/{quote(name, safe='')}", {}, parameters)

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _answer(
        self, method: str, path: str, query: dict[str, str], body: Mapping[str, object] | None
    ) -> Mapping[str, object]:
        try:
            response = self._http.request(method, path, params=query, json=body)
        except httpx.ConnectError as error:
            message = f"no server answers at {self._url}: start one with 'steward serve', or give its address"
            raise SourceUnavailable(message) from error
        except httpx.HTTPError as error:
            message = f"the server at {self._url} did not answer: {error}"
            raise SourceFailed(message) from error
        answer = _members(response, self._url)
        if response.is_success:
            return answer
        raise _refusal(response.status_code, answer)


def _written(value: str | float | bool) -> str:  # noqa: FBT001 - a query parameter's value, not a switch
    return str(value).lower() if isinstance(value, bool) else str(value)


def _members(response: httpx.Response, url: str) -> Mapping[str, object]:
    try:
        answer = response.json()
    except ValueError as error:
        message = f"{url} answered {response.status_code} with something that is not JSON: is it GPU Steward?"
        raise SourceFailed(message) from error
    if not isinstance(answer, dict):
        message = f"{url} answered {response.status_code} with JSON that is not an object: is it GPU Steward?"
        raise SourceFailed(message)
    return answer


def _refusal(status: int, answer: Mapping[str, object]) -> StewardError:
    if status in _DENIED:
        return BadConfig(str(answer.get("detail", "the server wants a token")), field="token")
    return error_of(answer)

"""The door to Kubernetes: one API server of a kubeconfig context, asked for JSON and for watches, and nothing else.

The library finds the server and proves who we are; bodies are handed on as they came, so that a list of fifty thousand
pods never becomes objects of its.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn

import kubernetes
import urllib3

from collectors.cluster_watch import JSON, Refused
from fleet.clock import Clock
from fleet.errors import SourceFailed, SourceUnavailable

_CONFIG: Any = kubernetes.config  # the library has no types
_TIMEOUT = urllib3.Timeout(connect=5, read=20)
_POOL = 16
_TRIES = 4
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
_AGAIN = frozenset({429, 500, 502, 503, 504})


class ApiServer:
    """One API server as a `Server` (see `cluster_watch`).

    `context` names the entry of the kubeconfig (None: the current one, or the service account of the pod we run in).
    `wait` lets so many seconds pass and tells whether to give up; it is called before each question (0), and between
    tries at an answer that was 429, 5xx or cut off.
    """

    def __init__(self, cluster: str, context: str | None, clock: Clock, wait: Callable[[float], bool]) -> None:
        self._cluster, self._context, self._clock, self._wait = cluster, context, clock, wait
        self._client: Any = None  # the library has no types
        self._date: datetime | None = None

    def close(self) -> None:
        """Let go of the connections; the next question takes them up again, with the credentials of then."""
        client, self._client = self._client, None
        if client is not None:
            client.rest_client.pool_manager.clear()

    def now(self) -> datetime:
        """Return the moment of the last answer by the server's own clock; ours where it told none."""
        return self._clock.now() if self._date is None else self._date

    def get(self, path: str, query: Mapping[str, str], accept: str = JSON) -> bytes:
        """Return the body of an answer.

        Raises `SourceUnavailable` where there is no such context, `Refused` where the server says no, and
        `SourceFailed` where it does not answer, after several tries.
        """
        wait_s = _FIRST_WAIT_S
        for attempt in range(1, _TRIES + 1):
            try:
                response = self._ask(path, query, accept)
                body: bytes = response.data
            except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError) as error:
                failure: SourceFailed = self._silence(path, error)
            except (urllib3.exceptions.HTTPError, ssl.SSLError) as error:
                raise self._silence(path, error) from error
            else:
                if response.status == HTTPStatus.OK:
                    return body
                failure = self._refusal(path, response)
                if response.status not in _AGAIN:
                    raise failure
                wait_s = max(wait_s, _retry_after(response.headers))
            if attempt == _TRIES or self._wait(min(wait_s, _LONGEST_WAIT_S)):
                break
            wait_s *= 2
        raise failure

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """Open a watch and give its lines; one that is cut off ends with `SourceFailed`."""
        try:
            response = self._ask(path, query, JSON, is_whole=False)
        except (urllib3.exceptions.HTTPError, ssl.SSLError) as error:
            raise self._silence(path, error) from error
        try:
            if response.status != HTTPStatus.OK:
                raise self._refusal(path, response)
            yield self._lines(path, response)
        finally:
            response.close()  # what is still to come of it is told by the next watch

    def _lines(self, path: str, response: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib3's response, as the library hands it out
        rest = b""
        try:
            for chunk in response.stream(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError) as error:
            raise self._silence(path, error) from error
        if rest:
            yield rest

    def _ask(self, path: str, query: Mapping[str, str], accept: str, *, is_whole: bool = True) -> Any:  # noqa: ANN401 - urllib3's response
        if self._wait(0):
            message = f"cluster {self._cluster}: {path} is not asked for any more: we are closing"
            raise SourceFailed(message)
        client = self._connect()
        _, url, headers, *_ = client.param_serialize(
            "GET", path, query_params=list(query.items()), header_params={"Accept": accept},
            auth_settings=["BearerToken"],
        )  # fmt: skip
        response = client.rest_client.pool_manager.request(
            "GET", url, headers=headers, timeout=_TIMEOUT, preload_content=is_whole, retries=False, redirect=False
        )
        self._date = _date(response.headers.get("Date")) or self._date
        return response

    def _connect(self) -> Any:  # noqa: ANN401 - the library has no types
        client = self._client
        if client is None:
            try:
                client = self._client = _client(self._context)
            except (kubernetes.config.ConfigException, OSError) as error:
                self._not_there(error)
        return client

    def _not_there(self, error: Exception) -> NoReturn:
        where = "no kubeconfig and no service account" if self._context is None else f"context {self._context}"
        message = f"cluster {self._cluster}: {where} to connect with: {error}"
        raise SourceUnavailable(message) from error

    def _silence(self, path: str, error: Exception) -> SourceFailed:
        return SourceFailed(f"cluster {self._cluster} does not answer: {path}: {error}")

    def _refusal(self, path: str, response: Any) -> Refused:  # noqa: ANN401 - urllib3's response
        if response.status == HTTPStatus.UNAUTHORIZED:
            self.close()  # the next question reads the credentials afresh
        return Refused(f"cluster {self._cluster}: {path}: {response.status} {response.reason}", response.status)


def _client(context: str | None) -> Any:  # noqa: ANN401 - the library has no types
    configuration = kubernetes.client.Configuration()
    configuration.connection_pool_maxsize = _POOL
    try:
        _CONFIG.load_kube_config(context=context, client_configuration=configuration)
    except kubernetes.config.ConfigException:
        if context is not None:
            raise
        _CONFIG.load_incluster_config(client_configuration=configuration)
    return kubernetes.client.ApiClient(configuration)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _date(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None

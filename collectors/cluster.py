"""The Kubernetes source, read-only: look at one cluster's nodes, pods, namespaces and quotas, page by page."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NoReturn

import kubernetes
import msgspec
import polars as pl
import urllib3

from collectors.cluster_rows import Known, Object, Seen, frames_of, provider_of
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import SourceFailed, SourceUnavailable
from fleet.tables import CLUSTER

_CONFIG: Any = kubernetes.config  # the library has no types
_PAGE = 500
_TIMEOUT_S = (5, 60)
_RESTARTS = 3
_OK, _UNAUTHORIZED, _GONE = 200, 401, 410
_NOT_OURS = frozenset({403, 404})
_PATHS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "quotas": "/api/v1/resourcequotas",
}


class _Meta(msgspec.Struct, rename="camel"):
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Page(msgspec.Struct):
    items: list[dict[str, Any]]
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Expired(Exception):  # a word between two functions of this file
    """The list grew too old while it was paged through."""


class _NotOurs(Exception):  # likewise
    """We may not list this kind, or it is not there."""


class ClusterSource:
    """One cluster as a `Source`: what there is now, and what changed since the last look.

    `context` names the entry of the kubeconfig (None: the current one, or the service account of the pod we run in).
    `known` gives what the store has of this cluster, so that intervals go on after a restart.
    """

    def __init__(
        self, clock: Clock, cluster: str, context: str | None = None, known: Callable[[], Known] = Known
    ) -> None:
        self._clock, self._cluster, self._context, self._known = clock, cluster, context, known
        self._client: Any = None  # the library has no types

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return f"kubernetes:{self._cluster}"

    def close(self) -> None:
        """Let go of the connections; the next look takes them up again."""
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client = None

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the API tells of now only
        """Yield one batch of what the cluster is now.

        A kind that we may not list is told as a trouble and the rest goes on. Raises `SourceUnavailable` where there
        is no such context and `SourceFailed` where the server does not answer.
        """
        self._connect()
        troubles: list[Trouble] = []
        seen = Seen(**{kind: self._list(kind, path, troubles) for kind, path in _PATHS.items()})
        now = self._clock.now()
        frames, rejected = frames_of(seen, self._known(), self._cluster, now)
        provider, region = provider_of(seen.nodes)
        row = {
            "cluster": self._cluster, "context": self._context, "provider": provider, "region": region,
            "last_seen_at": now,
        }  # fmt: skip
        frames["cluster"] = pl.DataFrame([row], schema=CLUSTER.schema("wire"))
        is_whole = not any(trouble.kind == "failed" for trouble in troubles)
        yield Batch(self.name, frames, now if is_whole else None, (*troubles, *rejected))

    def _connect(self) -> None:
        if self._client is not None:
            return
        try:
            self._client = _client(self._context)
        except (kubernetes.config.ConfigException, OSError) as error:
            where = "no kubeconfig and no service account" if self._context is None else f"context {self._context}"
            message = f"cluster {self._cluster}: {where} to connect with: {error}"
            raise SourceUnavailable(message) from error
        # One try: what can be tried again is tried at the next turn, and a dead cluster must not hold up the others.
        self._client.configuration.retries = False

    def _list(self, kind: str, path: str, troubles: list[Trouble]) -> list[Object] | None:
        """Return all objects of a kind, None where we may not have them (told in `troubles`)."""
        for _ in range(_RESTARTS):
            try:
                return self._pages(path)
            except _Expired:
                continue
            except _NotOurs as error:
                reason = f"we may not list {kind} ({error}): grant get, list and watch on {path.rpartition('/')[2]}"
                troubles.append(Trouble("failed", path, reason))
                return None
        message = f"cluster {self._cluster}: {path}: the list expired {_RESTARTS} times while it was read"
        raise SourceFailed(message)

    def _pages(self, path: str) -> list[Object]:
        found: list[Object] = []
        token: str | None = ""
        while token is not None:
            page = self._page(path, token)
            found.extend(page.items)
            token = page.metadata.continue_ or None
        return found

    def _page(self, path: str, token: str) -> _Page:
        query = [("limit", str(_PAGE))] + ([("continue", token)] if token else [])
        request = self._client.param_serialize(
            "GET", path, query_params=query, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            response = self._client.call_api(*request, _request_timeout=_TIMEOUT_S)
            body = response.read()
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            message = f"cluster {self._cluster} does not answer: {error}"
            raise SourceFailed(message) from error
        if response.status != _OK:
            self._refuse(path, response.status, response.reason)
        try:
            return msgspec.json.decode(body, type=_Page)
        except msgspec.DecodeError as error:
            message = f"cluster {self._cluster} does not answer as Kubernetes does: {path}: {error}"
            raise SourceFailed(message) from error

    def _refuse(self, path: str, status: int, reason: str) -> NoReturn:
        if status == _GONE:
            raise _Expired
        if status in _NOT_OURS:
            raise _NotOurs(str(status))
        if status == _UNAUTHORIZED:
            self.close()  # the next look reads the credentials afresh
        message = f"cluster {self._cluster}: {path}: {status} {reason}"
        raise SourceFailed(message)


def _client(context: str | None) -> Any:  # noqa: ANN401 - the library has no types
    if context is None:
        try:
            return _CONFIG.new_client_from_config()
        except kubernetes.config.ConfigException:
            configuration = kubernetes.client.Configuration()
            _CONFIG.load_incluster_config(client_configuration=configuration)
            return kubernetes.client.ApiClient(configuration)
    return _CONFIG.new_client_from_config(context=context)

"""The door to Kubernetes for writing: one API server, asked by the official client, and its answers in our words.

Objects are plain JSON. Every write is made by the field manager `gpu-steward` with strict field validation, so that a
field that the server doesn't know is an error and not lost.
"""

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import kubernetes
import msgspec
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from actions.fields import OUR_NAME
from actions.kube_port import PODS, How, Object, Resource
from fleet.errors import MoveRefused, SourceFailed, SourceUnavailable, StaleState

_CONFIG: Any = kubernetes.config  # the library has no types
_TIMEOUT = urllib3.Timeout(connect=5, read=20)
_POOL, _PAGE, _LISTS, _TRIES = 16, 500, 3, 4
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
_KNOWN_FOR_S = 60.0  # how long the kinds that a server serves are taken as known
_JSON = "application/json"
_TYPES: Mapping[How, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}
_NO_ANSWER = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_UNFIT = "failed to create typed patch object"  # how a 500 tells that an applied object has a field its kind has not
_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE})


class _Again(SourceFailed):
    """No answer, and nothing can have happened: it may be asked again, after so many seconds at least."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Expired(Exception):
    """The pages of a list are no longer of one moment."""


class KubeApi:
    """One API server as an `Api` (see `kube_port`).

    `context` names the entry of the kubeconfig (None: the current one, or the service account of the pod we run in);
    `wait` lets so many seconds pass between tries.
    """

    def __init__(self, cluster: str, context: str | None, wait: Callable[[float], None] = time.sleep) -> None:
        self._cluster, self._context, self._wait = cluster, context, wait
        self._client: Any = None  # the library has no types
        self._served: dict[str, tuple[float, list[Object]]] = {}
        self._date: datetime | None = None

    def close(self) -> None:
        """Let go of the connections; the next question takes them up again, with the credentials of then."""
        client, self._client = self._client, None
        if client is not None:
            client.rest_client.pool_manager.clear()

    def pause(self, seconds: float) -> None:
        """Let some time pass."""
        self._wait(seconds)

    def now(self) -> datetime:
        """Return the moment of the last answer by the server's own clock; ours where it told none."""
        return datetime.now(UTC) if self._date is None else self._date

    # Reading

    def get(self, path: str) -> Object:
        """Return an object, or a part of it."""
        return self._send("GET", path)

    def list_all(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Return all objects of a kind, page by page; begun anew where the server forgets the pages in between."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {"limit": str(_PAGE), **{name: value for name, value in selectors.items() if value}}
        for _ in range(_LISTS):
            try:
                found = self._pages(resource.path(namespace=namespace), query)
            except _Expired:
                continue
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            return [{**kind, **each} for each in found]
        message = f"cluster {self._cluster}: the list of {resource.plural} expired {_LISTS} times while it was read"
        raise SourceFailed(message)

    def find(self, api_version: str, kind: str) -> Resource | None:
        """Return where objects of a kind live, None where the server serves none."""
        is_exact = "/" in api_version or api_version == "v1"
        versions = [api_version] if is_exact else self._versions(api_version)
        for version in versions:
            path = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for each in self._discover(path, "resources"):
                if each["kind"] == kind and "/" not in each["name"]:
                    return Resource(version, each["name"], kind, bool(each["namespaced"]))
        return None

    # Writing

    def create(self, path: str, body: Object, *, is_dry_run: bool) -> Object:
        """Create an object."""
        return self._send("POST", path, _written(is_dry_run=is_dry_run), body)

    def patch(
        self,
        path: str,
        body: object,
        *,
        is_dry_run: bool,
        how: How = "merge",
        version: str = "",
        is_forced: bool = False,
    ) -> Object:
        """Change an object and return it as it is then."""
        query = _written(is_dry_run=is_dry_run) | ({"force": "true"} if is_forced else {})
        return self._send("PATCH", path, query, _at_version(body, version), _TYPES[how])

    def delete(self, path: str, *, is_dry_run: bool, uid: str = "", version: str = "") -> None:
        """Delete an object; what it owns is deleted afterwards."""
        wanted = {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        options |= {"preconditions": wanted} if wanted else {}
        # with a body, the server reads options from there alone: `dryRun` in the query would be overlooked
        options |= {"dryRun": ["All"]} if is_dry_run else {}
        self._send("DELETE", path, {"dryRun": "All"} if is_dry_run else {}, options)

    def evict(self, pod: Object, *, is_dry_run: bool) -> str | None:
        """Ask a pod to leave, that very one; return why a disruption budget does not let it go now."""
        meta = pod["metadata"]
        body = {
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
        }  # fmt: skip
        path = PODS.path(meta["name"], meta["namespace"], "eviction")
        answer = self._send("POST", path, _written(is_dry_run=is_dry_run), body, is_held=_is_budget)
        return str(answer.get("message")) if _is_budget(answer) else None

    # Asking

    def _pages(self, path: str, query: Mapping[str, str]) -> list[Object]:
        found: list[Object] = []
        token = ""
        while True:
            answer = self._send("GET", path, {**query, **({"continue": token} if token else {})}, is_held=_is_expired)
            if _is_expired(answer):
                raise _Expired
            found += answer.get("items") or []
            token = answer["metadata"].get("continue") or ""
            if not token:
                return found

    def _versions(self, group: str) -> list[str]:
        found = self._discover(f"/apis/{group}", "versions")
        return [str(each["groupVersion"]) for each in found]

    def _discover(self, path: str, part: str) -> list[Object]:
        asked_at, found = self._served.get(path, (float("-inf"), []))
        if time.monotonic() - asked_at > _KNOWN_FOR_S:
            try:
                answer = self._send("GET", path)
            except StaleState:
                answer = {}
            found = answer.get(part) or []
            preferred = (answer.get("preferredVersion") or {}).get("groupVersion")
            found = sorted(found, key=lambda each: preferred is not None and each["groupVersion"] != preferred)
            self._served[path] = (time.monotonic(), found)
        return found

    def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = _JSON,
        *,
        is_held: Callable[[Object], bool] = lambda _: False,
    ) -> Object:
        """Send a request and return the answer, or a refusal that `is_held` knows how to take."""
        tries = Retrying(
            stop=stop_after_attempt(_TRIES),
            wait=_pause,
            retry=retry_if_exception_type(_Again),
            sleep=self._wait,
            reraise=True,
        )
        content = None if body is None else msgspec.json.encode(body)
        answer: Object = tries(self._once, verb, _line(path, query or {}), content, content_type, is_held)
        return answer

    def _once(
        self, verb: str, line: str, content: bytes | None, content_type: str, is_held: Callable[[Object], bool]
    ) -> Object:
        is_harmless = verb == "GET" or "dryRun=All" in line
        try:
            response = self._ask(verb, line, content, content_type)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise _Again(self._silence(verb, line, error)) from error
        except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError) as error:
            failure = _Again if is_harmless else SourceFailed
            raise failure(self._silence(verb, line, error)) from error
        answer = _decoded(response.data)
        if response.status < HTTPStatus.MULTIPLE_CHOICES and answer is not None:
            return answer
        told = answer or {}
        if is_held(told):
            return told
        raise self._refusal(verb, line, response, told, is_harmless=is_harmless)

    def _ask(self, verb: str, line: str, content: bytes | None, content_type: str) -> Any:  # noqa: ANN401 - urllib3's response, as the library hands it out
        client = self._connect()
        headers = {
            "Accept": _JSON,
            "User-Agent": OUR_NAME,
            **({} if content is None else {"Content-Type": content_type}),
        }
        _, url, sent, *_ = client.param_serialize(verb, line, header_params=headers, auth_settings=["BearerToken"])
        response = client.rest_client.pool_manager.request(
            verb, url, headers=sent, body=content, timeout=_TIMEOUT, retries=False, redirect=False
        )
        self._date = _moment(response.headers.get("Date")) or self._date
        return response

    def _refusal(
        self,
        verb: str,
        line: str,
        response: Any,  # noqa: ANN401 - urllib3's response
        told: Object,
        *,
        is_harmless: bool,
    ) -> Exception:
        status = response.status
        said = told.get("message") or response.reason
        message = f"cluster {self._cluster}: {verb} {line.partition('?')[0]}: {status} {said}"
        wait_s = _retry_after(response.headers)
        is_unavailable = status == HTTPStatus.SERVICE_UNAVAILABLE and wait_s is not None
        if status == HTTPStatus.TOO_MANY_REQUESTS or is_unavailable:
            return _Again(message, wait_s or 0.0)  # turned away at the door: nothing was done
        if status == HTTPStatus.UNAUTHORIZED:
            self.close()  # the next question reads the credentials afresh
        if str(said).startswith(_UNFIT):
            return MoveRefused(message)
        if status in _NO_ANSWER or not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return _Again(message) if is_harmless and status != HTTPStatus.UNAUTHORIZED else SourceFailed(message)
        is_others = any(each.get("reason") == "FieldManagerConflict" for each in _causes(told))
        return StaleState(message) if status in _GONE and not is_others else MoveRefused(message)

    def _connect(self) -> Any:  # noqa: ANN401 - the library has no types
        client = self._client
        if client is None:
            try:
                client = self._client = _client(self._context)
            except (kubernetes.config.ConfigException, OSError) as error:
                where = "no kubeconfig and no service account" if self._context is None else f"context {self._context}"
                message = f"cluster {self._cluster}: {where} to connect with: {error}"
                raise SourceUnavailable(message) from error
        return client

    def _silence(self, verb: str, line: str, error: Exception) -> str:
        return f"cluster {self._cluster} does not answer: {verb} {line.partition('?')[0]}: {error}"


def _client(context: str | None) -> Any:  # noqa: ANN401 - the library has no types
    configuration = kubernetes.client.Configuration()
    configuration.connection_pool_maxsize = _POOL
    try:
        _CONFIG.load_kube_config(context=context, client_configuration=configuration)
    except kubernetes.config.ConfigException:
        if context is not None:
            raise
        _CONFIG.load_incluster_config(client_configuration=configuration)
    client = kubernetes.client.ApiClient(configuration)
    client.user_agent = OUR_NAME  # as the server's audit log names us
    return client


def _pause(state: RetryCallState) -> float:
    """Return how long to wait: longer each time, by chance, and as long as the server said (ten seconds at most)."""
    failure = None if state.outcome is None else state.outcome.exception()
    asked_s = failure.wait_s if isinstance(failure, _Again) else 0.0
    chance_s = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)(state)
    return min(asked_s + chance_s, _LONGEST_WAIT_S)


def _written(*, is_dry_run: bool) -> dict[str, str]:
    how = {"fieldManager": OUR_NAME, "fieldValidation": "Strict"}
    return {**how, "dryRun": "All"} if is_dry_run else how


def _line(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _at_version(body: object, version: str) -> object:
    """Return a patch that fails where the object is no longer in that version."""
    if not version:
        return body
    if isinstance(body, list):
        return [*body, {"op": "replace", "path": "/metadata/resourceVersion", "value": version}]
    if isinstance(body, dict):
        return {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": version}}
    message = f"a patch is a list or an object, not {type(body).__name__}"
    raise TypeError(message)


def _decoded(content: bytes) -> Object | None:
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None


def _causes(told: Object) -> list[Object]:
    return (told.get("details") or {}).get("causes") or []


def _is_budget(told: Object) -> bool:
    return told.get("code") == HTTPStatus.TOO_MANY_REQUESTS and any(
        each.get("reason") == "DisruptionBudget" for each in _causes(told)
    )


def _is_expired(told: Object) -> bool:
    return told.get("kind") == "Status" and told.get("code") == HTTPStatus.GONE


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None

"""A small client for arranging objects: the same calls against our server in memory and against a real cluster."""

import os
from typing import Any

import kubernetes
import msgspec
import pytest

from tests.kube.answers import Object, Refusal

_CONFIG: Any = kubernetes.config  # the library has no types
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def real_cluster() -> str:
    """Return the kubeconfig that KUBECONFIG names, or skip the test."""
    return os.environ.get("KUBECONFIG") or pytest.skip("no cluster: KUBECONFIG names no kubeconfig")


class Client:
    """One cluster, by kubeconfig context; what it refuses is raised as `Refusal`. It may play another user."""

    def __init__(self, config_file: str, context: str | None = None, plays: str = "") -> None:
        self._plays = {"Impersonate-User": plays} if plays else {}
        configuration = kubernetes.client.Configuration()
        _CONFIG.load_kube_config(config_file, context, client_configuration=configuration)
        self._client: Any = kubernetes.client.ApiClient(configuration)

    def close(self) -> None:
        self._client.rest_client.pool_manager.clear()

    def ask(self, verb: str, path: str, body: object = None, *, kind: str = "application/json", **query: str) -> Object:
        """Send a request and return the answer."""
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": "arranger/1", **self._plays}
        _, url, sent, *_ = self._client.param_serialize(
            verb, path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
        )
        content = None if body is None else msgspec.json.encode(body)
        response = self._client.rest_client.pool_manager.request(verb, url, headers=sent, body=content, retries=False)
        if "json" not in response.headers.get("Content-Type", ""):  # a path that is nothing is answered in plain text
            raise Refusal(response.status, response.data.decode().strip(), is_text=True)
        answer: Object = msgspec.json.decode(response.data)
        if response.status >= 300:
            told = dict(answer.get("details") or {})
            causes = told.pop("causes", None)
            reason = answer.get("reason", "")
            raise Refusal(response.status, str(answer.get("message")), reason, causes, about=told)
        return answer

    def get(self, path: str, **query: str) -> Object:
        return self.ask("GET", path, **query)

    def create(self, path: str, body: Object, **query: str) -> Object:
        return self.ask("POST", path, body, **query)

    def patch(self, path: str, body: object, kind: str = MERGE, **query: str) -> Object:
        return self.ask("PATCH", path, body, kind=kind, **query)

    def delete(self, path: str, **query: str) -> Object:
        return self.ask("DELETE", path, **query)

"""Watches of the API server in memory keep the real one's rules, which the tests marked `cluster` ask too."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors.cluster import ApiServer
from fleet.clock import SystemClock
from tests.kube.arrange import Arranger
from tests.kube.client import Client, real_cluster
from tests.kube.faults import Fault
from tests.kube.server import KubeServer, serving

pytestmark = pytest.mark.enable_socket
KUBE_CONFIG = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when the library is imported


@dataclass
class Watched:
    """A namespace to arrange and the server as the collector reads it."""

    arrange: Arranger
    server: ApiServer

    def version(self) -> str:
        return str(self.arrange.client.get(self.arrange.path("pods"))["metadata"]["resourceVersion"])

    @contextmanager
    def watch(self, version: str, **query: str) -> Iterator[Iterator[dict[str, Any]]]:
        asked = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3", **query}
        with self.server.stream(self.arrange.path("pods"), asked) as lines:
            yield (msgspec.json.decode(line) for line in lines)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def watched(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    namespace = f"steward-{uuid.uuid4().hex[:8]}"
    if request.param == "real":
        yield from _watched(Client(real_cluster()), namespace)
        return
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    with serving(KubeServer(), tmp_path / "config"):
        yield from _watched(Client(str(tmp_path / "config")), namespace)


def _watched(client: Client, namespace: str) -> Iterator[Watched]:
    server = ApiServer("east", None, SystemClock(), lambda _: False)
    arrange = Arranger(client, namespace).open()
    yield Watched(arrange, server)
    server.close()
    arrange.close()


def told(events: Iterator[dict[str, Any]], number: int) -> list[tuple[str, str]]:
    taken = [next(events) for _ in range(number)]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in taken]
    assert versions == sorted(versions)
    return [(each["type"], each["object"]["metadata"]["name"]) for each in taken]


def test_a_watch_tells_every_change_after_its_version_in_order(watched: Watched) -> None:
    arrange = watched.arrange
    arrange.pod("before", 1)
    version = watched.version()
    arrange.pod("p", 1)
    arrange.bind("p", "n1")
    with watched.watch(version) as events:
        assert told(events, 2) == [("ADDED", "p"), ("MODIFIED", "p")]
        arrange.remove("p")
        assert told(events, 1)[-1] in {("DELETED", "p"), ("MODIFIED", "p")}


def test_a_watch_from_nowhere_begins_with_what_there_is(watched: Watched) -> None:
    watched.arrange.pod("p", 1)
    with watched.watch("0") as events:
        assert told(events, 1) == [("ADDED", "p")]


def test_a_bookmark_tells_that_nothing_more_came(watched: Watched) -> None:
    watched.arrange.pod("p", 1)
    version = watched.version()
    with watched.watch(version, allowWatchBookmarks="true", labelSelector="a=b") as events:
        watched.arrange.pod("other", 1)  # a real server only bookmarks what it has heard of this kind since
        event = next(events)
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= int(version)


def test_what_no_longer_fits_the_selector_was_deleted_as_far_as_its_watch_knows(watched: Watched) -> None:
    arrange = watched.arrange
    arrange.pod("p", 1)
    version = watched.version()
    path = arrange.path("pods", "p")
    with watched.watch(version, labelSelector="a=b") as events:
        arrange.client.patch(path, {"metadata": {"labels": {"a": "b"}}})
        arrange.client.patch(path, {"metadata": {"labels": {"a": "c"}}})
        assert told(events, 2) == [("ADDED", "p"), ("DELETED", "p")]


def test_a_version_that_is_forgotten_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KUBE_CONFIG, str(tmp_path / "config"))
    with serving(KubeServer(), tmp_path / "config") as kube:
        kube.seed({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}})
        kube.api.storage.compact()
        server = ApiServer("east", None, SystemClock(), lambda _: False)
        with server.stream("/api/v1/pods", {"watch": "1", "resourceVersion": "1"}) as lines:
            event = msgspec.json.decode(next(lines))
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        kube.faults.add(Fault("GET /api/v1/pods?watch=1", status=500))
        with pytest.raises(Exception, match="500"), server.stream("/api/v1/pods", {"watch": "1"}):
            pass
        server.close()

"""A place for tests that ask our server and a real one the same: a namespace of their own on either."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.kube.answers import Object, Refusal
from tests.kube.client import Client, real_cluster
from tests.kube.server import KubeServer, serving


@dataclass
class Place:
    """A server as an administrator sees it, a namespace, a word that makes names one's own, and what was made."""

    client: Client
    config: str
    namespace: str
    made: list[str] = field(default_factory=list)

    def path(self, text: str) -> str:
        """Return a path: `NS` stands for our namespace's collection, `ME` for the word of our own."""
        core, grouped = f"/api/v1/namespaces/{self.namespace}", f"/namespaces/{self.namespace}"
        return text.replace("NS:", core + "/").replace("/NS/", grouped + "/").replace("ME", self.namespace)

    def fill(self, value: object) -> object:
        """Return a body whose texts say our namespace where they say `ME`."""
        if isinstance(value, dict):
            return {name: self.fill(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        return value.replace("ME", self.namespace) if isinstance(value, str) else value

    def put(self, path: str, body: Object) -> Object:
        """Make an object, or leave it as it is where it was made before."""
        filled = self.fill(body)
        assert isinstance(filled, dict)
        where = f"{self.path(path)}/{filled['metadata']['name']}"
        try:
            made = self.client.create(self.path(path), filled)
        except Refusal as error:
            if error.reason != "AlreadyExists":
                raise
            return self.client.get(where)
        self.made.append(where)
        return made

    def play(self, account: str) -> Client:
        """Return a client that plays a service account of our namespace."""
        return Client(self.config, plays=f"system:serviceaccount:{self.namespace}:{account}")

    def clean(self) -> None:
        """Take away what was made, the last first, and at once: a job would else stay until its pods are let go."""
        for path in reversed(self.made):
            try:
                self.client.delete(path, gracePeriodSeconds="0", propagationPolicy="Background")
            except Refusal as error:
                if error.code != 404:
                    raise
        self.made.clear()


def with_token(config: str, token: str, to: Path) -> Path:
    """Write a kubeconfig that names the same server, and a token as who we are."""
    whole = yaml.safe_load(Path(config).read_text())
    user = next(each["context"]["user"] for each in whole["contexts"] if each["name"] == whole["current-context"])
    whole["users"] = [{"name": user, "user": {"token": token}}]
    to.write_text(json.dumps(whole))
    return to


@contextmanager
def place(kind: str, folder: Path) -> Iterator[Place]:
    """Give a place on our server ("memory") or on the cluster that KUBECONFIG names ("real")."""
    if kind == "real":
        with _place(real_cluster()) as made:
            yield made
        return
    with serving(KubeServer(), folder / "config"), _place(str(folder / "config")) as made:
        yield made


@contextmanager
def _place(config: str) -> Iterator[Place]:
    made = Place(Client(config), config, f"steward-same-{uuid.uuid4().hex[:8]}")
    made.client.create("/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    try:
        yield made
    finally:
        made.clean()
        made.client.delete(f"/api/v1/namespaces/{made.namespace}")
        made.client.close()

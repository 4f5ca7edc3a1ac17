"""What the writers ask of a Kubernetes API server, in plain JSON objects; `actions/kube.py` is the real one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from urllib.parse import quote

from fleet.errors import StaleState
from fleet.move import Move, Value

Object = dict[str, Any]  # an object of the API, as JSON has it
Fields = dict[str, Value]
How = Literal["merge", "strategic", "apply", "json"]

OURS = "gpusteward.dev/"  # what our labels and annotations begin with


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind live: `api_version` ("v1", "apps/v1"), their plural and their kind."""

    api_version: str
    plural: str
    kind: str
    is_namespaced: bool = True

    def path(self, name: str = "", namespace: str = "", part: str = "") -> str:
        """Return the path of all objects, those of a namespace, one object, or a part of it (status, scale)."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        space = f"/namespaces/{quote(namespace, safe='')}" if self.is_namespaced and namespace else ""
        tail = "".join(f"/{quote(each, safe='')}" for each in (name, part) if each)
        return f"{root}{space}/{self.plural}{tail}"


class Write(Protocol):
    """A write that was prepared: everything it needs was read."""

    def __call__(self, *, is_dry_run: bool) -> Mapping[str, object] | None:
        """Make it, or let the server check it; return what is to be recorded of it beside the prior fields."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """A move, prepared by its writer from one look at the cluster.

    `prior` holds the fields it changes as they were seen, named as `actions.fields.fields_of` names them (more are
    allowed); `write` makes it on the very version that was seen. A write that is refused has changed nothing.
    """

    prior: Fields
    write: Write


NODES = Resource("v1", "nodes", "Node", is_namespaced=False)
NAMESPACES = Resource("v1", "namespaces", "Namespace", is_namespaced=False)
PODS = Resource("v1", "pods", "Pod")
EVENTS = Resource("events.k8s.io/v1", "events", "Event")


class Reader(Protocol):
    """An API server that can be read.

    Every call raises `StaleState` where the object is gone or another version than told, `MoveRefused` where the
    server says no, and `SourceFailed` where it does not answer.
    """

    def get(self, path: str) -> Object:
        """Return an object, or a part of it."""
        ...

    def list_all(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Return all objects of a kind (in a namespace; that the selectors choose), whole even when it comes in pages.

        Each has its `apiVersion` and `kind`, as an object read alone has.
        """
        ...

    def now(self) -> datetime:
        """Return the moment of the last answer by the server's own clock."""
        ...

    def find(self, api_version: str, kind: str) -> Resource | None:
        """Return where objects of a kind live, None where the server serves none.

        `api_version` is exact ("v1", "apps/v1"), or a group alone ("kueue.x-k8s.io"): then its preferred version that
        has the kind.
        """
        ...


class Api(Reader, Protocol):
    """An API server that can be written to. With `is_dry_run` it checks a write as if it were made, and makes none."""

    def close(self) -> None:
        """Let go of the connections; the next question takes them up again."""
        ...

    def pause(self, seconds: float) -> None:
        """Let some time pass, for others to do what they were asked for."""
        ...

    def create(self, path: str, body: Object, *, is_dry_run: bool) -> Object:
        """Create an object in the place that `path` names (all objects of a kind, or of it in a namespace)."""
        ...

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
        """Change an object and return it as it is then; only if its resource version is still `version` ("" = any).

        `how` is "merge" (null removes, lists are replaced), "strategic", "apply" (server-side, by our field manager;
        `is_forced` takes fields from others, else theirs are refused) or "json" (a list of operations).
        """
        ...

    def delete(self, path: str, *, is_dry_run: bool, uid: str = "", version: str = "") -> None:
        """Delete an object, what it owns afterwards; only if it is still that one, in that version ("" = any)."""
        ...

    def evict(self, pod: Object, *, is_dry_run: bool) -> str | None:
        """Ask a pod to leave by the Eviction API.

        Returns None where it goes, and otherwise why a disruption budget does not let it go now.
        """
        ...


def get_or_none(api: Reader, path: str) -> Object | None:
    """Return an object, None where there is none."""
    try:
        return api.get(path)
    except StaleState:
        return None


def annotations_of(found: Object) -> dict[str, str]:
    """Return an object's annotations."""
    return found["metadata"].get("annotations") or {}


def labels_of(found: Object) -> dict[str, str]:
    """Return an object's labels."""
    return found["metadata"].get("labels") or {}


def version_in(found: Object) -> str:
    """Return an object's resource version."""
    return str(found["metadata"].get("resourceVersion", ""))


def require_version(found: Object, move: Move) -> None:
    """Raise `StaleState` where an object is no longer in the version that a move was planned against."""
    version = version_in(found)
    if move.resource_version not in {"", version}:
        message = f"{move.target} in {move.cluster} is at version {version}, the plan knew {move.resource_version}"
        raise StaleState(message)

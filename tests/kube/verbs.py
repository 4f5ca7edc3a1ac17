"""What can be done to objects: create, read, update, apply and delete, with versions, finalizers and dry runs."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tests.kube.answers import Object, Refusal, not_found
from tests.kube.fields import apply, updated
from tests.kube.kinds import CRDS, Kind, Kinds, kind_of_crd
from tests.kube.rules import at_birth, check_change, dying, grace_of, text_of
from tests.kube.storage import Key, Storage

_SERVERS_OWN = ("uid", "creationTimestamp", "resourceVersion", "generation", "managedFields")


@dataclass(frozen=True)
class How:
    """How a write is meant: tried only, by whom, and whether over others' fields."""

    is_dry_run: bool = False
    manager: str = "unknown"
    force: bool = False


@dataclass
class Api:
    """The API over a storage; `clock` tells the server's time."""

    clock: Callable[[], datetime]
    kinds: Kinds = field(default_factory=Kinds)
    storage: Storage = field(default_factory=Storage)

    def read(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.storage.get((kind.key, namespace, name))
        if found is None:
            raise not_found(kind.plural, name)
        return found

    def create(self, kind: Kind, namespace: str, body: Object, how: How) -> Object:
        with self.storage.changed:
            meta = dict(body.get("metadata") or {})
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
            if not meta.get("name"):
                raise Refusal(422, f"{kind.name}: metadata.name: Required value: name or generateName is required")
            if meta.get("namespace", namespace) != namespace:
                raise Refusal(400, "the namespace of the provided object does not match the namespace sent")
            if meta.get("resourceVersion"):
                raise Refusal(400, "resourceVersion should not be set on objects to be created")
            self._check_namespace(kind, namespace)
            key = (kind.key, namespace, meta["name"])
            if key in self.storage.objects:
                message = f'{kind.plural} "{meta["name"]}" already exists'
                raise Refusal(409, message, "AlreadyExists")
            now = self.clock()
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": text_of(now), "generation": 1}
            if namespace:
                meta["namespace"] = namespace
            made = at_birth(kind, {**body, "kind": kind.name, "metadata": meta}, now)
            if "managedFields" not in meta:
                made["metadata"]["managedFields"] = updated(None, made, how.manager, text_of(now))
            if how.is_dry_run:
                return made
            if kind.key == CRDS:
                self.kinds.add(kind_of_crd(made))
            return self.storage.put(key, made)

    def update(self, kind: Kind, namespace: str, name: str, body: Object, how: How, *, part: str = "") -> Object:
        """Replace an object, or its status (`part`); with a resource version only if it is still that one."""
        with self.storage.changed:
            live = self.read(kind, namespace, name)
            return self._write(kind, live, self._merged(kind, live, body, part), how)

    def apply(self, kind: Kind, namespace: str, name: str, body: Object, how: How) -> Object:
        """Apply what a manager wants of an object; it is made where it is not there."""
        with self.storage.changed:
            live = self.storage.get((kind.key, namespace, name))
            made = apply(live, body, how.manager, force=how.force, now=text_of(self.clock()))
            made["metadata"]["name"] = name
            if live is None:
                return self.create(kind, namespace, made, how)
            entries = made["metadata"]["managedFields"]
            made = self._merged(kind, live, made, "")
            made["metadata"]["managedFields"] = entries
            if _bare(made) == _bare(live) and _owners(made) == _owners(live):
                return live
            return self._write(kind, live, made, how, is_apply=True)

    def delete(self, kind: Kind, namespace: str, name: str, how: How, options: Object) -> Object:
        """Delete an object: at once, or, with finalizers or on a node, by marking it."""
        with self.storage.changed:
            live = self.read(kind, namespace, name)
            wanted = options.get("preconditions") or {}
            for field_, message in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
                if wanted.get(field_) not in {None, live["metadata"][field_]}:
                    raise Refusal(409, f"the {message} in the precondition does not match the one in record")
            grace_s = grace_of(kind, live, options.get("gracePeriodSeconds"))
            if how.is_dry_run:
                return live
            key = (kind.key, namespace, name)
            if live["metadata"].get("finalizers") or grace_s > 0:
                made = dying(live, grace_s, self.clock())
                return live if made is live else self.storage.put(key, made)
            return self._drop(kind, key)

    def write(self, kind: Kind, live: Object, made: Object, how: How) -> Object:
        """Store what a subresource made of an object."""
        return self._write(kind, live, {**made, "metadata": dict(made["metadata"])}, how)

    def _merged(self, kind: Kind, live: Object, body: Object, part: str) -> Object:
        """Return what a written body makes of an object: its status or everything else."""
        meta = body.get("metadata") or {}
        if meta.get("resourceVersion") not in {None, "", live["metadata"]["resourceVersion"]}:
            message = (
                f'Operation cannot be fulfilled on {kind.plural} "{live["metadata"]["name"]}": the object has been '
                "modified; please apply your changes to the latest version and try again"
            )
            raise Refusal(409, message)
        if meta.get("uid") not in {None, live["metadata"]["uid"]}:
            raise Refusal(409, "Precondition failed: UID in precondition does not match")
        if part == "status":
            made = {**live, "metadata": dict(live["metadata"])}
            return {**made, "status": body["status"]} if "status" in body else made
        own = {name: live["metadata"][name] for name in _SERVERS_OWN if name in live["metadata"]}
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "namespace", "name"):
            if name in live["metadata"]:
                own[name] = live["metadata"][name]
        made = {**body, "kind": kind.name, "apiVersion": body.get("apiVersion", live["apiVersion"])}
        made["metadata"] = {**meta, **own}
        if kind.has_status:
            made = {name: value for name, value in made.items() if name != "status"}
            made |= {"status": live["status"]} if "status" in live else {}
        check_change(kind, live, made)
        return made

    def _write(self, kind: Kind, live: Object, made: Object, how: How, *, is_apply: bool = False) -> Object:
        if _bare(made) == _bare(live) and not is_apply:
            return live
        meta = made["metadata"]
        if not is_apply:
            meta["managedFields"] = updated(live, made, how.manager, text_of(self.clock()))
        if made.get("spec") != live.get("spec"):
            meta["generation"] = live["metadata"].get("generation", 0) + 1
        if how.is_dry_run:
            return made
        key = (kind.key, meta.get("namespace", ""), meta["name"])
        stored = self.storage.put(key, made)
        if "deletionTimestamp" in meta and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            return self._drop(kind, key)
        if kind.key == CRDS:
            self.kinds.add(kind_of_crd(stored))
        return stored

    def _drop(self, kind: Kind, key: Key) -> Object:
        """Remove an object, and what can't be without it: a namespace's objects, a definition's kind."""
        gone = self.storage.drop(key)
        if kind.key == CRDS:
            removed = f"{gone['spec']['names']['plural']}.{gone['spec']['group']}"
            self.kinds.remove(removed)
            self._drop_all(lambda each: each[0] == removed)
        if kind.plural == "namespaces":
            self._drop_all(lambda each: each[1] == key[2])
        return gone

    def _drop_all(self, test: Callable[[Key], bool]) -> None:
        for key in [each for each in self.storage.objects if test(each)]:
            self.storage.drop(key)

    def _check_namespace(self, kind: Kind, namespace: str) -> None:
        if kind.is_namespaced and self.storage.get(("namespaces.", "", namespace)) is None:
            raise Refusal(404, f'namespaces "{namespace}" not found')


def _bare(each: Object) -> Object:
    hidden = {"managedFields", "resourceVersion", "generation"}
    return {**each, "metadata": {name: value for name, value in each["metadata"].items() if name not in hidden}}


def _owners(each: Object) -> list[Object]:
    entries = each["metadata"].get("managedFields") or []
    return [{name: value for name, value in entry.items() if name != "time"} for entry in entries]

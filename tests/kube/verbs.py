"""What can be done to objects: create, read, update, apply and delete, with versions, finalizers and dry runs."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tests.kube.admission import check_deletion, check_new
from tests.kube.answers import Object, Refusal, Wrong, about, invalid, required
from tests.kube.crd_rules import with_defaults, wrongs_of_custom
from tests.kube.decoding import Reading, decoded, shape_of, version_of
from tests.kube.events import as_core
from tests.kube.fields import apply, updated
from tests.kube.kinds import CRDS, Kind, Kinds, kind_of_crd
from tests.kube.rules import at_birth, check_change, dying, grace_of, text_of
from tests.kube.storage import Key, Storage
from tests.kube.validation import wrongs_of

_NAMES = ("labels", "annotations")  # may be written along with the status of a built-in kind
_SERVERS_OWN = ("uid", "creationTimestamp", "resourceVersion", "generation", "managedFields")


@dataclass(frozen=True)
class How:
    """How a write is meant: tried only, by whom, over others' fields, in what way it came.

    `judge` is asked last about what is to be stored.
    """

    is_dry_run: bool = False
    manager: str = "unknown"
    force: bool = False
    reading: Reading = field(default_factory=Reading)
    judge: Callable[[Kind, Object], None] = lambda _kind, _made: None


class Webhook(Protocol):
    """Who is asked about each object before it is stored."""

    def fill(self, kind: Kind, made: Object) -> Object:
        """Return a new object with what it adds."""
        ...

    def check(self, kind: Kind, made: Object, before: Object | None) -> None:
        """Raise a `Refusal` where it does not let an object in."""
        ...


@dataclass
class Api:
    """The API over a storage; `clock` tells the server's time."""

    clock: Callable[[], datetime]
    kinds: Kinds = field(default_factory=Kinds)
    storage: Storage = field(default_factory=Storage)
    webhooks: list[Webhook] = field(default_factory=list)

    def read(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.storage.get((kind.key, namespace, name))
        if found is None:
            raise kind.not_found(name)
        return found

    def create(self, kind: Kind, namespace: str, body: Object, how: How) -> Object:
        with self.storage.changed:
            body = _read(kind, body, how)
            meta = dict(body.get("metadata") or {})
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
            if meta.get("namespace", namespace) != namespace:
                why = "the namespace of the provided object does not match the namespace sent on the request"
                raise Refusal(400, why)
            if meta.get("resourceVersion"):
                raise Refusal(500, "resourceVersion should not be set on objects to be created", "")
            self._check_namespace(kind, namespace, meta.get("name", ""))
            if not meta.get("name"):
                raise invalid(kind.word, "", [required("metadata.name", "name or generateName is required")])
            made = self._born(kind, namespace, body, meta)
            for each in self.webhooks:
                made = each.fill(kind, made)
            self._check(kind, made, None)
            how.judge(kind, made)
            self._ask_webhooks(kind, made, None)
            check_new(self.storage, kind, made)
            key = (kind.key, namespace, meta["name"])
            if key in self.storage.objects:
                message = f'{kind.resource} "{meta["name"]}" already exists'
                raise Refusal(409, message, "AlreadyExists", about=kind.about(meta["name"]))
            if "managedFields" not in meta:
                entries = updated(None, made, how.manager, text_of(self.clock()), shape=shape_of(kind, made))
                made["metadata"]["managedFields"] = entries
            if how.is_dry_run:
                return made
            if kind.key == CRDS:
                self.kinds.add(kind_of_crd(made))
            return self.storage.put(key, made)

    def update(self, kind: Kind, namespace: str, name: str, body: Object, how: How, *, part: str = "") -> Object:
        """Replace an object, or its status (`part`); with a resource version only if it is still that one."""
        with self.storage.changed:
            _check_name(body, name)
            live = self.read(kind, namespace, name)
            body = _read(kind, body, how)
            return self._write(kind, live, self._merged(kind, live, body, part), how, part=part)

    def apply(self, kind: Kind, namespace: str, name: str, body: Object, how: How) -> Object:
        """Apply what a manager wants of an object; it is made where it is not there."""
        with self.storage.changed:
            _check_applied(kind, body, name)
            body = _read(kind, body, how)
            live = self.storage.get((kind.key, namespace, name))
            now, shape = text_of(self.clock()), shape_of(kind, body)
            made = apply(live, body, how.manager, force=how.force, now=now, shape=shape)
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
            check_deletion(kind, name)
            live = self.read(kind, namespace, name)
            _check_preconditions(kind, live, options.get("preconditions") or {})
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
        name = live["metadata"]["name"]
        if meta.get("resourceVersion") not in {None, "", live["metadata"]["resourceVersion"]}:
            raise kind.conflict(name)
        if meta.get("uid") not in {None, "", live["metadata"]["uid"]}:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            raise kind.conflict(name, why + live["metadata"]["uid"])
        if part == "status":
            made = {**live, "metadata": dict(live["metadata"])}
            words = () if kind.is_custom else ("annotations",) if kind.plural == "deployments" else _NAMES
            made["metadata"] |= {word: meta[word] for word in words if word in meta}
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
        made = self._filled(kind, made)
        check_change(kind, live, made)
        self._check(kind, made, live)
        return made

    def _write(
        self, kind: Kind, live: Object, made: Object, how: How, *, is_apply: bool = False, part: str = ""
    ) -> Object:
        if _bare(made) == _bare(live) and not is_apply:
            return live
        how.judge(kind, made)
        self._ask_webhooks(kind, made, live)
        meta = made["metadata"]
        if not is_apply:
            now, shape = text_of(self.clock()), shape_of(kind, made)
            meta["managedFields"] = updated(live, made, how.manager, now, shape=shape, part=part)
        if kind.has_generation and _meant(kind, made) != _meant(kind, live):
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

    def _ask_webhooks(self, kind: Kind, made: Object, before: Object | None) -> None:
        for each in self.webhooks:
            each.check(kind, made, before)

    def _born(self, kind: Kind, namespace: str, body: Object, meta: Object) -> Object:
        now = self.clock()
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": text_of(now)}
        meta |= {"generation": 1} if kind.has_generation else {}
        meta |= {"namespace": namespace} if namespace else {}
        return self._filled(kind, at_birth(kind, {**body, "kind": kind.name, "metadata": meta}, now))

    def _filled(self, kind: Kind, made: Object) -> Object:
        """Return a custom object with what its schema fills in."""
        schema = kind.schemas.get(version_of(kind, made))
        filled = made if schema is None else with_defaults(schema, made)
        return filled if isinstance(filled, dict) else made

    def _check(self, kind: Kind, made: Object, before: Object | None) -> None:
        """Refuse an object with wrong fields; what was wrong before already may stay."""
        found = self._wrongs(kind, made, before)
        known = set() if before is None else {each.text for each in self._wrongs(kind, before, None)}
        new = [each for each in found if each.text not in known]
        if new:
            raise invalid(kind.word, made["metadata"]["name"], new)

    def _wrongs(self, kind: Kind, made: Object, before: Object | None) -> list[Wrong]:
        schema = kind.schemas.get(version_of(kind, made))
        return [*wrongs_of(kind, made, before), *([] if schema is None else wrongs_of_custom(schema, made, before))]

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

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.is_namespaced:
            return
        found = self.storage.get(("namespaces.", "", namespace))
        if found is None:
            message = f'namespaces "{namespace}" not found'
            raise Refusal(404, message, about=about(namespace, "", "namespaces"))
        if "deletionTimestamp" in found["metadata"]:
            told = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": told, "field": "metadata.namespace"}
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise kind.forbidden(name, why, [cause])


def _read(kind: Kind, body: Object, how: How) -> Object:
    body = decoded(kind, body, how.reading)
    return as_core(body) if kind.name == "Event" and not kind.is_custom else body


def _check_name(body: Object, name: str) -> None:
    told = (body.get("metadata") or {}).get("name")
    if told not in {None, "", name}:
        raise Refusal(400, f"the name of the object ({told}) does not match the name on the URL ({name})")


def _check_applied(kind: Kind, body: Object, name: str) -> None:
    group, _, version = str(body.get("apiVersion", "")).rpartition("/")
    if (group, body.get("kind")) != (kind.group, kind.name) or version not in kind.versions:
        raise Refusal(400, f"invalid object type: {group}/{version}, Kind={body.get('kind', '')}")
    _check_name(body, name)
    if (body.get("metadata") or {}).get("managedFields"):
        raise Refusal(400, "metadata.managedFields must be nil")


def _check_preconditions(kind: Kind, live: Object, wanted: Object) -> None:
    name = live["metadata"]["name"]
    ends = {"UID": "deleted and then recreated", "ResourceVersion": "modified"}
    for word, field_ in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
        held = live["metadata"][field_]
        if wanted.get(field_) not in {None, held}:
            why = f"the {word} in the precondition ({wanted[field_]}) does not match the {word} in record ({held})"
            message = (
                f'Operation cannot be fulfilled on {kind.name} "{name}": {why}. The object might have been {ends[word]}'
            )
            raise Refusal(409, message, about=about(name, "", kind.name))


def _meant(kind: Kind, each: Object) -> Object:
    """Return what a change of counts as a new generation."""
    if kind.is_custom:
        hidden = {"metadata", "apiVersion", *(("status",) if kind.has_status else ())}
        return {name: value for name, value in each.items() if name not in hidden}
    spec = each.get("spec") or {}
    return {name: value for name, value in spec.items() if kind.plural != "pods" or name != "nodeName"}


def _bare(each: Object) -> Object:
    hidden = {"managedFields", "resourceVersion", "generation"}
    return {**each, "metadata": {name: value for name, value in each["metadata"].items() if name not in hidden}}


def _owners(each: Object) -> list[Object]:
    entries = each["metadata"].get("managedFields") or []
    return [{name: value for name, value in entry.items() if name != "time"} for entry in entries]

"""Manifests of workspaces (`gpusteward.dev/v1alpha1`, kind Workspace): read strictly, written as they are read.

Every complaint names the field and the place; a field that is not known is a mistake and not left out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn

from fleet.errors import BadInput
from fleet.workspace import EVERYWHERE, ROLES, Isolation, Seat, Share, Space, Workspace

API_VERSION, KIND = "gpusteward.dev/v1alpha1", "Workspace"
LIMITS = ("cpu", "memory", "pods", "storage")
AMOUNTS = ("cpu", "memory")
_MOST_GPUS = 10_000_000
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_AMOUNT = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_SYSTEM = ("kube-", "openshift-")  # namespaces of the cluster itself
_PLAIN = frozenset({"default"})


@dataclass(slots=True)
class _Part:
    """A mapping of a manifest that is being read; `close` complains of what nobody has asked for."""

    body: Mapping[str, object]
    path: str
    place: str
    known: set[str] = field(default_factory=set)

    def get(self, name: str) -> object:
        self.known.add(name)
        return self.body.get(name)

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self.fail(name, f"{value!r} is no text")
        return value if isinstance(value, str) else None

    def name(self, name: str, value: object) -> str:
        if not isinstance(value, str) or _LABEL.fullmatch(value) is None:
            self.fail(name, f"{value!r} is no name: lower-case letters, digits and dashes, 63 at most")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.fail(name, f"{value!r} is neither true nor false")
        return default if value is None else value

    def whole(self, name: str) -> int | None:
        value = self.get(name)
        is_whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_GPUS
        if value is not None and not is_whole:
            self.fail(name, f"{value!r} is no whole number from 0 to {_MOST_GPUS}")
        return value if isinstance(value, int) else None

    def parts(self, name: str) -> list["_Part"]:
        return [self.part_of(f"{name}[{place}]", each) for place, each in enumerate(self.listed(name))]

    def part(self, name: str) -> "_Part":
        value = self.get(name)
        return self.part_of(name, {} if value is None else value)

    def part_of(self, name: str, value: object) -> "_Part":
        if not isinstance(value, Mapping):
            self.fail(name, f"{value!r} is no mapping")
        return _Part({str(key): inner for key, inner in value.items()}, self._at(name), self.place)

    def listed(self, name: str) -> Sequence[object]:
        value = self.get(name)
        if value is not None and not isinstance(value, list | tuple):
            self.fail(name, f"{value!r} is no list")
        return () if value is None else value

    def names(self, name: str) -> tuple[str, ...]:
        found = tuple(self.name(f"{name}[{place}]", each) for place, each in enumerate(self.listed(name)))
        return self.unique(name, found)

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.listed(name)
        for place, each in enumerate(found):
            if not isinstance(each, str) or not each.strip():
                self.fail(f"{name}[{place}]", f"{each!r} is no text")
        return self.unique(name, tuple(str(each) for each in found))

    def clusters(self) -> tuple[str, ...]:
        """Read cluster names; "*" alone means every cluster."""
        found = self.texts("clusters")
        if EVERYWHERE in found and len(found) > 1:
            self.fail("clusters", '"*" means every cluster and stands alone')
        return () if found == (EVERYWHERE,) else found

    def amounts(self, name: str, known: Iterable[str]) -> Mapping[str, str]:
        part = self.part(name)
        found = {}
        for each in known:
            value = part.get(each)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and (
                (not is_number and not isinstance(value, str)) or not _AMOUNT.fullmatch(str(value))
            ):
                part.fail(each, f"{value!r} is no amount, such as 64, 500m or 128Gi")
            if value is not None:
                found[each] = str(value)
        part.close()
        return MappingProxyType(found)

    def unique(self, name: str, found: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({each for each in found if found.count(each) > 1})
        if twice:
            self.fail(name, f"{twice[0]!r} stands there twice")
        return found

    def fail(self, name: str, what: str) -> NoReturn:
        at = self._at(name)
        message = f"{self.place}: {at}: {what}"
        raise BadInput(message, place=self.place, field=at)

    def close(self) -> None:
        unknown = sorted(set(self.body) - self.known)
        if unknown:
            self.fail(unknown[0], f"there is no such field; known are {', '.join(sorted(self.known))}")

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def workspace_from(manifest: object, place: str) -> Workspace:
    """Return the workspace of a manifest; `BadInput` names `place` and the field where it is wrong."""
    if not isinstance(manifest, Mapping):
        message = f"{place}: a manifest is a mapping, not {type(manifest).__name__}"
        raise BadInput(message, place=place)
    whole = _Part({str(key): value for key, value in manifest.items()}, "", place)
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if whole.get(name) != wanted:
            whole.fail(name, f"{whole.get(name)!r} is not {wanted}")
    meta, spec = whole.part("metadata"), whole.part("spec")
    whole.close()
    name = meta.name("name", meta.get("name"))
    meta.close()
    made = _spec(name, spec)
    spec.close()
    return made


def manifest_of(workspace: Workspace) -> dict[str, object]:
    """Return a workspace as its manifest, without what is as it is where nothing is said."""
    isolation = {"enabled": workspace.isolation.is_on, "internet": workspace.isolation.internet}
    spec: dict[str, object] = {
        "owner": workspace.owner,
        "description": workspace.description,
        "clusters": list(workspace.clusters),
        "namespaces": [
            _filled(name=each.name, clusters=list(each.clusters), adopt=each.adopt or None, gpus=each.gpus)
            for each in workspace.namespaces
        ],
        "allowedNamespaces": list(workspace.allowed_namespaces),
        "quotas": [
            _filled(
                cluster=each.cluster, pool=each.pool, model=each.model, gpus=each.gpus,
                borrowingGpus=each.borrowing_gpus, lendingGpus=each.lending_gpus, weight=each.weight,
            )
            for each in workspace.quotas
        ],
        "cohort": None if workspace.cohort == Workspace("x").cohort else workspace.cohort,
        "limits": dict(workspace.limits),
        "defaults": dict(workspace.defaults),
        "most": dict(workspace.most),
        "roles": [
            _filled(role=each.role, users=list(each.users), groups=list(each.groups)) for each in workspace.seats
        ],
        "isolation": {} if workspace.isolation == Isolation() else isolation,
    }  # fmt: skip
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": workspace.name},
        "spec": _filled(**spec),
    }


def _spec(name: str, spec: _Part) -> Workspace:
    isolation = spec.part("isolation")
    made = Workspace(
        name=name,
        owner=spec.text("owner"),
        description=spec.text("description"),
        clusters=spec.clusters(),
        namespaces=_spaces(spec),
        allowed_namespaces=spec.names("allowedNamespaces"),
        quotas=_shares(spec),
        cohort=spec.name("cohort", spec.get("cohort") or Workspace(name).cohort),
        limits=spec.amounts("limits", LIMITS),
        defaults=spec.amounts("defaults", AMOUNTS),
        most=spec.amounts("most", AMOUNTS),
        seats=_seats(spec),
        isolation=Isolation(isolation.flag("enabled", default=True), isolation.flag("internet", default=False)),
    )
    isolation.close()
    if not made.namespaces:
        spec.fail("namespaces", "a workspace needs at least one namespace")
    for place, each in enumerate(made.namespaces):
        strange = sorted(set(each.clusters) - set(made.clusters)) if made.clusters else []
        if strange:
            spec.fail(f"namespaces[{place}].clusters", f"{strange[0]!r} is not among the workspace's clusters")
    for place, share in enumerate(made.quotas):
        if made.clusters and share.cluster is not None and share.cluster not in made.clusters:
            spec.fail(f"quotas[{place}].cluster", f"{share.cluster!r} is not among the workspace's clusters")
    return made


def _spaces(spec: _Part) -> tuple[Space, ...]:
    found = []
    for part in spec.parts("namespaces"):
        name = part.name("name", part.get("name"))
        if name in _PLAIN or name.startswith(_SYSTEM):
            part.fail("name", f"{name} is a namespace of the cluster itself")
        found.append(Space(name, part.clusters(), part.flag("adopt", default=False), part.whole("gpus")))
        part.close()
    spec.unique("namespaces", tuple(each.name for each in found))
    return tuple(found)


def _shares(spec: _Part) -> tuple[Share, ...]:
    found: list[Share] = []
    for part in spec.parts("quotas"):
        gpus = part.whole("gpus")
        if gpus is None:
            part.fail("gpus", "a quota needs a number of GPUs (0 is one)")
        place = (part.text("cluster"), part.text("pool"), part.text("model"))
        if any((each.cluster, each.pool, each.model) == place for each in found):
            part.fail("gpus", "cluster, pool and model stand in an earlier quota already")
        limits = (part.whole("borrowingGpus"), part.whole("lendingGpus"))
        if limits[1] is not None and limits[1] > gpus:
            part.fail("lendingGpus", f"{limits[1]} are more than the {gpus} GPUs that it has to lend")
        found.append(Share(gpus, *place, *limits, _weight(part)))
        if len({each.weight for each in found if each.cluster == place[0]}) > 1:
            part.fail("weight", "a workspace has one weight in a cluster; an earlier quota says another")
        part.close()
    return tuple(found)


def _weight(part: _Part) -> float | None:
    value = part.get("weight")
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1000  # noqa: PLR2004 - as the message says
    if value is not None and not is_number:
        part.fail("weight", f"{value!r} is no number above 0 and up to 1000")
    return None if value is None else float(str(value))


def _seats(spec: _Part) -> tuple[Seat, ...]:
    found = []
    for part in spec.parts("roles"):
        role = part.text("role")
        if role not in ROLES:
            part.fail("role", f"{role!r} is not one of {', '.join(ROLES)}")
        found.append(Seat(role, part.texts("users"), part.texts("groups")))
        if not found[-1].users and not found[-1].groups:
            part.fail("users", "a role needs users or groups that have it")
        part.close()
    spec.unique("roles", tuple(each.role for each in found))
    return tuple(found)


def _filled(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None and value not in ([], {})}

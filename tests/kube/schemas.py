"""Which fields kinds have and how their lists merge: built-in kinds by the library's models, others by their CRD."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import kubernetes

from tests.kube.answers import Object

_MODELS: Any = kubernetes.client.models  # the library has no types
_QUANTITIES = frozenset({
    "limits", "requests", "hard", "used", "capacity", "allocatable", "max", "min", "default", "defaultRequest",
    "maxLimitRequestRatio", "overhead",
})  # fmt: skip
_MICRO = frozenset({"renewTime", "acquireTime", "eventTime", "lastObservedTime"})

# How lists of built-in kinds are told apart: (list, owner of the list or "") -> keys. () = a set; others are atomic.
_APPLIED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("conditions", ""): ("type",), ("containers", ""): ("name",), ("initContainers", ""): ("name",),
    ("ephemeralContainers", ""): ("name",), ("env", ""): ("name",), ("volumes", ""): ("name",),
    ("volumeMounts", ""): ("mountPath",), ("volumeDevices", ""): ("devicePath",), ("hostAliases", ""): ("ip",),
    ("ports", "Container"): ("containerPort", "protocol"), ("ports", "ServiceSpec"): ("port", "protocol"),
    ("addresses", "NodeStatus"): ("type",), ("ownerReferences", ""): ("uid",), ("finalizers", "ObjectMeta"): (),
    ("podCIDRs", ""): (), ("imagePullSecrets", "PodSpec"): ("name",), ("schedulingGates", ""): ("name",),
    ("topologySpreadConstraints", ""): ("topologyKey", "whenUnsatisfiable"), ("resourceClaims", ""): ("name",),
    ("claims", "ResourceRequirements"): ("name",), ("podIPs", ""): ("ip",), ("reservedFor", ""): ("uid",),
    ("devices", "ResourceClaimStatus"): ("driver", "device", "pool"), ("secrets", "ServiceAccount"): ("name",),
    ("resourceClaimStatuses", ""): ("name",),
}  # fmt: skip
_APPLIED_WHOLE = {("conditions", "JobStatus")}
_MERGED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("ports", "Container"): ("containerPort",), ("ports", "ServiceSpec"): ("port",),
    ("topologySpreadConstraints", ""): ("topologyKey",), ("conditions", "JobStatus"): ("type",),
    ("claims", "ResourceRequirements"): ("*",), ("devices", "ResourceClaimStatus"): ("*",),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a value is: its word (`object`, `map`, `list`, `string`, `any`...), its fields or items, its owner's name.

    `keys` tells the members of a list apart for apply patches, `merge_key` for strategic ones; None: it is replaced
    whole. An empty `keys` is a set.
    """

    word: str
    name: str = ""
    inner: Callable[[], Mapping[str, "Shape"]] | None = None
    item: "Shape | None" = None
    keys: tuple[str, ...] | None = None
    merge_key: str | None = None

    def field(self, name: str) -> "Shape | None":
        """Return the shape of a field, None where there is no such field."""
        if self.word == "any":
            return self
        if self.word == "map":
            return self.item
        return None if self.inner is None else self.inner().get(name)


ANY = Shape("any")
_PRIMITIVES = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "object": "any"}


def built_in(api_version: str, kind: str) -> Shape:
    """Return the shape of a built-in kind; of one that the library doesn't know, anything."""
    group, _, version = api_version.rpartition("/")
    name = f"{version[:1].upper()}{version[1:]}{kind}"
    if kind == "Event":
        name = "CoreV1Event" if not group else "EventsV1Event"
    return _model(name) if hasattr(_MODELS, name) else ANY


@cache
def _model(name: str) -> Shape:
    return Shape("object", re.sub(r"^(Core|Events)?V\d+((alpha|beta)\d+)?", "", name), lambda: _fields(name))


@cache
def _fields(name: str) -> Mapping[str, Shape]:
    model = getattr(_MODELS, name)
    owner = _model(name).name
    return {json: _typed(model.openapi_types[own], json, owner) for own, json in model.attribute_map.items()}


def _typed(text: str, field: str, owner: str) -> Shape:
    many = re.fullmatch(r"(List|Dict)\[(?:str, )?(.+)\]", text)
    if many is not None and many[1] == "List":
        keys = None if (field, owner) in _APPLIED_WHOLE else _APPLIED.get((field, owner), _APPLIED.get((field, "")))
        merged = _MERGED.get((field, owner), _MERGED.get((field, ""), keys))
        key = merged[0] if merged and merged[0] != "*" else None
        return Shape("list", owner, item=_typed(many[2], "", owner), keys=keys, merge_key=key)
    if many is not None:
        item = Shape("quantity") if field in _QUANTITIES else _typed(many[2], "", owner)
        return Shape("map", owner, item=item)
    if text == "datetime":
        return Shape("microtime" if field in _MICRO else "time", owner)
    return Shape(_PRIMITIVES[text], owner) if text in _PRIMITIVES else _model(text)


def of_schema(schema: Object, *, is_root: bool = False) -> Shape:
    """Return the shape that an OpenAPI schema of a custom resource definition describes."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return ANY
    kind = schema.get("type")
    if kind == "object" and "additionalProperties" in schema:
        extra = schema["additionalProperties"]
        return Shape("map", item=of_schema(extra) if isinstance(extra, dict) else ANY)
    if kind == "object":
        fields = schema.get("properties") or {}
        own: dict[str, Shape] = {name: of_schema(each) for name, each in fields.items()}
        if is_root or schema.get("x-kubernetes-embedded-resource"):
            own |= {"apiVersion": Shape("string"), "kind": Shape("string"), "metadata": _model("V1ObjectMeta")}
        return Shape("object", inner=lambda: own)
    if kind == "array":
        how = schema.get("x-kubernetes-list-type")
        keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if how in {"map", "set"} else None
        return Shape("list", item=of_schema(schema.get("items") or {}), keys=keys)
    return Shape(kind) if kind in {"string", "integer", "number", "boolean"} else ANY


def unknown_fields(shape: Shape, value: object, at: str = "") -> Iterator[str]:
    """Find the fields of a value that its shape has not, as the server names them."""
    if shape.word == "list" and isinstance(value, list) and shape.item is not None:
        for number, each in enumerate(value):
            yield from unknown_fields(shape.item, each, f"{at}[{number}]")
    elif shape.word in {"object", "map"} and isinstance(value, dict):
        for name, each in value.items():
            inner, path = shape.field(name), f"{at}.{name}" if at else name
            if inner is None:
                yield path
            else:
                yield from unknown_fields(inner, each, path)


def pruned(shape: Shape, value: Any) -> Any:
    """Return a value without the fields that its shape has not."""
    if shape.word == "list" and isinstance(value, list) and shape.item is not None:
        return [pruned(shape.item, each) for each in value]
    if shape.word in {"object", "map"} and isinstance(value, dict):
        known = ((name, shape.field(name), each) for name, each in value.items())
        return {name: pruned(inner, each) for name, inner, each in known if inner is not None}
    return value


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_GO = {"integer": "int32", "boolean": "bool", "number": "float64"}
_IS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "map": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "quantity": lambda value: isinstance(value, int | float) or (isinstance(value, str) and is_quantity(value)),
    "time": lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None,
    "microtime": lambda value: isinstance(value, str) and _MICRO_TIME.fullmatch(value) is not None,
    "any": lambda _: True,
}


def is_quantity(text: str) -> bool:
    """Tell whether a text is an amount such as `8`, `500m` or `1Gi`."""
    return _QUANTITY.fullmatch(text) is not None


def mistyped(shape: Shape, value: object, at: str = "", owner: str = "") -> str | None:
    """Return how the server words the first value that has not the type of its field; null is no value at all."""
    if value is None:
        return None
    if not _IS[shape.word](value):
        return _type_words(shape, value, at, shape.name or owner)
    if shape.word == "list" and isinstance(value, list) and shape.item is not None:
        found = (mistyped(shape.item, each, at, shape.name) for each in value)
    elif shape.word in {"object", "map"} and isinstance(value, dict):
        inner = ((shape.field(name), name, each) for name, each in value.items())
        found = (
            mistyped(each_shape, each, (f"{at}.{name}" if at else name) if shape.word == "object" else at, shape.name)
            for each_shape, name, each in inner
            if each_shape is not None
        )
    else:
        return None
    return next((each for each in found if each is not None), None)


def _type_words(shape: Shape, value: object, at: str, owner: str) -> str:
    if shape.word == "quantity":
        return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    if shape.word in {"time", "microtime"} and isinstance(value, str):
        layout = "2006-01-02T15:04:05.000000Z07:00" if shape.word == "microtime" else "2006-01-02T15:04:05Z07:00"
        return f'parsing time "{value}" as "{layout}": cannot parse'
    words = {bool: "bool", str: "string", int: "number", float: "number", dict: "object", list: "array"}
    wanted = _GO.get(shape.word, shape.word)
    return f"json: cannot unmarshal {words[type(value)]} into Go struct field {owner}.{at} of type {wanted}"

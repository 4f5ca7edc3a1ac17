"""What a custom resource's schema asks of an object, and what it fills in."""

import re
from collections.abc import Iterator, Mapping, Sequence

from tests.kube.answers import Object, Wrong, bad, required, unsupported

_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


def wrongs_of_custom(schema: Object, made: Object, before: Object | None) -> list[Wrong]:
    """Return what a schema finds wrong with a custom object; rules in CEL are then left for later."""
    found = list(wrong_in_schema(schema, made, before))
    is_blocked = any(each.reason != "FieldValueInvalid" for each in found)
    return [*found, bad("<nil>", None, _UNCHECKED)] if is_blocked and _has_rules(schema) else found


def _has_rules(schema: object) -> bool:
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(_has_rules(each) for each in schema.values())
    return isinstance(schema, list) and any(_has_rules(each) for each in schema)


def wrong_in_schema(schema: Object, value: object, before: object, at: str = "") -> Sequence[Wrong]:
    """Return what a schema finds wrong with a value; of rules in CEL only `self == oldSelf` is known."""
    found = list(_typed(schema, value, at))
    rules = [each["rule"] for each in schema.get("x-kubernetes-validations") or ()]
    if before is not None and value != before and "self == oldSelf" in rules:
        message = next(each for each in schema["x-kubernetes-validations"] if each["rule"] == "self == oldSelf")
        found.append(bad(at, value, message.get("message") or "failed rule: self == oldSelf"))
    if isinstance(value, dict):
        old = before if isinstance(before, dict) else {}
        inner = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        for name, each in value.items():
            part = inner.get(name) or (extra if isinstance(extra, dict) else None)
            if part is not None:
                found += wrong_in_schema(part, each, old.get(name), f"{at}.{name}" if at else name)
        missing = [name for name in schema.get("required") or () if name not in value]
        found += [required(f"{at}.{name}" if at else name) for name in missing]
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, each in enumerate(value):
            found += wrong_in_schema(schema["items"], each, None, f"{at}[{number}]")
    return found


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,),
    "array": (list,),
}  # fmt: skip
_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}


def _typed(schema: Object, value: object, at: str) -> Iterator[Wrong]:
    is_free = value is None or schema.get("x-kubernetes-int-or-string")
    wanted = "" if is_free else str(schema.get("type"))
    types = _TYPES.get(wanted)
    if types is not None and (not isinstance(value, types) or (isinstance(value, bool) and wanted != "boolean")):
        name = _NAMES[type(value)]
        message = f'Invalid value: "{name}": {at} in body must be of type {wanted}: "{name}"'
        yield Wrong(at, "FieldValueTypeInvalid", message)
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(at, value, schema["enum"])
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if "pattern" in schema and text is not None and re.search(schema["pattern"], text) is None:
        yield bad(at, value, f"{at} in body should match '{schema['pattern']}'")
    if isinstance(value, str):
        yield from _sized(schema, len(value), at, ("minLength", "maxLength"), "chars long")
    if isinstance(value, list):
        yield from _sized(schema, len(value), at, ("minItems", "maxItems"), "items")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            why = f"{at} in body should be greater than or equal to {schema['minimum']}"
            yield bad(at, value, why)
        if "maximum" in schema and value > schema["maximum"]:
            why = f"{at} in body should be less than or equal to {schema['maximum']}"
            yield bad(at, value, why)


def _sized(schema: Object, size: int, at: str, names: tuple[str, str], words: str) -> Iterator[Wrong]:
    least, most = (schema.get(name) for name in names)
    verb = "be at least" if words == "chars long" else "have at least"
    if least is not None and size < least:
        yield bad(at, size, f"{at} in body should {verb} {least} {words}")
    if most is not None and size > most:
        yield Wrong(
            at, "FieldValueTooLong" if words == "chars long" else "FieldValueTooMany", f"at most {most} {words}"
        )


def with_defaults(schema: Object, value: object) -> object:
    """Return a value with what its schema fills in."""
    if isinstance(value, dict):
        inner: Mapping[str, Object] = schema.get("properties") or {}
        made = {**{name: each["default"] for name, each in inner.items() if "default" in each}, **value}
        extra = schema.get("additionalProperties")
        parts = {name: inner.get(name) or (extra if isinstance(extra, dict) else {}) for name in made}
        order = [*value, *(name for name in made if name not in value)]
        return {name: with_defaults(parts[name], made[name]) for name in order}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [with_defaults(schema["items"], each) for each in value]
    return value

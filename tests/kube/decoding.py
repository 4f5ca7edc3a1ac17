"""Reading what is sent as an object of a kind: unknown fields and wrong types, refused in the words of each verb."""

from dataclasses import dataclass
from typing import Literal

from tests.kube.answers import Object, Refusal, bad
from tests.kube.kinds import Kind
from tests.kube.schemas import Shape, mistyped, pruned, unknown_fields

By = Literal["write", "patch", "apply"]


@dataclass(frozen=True)
class Reading:
    """How a body came, and whether fields that the kind has not are refused; else they are dropped."""

    by: By = "write"
    is_strict: bool = False


def version_of(kind: Kind, body: Object) -> str:
    """Return the version that an object is written in."""
    version = str(body.get("apiVersion", "")).rpartition("/")[2]
    return version if version in kind.versions else kind.versions[0]


def shape_of(kind: Kind, body: Object) -> Shape:
    return kind.shape(version_of(kind, body))


def decoded(kind: Kind, body: Object, reading: Reading) -> Object:
    """Return a body without the fields that its kind has not."""
    version, shape = version_of(kind, body), shape_of(kind, body)
    if body.get("kind") not in {None, "", kind.name}:
        message = f'{body["kind"]} in version "{version}" cannot be handled as a {kind.name}'
        raise Refusal(400, message)
    unknown = list(unknown_fields(shape, body))
    wrong = None if kind.is_custom else mistyped(shape, body)
    if reading.by == "apply" and (unknown or wrong):
        what = f".{unknown[0]}: field not declared in schema" if unknown else str(wrong)
        name, word = (body.get("metadata") or {}).get("name", ""), f"{kind.group}/{version}, Kind={kind.name}"
        raise Refusal(500, f"failed to create typed patch object (/{name}; {word}): {what}", "")
    if unknown and reading.is_strict:
        wrong = "strict decoding error: " + ", ".join(f'unknown field "{each}"' for each in unknown)
    if wrong is None:
        made: Object = pruned(shape, body)
        return made
    if reading.by == "patch":
        about = bad("patch", "the patched object", wrong)
        raise Refusal(422, f' "" is invalid: {about.text}', causes=[about.cause()])
    raise Refusal(400, f'{kind.name} in version "{version}" cannot be handled as a {kind.name}: {wrong}')

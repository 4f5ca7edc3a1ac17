"""A kind of our own, by a definition whose schema uses what schemas have: needs, words, defaults, lists, laws."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kube.answers import Object, Refusal
from tests.kube.places import Place

BOXES = "/apis/ME.test/v1/NS/boxes"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BOX_SPEC: Object = {
    "type": "object", "required": ["size"],
    "properties": {
        "size": {"type": "string", "pattern": "^[0-9]+$"},
        "stop": {"type": "string", "enum": ["None", "Hold"], "default": "None"},
        "owner": {"type": "string",
                  "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "field is immutable"}]},
        "groups": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 0}}}},
    },
}  # fmt: skip
BOX_CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boxes.ME.test"},
    "spec": {
        "group": "ME.test", "scope": "Namespaced",
        "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": BOX_SPEC, "status": {"type": "object",
                                                            "x-kubernetes-preserve-unknown-fields": True}},
            }},
        }],
    },
}  # fmt: skip


@contextmanager
def boxes(made: Place) -> Iterator[None]:
    """Serve boxes while the block runs."""
    definition = made.fill(BOX_CRD)
    assert isinstance(definition, dict)
    made.client.create(CRDS, definition)
    try:
        _wait_for_boxes(made)
        yield
    finally:
        made.clean()
        made.client.delete(f"{CRDS}/{made.path('boxes.ME.test')}")


def _wait_for_boxes(made: Place) -> None:
    for _ in range(2000):
        try:
            made.client.get(made.path(BOXES))
        except Refusal as error:
            assert error.code in {404, 429, 503}  # noqa: PT017 - it is not served yet
        else:
            return
    pytest.fail("the kind is not served")

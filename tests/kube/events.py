"""Events, which two groups tell in two forms: the old one of the core, and that of `events.k8s.io`."""

from collections.abc import Mapping

from tests.kube.answers import Object

_NEW_NAMES: Mapping[str, str] = {
    "involvedObject": "regarding", "message": "note", "reportingComponent": "reportingController",
    "source": "deprecatedSource", "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp", "count": "deprecatedCount",
}  # fmt: skip
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}


def as_core(event: Object) -> Object:
    """Return an event in the form of the core; the version it is written in stays."""
    return {_OLD_NAMES.get(name, name): value for name, value in event.items()}


def as_new(event: Object) -> Object:
    """Return an event in the form of `events.k8s.io`."""
    return {_NEW_NAMES.get(name, name): value for name, value in event.items()}

"""Writes that hold on to what an object is meant to be: on a busy cluster its status moves on at any moment."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from actions.kube_body import meant_version, resource_version
from actions.kube_port import Api, Object, Reader
from fleet.errors import StaleState

_TRIES = 10
_Answer = TypeVar("_Answer")


def write_as_meant(
    api: Reader, path: str, seen: Mapping[str, Any], write: Callable[[str], _Answer], tries: int = _TRIES
) -> _Answer:
    """Return what `write` answers to the resource version of an object that was `seen`, or to a later one.

    A later one is tried where all that has changed since is the status, or what the server keeps of an object.
    """
    try:
        return write(resource_version(seen))
    except StaleState:
        now = api.get(path) if tries > 1 else seen
        has_moved = resource_version(now) != resource_version(seen)
        if not has_moved or meant_version(now) != meant_version(seen):
            raise
        return write_as_meant(api, path, now, write, tries - 1)


def patch_as_meant(api: Api, path: str, patch: Object, seen: Mapping[str, Any], *, is_dry_run: bool) -> None:
    """Patch an object that was `seen`, as `write_as_meant` does."""
    write_as_meant(api, path, seen, lambda version: api.patch(path, patch, is_dry_run=is_dry_run, version=version))

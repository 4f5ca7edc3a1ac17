"""The patches that the API server takes: JSON (RFC 6902), merge (RFC 7386) and strategic merge."""

import copy
from typing import Any

from tests.kube.answers import Object, Refusal
from tests.kube.schemas import ANY, Shape

_REJECTED = "the server rejected our request due to an error in our request"


def merge(whole: Any, change: Any) -> Any:
    """Return `whole` with a merge patch applied: null removes, lists are replaced."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    made = dict(whole) if isinstance(whole, dict) else {}
    for name, value in change.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merge(made.get(name), value)
    return made


def strategic(whole: Any, change: Any, shape: Shape) -> Any:
    """Return `whole` with a strategic merge patch applied: lists with a merge key are merged by it, others replaced."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    made = dict(whole) if isinstance(whole, dict) else {}
    if change.get("$patch") == "replace":
        return {name: value for name, value in change.items() if name != "$patch"}
    for name, value in change.items():
        inner = shape.field(name) or ANY
        if value is None:
            made.pop(name, None)
        elif isinstance(value, list) and inner.keys == () and inner.word == "list":
            made[name] = list(dict.fromkeys([*(made.get(name) or []), *value]))
        elif isinstance(value, list) and inner.merge_key is not None:
            made[name] = _members(made.get(name) or [], value, inner.merge_key, inner.item or ANY)
        else:
            made[name] = strategic(made.get(name), value, inner)
    return made


def _members(whole: list[Object], changes: list[Object], key: str, shape: Shape) -> list[Object]:
    """Merge members by their key; new ones come first, as the server has it."""
    old = {each.get(key): each for each in whole}
    new: dict[Any, Object] = {}
    for change in changes:
        name = change.get(key)
        if change.get("$patch") == "delete":
            old.pop(name, None)
        elif name in old:
            old[name] = strategic(old[name], change, shape)
        else:
            new[name] = strategic(None, change, shape)
    return [*new.values(), *old.values()]


def json_patch(whole: Object, operations: list[Object]) -> Object:
    """Return `whole` with the operations of a JSON patch applied, all of them or none."""
    made = copy.deepcopy(whole)
    for each in operations:
        path = _path(each["path"])
        value = copy.deepcopy(each.get("value"))
        if each["op"] in {"move", "copy"}:
            value = copy.deepcopy(_at(made, _path(each["from"])))
        if each["op"] == "move":
            _remove(made, _path(each["from"]))
        if each["op"] == "test":
            if _at(made, path) != value:
                raise Refusal(422, _REJECTED)
        elif each["op"] == "remove":
            _remove(made, path)
        elif each["op"] == "replace":
            _at(made, path)
            _remove(made, path)
            _add(made, path, value)
        elif each["op"] in {"add", "move", "copy"}:
            _add(made, path, value)
        else:
            raise Refusal(400, f"unknown operation {each['op']}")
    return made


def _path(text: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _at(whole: Any, path: list[str]) -> Any:
    for part in path:
        try:
            whole = whole[int(part)] if isinstance(whole, list) else whole[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Refusal(422, _REJECTED) from error
    return whole


def _add(whole: Any, path: list[str], value: Any) -> None:
    parent, last = _at(whole, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value


def _remove(whole: Any, path: list[str]) -> None:
    _at(whole, path)
    parent, last = _at(whole, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]

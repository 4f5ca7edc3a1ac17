"""Server-side apply: who manages which field, what conflicts, and what goes when nobody wants it any more."""

import copy
import json
from typing import Any

from tests.kube.answers import Object, Refusal
from tests.kube.schemas import ANY, Shape

Path = tuple[str, ...]
_NOT_MANAGED = {"apiVersion", "kind"}
_SYSTEM = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"}


def paths_of(value: Any, shape: Shape = ANY, at: Path = ()) -> dict[Path, Any]:
    """Return the leaves of an object by path (`f:name`, `k:{"name":"x"}`); lists that are no maps are leaves."""
    if isinstance(value, dict) and (value or not at):
        found: dict[Path, Any] = {}
        for name, inner in value.items():
            if (not at and name in _NOT_MANAGED) or (at == ("f:metadata",) and name in _SYSTEM):
                continue
            field = shape.field(name) or ANY
            if isinstance(inner, list) and field.keys and all(isinstance(each, dict) for each in inner):
                for each in inner:
                    found |= paths_of(each, field.item or ANY, (*at, f"f:{name}", _member(each, field.keys)))
            elif isinstance(inner, list) and field.keys == ():
                found |= {(*at, f"f:{name}", f"v:{json.dumps(each)}"): each for each in inner}
            else:
                found |= paths_of(inner, field, (*at, f"f:{name}"))
        return found
    return {at: value}


def _member(each: Object, keys: tuple[str, ...]) -> str:
    """Return the word of a list's member: its keys, with a port's protocol as the server fills it in."""
    named = {key: each.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps({key: value for key, value in named.items() if value is not None}, separators=(",", ":"))


def apply(live: Object | None, wanted: Object, manager: str, *, force: bool, now: str, shape: Shape) -> Object:
    """Return what an object becomes when `manager` applies `wanted`; a field that another manages is a conflict."""
    entries = copy.deepcopy((live or {}).get("metadata", {}).get("managedFields") or [])
    mine = next((each for each in entries if _is_of(each, manager, "Apply")), None)
    before = set() if mine is None else _set_of(mine["fieldsV1"])
    others = [each for each in entries if each is not mine]
    ours, theirs = paths_of(wanted, shape), paths_of(live or {}, shape)
    _settle_conflicts(ours, theirs, others, force=force)
    held = {path for each in others for path in _set_of(each["fieldsV1"])}
    made = _without(copy.deepcopy(live or {}), before - set(ours) - held, shape)
    made = dict(_laid_over(made, wanted, shape))
    entry = {
        "manager": manager, "operation": "Apply", "apiVersion": wanted["apiVersion"], "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": _tree_of(set(ours)),
    }  # fmt: skip
    made.setdefault("metadata", {})["managedFields"] = [
        *(each for each in others if each["fieldsV1"]),
        entry,
    ]
    return made


def updated(
    live: Object | None, made: Object, manager: str, now: str, *, shape: Shape = ANY, part: str = ""
) -> list[Object]:
    """Return the managed fields after a plain write: what changed belongs to its writer from now on.

    What is written by a subresource (`part`) is an entry of its own.
    """
    before, after = paths_of(live or {}, shape), paths_of(made, shape)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    entries = copy.deepcopy((live or {}).get("metadata", {}).get("managedFields") or [])
    kept: list[Object] = []
    mine = set(changed)
    for each in entries:
        paths = {path for path in _set_of(each["fieldsV1"]) if path in after}
        if _is_of(each, manager, "Update", part):
            mine |= paths
        elif paths - changed:
            kept.append({**each, "fieldsV1": _tree_of(paths - changed)})
    if not mine:
        return kept
    entry = {
        "manager": manager, "operation": "Update", "apiVersion": made["apiVersion"], "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": _tree_of(mine), **({"subresource": part} if part else {}),
    }  # fmt: skip
    return [*kept, entry]


def _is_of(entry: Object, manager: str, operation: str, part: str = "") -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, part)


def _settle_conflicts(ours: dict[Path, Any], theirs: dict[Path, Any], others: list[Object], *, force: bool) -> None:
    causes = []
    for each in others:
        held = _set_of(each["fieldsV1"])
        clashing = {path for path in held if path in ours and (path not in theirs or theirs[path] != ours[path])}
        if clashing and not force:
            using = "" if each["operation"] == "Apply" else f" using {each['apiVersion']}"
            part = f" with subresource {json.dumps(each['subresource'])}" if each.get("subresource") else ""
            word = f'conflict with "{each["manager"]}"{part}{using}'
            causes += [
                {"reason": "FieldManagerConflict", "message": word, "field": _readable(path)}
                for path in sorted(clashing)
            ]
        each["fieldsV1"] = _tree_of(held - clashing)
    if causes:
        many = "conflict" if len(causes) == 1 else "conflicts"
        raise Refusal(409, f"Apply failed with {len(causes)} {many}: {_listed(causes)}", causes=causes)


def _listed(causes: list[Object]) -> str:
    if len(causes) == 1:
        return f"{causes[0]['message']}: {causes[0]['field']}"
    by_manager: dict[str, list[str]] = {}
    for each in causes:
        by_manager.setdefault(each["message"].replace("conflict", "conflicts", 1), []).append(f"- {each['field']}")
    return "\n".join(line for word, fields in by_manager.items() for line in (f"{word}:", *fields))


def _readable(path: Path) -> str:
    return "".join(f".{part[2:]}" if part.startswith("f:") else f"[{_keys_text(part)}]" for part in path)


def _keys_text(part: str) -> str:
    if part.startswith("v:"):
        return f"={part[2:]}"
    return ",".join(f"{name}={json.dumps(value)}" for name, value in json.loads(part[2:]).items())


def _laid_over(whole: Any, wanted: Any, shape: Shape) -> Any:
    if isinstance(wanted, dict):
        made = dict(whole) if isinstance(whole, dict) else {}
        laid = {name: _laid_over(made.get(name), value, shape.field(name) or ANY) for name, value in wanted.items()}
        return {**made, **laid}
    if isinstance(wanted, list) and shape.keys is not None and isinstance(whole, list):
        if not shape.keys:
            return [*whole, *(each for each in wanted if each not in whole)]
        members = {_member(each, shape.keys): each for each in whole}
        for each in wanted:
            word = _member(each, shape.keys)
            members[word] = _laid_over(members.get(word), each, shape.item or ANY)
        return list(members.values())
    return copy.deepcopy(wanted)


def _without(whole: Any, gone: set[Path], shape: Shape, at: Path = ()) -> Any:
    """Return an object without the leaves of these paths, and without what is empty after that."""
    if not gone:
        return whole
    if isinstance(whole, dict):
        made = {}
        for name, value in whole.items():
            path = (*at, f"f:{name}")
            if path in gone:
                continue
            inside = {each for each in gone if each[: len(path)] == path}
            left = _without(value, inside, shape.field(name) or ANY, path)
            if left or not inside:
                made[name] = left
        return made
    if isinstance(whole, list) and shape.keys == ():
        return [each for each in whole if (*at, f"v:{json.dumps(each)}") not in gone]
    if isinstance(whole, list) and shape.keys:
        members = []
        for each in whole:
            path = (*at, _member(each, shape.keys))
            inside = {every for every in gone if every[: len(path)] == path}
            left = _without(each, inside, shape.item or ANY, path)
            if not inside or set(left) - set(shape.keys):
                members.append(left)
        return members
    return whole


def _tree_of(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        at = tree
        for part in path:
            at = at.setdefault(part, {})
    return tree


def _set_of(tree: Object, at: Path = ()) -> set[Path]:
    if not tree:
        return {at} if at else set()
    return {path for part, inner in tree.items() for path in _set_of(inner, (*at, part))}

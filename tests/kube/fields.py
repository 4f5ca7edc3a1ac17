"""Server-side apply: who manages which field, what conflicts, and what goes when nobody wants it any more."""

import copy
import json
from typing import Any

from tests.kube.answers import Object, Refusal
from tests.kube.patches import MERGE_KEYS

Path = tuple[str, ...]
_NOT_MANAGED = {"apiVersion", "kind"}
_SYSTEM = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"}


def paths_of(value: Any, at: Path = ()) -> dict[Path, Any]:
    """Return the leaves of an object by path (`f:name`, `k:{"name":"x"}`); lists without a known key are leaves."""
    if isinstance(value, dict) and (value or not at):
        found: dict[Path, Any] = {}
        for name, inner in value.items():
            if (not at and name in _NOT_MANAGED) or (at == ("f:metadata",) and name in _SYSTEM):
                continue
            key = MERGE_KEYS.get(name)
            if isinstance(inner, list) and key is not None and all(isinstance(each, dict) for each in inner):
                for each in inner:
                    member = (*at, f"f:{name}", "k:" + json.dumps({key: each.get(key)}, separators=(",", ":")))
                    found |= paths_of(each, member)
            else:
                found |= paths_of(inner, (*at, f"f:{name}"))
        return found
    return {at: value}


def apply(live: Object | None, wanted: Object, manager: str, *, force: bool, now: str) -> Object:
    """Return what an object becomes when `manager` applies `wanted`; a field that another manages is a conflict."""
    entries = copy.deepcopy((live or {}).get("metadata", {}).get("managedFields") or [])
    mine = next((each for each in entries if (each["manager"], each["operation"]) == (manager, "Apply")), None)
    before = set() if mine is None else _set_of(mine["fieldsV1"])
    others = [each for each in entries if each is not mine]
    ours, theirs = paths_of(wanted), paths_of(live or {})
    _settle_conflicts(ours, theirs, others, force=force)
    held = {path for each in others for path in _set_of(each["fieldsV1"])}
    made = _without(copy.deepcopy(live or {}), before - set(ours) - held)
    made = dict(_laid_over(made, wanted))
    entry = {
        "manager": manager, "operation": "Apply", "apiVersion": wanted["apiVersion"], "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": _tree_of(set(ours)),
    }  # fmt: skip
    made.setdefault("metadata", {})["managedFields"] = [
        *(each for each in others if each["fieldsV1"]),
        entry,
    ]
    return made


def updated(live: Object | None, made: Object, manager: str, now: str) -> list[Object]:
    """Return the managed fields after a plain write: what changed belongs to its writer from now on."""
    before, after = paths_of(live or {}), paths_of(made)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    entries = copy.deepcopy((live or {}).get("metadata", {}).get("managedFields") or [])
    kept: list[Object] = []
    mine = set(changed)
    for each in entries:
        paths = {path for path in _set_of(each["fieldsV1"]) if path in after}
        if (each["manager"], each["operation"]) == (manager, "Update"):
            mine |= paths
        elif paths - changed:
            kept.append({**each, "fieldsV1": _tree_of(paths - changed)})
    if not mine:
        return kept
    entry = {
        "manager": manager, "operation": "Update", "apiVersion": made["apiVersion"], "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": _tree_of(mine),
    }  # fmt: skip
    return [*kept, entry]


def _settle_conflicts(ours: dict[Path, Any], theirs: dict[Path, Any], others: list[Object], *, force: bool) -> None:
    causes = []
    for each in others:
        held = _set_of(each["fieldsV1"])
        clashing = {path for path in held if path in ours and (path not in theirs or theirs[path] != ours[path])}
        if clashing and not force:
            word = f'conflict with "{each["manager"]}"'
            causes += [
                {"reason": "FieldManagerConflict", "message": word, "field": _readable(path)}
                for path in sorted(clashing)
            ]
        each["fieldsV1"] = _tree_of(held - clashing)
    if causes:
        fields = ", ".join(f"{each['message']}: {each['field']}" for each in causes)
        raise Refusal(409, f"Apply failed with {len(causes)} conflicts: {fields}", causes=causes)


def _readable(path: Path) -> str:
    words = [f".{part[2:]}" if part.startswith("f:") else f"[{part[2:].strip('{}')}]" for part in path]
    return "".join(words).replace('"', "").replace(":", "=")


def _laid_over(whole: Any, wanted: Any, name: str = "") -> Any:
    key = MERGE_KEYS.get(name)
    if isinstance(wanted, dict):
        made = dict(whole) if isinstance(whole, dict) else {}
        return {**made, **{each: _laid_over(made.get(each), value, each) for each, value in wanted.items()}}
    if isinstance(wanted, list) and key is not None and isinstance(whole, list):
        members = {each.get(key): each for each in whole}
        for each in wanted:
            members[each.get(key)] = _laid_over(members.get(each.get(key)), each)
        return list(members.values())
    return copy.deepcopy(wanted)


def _without(whole: Any, gone: set[Path], at: Path = ()) -> Any:
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
            left = _without(value, inside, path)
            if left or not inside:
                made[name] = left
        return made
    if isinstance(whole, list) and at and (key := MERGE_KEYS.get(at[-1][2:])) is not None:
        members = []
        for each in whole:
            path = (*at, "k:" + json.dumps({key: each.get(key)}, separators=(",", ":")))
            inside = {every for every in gone if every[: len(path)] == path}
            left = _without(each, inside, path)
            if not inside or set(left) - {key}:
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

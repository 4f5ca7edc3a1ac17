"""Label and field selectors, as the API server understands them."""

import re
from collections.abc import Callable

from tests.kube.answers import Object, Refusal

Test = Callable[[Object], bool]

_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_ANY_KIND = ("metadata.name", "metadata.namespace")
_FIELDS = {
    "pods": ("spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName"),
    "nodes": ("spec.unschedulable",),
    "events": ("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "reason", "type"),
    "namespaces": ("status.phase",),
    "resourceslices": ("spec.nodeName", "spec.driver"),
}


def by_labels(text: str) -> Test:
    """Return the test that a label selector such as `a=b,c!=d,e in (f,g),!h` makes."""
    tests = [_requirement(part) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda each: all(test(each["metadata"].get("labels") or {}) for test in tests)


def by_selector(selector: Object | None) -> Test:
    """Return the test that a LabelSelector object makes; an empty one takes everything, none takes nothing."""
    if selector is None:
        return lambda _: False
    wanted = selector.get("matchLabels") or {}
    parts = [_expression(each) for each in selector.get("matchExpressions") or ()]
    return by_labels(",".join([f"{name}={value}" for name, value in wanted.items()] + parts))


def by_fields(text: str, plural: str) -> Test:
    """Return the test that a field selector makes; a field that can't be selected by is refused."""
    tests = []
    for part in filter(str.strip, text.split(",")):
        name, operator, value = re.split(r"(!=|==|=)", part, maxsplit=1)
        if name not in (*_ANY_KIND, *_FIELDS.get(plural, ())):
            raise Refusal(400, f"field label not supported: {name}")
        tests.append((name.split("."), operator != "!=", value))
    return lambda each: all((_text(each, path) == value) == is_equal for path, is_equal, value in tests)


def _requirement(text: str) -> Test:
    match = _SET.fullmatch(text)
    if match is not None:
        name, values, is_in = match[1], {each.strip() for each in match[3].split(",")}, match[2] == "in"
        return lambda labels: (labels.get(name) in values) if is_in else (labels.get(name) not in values)
    parts = re.split(r"(!=|==|=)", text.strip(), maxsplit=1)
    if len(parts) == 1:
        word = parts[0]
        return lambda labels: (word[1:] not in labels) if word.startswith("!") else (word in labels)
    name, operator, value = (part.strip() for part in parts)
    return lambda labels: (labels.get(name) == value) == (operator != "!=")


def _expression(each: Object) -> str:
    name, values = each["key"], ",".join(each.get("values") or ())
    words = {"In": f"{name} in ({values})", "NotIn": f"{name} notin ({values})", "Exists": name}
    return str(words.get(each["operator"], f"!{name}"))


def _text(each: Object, path: list[str]) -> str:
    found: object = each
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return str(found).lower()
    if found is None:
        return "false" if path == ["spec", "unschedulable"] else ""
    return str(found)

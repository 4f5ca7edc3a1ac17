"""Read a filter of OpenCost's API, such as `namespace:"a","b"+label[app]!:"web"`, as a question to an allocation."""

import re
from collections.abc import Callable, Sequence

from analytics.allocation import KNOWN_NAMES, Allocation, Predicate
from fleet.errors import BadInput

_TERM = re.compile(r"\s*(?P<field>[A-Za-z]+)(?:\[(?P<key>[^\]]+)\])?\s*(?P<operator>!:|<~:|~>:|!~:|~:|:)\s*")
_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"+|,()]+)')
_FIELDS = {"controllername": "controller", "services": "service"}

_COMPARE: dict[str, Callable[[str, str], bool]] = {
    ":": str.__eq__,
    "~:": str.__contains__,
    "<~:": str.startswith,
    "~>:": str.endswith,
}


def read_filter(text: str) -> Predicate:
    """Return the question that `text` asks of an allocation, or raise `BadInput` naming the place.

    Terms are joined by `+` (and) or `|` (or, which binds looser); several values of a term by a comma, any of which
    may hold (none, for `!:`). The operators are `:` equals, `~:` contains, `<~:` begins with, `~>:` ends with.
    """
    place = 0
    groups: list[list[Predicate]] = [[]] if text.strip() else []
    while place < len(text) and groups:
        term, place = _term(text, place)
        groups[-1].append(term)
        rest = text[place:].lstrip()
        place = len(text) - len(rest)
        if not rest:
            break
        if rest[0] not in "+|":
            raise _fault(text, place)
        if rest[0] == "|":
            groups.append([])
        place += 1
        if not text[place:].strip():
            raise _fault(text, place)
    return lambda allocation: not groups or any(all(term(allocation) for term in terms) for terms in groups)


def _term(text: str, place: int) -> tuple[Predicate, int]:
    match = _TERM.match(text, place)
    if match is None:
        raise _fault(text, place)
    field, key, operator = str(match["field"]), match["key"], str(match["operator"])
    field = _FIELDS.get(field.lower(), field)
    known = KNOWN_NAMES if key is None else frozenset({"label", "annotation"})
    if field not in known:
        message = (
            f"filter: {field!r} at {place} is not one of {', '.join(sorted(KNOWN_NAMES))}, label[..], annotation[..]"
        )
        raise BadInput(message, field="filter")
    values, place = _values(text, match.end())
    is_not = operator.startswith("!")
    compare = _COMPARE[operator.removeprefix("!")]
    return lambda allocation: _holds(_words(allocation, field, key), values, compare) is not is_not, place


def _values(text: str, place: int) -> tuple[list[str], int]:
    values: list[str] = []
    while True:
        match = _VALUE.match(text, place)
        if match is None:
            raise _fault(text, place)
        values.append(match[2] if match[1] is None else re.sub(r"\\(.)", r"\1", match[1]))
        place = match.end()
        if text[place : place + 1] != ",":
            return values, place
        place += 1


def _words(allocation: Allocation, field: str, key: str | None) -> Sequence[str]:
    if key is not None:
        return [(allocation.labels if field == "label" else allocation.annotations).get(key, "")]
    if field == "service":
        return list(allocation.services) or [""]
    return [allocation.names.get(field, "")]


def _holds(words: Sequence[str], values: Sequence[str], compare: Callable[[str, str], bool]) -> bool:
    return any(compare(word, value) for word in words for value in values)


def _fault(text: str, place: int) -> BadInput:
    message = f'filter: {text!r} can\'t be read at {place}; write it as namespace:"a"+label[app]:"web"'
    return BadInput(message, field="filter")

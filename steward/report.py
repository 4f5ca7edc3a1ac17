"""What a command answers: one value, rendered as a table, JSON or YAML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

API_VERSION = "gpusteward.dev/v1"

Output = Literal["table", "wide", "json", "yaml"]
Item = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: facts about the whole (`summary`), one row each (`items`), and sentences (`notes`).

    `columns` are the item keys that a narrow table shows, in order; `wide` and JSON show all of them.
    `exit_code` is what the command ends with.
    """

    kind: str
    as_of: datetime | None
    summary: Item = field(default_factory=lambda: MappingProxyType({}))
    items: Sequence[Item] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = 0

    def to_body(self) -> dict[str, object]:
        """Return the report as JSON-able values, in the envelope that all our answers share."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "asOf": plain(self.as_of),
            "summary": plain(self.summary),
            "items": plain(self.items),
            "columns": list(self.columns),
            "notes": list(self.notes),
            "exitCode": self.exit_code,
        }


def plain(value: object) -> object:
    """Return `value` as JSON-able: times in RFC 3339, money as text (exact), tuples as lists."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def render(body: Mapping[str, object], output: Output) -> str:
    """Return a report's body as text in the format asked for."""
    if output == "json":
        return json.dumps(body, indent=2, ensure_ascii=False)
    if output == "yaml":
        import yaml  # noqa: PLC0415 - a command that prints a table should not pay for it

        return yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True).rstrip()
    return "\n\n".join(part for part in _parts(body, is_wide=output == "wide") if part)


def _parts(body: Mapping[str, object], *, is_wide: bool) -> list[str]:
    summary, items, notes = body["summary"], body["items"], body["notes"]
    columns = body["columns"]
    parts = []
    if isinstance(summary, Mapping) and summary:
        parts.append(_pairs(summary))
    if isinstance(items, list) and items:
        narrow = [str(name) for name in columns] if isinstance(columns, list) and not is_wide else []
        shown = narrow or list(dict.fromkeys(key for item in items for key in item))
        parts.append(_grid(shown, [[_cell(item.get(name)) for name in shown] for item in items]))
    if isinstance(notes, list) and notes:
        parts.append("\n".join(f"note: {note}" for note in notes))
    return parts


def _pairs(summary: Mapping[str, object]) -> str:
    width = max(len(name) for name in summary)
    return "\n".join(f"{name.replace('_', ' ').ljust(width)}  {_cell(value)}" for name, value in summary.items())


def _grid(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = [name.replace("_", " ").upper() for name in names]
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def _cell(value: object) -> str:
    """Return one cell: a dash for "not known", which is never a zero."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(inner) for inner in value)
    return str(value)

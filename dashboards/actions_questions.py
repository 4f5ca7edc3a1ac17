"""What may be done, what waits, what was done: reports about moves as rows that a page draws."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import polars as pl

from dashboards import words
from fleet.errors import BadInput

Row = Mapping[str, object]
_LOG_SCHEMA: dict[str, pl.DataType] = {
    "ts": pl.Datetime("us", "UTC"),
    "event": pl.String(),
    "who": pl.String(),
    "kind": pl.String(),
    "target": pl.String(),
    "workspace": pl.String(),
    "detail": pl.String(),
    "rule": pl.String(),
    "move_id": pl.String(),
    "plan_id": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Body:
    """A report's body: facts, rows and sentences."""

    summary: Row
    items: Sequence[Row]
    notes: Sequence[str]


def body_of(report: Mapping[str, object]) -> Body:
    """Return a report's body with its parts told apart; raises `BadInput` where it has another shape."""
    summary, items, notes = report.get("summary"), report.get("items"), report.get("notes")
    if not isinstance(summary, Mapping) or not isinstance(items, list) or not isinstance(notes, list):
        message = f"report {report.get('kind')}: it has no summary, items and notes"
        raise BadInput(message, field="report")
    return Body(summary, [item for item in items if isinstance(item, Mapping)], [str(note) for note in notes])


def rows_of(value: object) -> list[Row]:
    """Return the rows in a value of a report; none where it holds no rows."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def text_of(row: Row, name: str) -> str:
    """Return a value as a page shows it; a dash where it is not known."""
    value = row.get(name)
    return "-" if value is None else str(value)


def dollars_of(row: Row, name: str) -> Decimal | None:
    """Return an amount of dollars that a report wrote as text."""
    value = row.get(name)
    return None if value is None else Decimal(str(value))


def moment_of(row: Row, name: str) -> datetime | None:
    """Return a moment that a report wrote as text."""
    value = row.get(name)
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def named(row: Row) -> str:
    """Return how a move is called in a list to choose from: what, of what, and its id."""
    return f"{words.plain(text_of(row, 'kind'))}: {text_of(row, 'target')}  ({text_of(row, 'move_id')})"


def change_lines(move: Row) -> list[str]:
    """Return what a move changes, a line a field: before -> after."""
    lines = []
    for change in rows_of(move.get("changes")):
        was = shown(change.get("before")) if change.get("is_before_known") is True else "?"
        lines.append(f"{change['field']}: {was} -> {shown(change.get('after'))}")
    return lines


def shown(value: object) -> str:
    """Return a field's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def diff_frame(items: Sequence[Row]) -> pl.DataFrame:
    """Return a plan's moves as a table to look over: one row a move."""
    rows = [
        {
            "move": f"{text_of(item, 'sign')} {words.plain(text_of(item, 'kind'))}",
            "target": text_of(item, "target"),
            "change": "; ".join(change_lines(item)) or "-",
            "gpus": item.get("gpus"),
            "saves": None if (saved := dollars_of(item, "saving_usd_per_hour")) is None else float(saved),
            "workspace": item.get("workspace"),
            "why": text_of(item, "reason"),
            "approvals": item.get("approvals"),
        }
        for item in items
    ]
    schema = {name: pl.String() for name in ("move", "target", "change", "workspace", "why", "approvals")}
    return pl.DataFrame(rows, schema={**schema, "gpus": pl.Float64(), "saves": pl.Float64()}).select(
        "move", "target", "change", "gpus", "saves", "workspace", "why", "approvals"
    )


def log_frame(items: Sequence[Row]) -> pl.DataFrame:
    """Return the record as a table, newest first."""
    rows = [{**{name: item.get(name) for name in _LOG_SCHEMA}, "ts": moment_of(item, "ts")} for item in items]
    return pl.DataFrame(rows, schema=_LOG_SCHEMA).sort("ts", descending=True, maintain_order=True)


def undoable(items: Sequence[Row]) -> list[Row]:
    """Return the moves that were made and not taken back since, newest first; an undo itself is none."""
    last: dict[str, Row] = {}
    for item in items:
        if item.get("event") in {"applied", "undone"} and item.get("is_dry_run") is not True:
            last[str(item.get("move_id"))] = item
    standing = [item for item in last.values() if item.get("event") == "applied" and not _is_undo(item)]
    return sorted(standing, key=lambda item: str(item.get("ts")), reverse=True)


def _is_undo(item: Row) -> bool:
    evidence = item.get("evidence")
    return isinstance(evidence, Mapping) and "undo_of" in evidence


def as_json(value: object) -> str:
    """Return a value as JSON to be read."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)

"""Price books as files: TOML, YAML or CSV become entries, each with the place it stands at."""

import csv
import io
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml

from fleet.errors import BadInput

Entry = dict[str, object]
Placed = tuple[str, Entry]  # "book.csv, line 3" and what stands there
BUILT_IN = "the built-in price book"
_YAML = frozenset({".yaml", ".yml"})


def entries_of(path: Path | None) -> tuple[list[Placed], tuple[str, ...]]:
    """Return the entries of a book (None: the built-in one), and the columns of its header where it is a CSV.

    Raises `BadInput` naming the file where it can't be read, and the line where a row of a CSV is too long or short.
    """
    place = BUILT_IN if path is None else str(path)
    text = _text(path, place)
    if path is not None and path.suffix.lower() == ".csv":
        return _rows(text, place)
    book = _yaml(text, place) if path is not None and path.suffix.lower() in _YAML else _toml(text, place)
    return _listed(book, place), ()


def _text(path: Path | None, place: str) -> str:
    try:
        if path is None:
            return (resources.files("collectors") / "price_book.toml").read_text()
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{place}: can't be read: {error}"
        raise BadInput(message, place=place) from error


def _toml(text: str, place: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{place}: this is not TOML: {error}"
        raise BadInput(message, place=place) from error


def _yaml(text: str, place: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        message = f"{place}: this is not YAML: {' '.join(str(error).split())}"
        raise BadInput(message, place=place) from error


def _listed(book: object, place: str) -> list[Placed]:
    """Return the entries under `price` (YAML may call it `prices`), counted from 1."""
    found = next((book[name] for name in ("price", "prices") if name in book), None) if isinstance(book, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        message = f"{place}: there is no [[price]] entry"
        raise BadInput(message, place=place, field="price")
    return [(f"{place}, entry {number}", entry) for number, entry in enumerate(found, start=1)]


def _rows(text: str, place: str) -> tuple[list[Placed], tuple[str, ...]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Placed] = []
    header: Sequence[str] = ()
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            rows.append((f"{place}, line {reader.line_num}", _row(header, cells, f"{place}, line {reader.line_num}")))
    except csv.Error as error:
        message = f"{place}, line {reader.line_num}: this is not CSV: {error}"
        raise BadInput(message, place=place) from error
    if not rows:
        message = f"{place}: there is no row under a header"
        raise BadInput(message, place=place, field="price")
    return rows, tuple(header)


def _row(header: Sequence[str], cells: Sequence[str], place: str) -> Entry:
    """Return a row's cells by column; an empty or missing one is not there, and one beyond the header is refused."""
    if len(cells) > len(header):
        message = f"{place}: has {len(cells)} cells, and the header {len(header)}"
        raise BadInput(message, place=place)
    return {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}

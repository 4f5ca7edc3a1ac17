"""Numbers as people read them; what is not known is a word and never a 0."""

from datetime import datetime, timedelta
from decimal import Decimal

UNKNOWN = "unknown"
UNPRICED = "no price"
_COARSE = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(value: float | None) -> str:
    """Write a count with thousands apart: 1,024; fractions of a GPU with one decimal."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def share(part: float | None, whole: float | None) -> str:
    """Write a part of a whole in per cent; unknown where either is, or where the whole is nothing."""
    if part is None or whole is None or whole == 0:
        return UNKNOWN
    return percent(part / whole)


def percent(ratio: float | None) -> str:
    """Write a ratio in per cent; what is nearly all or nearly nothing never reads as all or nothing."""
    if ratio is None:
        return UNKNOWN
    written = f"{100 * ratio:.1f} %"
    if written == "100.0 %" and ratio < 1:
        return "> 99.9 %"
    if written == "0.0 %" and ratio > 0:
        return "< 0.1 %"
    return written


def money(amount_usd: Decimal | None) -> str:
    """Write dollars: cents below a hundred, whole dollars above, thousands apart."""
    if amount_usd is None:
        return UNPRICED
    sign = "-" if amount_usd < 0 else ""
    size = abs(amount_usd)
    return f"{sign}${size:,.2f}" if size < 100 else f"{sign}${size:,.0f}"  # noqa: PLR2004 - told in the docstring


def in_markdown(text: str) -> str:
    """Return text that Markdown shows as it stands: no formulas between dollar signs, no emphasis, no links."""
    for sign in "\\$*_[]`<>~:#|":
        text = text.replace(sign, f"\\{sign}")
    return text


def moment(value: datetime | None) -> str:
    """Write a moment to the minute, in UTC."""
    return UNKNOWN if value is None else f"{value:%d %b %Y, %H:%M} UTC"


def span(value: timedelta) -> str:
    """Write a length of time in its coarsest unit and the one below it: 3 d 4 h, 12 min, 8 s."""
    left = round(abs(value.total_seconds()))
    coarsest = next((place for place, (size, _) in enumerate(_COARSE) if left >= size), len(_COARSE) - 1)
    parts = []
    for size, unit in _COARSE[coarsest : coarsest + 2]:
        number, left = divmod(left, size)
        parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def age(value: timedelta | None) -> str:
    """Write how long ago something was; a moment that is still to come says so, for one of two clocks is wrong."""
    if value is None:
        return UNKNOWN
    return f"{span(value)} ahead" if value < timedelta(0) else f"{span(value)} old"


def number_of(number: int, one: str, many: str) -> str:
    """Write a number with its noun: 1 move, 2 moves."""
    return f"{count(number)} {one if number == 1 else many}"


def plain(name: str) -> str:
    """Write a snake_case word of ours as people write it."""
    return name.replace("_", " ")

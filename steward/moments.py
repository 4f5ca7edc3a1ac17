"""Moments as people name them: now, the newest that is stored, or a time with its zone."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from fleet.clock import as_utc
from fleet.errors import BadInput
from steward.compose import House

STALE_AFTER = timedelta(minutes=15)


def as_of(house: House, text: str, option: str = "--as-of") -> datetime:
    """Return the moment that `now`, `data` (just after the newest stored sample or demand) or a time stands for.

    `option` is how errors call it.
    """
    if text == "now":
        return house.clock.now()
    if text == "data":
        newest = newest_moment(house)
        return house.clock.now() if newest is None else newest + timedelta(seconds=1)
    try:
        moment = as_utc(datetime.fromisoformat(text), option)
    except ValueError as error:
        message = f"{option}: {text!r} is not 'now', 'data' or a time such as 2026-01-31T12:00:00Z ({error})"
        raise BadInput(message, field=option.lstrip("-").replace("-", "_")) from error
    newest = newest_moment(house) if moment > house.clock.now() else None
    if moment > max(house.clock.now(), house.clock.now() if newest is None else newest + timedelta(seconds=1)):
        message = f"{option}: {text} is in the future; nothing is known of it yet"
        raise BadInput(message, field=option.lstrip("-").replace("-", "_"))
    return moment


def stale_notes(house: House, moment: datetime) -> tuple[str, ...]:
    """Return what to do where the newest that is stored is too old to judge `moment` by; empty where it is not."""
    newest = newest_moment(house)
    if newest is None or moment - newest <= STALE_AFTER:
        return ()
    minutes = int((moment - newest).total_seconds() // 60)
    told = (
        f"the newest sample is {minutes:,} min older than the moment judged, so what is not known is unknown: "
        "`--as-of data` judges what is stored, `steward collect` or `steward serve` brings it up to date"
    )
    return (told,)


def newest_moment(house: House) -> datetime | None:
    """Return the newest moment that anything was measured at; None on an empty store."""
    return max(_moments(house, newest=True), default=None)


def oldest_moment(house: House) -> datetime | None:
    """Return the oldest moment that anything was measured at; None on an empty store."""
    return min(_moments(house, newest=False), default=None)


def _moments(house: House, *, newest: bool) -> Iterator[datetime]:
    engine = house.store.engine
    for name, column in (
        ("gpu_sample", "ts"),
        ("slice_sample", "ts"),
        ("demand_sample", "ts"),
        ("job", "submitted_at"),
    ):
        table = engine.table(name)
        moments = table[column]
        moment = engine.run(table.aggregate(found=moments.max() if newest else moments.min())).item()
        if isinstance(moment, datetime):
            yield as_utc(moment, name)

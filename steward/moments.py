"""Moments as people name them: now, the newest that is stored, or a time with its zone."""

from contextlib import suppress
from datetime import datetime, timedelta

from fleet.clock import as_utc
from fleet.errors import BadInput
from steward.compose import House

STALE_AFTER = timedelta(minutes=15)


def as_of(house: House, text: str) -> datetime:
    """Return the moment that `now`, `data` (just after the newest stored sample or demand) or a time stands for."""
    if text == "now":
        return house.clock.now()
    if text == "data":
        newest = newest_moment(house)
        return house.clock.now() if newest is None else newest + timedelta(seconds=1)
    try:
        moment = as_utc(datetime.fromisoformat(text), "--as-of")
    except ValueError as error:
        message = f"--as-of: {text!r} is not 'now', 'data' or a time such as 2026-01-31T12:00:00Z ({error})"
        raise BadInput(message, field="as_of") from error
    newest = newest_moment(house) if moment > house.clock.now() else None
    if moment > max(house.clock.now(), house.clock.now() if newest is None else newest + timedelta(seconds=1)):
        message = f"--as-of: {text} is in the future; nothing is known of it yet"
        raise BadInput(message, field="as_of")
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
    engine = house.store.engine
    found = []
    for name, column in (
        ("gpu_sample", "ts"),
        ("slice_sample", "ts"),
        ("demand_sample", "ts"),
        ("job", "submitted_at"),
    ):
        table = engine.table(name)
        moment = engine.run(table.aggregate(newest=table[column].max())).item()
        with suppress(TypeError):
            found.append(as_utc(moment, name) if isinstance(moment, datetime) else None)
    return max((moment for moment in found if moment is not None), default=None)

"""Upkeep, once a day: drop raw rows that are past their time, and lay the days that are over in reading order."""

from datetime import datetime, timedelta

from fleet.batch import Batch
from steward.compose import House

SOURCE = "upkeep"
EVERY = timedelta(days=1)


def keep_up(house: House, now: datetime) -> dict[str, int] | None:
    """Do the day's upkeep and return the rows dropped by table; None where it was done within a day.

    When it was done last stands in the store, so that restarts do not repeat it. Findings, plans and the ledger are
    never dropped.
    """
    last = house.store.watermark(SOURCE)
    if last is not None and now - last < EVERY:
        return None
    section = house.settings.store
    samples, hours = timedelta(days=section.keep_samples_days), timedelta(days=section.keep_hours_days)
    dropped = house.store.retain({"gpu_sample": samples, "slice_sample": samples, "gpu_hour": hours}, now)
    house.store.compact()
    house.store.append(Batch(SOURCE, read_until=now))
    return dropped

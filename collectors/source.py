"""The port that every source of telemetry fills."""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from fleet.batch import Batch


class Source(Protocol):
    """Somewhere rows come from.

    A source that can't be read raises `SourceFailed`; one that can be read in part yields what it has and
    tells the rest in `Batch.troubles`. An empty batch means "read, and there was nothing".
    """

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept, for example `nvml` or `replay:FILE`."""
        ...

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        """Yield what happened in `[since, until)`; `since` None means from the beginning."""
        ...

"""The simulated fleet as a Source: reading it lets its time pass."""

from collections.abc import Callable, Iterator
from datetime import datetime

from fleet.batch import Batch
from simulator.inventory import inventory
from simulator.late import when_asked
from simulator.prices import owned_prices
from simulator.records import records
from simulator.step import advance
from simulator.telemetry import sample
from simulator.work import HOUR_S
from simulator.world import World

_ROWS_PER_BATCH = 500_000
_MOST_HOURS = 24


class SimulatorSource:
    """A Source over a world. Collecting beyond the world's present lets it live on; the past can be read again."""

    def __init__(self, world: World | Callable[[], World]) -> None:
        """Read `world`, which others may move in the meantime; it may be a `LateWorld`."""
        self._live = when_asked(world)

    @property
    def name(self) -> str:
        """Return "simulator"."""
        return "simulator"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        """Yield `[since, until)` in batches of some hours, `gpu_sample` sorted by GPU and time."""
        world = self._live()
        since_s = 0 if since is None else max(0, world.seconds(since))
        until_s = world.seconds(until)
        while since_s < until_s:
            end_s = min(until_s, since_s + self._batch_s())
            yield self._batch(since_s, end_s)
            since_s = end_s

    def _batch(self, since_s: int, until_s: int) -> Batch:
        world = self._live()
        advance(world, world.moment(until_s))
        samples = sample(world, since_s, until_s)
        frames = inventory(world, until_s, samples["gpu_sample"]) | samples | records(world, since_s, until_s)
        if since_s == 0:
            frames["price"] = owned_prices(world.spec)
        filled = {name: frame for name, frame in frames.items() if frame.height > 0}
        return Batch(self.name, filled, read_until=world.moment(until_s)).checked()

    def _batch_s(self) -> int:
        spec = self._live().spec
        rows_per_hour = max(1, spec.gpus * HOUR_S // spec.interval_s)
        return HOUR_S * min(_MOST_HOURS, max(1, _ROWS_PER_BATCH // rows_per_hour))

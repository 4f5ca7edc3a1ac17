"""What doctor and /metrics tell of the sources."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.errors import SourceFailed
from steward.answers import doctor_report
from steward.compose import House
from steward.config import load_settings
from steward.cycle import collect
from steward.gauges import metrics_of
from store.store import Store


class Exporter:
    """A source of two GPUs, a sample a minute for the last hour; every second one of the second GPU is missing."""

    name = "prometheus"

    def __init__(self) -> None:
        self.is_down = False

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        if self.is_down:
            message = "http://server: connection refused"
            raise SourceFailed(message)
        moments = [until - timedelta(minutes=place) for place in range(1, 61)]
        rows = [{"gpu_uuid": "a", "ts": ts} for ts in moments] + [{"gpu_uuid": "b", "ts": ts} for ts in moments[:30]]
        rows += [{"gpu_uuid": "b", "ts": until - timedelta(minutes=61)}] if since is None else []
        gpus = [{"gpu_uuid": uuid, "uuid": uuid, "cluster": "c", "node": "n", "last_seen_at": until} for uuid in "ab"]
        frames = {
            "gpu": pl.DataFrame(gpus),
            "gpu_sample": pl.DataFrame(rows).with_columns(power_w=pl.lit(1.0, pl.Float32)),
        }
        yield Batch(self.name, frames, until, (Trouble("rejected", "gpu_sample.power_w", "below zero", 4),))


def lines(text: str, name: str) -> dict[str, float]:
    found = (line.split(" ") for line in text.splitlines() if line.startswith(name))
    return {series.partition('"')[2].partition('"')[0]: float(value) for series, value in found}


def test_doctor_and_metrics_tell_lag_coverage_failures_and_rejects(clock: FixedClock) -> None:
    source = Exporter()
    with Store.open(None, clock=clock) as store:
        house = House(load_settings(None, {}), store, clock, (source,))
        collect(house, clock.now())
        item = next(each for each in doctor_report(house, None).items if each["check"] == "source prometheus")
        assert (item["result"], item["state"], item["lag_s"]) == ("warning", "partial", 0.0)
        assert (item["coverage"], item["rejected_rows"]) == (0.75, 4)
        assert "Data quality" in str(item["hint"])
        source.is_down = True
        clock.move(timedelta(minutes=2))
        collect(house, clock.now())
        item = next(each for each in doctor_report(house, None).items if each["check"] == "source prometheus")
        assert (item["state"], item["lag_s"], item["failures"]) == ("failing", 120.0, 1)
        assert "nothing answers at its address" in str(item["hint"])
        text = metrics_of(house, None)
    assert lines(text, "steward_source_lag_seconds{") == {"prometheus": 120.0}
    assert 0.7 < lines(text, "steward_source_coverage_ratio{")["prometheus"] < 0.75
    assert lines(text, "steward_source_failures_total{") == {"prometheus": 1.0}
    assert lines(text, "steward_source_rejects_total{") == {"prometheus": 4.0}


def test_a_source_of_before_that_is_not_configured_here_is_told_and_no_reason_to_worry(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(Batch("replay:week", read_until=clock.now() - timedelta(days=9)))
        house = House(load_settings(None, {}), store, clock, (Exporter(),))
        items = {each["check"]: each for each in doctor_report(house, None).items}
    assert (items["source replay:week"]["result"], items["source replay:week"]["detail"]) == (
        "ok", "late; not configured here",
    )  # fmt: skip
    assert (items["source prometheus"]["result"], items["source prometheus"]["coverage"]) == ("unknown", None)


def test_no_coverage_is_told_where_nobody_knows_it(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        store.append(Batch("kubernetes:c", read_until=clock.now()))
        text = metrics_of(House(load_settings(None, {}), store, clock), None)
    assert "steward_source_lag_seconds" in text
    assert "steward_source_coverage_ratio" not in text

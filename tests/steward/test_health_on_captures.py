"""Real GPUs as they were captured: no alarm, at rest and under load; and each fault put into them is found.

Every case is a cluster of its own in one store, so that all are judged by one question.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from analytics.health import judge_health
from analytics.health_policy import HealthPolicy
from analytics.health_signals import health_events, health_signals
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.verdict import Severity, Verdict
from steward.compose import open_capture_source
from steward.config import load_settings
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLLS = 20
FLAGS = ("is_remap_pending", "is_remap_failed", "is_sram_threshold_exceeded", "is_page_retirement_pending")


@dataclass(frozen=True)
class Reading:
    """One capture in one phase: a row per GPU, and a sample of each."""

    name: str
    gpus: pl.DataFrame
    samples: pl.DataFrame


@dataclass(frozen=True)
class Fault:
    """What is done to the first GPU's samples: over how many polls, ending how many polls ago, and what comes of it."""

    change: Callable[[dict[str, object]], dict[str, object] | None]
    expected: tuple[str, str, str]
    polls: int = 3
    is_latched: bool = False


def setting(**values: object) -> Callable[[dict[str, object]], dict[str, object] | None]:
    return lambda _sample: values


def halved(sample: dict[str, object]) -> dict[str, object] | None:
    width = sample["pcie_width"]
    return {"pcie_width": width // 2} if isinstance(width, int) and width >= 2 else None


def one_link_less(sample: dict[str, object]) -> dict[str, object] | None:
    links = sample["nvlink_active_count"]
    return {"nvlink_active_count": links - 1} if isinstance(links, int) and links >= 1 else None


def with_bit(bit: int) -> Callable[[dict[str, object]], dict[str, object] | None]:
    def change(sample: dict[str, object]) -> dict[str, object] | None:
        bits = sample["clock_event_bits"]
        return {"clock_event_bits": (bits if isinstance(bits, int) else 0) | bit}

    return change


FAULTS = {
    "remap_pending": Fault(setting(is_remap_pending=True), ("degraded", "remap_pending", "reset_gpu")),
    "remap_failed": Fault(
        setting(is_remap_failed=True), ("failed", "remap_failed", "replace_gpu"), polls=1, is_latched=True
    ),
    "sram": Fault(
        setting(is_sram_threshold_exceeded=True),
        ("failed", "sram_threshold_exceeded", "replace_gpu"),
        polls=1,
        is_latched=True,
    ),
    "width_halved": Fault(halved, ("degraded", "pcie_width_down", "drain")),
    "power_brake": Fault(with_bit(0x80), ("degraded", "hw_power_brake", "drain")),
    "hw_thermal": Fault(with_bit(0x40), ("degraded", "hw_thermal_slowdown", "drain")),
    "hw_slowdown": Fault(with_bit(0x8), ("degraded", "hw_slowdown", "drain")),
    "margin": Fault(setting(thermal_margin_c=-3.0), ("degraded", "thermal_margin_low", "drain")),
    "link_down": Fault(one_link_less, ("failing", "nvlink_down", "reset_gpu")),
    **{
        f"recovery_{action}": Fault(setting(recovery_action=action), (state, "recovery_action", asked))
        for action, state, asked in (
            (1, "failing", "reset_gpu"), (2, "failed", "reboot_node"), (3, "failing", "drain"),
            (4, "failing", "reset_gpu"), (5, "failing", "drain"), (6, "failing", "reset_gpu"),
            (7, "failed", "reboot_node"),
        )
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def readings(data_root: Path) -> list[Reading]:
    """Give every capture in each phase, but those that show a fault of their own."""
    captures = [path for path in sorted((data_root / "captures").glob("*")) if path.suffix in {".xml", ".txt"}]
    settings, found = load_settings(None, {}), []
    for capture in captures:
        for phase in ("idle", "load"):
            (batch,) = open_capture_source(settings, FixedClock(NOW), capture, phase).collect(None, NOW)
            samples = batch.frames["gpu_sample"]
            is_ill = pl.any_horizontal(*FLAGS, pl.col("recovery_action") > 0).fill_null(value=False)
            if not samples.select(is_ill.any()).item():
                found.append(Reading(f"{capture.stem}.{phase}", batch.frames["gpu"], samples))
    assert found
    return found


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(None, clock=FixedClock(NOW)) as opened:
        yield opened


def add(
    store: Store, reading: Reading, cluster: str, fault: Fault | None = None, *, ago: int = 0, gone: int = 0
) -> bool:
    """Store a reading as `POLLS` polls of a minute; False where the fault is one that this GPU can't have."""
    uuids = {uuid: f"{cluster}/{uuid}" for uuid in reading.gpus.get_column("uuid")}
    gpus = reading.gpus.with_columns(
        pl.col("uuid", "gpu_uuid").replace_strict(uuids), cluster=pl.lit(cluster), node=pl.lit(cluster)
    )
    first = gpus.get_column("uuid")[0]
    rows = []
    for poll in range(POLLS):
        for row in reading.samples.iter_rows(named=True):
            sample = {**row, "gpu_uuid": uuids[row["gpu_uuid"]], "ts": NOW - timedelta(minutes=POLLS - poll)}
            if sample["gpu_uuid"] == first:
                if poll >= POLLS - gone:
                    continue
                if fault is not None and POLLS - ago - fault.polls <= poll < POLLS - ago:
                    changed = fault.change(sample)
                    if changed is None:
                        return False
                    sample |= changed
            rows.append(sample)
    samples = pl.DataFrame(rows, schema=reading.samples.schema)
    store.append(Batch("nvml", {"gpu": gpus, "gpu_sample": samples}))
    return True


def judged(store: Store) -> dict[str, list[Verdict]]:
    """Return the verdicts by cluster, the first GPU's first."""
    policy = HealthPolicy()
    signals = store.engine.run(health_signals(store.engine, NOW, policy))
    events = store.engine.run(health_events(store.engine, NOW, policy))
    found: dict[str, list[Verdict]] = {}
    for verdict in judge_health(signals, events, policy, NOW):
        found.setdefault(str(verdict.cluster), []).append(verdict)
    return found


def of_first(store: Store, verdicts: list[Verdict]) -> Verdict:
    gpus = store.read("gpu").sort("gpu")
    first = gpus.filter(gpus["cluster"] == verdicts[0].cluster).get_column("uuid")[0]
    (found,) = [verdict for verdict in verdicts if verdict.subject == first]
    return found


def is_alarm(verdict: Verdict) -> bool:
    return verdict.state != "healthy" or verdict.severity in {Severity.WARNING, Severity.CRITICAL}


def test_no_healthy_capture_raises_an_alarm_at_rest_or_under_load(readings: list[Reading], store: Store) -> None:
    for reading in readings:
        add(store, reading, reading.name)
    alarms = [verdict for verdicts in judged(store).values() for verdict in verdicts if is_alarm(verdict)]
    assert alarms == []
    assert len({reading.name.split(".")[0] for reading in readings}) >= 5


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_put_into_a_capture_is_found_with_its_action(
    readings: list[Reading], store: Store, name: str
) -> None:
    fault = FAULTS[name]
    clusters = [reading.name for reading in readings if add(store, reading, reading.name, fault)]
    assert clusters
    verdicts = judged(store)
    for cluster in clusters:
        found = of_first(store, verdicts[cluster])
        assert (found.state, found.rule, found.action) == fault.expected, cluster
        others = [verdict for verdict in verdicts[cluster] if verdict is not found and is_alarm(verdict)]
        assert others == [], cluster


@pytest.mark.parametrize("ago", [0, 7], ids=["in-the-last-poll", "some-time-ago"])
def test_a_blip_of_one_poll_is_silent_unless_it_can_only_be_true(
    readings: list[Reading], store: Store, ago: int
) -> None:
    for reading in readings:
        for name, fault in FAULTS.items():
            if fault.is_latched:
                continue
            blip = Fault(fault.change, fault.expected, polls=1)
            add(store, reading, f"{reading.name}.{name}", blip, ago=ago)
    alarms = [verdict for verdicts in judged(store).values() for verdict in verdicts if is_alarm(verdict)]
    assert alarms == []


def test_a_gpu_that_is_gone_is_lost_where_its_nodes_others_go_on_and_never_healthy(
    readings: list[Reading], store: Store
) -> None:
    for reading in readings:
        add(store, reading, reading.name, gone=12)
    verdicts = judged(store)
    for reading in readings:
        found = of_first(store, verdicts[reading.name])
        if reading.gpus.height > 1:
            assert (found.state, found.rule, found.action) == ("failed", "gpu_lost", "reboot_node")
        else:
            assert (found.state, found.rule) == ("unknown", "exporter_lost")

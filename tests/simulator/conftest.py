"""A small fleet for the tests of this room: every model, MIG, all kinds of work, no faults but those asked for."""

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from simulator.faults_spec import FaultSpec, Injection
from simulator.presets import default_spec
from simulator.source import SimulatorSource
from simulator.spec import FleetSpec, TelemetrySpec
from simulator.world import World

QUIET = TelemetrySpec(lag_s=0, scrape_spread_s=0, node_loss=0.0, gpu_loss=0.0, field_loss=0.0, blip_share=0.0)


@pytest.fixture
def spec() -> FleetSpec:
    return replace(default_spec(48, 1.0), faults=FaultSpec(rate_factor=0.0))


@pytest.fixture
def with_faults(spec: FleetSpec) -> Callable[..., FleetSpec]:
    def make(*injections: Injection) -> FleetSpec:
        return replace(spec, faults=FaultSpec(rate_factor=0.0, injections=injections), telemetry=QUIET)

    return make


@pytest.fixture
def collect() -> Callable[..., dict[str, pl.DataFrame]]:
    def read(world: World, since_hours: float = 0.0, until_hours: float = 24.0) -> dict[str, pl.DataFrame]:
        parts: dict[str, list[pl.DataFrame]] = {}
        since = world.moment(round(since_hours * 3600))
        until = world.moment(round(until_hours * 3600))
        for batch in SimulatorSource(world).collect(since, until):
            for name, frame in batch.frames.items():
                parts.setdefault(name, []).append(frame)
        return {name: pl.concat(frames) for name, frames in parts.items()}

    return read

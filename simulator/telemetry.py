"""Truth becomes telemetry: what exporters would have shown of a window, in the wire form of our tables.

The rows of one window come out sorted by GPU and time. Columns that hardly ever change are kept as one value per GPU
and are only spread out where a fault touches them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleet.frames import UTC_MICROSECONDS, conform
from fleet.tables import GPU_SAMPLE, SLICE_SAMPLE
from simulator.changes import HELD_POWER_W
from simulator.effects import apply_effects
from simulator.fabric import Flags, Ints, Reals
from simulator.models import ModelSpec
from simulator.randomness import Purpose, generator
from simulator.slices import SliceLife
from simulator.window import Activity, Noise, Window, activity_in, energy_in, is_told, noise_in, window_of
from simulator.world import World

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDLE_BIT, _POWER_CAP_BIT = 0x1, 0x4
_BLIP_LEVEL = 0.04
# Acme: idle boards 22-30 degrees, those at their power limit about 35 more.
_SPAN_C = 35.0
_POWER_CAP_RATIO = 0.97
_LIFETIME_ERRORS = 3.0

Columns = dict[str, NDArray[np.generic] | pl.Series]


def sample(world: World, since_s: int, until_s: int) -> dict[str, pl.DataFrame]:
    """Return `gpu_sample` and `slice_sample` of `[since_s, until_s)`; the world has lived that long."""
    window = window_of(world, since_s, until_s)
    if window.ticks == 0:
        return {"gpu_sample": GPU_SAMPLE.empty("wire"), "slice_sample": SLICE_SAMPLE.empty("wire")}
    activity, noise = activity_in(world, window), noise_in(world, window)
    running = _running(world, activity, noise)
    told = is_told(world, window, noise)
    columns = _measured(world, window, activity, noise, running) | _standing(world)
    apply_effects(world, window, columns, told)
    frames = {"gpu_sample": _gpu_frame(world, window, columns, told)}
    frames["slice_sample"] = _slice_frame(world, window, activity, running, told)
    return frames


def _running(world: World, activity: Activity, noise: Noise) -> Reals:
    """Return the share of each interval in which a unit ran a kernel: dips while it works, blips while it does not."""
    level = activity.level
    running = np.clip(level + activity.noise * noise.unit_normal + world.fabric.unit_bias[:, None], 0.01, 1.0)
    running[noise.unit_uniform < activity.zero_share] = 0.0
    idle = level == 0.0
    blip = noise.unit_uniform > 1.0 - world.spec.telemetry.blip_share
    running[idle] = 0.0
    running[idle & blip] = _BLIP_LEVEL
    return running.astype(np.float32, copy=False)


def _measured(world: World, window: Window, activity: Activity, noise: Noise, running: Reals) -> Columns:
    fabric = world.fabric
    over = partial(_over_gpu, world, _recut_shares(world, window))
    running_gpu = over(running)
    sm = over(running * activity.sm_activity)
    dram = over(running * activity.dram_activity)
    memory = over(activity.memory)
    lost = noise.gpu_uniform > 1.0 - world.spec.telemetry.field_loss
    has_profiling = _per_gpu(world, lambda model: model.has_profiling).astype(np.bool_)
    no_profiling = lost | ~has_profiling[:, None]
    power = _power(world, over(running * activity.intensity), memory > 0, noise)
    temperature = _temperature(world, power, noise)
    usable = _per_gpu(world, lambda model: model.memory_mib - model.reserved_mib)
    is_busy = running_gpu > 0
    limit = _per_gpu(world, lambda model: model.power_limit_w)[:, None]
    clock = np.where(
        is_busy,
        _per_gpu(world, lambda model: model.sm_clock_mhz)[:, None],
        _per_gpu(world, lambda model: model.idle_clock_mhz)[:, None],
    )
    has_hbm_probe = _per_gpu(world, lambda model: model.has_memory_temperature).astype(np.bool_)
    return {
        "utilization": _blank(np.round(running_gpu, 2), lost | fabric.gpu_is_mig[:, None]),
        "memory_utilization": _blank(np.round(dram, 2), lost | fabric.gpu_is_mig[:, None]),
        "gr_activity": _blank(running_gpu, no_profiling),
        "sm_activity": _blank(sm, no_profiling),
        "tensor_activity": _blank(over(running * activity.tensor_activity), no_profiling),
        "dram_activity": _blank(dram, no_profiling),
        "memory_used_mib": np.rint(memory * usable[:, None]),
        "power_w": power,
        "energy_j": energy_in(world, window, activity.change),
        "temperature_c": temperature,
        "memory_temperature_c": _blank(temperature + 6.0, np.broadcast_to(~has_hbm_probe[:, None], power.shape)),
        "sm_clock_mhz": clock,
        "clock_event_bits": np.where(
            is_busy, np.where(power > _POWER_CAP_RATIO * limit, _POWER_CAP_BIT, 0), _IDLE_BIT
        ).astype(np.int64),
        "process_count": _processes(world, activity),
    }


def _standing(world: World) -> Columns:
    """Return the columns that only a fault changes, one value per GPU."""
    rng = generator(world.spec.seed, Purpose.LIFETIME)
    gpus = len(world.fabric.gpu_node)
    ecc = _per_gpu(world, lambda model: model.has_row_remap).astype(np.bool_)
    nvlinks = _per_gpu(world, lambda model: model.nvlinks)
    lifetime = rng.poisson(_LIFETIME_ERRORS, gpus)

    def of_modern(values: NDArray[np.generic] | int) -> pl.Series:
        return _with_nulls(np.broadcast_to(np.asarray(values, dtype=np.int64), gpus), ecc)

    zero = np.zeros(gpus, dtype=np.int64)
    return {
        "memory_reserved_mib": pl.Series(_per_gpu(world, lambda model: model.reserved_mib)),
        "memory_clock_mhz": pl.Series(_per_gpu(world, lambda model: model.memory_clock_mhz)),
        "ecc_corrected_count": pl.Series(zero),
        "ecc_uncorrected_count": pl.Series(zero),
        "ecc_corrected_lifetime_count": pl.Series(lifetime),
        "ecc_uncorrected_lifetime_count": pl.Series(zero),
        "rows_remapped_corrected_count": of_modern(0),
        "rows_remapped_uncorrected_count": of_modern(0),
        "is_remap_pending": of_modern(0),
        "is_remap_failed": of_modern(0),
        "retired_page_count": _with_nulls(zero, ~ecc),
        "pcie_generation": pl.Series(_per_gpu(world, lambda model: model.pcie_generation)),
        "pcie_width": pl.Series(np.full(gpus, 16)),
        "pcie_replay_count": pl.Series(rng.poisson(0.3, gpus)),
        "nvlink_active_count": _with_nulls(nvlinks, nvlinks > 0),
        "nvlink_error_count": _with_nulls(zero, nvlinks > 0),
        "recovery_action": of_modern(0),
    }


def _power(world: World, load: Reals, is_held: Flags, noise: Noise) -> Reals:
    idle = world.fabric.gpu_idle_power_w[:, None]
    limit = _per_gpu(world, lambda model: model.power_limit_w)[:, None]
    spread = np.float32(world.spec.telemetry.power_noise) * noise.gpu_normal
    power = idle * (1.0 + 0.2 * spread) + np.float32(HELD_POWER_W) * is_held
    power += (limit - idle) * load * (1.0 + spread)
    return np.round(np.clip(power, 0.0, 1.03 * limit), 1).astype(np.float32)


def _temperature(world: World, power: Reals, noise: Noise) -> Reals:
    # Half of the heat is that of the sample before: a die follows its power with some delay.
    before = np.concatenate([power[:, :1], power[:, :-1]], axis=1)
    idle = world.fabric.gpu_idle_power_w[:, None]
    limit = _per_gpu(world, lambda model: model.power_limit_w)[:, None]
    load = (0.5 * (power + before) - idle) / (limit - idle)
    degrees = world.fabric.gpu_idle_temperature_c[:, None] + np.float32(_SPAN_C) * load + noise.gpu_normal
    return np.asarray(np.rint(degrees), dtype=np.float32)


def _processes(world: World, activity: Activity) -> Ints:
    held = (activity.memory > 0).astype(np.int64)
    return np.asarray(np.add.reduceat(held, world.fabric.gpu_first_unit, axis=0))


def _over_gpu(world: World, shares: Mapping[int, Reals], values: Reals) -> Reals:
    """Return GPUs x ticks from units x ticks: each MIG device counts with its share of the GPU's devices."""
    fabric = world.fabric
    result = values[fabric.gpu_first_unit]
    for gpu in np.flatnonzero(fabric.gpu_is_mig).tolist():
        units = fabric.units_of_gpu(gpu)
        mine = values[units.start : units.stop]
        if gpu in world.slices.recut:
            result[gpu] = (mine * shares[gpu]).sum(axis=0)
        else:
            result[gpu] = mine[world.unit_is_there[units.start : units.stop]].mean(axis=0)
    return result


def _recut_shares(world: World, window: Window) -> dict[int, Reals]:
    """Return, of each GPU that was cut anew, which part of it each of its places is at each tick."""
    if not world.slices.recut:
        return {}
    times = (window.gpu_times_s() - window.lag_s).astype(np.float32)
    return {gpu: world.slices.shares(world.fabric, gpu, times[gpu]) for gpu in sorted(world.slices.recut)}


def _per_gpu(world: World, read: Callable[[ModelSpec], float]) -> Reals:
    values = [read(part.model) for part in world.fabric.sections]
    return np.array(values, dtype=np.float32)[world.fabric.gpu_section]


def _blank(values: Reals, is_missing: Flags) -> Reals:
    return np.where(is_missing, np.float32("nan"), values)


def _with_nulls(values: NDArray[np.generic], is_there: Flags) -> pl.Series:
    return pl.select(pl.when(pl.Series(is_there)).then(pl.Series(values))).to_series()


def _gpu_frame(world: World, window: Window, columns: Columns, told: Flags) -> pl.DataFrame:
    rows = np.flatnonzero(told)
    gpu = pl.Series(rows // window.ticks)
    series = {"gpu_uuid": pl.Series(world.fabric.gpu_uuid).gather(gpu)}
    series["ts"] = _times(world, window.gpu_times_s().ravel()[rows])
    schema = GPU_SAMPLE.schema("wire")
    for name, values in columns.items():
        series[name] = _column(values, rows, gpu, schema[name])
    return conform(pl.DataFrame(series), GPU_SAMPLE)


def _slice_frame(world: World, window: Window, activity: Activity, running: Reals, told_gpus: Flags) -> pl.DataFrame:
    fabric = world.fabric
    lives = [life for life in world.slices.all() if life.is_alive(window.since_s) or life.starts_s >= window.since_s]
    if not lives:
        return SLICE_SAMPLE.empty("wire")
    units = np.array([life.unit for life in lives])
    gpus = fabric.unit_gpu[units]
    rows = np.flatnonzero(told_gpus[gpus] & _is_then(lives, window.gpu_times_s()[gpus]))
    place = pl.Series(rows // window.ticks)
    sizes = np.array([life.memory_mib for life in lives])
    active = running[units]
    columns: Mapping[str, NDArray[np.generic]] = MappingProxyType({
        "gr_activity": active,
        "sm_activity": active * activity.sm_activity[units],
        "tensor_activity": active * activity.tensor_activity[units],
        "dram_activity": active * activity.dram_activity[units],
        "memory_used_mib": np.rint(activity.memory[units] * sizes[:, None]),
        "process_count": (activity.memory[units] > 0).astype(np.int32),
    })  # fmt: skip
    schema = SLICE_SAMPLE.schema("wire")
    series = {"slice_uuid": pl.Series([life.uuid for life in lives]).gather(place)}
    series["ts"] = _times(world, window.gpu_times_s()[gpus].ravel()[rows])
    for name, values in columns.items():
        series[name] = _column(values, rows, place, schema[name])
    return conform(pl.DataFrame(series), SLICE_SAMPLE)


def _is_then(lives: Sequence[SliceLife], times_s: Ints) -> Flags:
    """Return, devices x ticks, at which ticks each device is there."""
    forever = np.iinfo(np.int64).max
    starts = np.array([life.starts_s for life in lives])[:, None]
    ends = np.array([forever if life.ends_s is None else life.ends_s for life in lives])[:, None]
    return np.asarray((times_s >= starts) & (times_s < ends))


def _column(values: NDArray[np.generic] | pl.Series, rows: Ints, gpu: pl.Series, dtype: pl.DataType) -> pl.Series:
    if isinstance(values, pl.Series):
        return values.cast(dtype).gather(gpu)
    return pl.Series(np.ascontiguousarray(values).ravel()[rows], nan_to_null=True).cast(dtype)


def _times(world: World, seconds: Ints) -> pl.Series:
    epoch_us = (world.spec.starts_at - _EPOCH) // timedelta(microseconds=1)
    return pl.Series(seconds * 1_000_000 + epoch_us).cast(UTC_MICROSECONDS)

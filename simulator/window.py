"""A window of ticks: which sample falls where, what each unit was doing then, and the noise of that window.

Noise belongs to fixed blocks of ticks with generators of their own, so that the same tick has the same noise however
time is cut into windows.
"""

from dataclasses import dataclass

import numpy as np

from simulator.changes import ints, reals
from simulator.fabric import Flags, Ints, Reals
from simulator.randomness import Purpose, generator
from simulator.work import State
from simulator.world import World

BLOCK_TICKS = 64


@dataclass(frozen=True, slots=True)
class Window:
    """Ticks `first_tick` .. `first_tick + ticks`, of which only samples in `[since_s, until_s)` are told.

    Tick k of a GPU has the time stamp k x interval + the scrape offset of its node.
    """

    since_s: int
    until_s: int
    first_tick: int
    ticks: int
    interval_s: int
    lag_s: int
    gpu_offset_s: Ints
    unit_offset_s: Ints

    def gpu_times_s(self) -> Ints:
        """Return the time stamps, GPUs x ticks, in seconds since the start."""
        ticks = (self.first_tick + np.arange(self.ticks)) * self.interval_s
        return ticks[None, :] + self.gpu_offset_s[:, None]

    def column_of(self, at_s: int, gpu: int) -> int:
        """Return the first column in which a GPU shows what began at `at_s` (0 .. ticks)."""
        behind = at_s + self.lag_s - int(self.gpu_offset_s[gpu])
        return min(max(-(-behind // self.interval_s) - self.first_tick, 0), self.ticks)


@dataclass(frozen=True, slots=True)
class Activity:
    """What each unit was doing at each tick (units x ticks)."""

    change: Ints
    level: Reals
    noise: Reals
    zero_share: Reals
    intensity: Reals
    sm_activity: Reals
    tensor_activity: Reals
    dram_activity: Reals
    memory: Reals


@dataclass(frozen=True, slots=True)
class Noise:
    """Chance, drawn once per block: normal and uniform per unit, normal and uniform per GPU, uniform per node."""

    unit_normal: Reals
    unit_uniform: Reals
    gpu_normal: Reals
    gpu_uniform: Reals
    node_uniform: Reals


def window_of(world: World, since_s: int, until_s: int) -> Window:
    """Return the window that holds every sample in `[since_s, until_s)`."""
    interval = world.spec.interval_s
    offsets = world.fabric.node_scrape_s
    # One tick more than is told: heat depends on the power of the sample before.
    first = max(0, -(-(since_s - int(offsets.max())) // interval) - 1)
    last = max(first, -(-(until_s - int(offsets.min())) // interval))
    return Window(
        since_s=since_s,
        until_s=until_s,
        first_tick=first,
        ticks=last - first,
        interval_s=interval,
        lag_s=world.spec.telemetry.lag_s,
        gpu_offset_s=offsets[world.fabric.gpu_node],
        unit_offset_s=offsets[world.fabric.unit_node],
    )


def activity_in(world: World, window: Window) -> Activity:
    """Return what every unit was doing at every tick of the window."""
    change = _changes_in(world, window)
    phase = ints(world.changes.phase)[change]
    table = world.changes.phase_table()
    memory = table["memory"][phase]
    _ramp_up(world, window, change, phase, memory)
    return Activity(
        change=change,
        level=table["level"][phase],
        noise=table["noise"][phase],
        zero_share=table["zero_share"][phase],
        intensity=table["intensity"][phase],
        sm_activity=table["sm_activity"][phase],
        tensor_activity=table["tensor_activity"][phase],
        dram_activity=table["dram_activity"][phase],
        memory=memory,
    )


def noise_in(world: World, window: Window) -> Noise:
    """Return the noise of the window's ticks."""
    units, gpus, nodes = len(world.fabric.unit_gpu), len(world.fabric.gpu_node), len(world.fabric.node_name)
    first = window.first_tick // BLOCK_TICKS
    last = (window.first_tick + window.ticks - 1) // BLOCK_TICKS
    cut = slice(window.first_tick - first * BLOCK_TICKS, window.first_tick - first * BLOCK_TICKS + window.ticks)
    parts: tuple[list[Reals], ...] = ([], [], [], [], [])
    for block in range(first, last + 1):
        rng = generator(world.spec.seed, Purpose.TELEMETRY, block)
        parts[0].append(rng.standard_normal((units, BLOCK_TICKS), dtype=np.float32))
        parts[1].append(rng.random((units, BLOCK_TICKS), dtype=np.float32))
        parts[2].append(rng.standard_normal((gpus, BLOCK_TICKS), dtype=np.float32))
        parts[3].append(rng.random((gpus, BLOCK_TICKS), dtype=np.float32))
        parts[4].append(rng.random((nodes, BLOCK_TICKS), dtype=np.float32))
    return Noise(*(np.concatenate(part, axis=1)[:, cut] for part in parts))


def is_told(world: World, window: Window, noise: Noise) -> Flags:
    """Return which samples reach us: those in time that neither a node's nor a GPU's loss took away."""
    times = window.gpu_times_s()
    telemetry = world.spec.telemetry
    told = (times >= window.since_s) & (times < window.until_s)
    told &= (noise.node_uniform >= telemetry.node_loss)[world.fabric.gpu_node]
    told &= noise.gpu_uniform >= telemetry.gpu_loss
    for node, spells in world.presence.items():
        here_are = world.fabric.gpus_of_node(node)
        gpus = slice(here_are.start, here_are.stop)
        here = np.zeros(times[gpus].shape, dtype=np.bool_)
        for starts_s, ends_s in spells:
            here |= (times[gpus] >= starts_s) & (times[gpus] < (window.until_s if ends_s is None else ends_s))
        told[gpus] &= here
    return told


def _changes_in(world: World, window: Window) -> Ints:
    units = len(world.fabric.unit_gpu)
    count, _ = world.changes.last_of(units, window.until_s)
    time_s, unit = ints(world.changes.time_s)[:count], ints(world.changes.unit)[:count]
    behind = time_s + window.lag_s - window.unit_offset_s[unit]
    column = -(-behind // window.interval_s) - window.first_tick
    # Entries are ordered in time, so of those that fall on one cell the last wins, and the highest index holds on.
    result = np.zeros((units, window.ticks), dtype=np.int64)
    result[:, 0] = np.arange(units)
    before = np.flatnonzero(column <= 0)
    result[unit[before], 0] = before
    inside = np.flatnonzero((column > 0) & (column < window.ticks))
    result[unit[inside], column[inside]] = inside
    return np.maximum.accumulate(result, axis=1, out=result)


def _ramp_up(world: World, window: Window, change: Ints, phase: Ints, memory: Reals) -> None:
    """While a job loads, its memory fills up step by step."""
    states = np.array(world.changes.phase_state, dtype=np.int8)
    is_loading = states[phase] == State.LOADING
    if not is_loading.any():
        return
    units, columns = np.nonzero(is_loading)
    now = (window.first_tick + columns) * window.interval_s + window.unit_offset_s[units] - window.lag_s
    begun = ints(world.changes.time_s)[change[units, columns]]
    lasts = ints(world.changes.phase_seconds)[phase[units, columns]]
    filled = np.clip((now - begun + window.interval_s) / np.maximum(lasts, 1), 0.05, 1.0)
    memory[units, columns] *= filled.astype(np.float32)


def energy_in(world: World, window: Window, change: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return each GPU's energy counter in joules at every tick: what its units had used until then."""
    fabric = world.fabric
    ticks = (window.first_tick + np.arange(window.ticks)) * window.interval_s
    now = ticks[None, :] + (window.unit_offset_s - window.lag_s)[:, None]
    since = now - ints(world.changes.time_s)[change]
    energy = reals(world.changes.energy_j)[change] + reals(world.changes.power_w)[change] * np.maximum(since, 0)
    return np.asarray(np.add.reduceat(energy, fabric.gpu_first_unit, axis=0))

"""Faults on purpose: when they come, whom they strike, what they do to work, and how they end."""

import numpy as np

from simulator.fault_kinds import KINDS, FaultKind, News
from simulator.faults_spec import FAULT_KINDS
from simulator.lifecycle import fail_on_gpu
from simulator.randomness import Purpose, generator
from simulator.work import HOUR_S
from simulator.world import Effect, EventRecord, FaultRecord, Happening, World

_DAY_S = 24 * HOUR_S
_GPUS_PER_RATE = 1000.0
_FAULTS_PER_DAY = 4096


def plan_day(world: World, day: int) -> None:
    """Draw the faults of one day of the fleet's life, and ask for the next day."""
    rng = generator(world.spec.seed, Purpose.FAULT_DAY, day)
    rates = world.spec.faults.rates
    ordinal = 0
    for place, kind in enumerate(FAULT_KINDS):
        mean = getattr(rates, kind) * world.spec.faults.rate_factor * world.spec.gpus / _GPUS_PER_RATE
        for at_s in rng.integers(0, _DAY_S, int(rng.poisson(mean))).tolist():
            world.push(day * _DAY_S + at_s, Happening.FAULT_START, place, day * _FAULTS_PER_DAY + ordinal)
            ordinal += 1
    world.push((day + 1) * _DAY_S, Happening.FAULT_DAY, day + 1)


def plan_injections(world: World) -> None:
    """Write the faults at given moments into the agenda; `-1 - place` marks them."""
    for place, injection in enumerate(world.spec.faults.injections):
        at_s = round(injection.after_hours * HOUR_S)
        world.push(at_s, Happening.FAULT_START, FAULT_KINDS.index(injection.kind), -1 - place)


def begin(world: World, kind_place: int, draw: int) -> None:
    """Let a fault strike a GPU that has none yet; where there is none that it could strike, nothing happens."""
    name = FAULT_KINDS[kind_place]
    kind = KINDS[name]
    rng = generator(world.spec.seed, Purpose.FAULT, abs(draw), int(draw < 0))
    hours = float(rng.uniform(kind.least_hours, kind.most_hours))
    if draw < 0:
        injection = world.spec.faults.injections[-1 - draw]
        gpu: int | None = injection.gpu
        hours = hours if injection.duration_hours is None else injection.duration_hours
    else:
        gpu = _choose_gpu(world, kind, rng)
    if gpu is None or not world.node_is_there[int(world.fabric.gpu_node[gpu])]:
        return
    fault = FaultRecord(
        index=len(world.faults),
        kind=name,
        node=int(world.fabric.gpu_node[gpu]),
        gpus=_struck(world, kind, gpu),
        is_of_one_gpu=kind.scope == "gpu",
        starts_s=world.now_s,
        ends_s=world.now_s + max(1, round(hours * HOUR_S)),
    )
    world.faults.append(fault)
    world.gpu_fault_count[fault.gpus] += 1
    _mark(world, fault, kind)
    _push_news(world, fault, kind, rng)
    _strike(world, fault, kind)
    world.push(fault.ends_s, Happening.FAULT_END, fault.index)


def tell(world: World, fault_index: int, news_index: int) -> None:
    """Write one line of a fault's news, and let the work on its GPU fail where the kind says so."""
    fault = world.faults[fault_index]
    if fault.is_repaired:
        return
    kind = KINDS[fault.kind]
    news = kind.news[news_index]
    gpu = fault.gpus[0] if fault.is_of_one_gpu else None
    text = news.text
    if news.kind == "xid" and gpu is not None:
        domain, bus, slot = world.fabric.gpu_bus[gpu].split(":")
        text = f"NVRM: Xid (PCI:{domain[-4:]}:{bus.lower()}:{slot.partition('.')[0]}): {news.code}, {news.text}"
    _tell(world, fault.node, gpu, news, text)
    if kind.kills and gpu is not None:
        fail_on_gpu(world, gpu)


def end(world: World, fault_index: int) -> None:
    """Repair a fault: GPUs come back, with the boot or the reset that brought them back."""
    fault = world.faults[fault_index]
    if fault.is_repaired:
        return
    kind = KINDS[fault.kind]
    world.gpu_fault_count[fault.gpus] -= 1
    nodes = sorted({int(world.fabric.gpu_node[gpu]) for gpu in fault.gpus})
    if kind.is_lost:
        world.gpu_lost_count[fault.gpus] -= 1
    if kind.ends_with == "gpu_reset":
        fail_on_gpu(world, fault.gpus[0])
        _tell(world, fault.node, fault.gpus[0], News(None, "", kind="gpu_reset"), "the GPU was reset")
    elif kind.ends_with == "boot":
        for node in nodes:
            for gpu in world.fabric.gpus_of_node(node):
                fail_on_gpu(world, gpu)
            _tell(world, node, None, News(None, "", kind="boot"), "the node has booted")
    if kind.scope == "rack":
        world.node_boot_count[nodes] -= 1
        world.node_version[nodes] += 1
    for node in nodes:
        world.recount(node)


def _choose_gpu(world: World, kind: FaultKind, rng: np.random.Generator) -> int | None:
    rank = float(rng.random())
    fabric = world.fabric
    is_fit = (world.gpu_fault_count == 0) & world.node_is_there[fabric.gpu_node]
    models = [part.model for part in fabric.sections]
    if kind.needs == "row_remap":
        is_fit &= np.array([model.has_row_remap for model in models])[fabric.gpu_section]
    elif kind.needs == "nvlink":
        is_fit &= np.array([model.nvlinks > 0 for model in models])[fabric.gpu_section] & ~fabric.gpu_is_mig
    elif kind.needs == "work":
        is_held = np.zeros(len(fabric.gpu_node), dtype=np.bool_)
        is_held[fabric.unit_gpu[world.unit_pod >= 0]] = True
        is_fit &= is_held
    fit = np.flatnonzero(is_fit)
    turn = int(rank * len(fit))
    for gpu in np.roll(fit, -turn).tolist():
        # A node or a rack is struck only where nothing else is wrong in it, so that each symptom has one cause.
        if (world.gpu_fault_count[_struck(world, kind, gpu)] == 0).all():
            return int(gpu)
    return None


def _struck(world: World, kind: FaultKind, gpu: int) -> list[int]:
    fabric = world.fabric
    node = int(fabric.gpu_node[gpu])
    if kind.scope == "gpu":
        return [gpu]
    if kind.scope == "node":
        return list(fabric.gpus_of_node(node))
    place = (int(fabric.node_cluster[node]), fabric.node_rack[node])
    mates = [
        mate
        for mate in range(len(fabric.node_name))
        if (int(fabric.node_cluster[mate]), fabric.node_rack[mate]) == place and world.node_is_there[mate]
    ]
    return [gpu for mate in mates for gpu in fabric.gpus_of_node(mate)]


def _mark(world: World, fault: FaultRecord, kind: FaultKind) -> None:
    for gpu in fault.gpus:
        if kind.hides:
            world.effects.append(Effect(gpu, "", "hide", 0.0, fault.starts_s, fault.ends_s, fault.index))
        for mark in kind.marks:
            value = world.fabric.model_of(gpu).slowdown_c if mark.operation == "at_least" else mark.value
            if mark.operation == "ramp" and mark.lasts:
                world.effects.append(Effect(gpu, mark.column, "ramp", value, fault.starts_s, fault.ends_s, fault.index))
                total = int(value * (fault.ends_s - fault.starts_s) / HOUR_S)
                world.effects.append(Effect(gpu, mark.column, "add", total, fault.ends_s, None, fault.index))
            else:
                until = None if mark.lasts else fault.ends_s
                world.effects.append(
                    Effect(gpu, mark.column, mark.operation, value, fault.starts_s, until, fault.index)
                )


def _push_news(world: World, fault: FaultRecord, kind: FaultKind, rng: np.random.Generator) -> None:
    for place, news in enumerate(kind.news):
        at_s = fault.starts_s + news.after_s
        for _ in range(news.times):
            world.push(at_s, Happening.FAULT_NEWS, fault.index, place)
            at_s += max(3, round(news.every_s * float(rng.uniform(0.7, 1.3))))


def _strike(world: World, fault: FaultRecord, kind: FaultKind) -> None:
    if kind.is_lost:
        world.gpu_lost_count[fault.gpus] += 1
    nodes = sorted({int(world.fabric.gpu_node[gpu]) for gpu in fault.gpus})
    if kind.scope == "rack":
        world.node_boot_count[nodes] += 1
        world.node_version[nodes] += 1
    if kind.kills:
        for gpu in fault.gpus:
            fail_on_gpu(world, gpu)
    for node in nodes:
        world.recount(node)


def note(world: World, node: int, gpu: int | None, kind: str, text: str) -> None:
    """Write what somebody did to a node or a GPU into the log."""
    _tell(world, node, gpu, News(None, "", kind=kind), text)


def _tell(world: World, node: int, gpu: int | None, news: News, text: str) -> None:
    source = "kernel" if news.kind == "xid" else "simulator"
    world.events.append(EventRecord(world.now_s, node, gpu, news.kind, news.code, text, source))

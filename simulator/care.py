"""Whoever looks after the nodes, simulated: repairs that were asked for, boots, and the MIG manager.

An order is carried out only if it still stands when its time comes: a repair that was withdrawn, or whose drain was
cancelled, never is.
"""

from dataclasses import replace

from simulator.changes import NO_POD
from simulator.fault_kinds import KINDS
from simulator.faults import note
from simulator.lifecycle import fail_on_gpu
from simulator.slices import fresh_uuids, layout_devices
from simulator.world import Effect, FaultRecord, Happening, World

REBOOT, RESET, DIAGNOSE = "reboot_node", "reset_gpu", "run_diagnostics"
# What each repair mends: faults that call for it, or for less.
_MENDS = {REBOOT: ("reboot_node", "reset_gpu"), RESET: ("reset_gpu",), DIAGNOSE: ()}
_MINUTE_S = 60


def ask_repair(world: World, node: int, repair: str) -> None:
    """Write down a repair; it begins after a while."""
    orders = world.orders[node]
    orders.repair = repair
    orders.repair_count += 1
    wait_s = round(world.spec.care.repair_wait_minutes * _MINUTE_S)
    world.push(world.now_s + max(1, wait_s), Happening.REPAIR, node, orders.repair_count)


def ask_layout(world: World, node: int, layout: str) -> None:
    """Tell the MIG manager of a layout; it answers after a while."""
    orders = world.orders[node]
    orders.layout, orders.layout_state = layout, "pending"
    orders.layout_count += 1
    wait_s = round(world.spec.care.layout_minutes * _MINUTE_S)
    world.push(world.now_s + max(1, wait_s), Happening.LAYOUT, node, orders.layout_count)


def carry_out(world: World, happening: Happening, node: int, order: int) -> None:
    """Let the time of an order have come."""
    match happening:
        case Happening.REPAIR:
            repair(world, node, order)
        case Happening.BOOTED:
            booted(world, node)
        case _:
            lay(world, node, order)


def repair(world: World, node: int, order: int) -> None:
    """Carry out a repair, unless it was withdrawn or another took its place, or its drain was cancelled."""
    orders = world.orders[node]
    if order != orders.repair_count or orders.repair is None or orders.drain is None:
        return
    what, _, uuid = orders.repair.partition(" ")
    gpus = [gpu for gpu in world.fabric.gpus_of_node(node) if what == REBOOT or world.fabric.gpu_uuid[gpu] == uuid]
    if what == REBOOT:
        _boot(world, node, gpus)
    elif what == RESET:
        for gpu in gpus:
            fail_on_gpu(world, gpu)
            note(world, node, gpu, "gpu_reset", "the GPU was reset")
        _mend(world, gpus, what)
    world.node_version[node] += 1


def booted(world: World, node: int) -> None:
    """Let a node that was rebooted come back, mended of what a boot mends."""
    world.node_boot_count[node] -= 1
    world.node_version[node] += 1
    note(world, node, None, "boot", "the node has booted")
    _mend(world, list(world.fabric.gpus_of_node(node)), REBOOT)
    world.recount(node)


def lay(world: World, node: int, order: int) -> None:
    """Let the MIG manager do what it was told; it fails where pods are in the way or there is no such layout."""
    orders = world.orders[node]
    if order != orders.layout_count or orders.layout is None:
        return
    model = world.fabric.sections[int(world.fabric.node_section[node])].model
    devices = layout_devices(model, orders.layout)
    is_busy = any(int(world.unit_pod[unit]) != NO_POD for unit in world.fabric.units_of_node(node))
    world.node_version[node] += 1
    if not devices or is_busy:
        orders.layout_state = "failed"
        return
    orders.layout_state = "success"
    gpus = [gpu for gpu in world.fabric.gpus_of_node(node) if world.slices.profiles_of(world.fabric, gpu) != devices]
    count = sum(devices.values())
    names = fresh_uuids(world.spec.seed, node, orders.layout_count, count * len(gpus))
    for place, gpu in enumerate(gpus):
        units = world.fabric.units_of_gpu(gpu)
        world.slices.lay(world.fabric, gpu, devices, world.now_s, names[place * count : (place + 1) * count])
        lives = [world.slices.now(unit) for unit in units]
        parts = [0.0 if life is None else life.unit_gpus for life in lives]
        world.changes.share_out(world.now_s, gpu, [part / sum(parts) for part in parts])
        world.unit_is_there[units.start : units.stop] = [life is not None for life in lives]
    world.recount(node)


def _boot(world: World, node: int, gpus: list[int]) -> None:
    for gpu in gpus:
        fail_on_gpu(world, gpu)
    boot_s = max(1, round(world.spec.care.boot_minutes * _MINUTE_S))
    world.node_boot_count[node] += 1
    for gpu in gpus:
        world.effects.append(Effect(gpu, "", "hide", 0.0, world.now_s, world.now_s + boot_s))
    world.recount(node)
    world.push(world.now_s + boot_s, Happening.BOOTED, node)


def _mend(world: World, gpus: list[int], what: str) -> None:
    for fault in world.faults:
        is_over = fault.is_repaired or fault.ends_s <= world.now_s
        if fault.is_of_one_gpu and fault.gpus[0] in gpus and not is_over and KINDS[fault.kind].action in _MENDS[what]:
            _end(world, fault)


def _end(world: World, fault: FaultRecord) -> None:
    """End a fault before its time; what it does to telemetry ends with it."""
    gpu, late_s = fault.gpus[0], fault.ends_s
    fault.is_repaired, fault.ends_s = True, world.now_s
    world.gpu_fault_count[gpu] -= 1
    if KINDS[fault.kind].is_lost:
        world.gpu_lost_count[gpu] -= 1
    passed = (world.now_s - fault.starts_s) / max(1, late_s - fault.starts_s)
    for place, effect in enumerate(world.effects):
        if effect.fault != fault.index:
            continue
        if effect.starts_s > world.now_s:
            # what a ramp leaves behind counts from now on, and as much as had come together
            world.effects[place] = replace(effect, starts_s=world.now_s, value=float(int(effect.value * passed)))
        elif effect.ends_s == late_s:
            world.effects[place] = replace(effect, ends_s=world.now_s)
    world.recount(int(world.fabric.gpu_node[gpu]))

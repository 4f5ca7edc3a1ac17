"""Wire the kernel log: where it lies, what the store knows of its node's GPUs, and how far it was read."""

from functools import partial
from pathlib import Path

import polars as pl

from collectors.kernel_events import Device, Devices
from collectors.kernel_lines import pci_address
from collectors.kernel_log import NAME, KernelLogSource, only_ones
from fleet.clock import Clock
from steward.config import Settings
from store.store import Store


def open_kernel_log(settings: Settings, store: Store, clock: Clock, path: Path | None = None) -> KernelLogSource:
    """Return the kernel log of the settings, or another one, as a source that goes on where the store says."""
    collect = settings.collect
    return KernelLogSource(
        clock,
        collect.cluster,
        collect.node,
        collect.kernel_log if path is None else path,
        devices=partial(known_devices, store, collect.cluster),
        cursor=partial(store.cursor, NAME),
    )


def known_devices(store: Store, cluster: str, node: str) -> Devices:
    """Return the GPUs that the store knows of a node, by address; of two at one address the one seen last."""
    gpus = store.engine.table("gpu")
    here = store.engine.run(gpus.filter(gpus.cluster == cluster, gpus.node == node, gpus.pci_bus_id.notnull()))
    table = store.engine.table("slice")
    keys = here.get_column("gpu").to_list()
    slices = store.engine.run(table.filter(table.gpu.isin(keys), table.gpu_instance.notnull())) if keys else None
    devices: dict[str, Device] = {}
    for row in here.sort("last_seen_at", nulls_last=False).iter_rows(named=True):
        address = pci_address(row["pci_bus_id"])
        if address is not None:
            devices[address] = Device(row["uuid"], _slices(slices, row["gpu"]))
    return devices


def _slices(slices: pl.DataFrame | None, gpu: int) -> dict[int, str]:
    """Return the MIG device of each GPU instance, as the GPU is divided now: by those that were seen last."""
    if slices is None:
        return {}
    own = slices.filter(pl.col("gpu") == gpu)
    own = own.filter(pl.col("last_seen_at").eq_missing(pl.col("last_seen_at").max()))
    found: dict[int, set[str]] = {}
    for uuid, instance in own.select("uuid", "gpu_instance").iter_rows():
        found.setdefault(instance, set()).add(uuid)
    return only_ones(found)

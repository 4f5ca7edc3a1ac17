"""What happened between two readings of a node: GPUs lost, come back, and reset. Told once, not in every reading."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from collectors.nvml_rows import GpuReading, Place, Row, Value

# What the driver counts since it was loaded: it only goes back where the GPU or the driver starts anew.
_RESET_BY_START = ("energy_j", "pcie_replay_count", "ecc_corrected_count", "ecc_uncorrected_count")
# No board draws more, so energy counted anew since the last reading is not more than this times the time between.
_POWER_CEILING_W = 3000.0


def find_changes(
    place: Place, gpus: Iterable[GpuReading], lost_before: frozenset[str], counters_before: Mapping[str, Row]
) -> tuple[list[Row], frozenset[str], dict[str, Row]]:
    """Return the events since the last reading, the GPUs that are lost now, and the counters to compare with next.

    A GPU that was not read, neither seen nor lost, stays what it was.
    """
    rows: list[Row] = []
    lost, counters = set(lost_before), dict(counters_before)
    for gpu in gpus:
        names = {name for name in (gpu.uuid, f"index {gpu.index}") if name is not None}
        if gpu.lost is not None:
            if not names & lost_before:
                rows.append(_event(place, gpu, "gpu_lost", gpu.lost))
            lost |= {gpu.uuid if gpu.uuid is not None else f"index {gpu.index}"}
        elif gpu.is_seen and gpu.uuid is not None:
            if names & lost_before:
                rows.append(_event(place, gpu, "gpu_recovered", "the driver answers for it again"))
            lost -= names
            now = {name: gpu.sample.get(name) for name in _RESET_BY_START} | {"ts": place.now}
            why = _set_back(counters_before.get(gpu.uuid, {}), now)
            if why is not None:
                rows.append(_event(place, gpu, "gpu_reset", why))
            # A counter that can't be read for a while keeps its last value to be compared with.
            counters[gpu.uuid] = {**counters_before.get(gpu.uuid, {}), **_told(now)}
    return rows, frozenset(lost), counters


def _told(row: Mapping[str, Value]) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def _set_back(before: Mapping[str, Value], now: Mapping[str, Value]) -> str | None:
    """Return which counters went back, None where none did or the energy says that nothing started anew."""
    gone_back = [
        f"{name} {_number(before, name):g} -> {_number(now, name):g}"
        for name in _RESET_BY_START
        if _number(before, name) > _number(now, name)
    ]
    energy_j, seconds = _number(now, "energy_j"), _seconds(before.get("ts"), now["ts"])
    is_old_energy = seconds is not None and energy_j > _POWER_CEILING_W * seconds
    return ", ".join(gone_back) if gone_back and not is_old_energy else None


def _number(row: Mapping[str, Value], name: str) -> float:
    value = row.get(name)
    # NaN compares as neither more nor less: what was not measured has not gone back.
    return float(value) if isinstance(value, int | float) else float("nan")


def _seconds(before: Value, now: Value) -> float | None:
    if not (isinstance(before, datetime) and isinstance(now, datetime)):
        return None
    elapsed_s = (now - before).total_seconds()
    return elapsed_s if elapsed_s > 0 else None


def _event(place: Place, gpu: GpuReading, kind: str, why: str) -> Row:
    return {
        "ts": place.now,
        "cluster": place.cluster,
        "node": place.node,
        "gpu_uuid": gpu.uuid,
        "kind": kind,
        "pci_bus_id": gpu.identity.get("pci_bus_id"),
        "message": f"GPU {gpu.index}: {why}",
        "source": place.source,
    }

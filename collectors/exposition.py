"""The latest samples as Prometheus text, with the names and labels that dcgm-exporter gives them.

Dashboards and rules written for dcgm-exporter work with it. What was not measured has no line, and what DCGM has no
field for has a name of our own, `gpu_steward_<column>`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Lock
from types import MappingProxyType

import polars as pl

from collectors.metrics import METRICS, OWN, XID_COLUMN, Metric
from fleet.batch import Batch
from fleet.clock import Clock
from fleet.tables import GPU_SAMPLE, SLICE_SAMPLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# The columns that only grow, by how they end: energy, times slowed, errors, remapped rows, replays.
_COUNTER_ENDINGS = ("_j", "_s", "_lifetime_count", "corrected_count", "replay_count", "error_count")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a device; what is not known is None and has no label."""

    namespace: str | None = None
    pod: str | None = None
    container: str | None = None


Holders = Mapping[str, Sequence[Holder]]
Labels = dict[str, str]


class Exposition:
    """Keeps the latest sample of each GPU and MIG device of a node and writes them down.

    A sample older than `stale_after_s` has no lines: a GPU that can't be read any more is missing, not frozen.
    """

    def __init__(self, clock: Clock, *, stale_after_s: float = 60.0) -> None:
        self._clock, self._stale_after = clock, timedelta(seconds=stale_after_s)
        self._rows: dict[str, dict[str, dict[str, object]]] = {
            name: {} for name in ("gpu", "slice", "gpu_sample", "slice_sample")
        }
        self._xids: dict[str | None, int] = {}
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._read_at: dict[str, datetime] = {}
        self._holders: Holders = MappingProxyType({})
        self._lock = Lock()  # one thread reads the node, others answer scrapes

    def update(self, batch: Batch) -> None:
        """Take in what a source has read; rows of the same device replace what was known of it."""
        with self._lock:
            self._take_in(batch)

    def _take_in(self, batch: Batch) -> None:
        for name, known in self._rows.items():
            key = "slice_uuid" if name.startswith("slice") else "gpu_uuid"
            if name in batch.frames:
                for row in _as_text(batch.frames[name]):
                    known[str(row[key])] = row
        if "event" in batch.frames:
            self._count_events(batch.frames["event"])
        for trouble in batch.troubles:
            self._counts["gpu_steward_agent_troubles_total", (("source", batch.source), ("kind", trouble.kind))] += 1
        if batch.read_until is not None:
            self._read_at[batch.source] = batch.read_until

    def hold(self, holders: Holders) -> None:
        """Say who has which device, by the UUID of the GPU or the MIG device; replaces what was said before."""
        with self._lock:
            self._holders = MappingProxyType(dict(holders))

    def render(self) -> str:
        """Return everything as text: one block of HELP, TYPE and lines for each metric that has a line."""
        with self._lock:
            return self._written()

    def _written(self) -> str:
        gpus, slices = self._fresh("gpu_sample"), self._fresh("slice_sample")
        blocks = [
            *(self._block(metric, gpus, slices) for metric in _ALL_METRICS),
            self._free_memory(gpus),
            self._xid_gauge(gpus),
            *self._own_counters(),
            self._read_times(),
        ]
        return "".join(block for block in blocks if block)

    def _fresh(self, name: str) -> dict[str, dict[str, object]]:
        oldest = self._clock.now() - self._stale_after
        return {uuid: row for uuid, row in sorted(self._rows[name].items()) if _moment(row["ts"]) >= oldest}

    def _block(
        self, metric: Metric, gpus: Mapping[str, dict[str, object]], slices: Mapping[str, dict[str, object]]
    ) -> str:
        lines = [
            _line(_name(metric), labels, _unscaled(row.get(metric.column), metric))
            for samples, labels_of in ((gpus, self._gpu_labels), (slices, self._slice_labels))
            for uuid, row in samples.items()
            if row.get(metric.column) is not None
            for labels in labels_of(uuid)
        ]
        return _titled(_name(metric), _kind(metric.column), _MEANINGS[metric.column], lines)

    def _gpu_labels(self, uuid: str, device: str | None = None, more: Labels | None = None) -> list[Labels]:
        """Return the labels of one device, once for each of its holders."""
        gpu = self._rows["gpu"].get(uuid, {})
        minor = gpu.get("minor_number")
        labels = {
            "gpu": gpu.get("gpu_index"),
            "UUID": uuid,
            "pci_bus_id": gpu.get("pci_bus_id"),
            "device": None if minor is None else f"nvidia{minor}",
            "modelName": gpu.get("model"),
            **(more or {}),
            "Hostname": gpu.get("node"),
            "DCGM_FI_DRIVER_VERSION": gpu.get("driver"),
        }
        known = {name: str(value) for name, value in labels.items() if value is not None}
        holders = self._holders.get(device or uuid, ()) or (Holder(),)
        return [known | _holder_labels(holder) for holder in holders]

    def _slice_labels(self, uuid: str) -> list[Labels]:
        slice_ = self._rows["slice"].get(uuid, {})
        parent, instance = slice_.get("gpu_uuid"), slice_.get("gpu_instance")
        if parent is None or instance is None:
            return []  # its series could not be told from that of its GPU
        more = {"GPU_I_ID": str(instance)}
        if slice_.get("profile") is not None:
            more["GPU_I_PROFILE"] = str(slice_["profile"])
        # DCGM stops at the GPU instance; where several compute instances share one, a label of our own parts them.
        mates = [
            other
            for other in self._rows["slice"].values()
            if (other.get("gpu_uuid"), other.get("gpu_instance")) == (parent, instance)
        ]
        if str(slice_["slice_uuid"]) != f"{parent}/gi{instance}":
            more["MIG_UUID"] = str(slice_["slice_uuid"])
        if len(mates) > 1:
            more["GPU_C_ID"] = str(slice_.get("compute_instance"))
        return self._gpu_labels(str(parent), uuid, more)

    def _free_memory(self, gpus: Mapping[str, dict[str, object]]) -> str:
        lines = []
        for uuid, row in gpus.items():
            total = self._rows["gpu"].get(uuid, {}).get("memory_mib")
            parts = (total, row.get("memory_used_mib"), row.get("memory_reserved_mib"))
            if all(part is not None for part in parts):
                whole, used, reserved = (int(str(part)) for part in parts)
                lines += [
                    _line("DCGM_FI_DEV_FB_FREE", labels, str(whole - used - reserved))
                    for labels in self._gpu_labels(uuid)
                ]
        return _titled("DCGM_FI_DEV_FB_FREE", "gauge", "frame buffer that is free, MiB", lines)

    def _xid_gauge(self, gpus: Mapping[str, dict[str, object]]) -> str:
        lines = [
            _line(_XID.names[0], labels, str(self._xids[uuid]))
            for uuid in gpus
            if uuid in self._xids
            for labels in self._gpu_labels(uuid)
        ]
        return _titled(_XID.names[0], "gauge", "the last XID since the agent started", lines)

    def _count_events(self, events: pl.DataFrame) -> None:
        for uuid, slice_uuid, kind, code in events.select("gpu_uuid", "slice_uuid", "kind", "code").iter_rows():
            place = [("UUID", uuid), ("MIG_UUID", slice_uuid)]
            labels = tuple((name, value) for name, value in place if value is not None)
            if kind == "xid" and code is not None:
                self._xids[uuid] = code
                self._counts["gpu_steward_xid_total", (*labels, ("xid", str(code)))] += 1
            else:
                self._counts["gpu_steward_event_total", (*labels, ("kind", kind))] += 1

    def _own_counters(self) -> Iterable[str]:
        for name, meaning in _OWN_COUNTERS.items():
            found = sorted((labels, count) for (counted, labels), count in self._counts.items() if counted == name)
            yield _titled(name, "counter", meaning, [_line(name, dict(labels), str(count)) for labels, count in found])

    def _read_times(self) -> str:
        name = "gpu_steward_agent_last_reading_timestamp_seconds"
        lines = [
            _line(name, {"source": source}, f"{ts.timestamp():.3f}") for source, ts in sorted(self._read_at.items())
        ]
        return _titled(name, "gauge", "when a source was last read whole", lines)


_XID = next(metric for metric in METRICS if metric.column == XID_COLUMN)
_OWN_COUNTERS = MappingProxyType(
    {
        "gpu_steward_xid_total": "XIDs since the agent started; DCGM's gauge only keeps the last",
        "gpu_steward_event_total": "other events of GPUs since the agent started, by kind",
        "gpu_steward_agent_troubles_total": "what a source could not give, by kind",
    }
)
_MEANINGS = {column.name: column.meaning for table in (SLICE_SAMPLE, GPU_SAMPLE) for column in table.columns}


_ALL_METRICS = tuple(metric for metric in (*METRICS, *OWN) if metric.column in _MEANINGS)


def _name(metric: Metric) -> str:
    return metric.names[0]  # the older name is what dashboards ask for


def _kind(column: str) -> str:
    return "counter" if column.endswith(_COUNTER_ENDINGS) else "gauge"


def _as_text(frame: pl.DataFrame) -> list[dict[str, object]]:
    """Return the rows with each number written as shortly as it can be read back, flags as 0 and 1."""
    written = frame.with_columns(pl.selectors.boolean().cast(pl.Int8)).with_columns(
        pl.selectors.numeric().cast(pl.String)
    )
    return written.to_dicts()


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    message = f"a sample's ts is {value!r}"
    raise TypeError(message)


def _unscaled(value: object, metric: Metric) -> str:
    # Decimal, so that 0.11 of the whole is 11 % and not 10.999999940395355 %.
    text = str(value)
    if metric.divisor == 1.0 or text in {"NaN", "inf", "-inf"}:
        return text.replace("inf", "Inf")
    return f"{(Decimal(text) * Decimal(str(metric.divisor))).normalize():f}"


def _titled(name: str, kind: str, meaning: str, lines: list[str]) -> str:
    if not lines:
        return ""
    help_text = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n{''.join(lines)}"


def _line(name: str, labels: Mapping[str, str], value: str) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}\n" if inside else f"{name} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _holder_labels(holder: Holder) -> Labels:
    told = {"container": holder.container, "namespace": holder.namespace, "pod": holder.pod}
    return {name: value for name, value in told.items() if value is not None}

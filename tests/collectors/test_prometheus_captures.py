"""Real captures come through our metrics, a Prometheus and a pull or a push as they come through the driver."""

import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import requests
import uvicorn

from api.app import create_app
from collectors.agent_http import serving_metrics
from collectors.capture import open_capture
from collectors.capture_driver import driver_for
from collectors.exposition import Exposition
from collectors.nvml import NvmlSource
from collectors.prometheus import PrometheusSource
from collectors.prometheus_settings import PrometheusSettings
from collectors.remote_write import RemoteWrite
from fleet.batch import Batch
from fleet.clock import Clock, FixedClock, SystemClock
from store.store import Store


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


wire = _sibling("remote_write_encoder")
real = _sibling("prometheus_process")
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOKEN = "a token of sixteen"  # noqa: S105 - a test's
_LINE = re.compile(r'^(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)$', re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# What a label or a metric can tell of a GPU.
IDENTITY = ("node", "gpu_index", "model", "pci_bus_id", "driver", "memory_mib", "mig_enabled")
SLICE = ("gpu_instance", "profile")


def captured(root: Path, clock: Clock) -> dict[str, Batch]:
    """Read every capture, at rest and under load, through the driver's bindings."""
    found: dict[str, Batch] = {}
    for path in sorted([*(root / "captures").glob("*.xml"), *(root / "captures").glob("*.txt")]):
        for phase in ("idle", "load"):
            if path.suffix == ".txt" and f"# {phase} :: query (-q)" not in path.read_text():
                continue
            source = NvmlSource(clock, "c1", f"node-{len(found)}", driver_for(open_capture(path, phase)))
            (batch,) = source.collect(None, clock.now())
            found[f"{path.stem}-{phase}"] = batch.checked()
    if not found:
        pytest.skip("no captures")
    return found


def shown(batch: Batch, clock: Clock) -> Exposition:
    exposition = Exposition(clock, stale_after_s=3600)
    exposition.update(batch)
    return exposition


def joined(store_or_frames: Store | Batch) -> pl.DataFrame:
    """Return one row a GPU and moment and one a MIG device and moment, by UUID, without the moment."""
    if isinstance(store_or_frames, Batch):
        frames = store_or_frames.frames
        gpus = frames["gpu"].select("gpu_uuid", *IDENTITY).join(frames["gpu_sample"], on="gpu_uuid")
        slices = frames["slice"].select("slice_uuid", *SLICE).join(frames["slice_sample"], on="slice_uuid")
    else:
        read = store_or_frames.read
        gpus = read("gpu").select("gpu", pl.col("uuid").alias("gpu_uuid"), *IDENTITY).join(read("gpu_sample"), on="gpu")
        slices = (
            read("slice")
            .select("slice", pl.col("uuid").alias("slice_uuid"), *SLICE)
            .join(read("slice_sample"), on="slice")
        )
    both = pl.concat([gpus, slices], how="diagonal_relaxed")
    keyed = both.with_columns(uuid=pl.coalesce("gpu_uuid", "slice_uuid"))
    return keyed.drop("gpu_uuid", "slice_uuid", "ts", "gpu", "slice", strict=False).unique(maintain_order=True)


def own(batches: dict[str, Batch]) -> pl.DataFrame:
    """Return what the driver said, by the UUID with the capture's name before it."""
    named = [
        joined(batch).with_columns(pl.format("{}/{}", pl.lit(name), "uuid").alias("uuid"))
        for name, batch in batches.items()
    ]
    rows = pl.concat(named, how="diagonal_relaxed")
    # A GPU of which nothing but its identity could be read has no line, and so no row.
    measured = [name for name in rows.columns if name not in {"uuid", *IDENTITY, *SLICE}]
    return rows.filter(pl.any_horizontal(pl.col(measured).is_not_null()))


def compare(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    columns = sorted(expected.columns)
    assert found["uuid"].is_unique().all()
    # Off, where the driver says so, has no label: only what MIG devices show can be told.
    alike = [
        each.with_columns(pl.col("mig_enabled").replace(old=False, new=None)).select(columns).sort("uuid")
        for each in (found, expected)
    ]
    assert alike[0].equals(alike[1]), [
        (name, alike[0][name].to_list(), alike[1][name].to_list())
        for name in columns
        if not alike[0][name].equals(alike[1][name])
    ]


def test_captures_come_through_a_push_as_they_come_through_the_driver(data_root: Path, clock: FixedClock) -> None:
    batches = captured(data_root, clock)
    with Store.open(None, clock=clock) as store:
        door = RemoteWrite(store.append, "c1")
        for name, batch in batches.items():
            request = []
            for metric, text, value in _LINE.findall(shown(batch, clock).render()):
                labels = dict(_LABEL.findall(text)) | {"__name__": metric, "job": "agent", "instance": name}
                for key in {"UUID", "MIG_UUID"} & set(labels):
                    labels[key] = f"{name}/{labels[key]}"
                request.append((labels, [(int(NOW.timestamp() * 1000), float(value))]))
            assert door.receive(wire.request(request)) == len(request)
        compare(joined(store), own(batches))


class NoDesk:
    """A house that answers nothing: only its door is asked."""

    def report(self, *_: object) -> dict[str, object]:
        return {}

    operate = report

    def metrics(self) -> str:
        return ""

    def health(self) -> dict[str, object]:
        return {"ok": True}


@contextmanager
def listening(door: RemoteWrite) -> Iterator[str]:
    port = real.free_port()
    config = uvicorn.Config(create_app(NoDesk(), TOKEN, door.receive), port=port, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        real.until(lambda: server.started)
        yield f"http://127.0.0.1:{port}/api/v1/write"
    finally:
        server.should_exit = True
        thread.join()


def config(targets: dict[str, int], push_to: str) -> dict[str, object]:
    relabel = [
        {"source_labels": ["capture", name], "regex": "(.+;.+)", "separator": ";", "target_label": name}
        for name in ("UUID", "MIG_UUID")
    ]
    slash = [
        {"source_labels": [name], "regex": "(.+);(.+)", "replacement": "$1/$2", "target_label": name}
        for name in ("UUID", "MIG_UUID")
    ]
    return {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "agent",
                "metric_relabel_configs": [*relabel, *slash],
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"capture": name}} for name, port in targets.items()
                ],
            }
        ],
        "remote_write": [
            {
                "url": push_to,
                "authorization": {"type": "Bearer", "credentials": TOKEN},
                "queue_config": {"batch_send_deadline": "500ms"},
            }
        ],
    }


@pytest.mark.prometheus
@pytest.mark.enable_socket
def test_captures_come_through_a_real_prometheus_pulled_and_pushed(data_root: Path, tmp_path: Path) -> None:
    clock = SystemClock()
    batches = captured(data_root, clock)
    expected = own(batches)
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(serving_metrics(("127.0.0.1", 0), shown(batch, clock).render))
            for name, batch in batches.items()
        }
        pulled, pushed = (stack.enter_context(Store.open(None, clock=clock)) for _ in range(2))
        door = RemoteWrite(pushed.append, "c1")
        push_to = stack.enter_context(listening(door))
        url = stack.enter_context(real.prometheus(tmp_path, config(targets, push_to)))

        def scraped() -> int:
            answer = requests.get(f"{url}/api/v1/query", {"query": "sum(min_over_time(up[1m]))"}, timeout=10).json()
            return int(float(answer["data"]["result"][0]["value"][1])) if answer["data"]["result"] else 0

        real.until(lambda: scraped() == len(targets))
        source = PrometheusSource(PrometheusSettings(url=url, backfill_s=600, overlap_s=60), clock, "c1")
        for batch in source.collect(None, clock.now()):
            pulled.append(batch)
        source.close()
        compare(joined(pulled), expected)
        real.until(lambda: joined(pushed).height == expected.height)
        compare(joined(pushed), expected)
        skew = timedelta(minutes=1)
        assert pulled.read("gpu")["last_seen_at"].max() > clock.now() - skew  # type: ignore[operator]  # a moment

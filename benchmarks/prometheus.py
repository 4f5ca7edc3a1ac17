"""Time the pull from a real Prometheus server (`prometheus` and `promtool` on the PATH).

Usage: python benchmarks/prometheus.py [--gpus 2000] [--hours 6] [--metrics 3] [--step 30]

First everything is pulled into a store on disk, with the peak of this process' memory. Then hours of all series are
read in four ways, client CPU alone: `custom_query_range` of prometheus-api-client into its list, the same into its
`MetricRangeDataFrame`, our source into the same (labels, and samples as a frame), and on into rows of our tables.
"""

import argparse
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, process_time, sleep
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_api_client import MetricRangeDataFrame, PrometheusConnect

from collectors.prometheus import PrometheusSource
from collectors.prometheus_settings import PrometheusSettings
from fleet.clock import FixedClock
from store.store import Store

END = datetime(2026, 3, 2, 12, tzinfo=UTC)
NAMES = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP")
PATIENCE_S = 60


def main() -> None:
    """Print samples a CPU-second for each way, and the pull from end to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=2000)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--metrics", type=int, default=3, choices=range(1, len(NAMES) + 1))
    parser.add_argument("--step", type=int, default=30)
    arguments = parser.parse_args()
    names, span = NAMES[: arguments.metrics], timedelta(hours=arguments.hours)
    with TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, arguments.gpus, names, span, arguments.step)
        with prometheus(folder) as url:
            end_to_end(folder, url, span)
            compare(url, names, span, arguments.step)


def fill(folder: Path, gpus: int, names: tuple[str, ...], span: timedelta, step_s: int) -> None:
    """Write blocks of the history with promtool."""
    start, count = int((END - span).timestamp()) + step_s, int(span.total_seconds()) // step_s
    text = folder / "metrics.txt"
    with text.open("w") as file:
        for place, name in enumerate(names):
            file.write(f"# TYPE {name} gauge\n")
            for gpu in range(gpus):
                series = (
                    f'{name}{{UUID="GPU-{gpu:032x}",Hostname="node-{gpu // 8}",gpu="{gpu % 8}",'
                    f'device="nvidia{gpu % 8}",modelName="NVIDIA H100 80GB HBM3",job="dcgm",'
                    f'instance="10.0.{gpu // 2048}.{gpu // 8 % 256}:9400"}}'
                )
                file.writelines(
                    f"{series} {(gpu * 7 + number * 13 + place) % 101} {start + number * step_s}\n"
                    for number in range(count)
                )
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a program of the system and our own file
    text.unlink()


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run a server over the blocks and give its address."""
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={url}", "--storage.tsdb.retention.time=100y"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:  # noqa: S603 - as above
        try:
            wait_for(f"http://{url}/-/ready")
            yield f"http://{url}"
        finally:
            server.terminate()


def wait_for(url: str) -> None:
    """Return when the address answers."""
    end = monotonic() + PATIENCE_S
    while monotonic() < end:
        try:
            with urlopen(url, timeout=5):  # noqa: S310 - our own server
                return
        except (URLError, OSError):
            sleep(0.1)
    sys.exit("the Prometheus server did not start")


def compare(url: str, names: tuple[str, ...], span: timedelta, step_s: int) -> None:
    """Print client CPU for the history hour by hour, each way, and the ratios."""
    selector = f'{{__name__=~"{"|".join(names)}"}}'
    connection, source = PrometheusConnect(url), source_of(url, span)
    hour = timedelta(hours=1)
    hours = [END - hour * number for number in range(min(3, max(1, span // hour)))]
    step = timedelta(seconds=step_s)

    def as_list(stop: datetime) -> int:
        found = connection.custom_query_range(selector, stop - hour + step, stop, f"{step_s}s")
        return sum(len(series["values"]) for series in found)

    def as_frame(stop: datetime) -> int:
        return len(
            MetricRangeDataFrame(connection.custom_query_range(selector, stop - hour + step, stop, f"{step_s}s"))
        )

    def as_samples(stop: datetime) -> int:
        return source.read(stop - hour + step / 2, stop).samples.height

    rates = {}
    ways = {"custom_query_range": as_list, "MetricRangeDataFrame": as_frame, "ours, labels and a frame": as_samples}
    for label, read in ways.items():
        cpu = process_time()
        count = sum(read(stop) for stop in hours)
        rates[label] = count / (process_time() - cpu)
        print(f"{label}: {count:,} samples, {rates[label]:,.0f} per client CPU-second")
    cpu, label = process_time(), "ours, rows of our tables"
    batches = list(source_of(url, hour * len(hours)).collect(None, END))
    frames = [batch.frames["gpu_sample"] for batch in batches]
    count = sum(frame.height - frame[name].null_count() for frame in frames for name in frame.columns[2:])
    rates[label] = count / (process_time() - cpu)
    print(f"{label}: {count:,} samples, {rates[label]:,.0f} per client CPU-second")
    for ours in ("ours, labels and a frame", "ours, rows of our tables"):
        for theirs in ("custom_query_range", "MetricRangeDataFrame"):
            print(f"{ours} / {theirs}: {rates[ours] / rates[theirs]:.1f}x")


def end_to_end(folder: Path, url: str, span: timedelta) -> None:
    """Print what it takes to pull everything into a store on disk."""
    clock = FixedClock(END)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu, samples = perf_counter(), process_time(), 0
    with Store.open(folder / "steward.duckdb", clock=clock) as store:
        for batch in source_of(url, span).collect(None, END):
            store.append(batch)
        wall, cpu = perf_counter() - wall, process_time() - cpu
        frame = store.read("gpu_sample")
        samples = sum(frame.height - frame[name].null_count() for name in frame.columns[2:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"pulled and stored: {samples:,} samples in {wall:.1f} s, {samples / wall:,.0f}/s, {cpu:.1f} CPU-seconds here; "
        f"memory peak {peak / 1024:,.0f} MiB (before: {before / 1024:,.0f} MiB)"
    )


def source_of(url: str, span: timedelta) -> PrometheusSource:
    """Return our source over the last `span`."""
    return PrometheusSource(PrometheusSettings(url=url, backfill_s=span.total_seconds()), FixedClock(END), "east")


if __name__ == "__main__":
    main()

"""Put the same two questions to a real Prometheus and to us over the same data: 2,000 GPUs, 6 hours at 30 s.

The samples are written once as an exposition, made into blocks by promtool and served by a Prometheus of this machine;
the same samples stand in our own table. Asked are (1) how many GPUs each namespace held idle in each hour (at most one
sample above 5 %), and (2) the median and the 95th part over a namespace's GPUs of each GPU's hourly mean. Each sample
of a GPU carries its namespace as dcgm-exporter would add it, so Prometheus needs no join; we join with the holds.
The run is refused unless both give the same numbers.

    python benchmarks/idle_prometheus.py [--gpus 2000] [--hours 6]     needs prometheus and promtool on the PATH
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import ibis
import numpy as np
import polars as pl

from analytics.activity import ACTIVE_ABOVE
from fleet.tables import TABLES
from store.engine import compiled

Answer = TypeVar("Answer")
INTERVAL_S = 30
NAMESPACES = 20
METRIC = "DCGM_FI_PROF_SM_ACTIVE"
ROUNDS = 3
NEAR = 1e-4
IDLE_SHARE, PROBE_SHARE = 0.4, 0.005
FIRST_S = 7  # samples stand off the full hour, so that no reading of a range's edge can differ


def make(folder: Path, start: datetime, gpus: int, hours: int) -> pl.DataFrame:
    """Write the samples as OpenMetrics for promtool, and return them with the namespace of each GPU."""
    random = np.random.default_rng(11)
    count = hours * 3600 // INTERVAL_S
    level = np.where(random.random((gpus, hours)) < IDLE_SHARE, 0.0, random.random((gpus, hours)))
    values = np.repeat(level, count // hours, axis=1) * (0.8 + 0.2 * random.random((gpus, count)))
    values[(values == 0) & (random.random((gpus, count)) < PROBE_SHARE)] = 0.2  # a probe now and then
    values = values.round(4)
    first = int(start.timestamp()) + FIRST_S
    moments = [first + INTERVAL_S * place for place in range(count)]
    with (folder / "samples.om").open("w") as file:
        file.write(f"# TYPE {METRIC} gauge\n")
        for gpu in range(gpus):
            name = f'{METRIC}{{UUID="GPU-{gpu}",namespace="ns-{gpu % NAMESPACES}"}}'
            file.writelines(f"{name} {value} {moment}\n" for value, moment in zip(values[gpu], moments, strict=True))
        file.write("# EOF\n")
    return pl.DataFrame(
        {
            "gpu": np.repeat(np.arange(gpus, dtype=np.uint32), count),
            "ts": np.tile(np.array(moments, dtype="datetime64[s]").astype("datetime64[us]"), gpus),
            "sm_activity": values.ravel().astype("f4"),
        }
    ).with_columns(pl.col("ts").dt.replace_time_zone("UTC"))


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Serve the samples from blocks; yields the address."""
    data = folder / "data"
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples.om"), str(data)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own arguments
    (folder / "p.yml").write_text("global: {}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "prometheus", f"--config.file={folder / 'p.yml'}", f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=10y", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - likewise
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/-/ready").close()  # noqa: S310 - our own address
                    break
                except OSError:
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def ask_prometheus(address: str, query: str, start: datetime, hours: int) -> dict[tuple[str, int], float]:
    """Return the answer of a range query at the end of each hour, by namespace and hour."""
    first, last = start + timedelta(hours=1), start + timedelta(hours=hours)
    parameters = {"query": query, "start": first.timestamp(), "end": last.timestamp(), "step": 3600}
    url = f"{address}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own address
        series = json.load(answer)["data"]["result"]
    base = int(start.timestamp())
    return {
        (each["metric"]["namespace"], (int(moment) - base) // 3600 - 1): float(value)
        for each in series
        for moment, value in each["values"]
    }


def prepare(folder: Path, samples: pl.DataFrame) -> duckdb.DuckDBPyConnection:
    """Put the samples into the store's own table, and who held what beside."""
    connection = duckdb.connect(str(folder / "s.duckdb"))
    connection.execute("SET TimeZone='UTC'").fetchall()
    connection.register("shape", TABLES["gpu_sample"].empty("stored"))
    connection.execute("CREATE TABLE gpu_sample AS SELECT * FROM shape").fetchall()
    connection.register("given", samples)
    connection.execute(
        "INSERT INTO gpu_sample (gpu, ts, sm_activity) SELECT gpu, ts, sm_activity FROM given"
    ).fetchall()
    held = samples.group_by("gpu").agg(starts_at=pl.col("ts").min()).with_columns(
        namespace=pl.format("ns-{}", pl.col("gpu") % NAMESPACES)
    )  # fmt: skip
    connection.register("pod_allocation", held)
    return connection


def our_hours() -> ibis.Table:
    """Return each GPU's hour: its namespace, active samples and mean."""
    times = "timestamp('UTC', 6)"
    samples = ibis.table({"gpu": "uint32", "ts": times, "sm_activity": "float32"}, name="gpu_sample")
    held = ibis.table({"gpu": "uint32", "starts_at": times, "namespace": "string"}, name="pod_allocation")
    timed = samples.mutate(hour=(samples.ts.epoch_seconds() // 3600).cast("int64"))
    each = timed.group_by("gpu", "hour").agg(
        active=timed.count(where=timed.sm_activity > ACTIVE_ABOVE), mean=timed.sm_activity.mean()
    )
    return each.join(held, "gpu")


def main() -> int:
    """Ask both, print the ratios; 1 where the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2_000)
    parser.add_argument("--hours", type=int, default=6)
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        sys.exit("prometheus and promtool must be on the PATH")
    gpus, hours = arguments.gpus, arguments.hours
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours + 1)
    is_same = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        connection = prepare(folder, make(folder, start, gpus, hours))
        each = our_hours()
        asked = {
            "idle GPUs": (
                f"count by (namespace) (sum_over_time(({METRIC} > bool {ACTIVE_ABOVE})[59m59s:{INTERVAL_S}s]) <= 1)",
                each.group_by("namespace", "hour").agg(value=each.count(where=each.active <= 1).cast("float64")),
            ),
            "median": (f"quantile by (namespace) (0.5, avg_over_time({METRIC}[1h]))", quantile(each, 0.5)),
            "95th part": (f"quantile by (namespace) (0.95, avg_over_time({METRIC}[1h]))", quantile(each, 0.95)),
        }
        print(f"{gpus:,} GPUs, {hours} h at {INTERVAL_S} s: {gpus * hours * 3600 // INTERVAL_S:,} samples")
        with prometheus(folder) as address:
            for title, (query, expression) in asked.items():
                theirs, theirs_s = timed(partial(ask_prometheus, address, query, start, hours))
                rows, ours_s = timed(partial(ask_us, connection, expression))
                base = int(start.timestamp()) // 3600
                ours = {(space, hour - base): value for space, hour, value in rows if value != 0}
                same = ours.keys() == theirs.keys() and all(abs(ours[key] - theirs[key]) < NEAR for key in ours)
                is_same &= same
                print(
                    f"{title:10} ours {ours_s:7.3f} s   Prometheus {theirs_s:7.3f} s   ratio {theirs_s / ours_s:6.1f}"
                    f"   same {same}"
                )
        connection.close()
    return 0 if is_same else 1


def ask_us(connection: duckdb.DuckDBPyConnection, expression: ibis.Table) -> list[tuple[str, int, float]]:
    """Return the rows of an expression, compiled afresh as every question is."""
    rows: list[tuple[str, int, float]] = connection.sql(compiled(expression)).fetchall()
    return rows


def quantile(each: ibis.Table, part: float) -> ibis.Table:
    """Return a quantile over a namespace's GPUs of each GPU's hourly mean."""
    return each.group_by("namespace", "hour").agg(value=each["mean"].quantile(part))


def timed(ask: Callable[[], Answer]) -> tuple[Answer, float]:
    """Return what was answered and the seconds of the best of three tries."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        answer = ask()
        taken.append(time.perf_counter() - begun)
    return answer, min(taken)


if __name__ == "__main__":
    sys.exit(main())

"""Opening, upkeep and the errors of the store."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput, NotAStore, StoreBusy, StoreTooNew
from fleet.tables import GPU_SAMPLE, TABLES
from store.store import Store

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def fill(store: Store, minutes: int = 120, gpu: str = "a") -> None:
    gpus = pl.DataFrame({"gpu_uuid": [gpu], "uuid": [gpu], "cluster": ["c"], "node": ["n"], "mig_enabled": [False]})
    moments = [T0 + timedelta(minutes=minute) for minute in range(minutes)]
    frame = pl.DataFrame(
        {"gpu_uuid": [gpu] * minutes, "ts": moments, "utilization": [float(m % 2) for m in range(minutes)]},
        schema_overrides={"ts": GPU_SAMPLE.schema()["ts"]},
    )
    store.append(Batch("test", {"gpu": gpus, "gpu_sample": frame}))


def test_the_schema_in_sql_is_the_schema_of_the_house(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        for name, table in TABLES.items():
            empty = store.engine.run(store.engine.table(name))
            assert dict(empty.schema) == table.schema(), name


def test_what_is_stored_is_there_after_reopening(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "new" / "steward.duckdb"
    for _ in range(2):
        with Store.open(path, clock=clock) as store:
            fill(store)
            assert store.read("gpu_sample").height == 120
            assert store.read("gpu").get_column("gpu").to_list() == [0]


def test_keys_go_on_after_reopening(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "steward.duckdb"
    for uuid in ("a", "b", "a"):
        with Store.open(path, clock=clock) as store:
            fill(store, 1, uuid)
            keys = dict(store.read("gpu").select("uuid", "gpu").rows())
    assert keys == {"a": 0, "b": 1}


def test_the_roll_up_counts_an_hour_once_however_often_it_is_built(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        fill(store)
        for _ in range(2):
            assert store.roll_up(T0, T0 + timedelta(minutes=90)) == 2
        rows = store.read("gpu_hour").sort("hour_at")
    assert rows.get_column("sample_count").to_list() == [60, 60]
    assert rows.get_column("active_sample_count").to_list() == [30, 30]
    assert rows.get_column("activity_mean").to_list() == [0.5, 0.5]


def test_utilization_of_a_mig_parent_is_not_activity(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        fill(store)
        store.append(
            Batch("t", {"gpu": pl.DataFrame(
                {"gpu_uuid": ["a"], "uuid": ["a"], "cluster": ["c"], "node": ["n"], "mig_enabled": [True]}
            )})
        )  # fmt: skip
        store.roll_up(None, T0 + timedelta(hours=2))
        assert store.read("gpu_hour").get_column("known_sample_count").to_list() == [0, 0]


def test_retention_drops_what_is_old_and_refuses_to_touch_the_audit(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        fill(store)
        assert store.retain({"gpu_sample": timedelta(hours=1)}, T0 + timedelta(hours=2)) == {"gpu_sample": 60}
        with pytest.raises(BadInput, match="outcome are never dropped"):
            store.retain({"outcome": timedelta(days=1)}, T0)


def test_compaction_changes_the_order_of_days_that_are_over_and_nothing_else() -> None:
    clock = FixedClock(T0 + timedelta(hours=5))
    with Store.open(None, clock=clock) as store:
        fill(store, 50, "b")
        fill(store, 50, "a")
        fill(store, 60, "b")
        before = store.read("gpu_sample").sort("gpu", "ts")
        assert store.compact() == 0
        clock.set(T0 + timedelta(days=2))
        assert store.compact() == 110
        assert store.compact() == 0
        assert store.read("gpu_sample").equals(before)


def test_an_export_appears_whole_and_reads_back(tmp_path: Path, clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        fill(store)
        rows = store.export(tmp_path / "out")
        assert rows["gpu_sample"] == 120
        assert pl.read_parquet(tmp_path / "out" / "gpu_sample.parquet").height == 120
        with pytest.raises(BadInput, match="there already"):
            store.export(tmp_path / "out")
    assert not (tmp_path / "out.part").exists()


def test_a_second_process_is_told_who_has_the_file(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "steward.duckdb"
    code = (
        "import sys; from pathlib import Path; from fleet.clock import SystemClock; from store.store import Store\n"
        "store = Store.open(Path(sys.argv[1]), clock=SystemClock()); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy, match=rf"process {other.pid}"):
            Store.open(path, clock=clock)
        other.communicate("")


def test_a_store_of_a_later_version_is_left_alone(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "steward.duckdb"
    Store.open(path, clock=clock).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO migration VALUES (9999, 'future', now())")
    with pytest.raises(StoreTooNew, match="9999"):
        Store.open(path, clock=clock)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read as one" * 300])
def test_a_file_that_is_no_database_is_named_and_kept(tmp_path: Path, clock: FixedClock, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(NotAStore, match=r"notes\.txt"):
        Store.open(path, clock=clock)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE holiday (day DATE)")
    with pytest.raises(NotAStore, match="holiday"):
        Store.open(path, clock=clock)


def test_a_folder_is_not_a_store(tmp_path: Path, clock: FixedClock) -> None:
    with pytest.raises(NotAStore, match="is a folder"):
        Store.open(tmp_path, clock=clock)


FULL_DISK = """
import resource, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import numpy as np, polars as pl
from fleet.batch import Batch
from fleet.clock import SystemClock
from fleet.errors import StoreFull
from fleet.tables import GPU_SAMPLE
from store.store import Store
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
gpus = pl.DataFrame({"gpu_uuid": ["a"], "uuid": ["a"], "cluster": ["c"], "node": ["n"]})
start = datetime(2020, 1, 1, tzinfo=UTC)
store = Store.open(path, clock=SystemClock())
store.append(Batch("s", {"gpu": gpus}))
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))
rng = np.random.default_rng(1)
stored = 0
for number in range(100):
    first = start + timedelta(days=number)
    ts = pl.datetime_range(first, first + timedelta(days=1), "1s", closed="left", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"ts": ts, "power_w": rng.random(len(ts)), "energy_j": rng.random(len(ts))})
    frame = frame.with_columns(gpu_uuid=pl.lit("a"))
    try:
        store.append(Batch("s", {"gpu_sample": frame}))
    except StoreFull as error:
        print(stored, error)
        break
    stored += frame.height
"""


def test_a_full_disk_is_said_and_loses_nothing_acknowledged(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "steward.duckdb"
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    stored, _, message = done.stdout.partition(" ")
    assert "no room left" in message, done.stderr[-2000:]
    with Store.open(path, clock=clock) as store:
        assert store.read("gpu_sample").height == int(stored)

"""The Prometheus source over a server of our own that fails on purpose, and over a real one."""

import importlib.util
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from collectors.prometheus import PrometheusSource
from collectors.prometheus_settings import PrometheusSettings
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput, SourceFailed
from store.store import Store

pytestmark = pytest.mark.enable_socket


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys  # noqa: PLC0415 - dataclasses look their module up

    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fake = _sibling("prometheus_server")
real = _sibling("prometheus_process")
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
T = NOW.timestamp() - 60
GPU = {
    "UUID": "GPU-a",
    "Hostname": "n1",
    "gpu": "0",
    "modelName": "NVIDIA H100 80GB HBM3",
    "pci_bus_id": "0000:01:00.0",
}
Pair = tuple[float, str]


def series(name: str, *pairs: Pair, **labels: str) -> tuple[Mapping[str, str], tuple[Pair, ...]]:
    return {"__name__": name, **GPU, **labels}, pairs


def source(url: str, **settings: object) -> PrometheusSource:
    given = PrometheusSettings(url=url, **{"backfill_s": 3600.0, **settings})  # type: ignore[arg-type]  # a test's shorthand
    return PrometheusSource(given, FixedClock(NOW), "east", wait=lambda _seconds: None)


def read(replies: list[object], since: datetime | None = None, **settings: object) -> list[Batch]:
    with fake.serving(replies) as server:
        reader = source(server.url, **settings)
        try:
            return list(reader.collect(since, NOW))
        finally:
            reader.close()


def rows(batch: Batch, table: str) -> list[dict[str, object]]:
    return batch.checked().frames[table].to_dicts()


def test_metrics_become_one_wide_row_in_our_units() -> None:
    (batch,) = read(
        [
            fake.matrix(
                [
                    series("DCGM_FI_DEV_GPU_UTIL", (T, "0"), (T + 30.125, "87")),
                    series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", (T, "123456")),
                    series("DCGM_FI_DEV_ROW_REMAP_FAILURE", (T, "1")),
                ]
            )
        ]
    )
    first, second = rows(batch, "gpu_sample")
    assert (first["utilization"], first["energy_j"], first["is_remap_failed"]) == (0.0, 123.456, True)
    assert second["utilization"] == pytest.approx(0.87)
    assert second["energy_j"] is None
    assert second["ts"] == datetime.fromtimestamp(T, UTC) + timedelta(milliseconds=30_125)
    (gpu,) = rows(batch, "gpu")
    assert (gpu["uuid"], gpu["node"], gpu["gpu_index"], gpu["cluster"]) == ("GPU-a", "n1", 0, "east")
    assert batch.read_until == NOW


def test_old_and_new_names_of_a_field_are_one_value_and_the_new_one_speaks() -> None:
    (batch,) = read(
        [
            fake.matrix(
                [
                    series("DCGM_FI_DEV_BOARD_POWER_WATTS", (T, "301")),
                    series("DCGM_FI_DEV_POWER_USAGE", (T, "300"), (T + 30, "310")),
                ]
            )
        ]
    )
    assert [row["power_w"] for row in rows(batch, "gpu_sample")] == [301.0, 310.0]


@pytest.mark.parametrize(
    "value",
    ["NaN", "2147483632", "9223372036854775794", "140737488355328.0", "101", "-1", "+Inf"],
    ids=["NaN", "int32 blank", "int64 blank", "fp64 blank", "above the whole", "negative", "infinite"],
)
def test_what_is_no_measurement_is_missing_and_never_zero(value: str) -> None:
    (batch,) = read(
        [fake.matrix([series("DCGM_FI_DEV_GPU_UTIL", (T, value)), series("DCGM_FI_DEV_POWER_USAGE", (T, "70"))])]
    )
    (row,) = rows(batch, "gpu_sample")
    assert (row["utilization"], row["power_w"]) == (None, 70.0)
    assert bool(batch.troubles) == (value in {"101", "-1", "+Inf"})


def test_a_mig_device_has_its_own_rows_and_its_gpu_no_utilization() -> None:
    mig = {"GPU_I_ID": "7", "GPU_I_PROFILE": "1g.10gb"}
    (batch,) = read(
        [
            fake.matrix(
                [
                    series("DCGM_FI_DEV_GPU_UTIL", (T, "0")),
                    series("DCGM_FI_DEV_POWER_USAGE", (T, "90")),
                    series("DCGM_FI_PROF_GR_ENGINE_ACTIVE", (T, "0.5"), **mig),
                ]
            )
        ]
    )
    (slice_,) = rows(batch, "slice")
    assert (slice_["gpu_uuid"], slice_["gpu_instance"], slice_["profile"]) == ("GPU-a", 7, "1g.10gb")
    (of_slice,) = rows(batch, "slice_sample")
    assert (of_slice["slice_uuid"], of_slice["gr_activity"]) == (slice_["uuid"], 0.5)
    (of_gpu,) = rows(batch, "gpu_sample")
    assert (of_gpu["utilization"], of_gpu["gr_activity"], of_gpu["power_w"]) == (None, None, 90.0)
    assert rows(batch, "gpu")[0]["mig_enabled"] is True


def test_pods_that_share_a_gpu_carry_the_same_value_and_it_is_stored_once() -> None:
    pods = [series("DCGM_FI_DEV_GPU_UTIL", (T, "99"), pod=f"p{n}") for n in range(4)]
    (batch,) = read([fake.matrix(pods)])
    assert len(rows(batch, "gpu_sample")) == 1


def test_an_xid_is_an_event_when_the_gauge_changes_and_not_while_it_stands() -> None:
    gauge = series("DCGM_FI_DEV_XID_ERRORS", (T, "31"), (T + 10, "31"), (T + 20, "79"), (T + 30, "79"), (T + 40, "0"))
    (batch,) = read([fake.matrix([gauge])])
    first, event = rows(batch, "event")
    assert (first["code"], first["message"]) == (31, "the exporter's gauge first shows XID 31, which may be older")
    assert (event["kind"], event["code"], event["gpu_uuid"]) == ("xid", 79, "GPU-a")
    assert event["ts"] == datetime.fromtimestamp(T + 20, UTC)


def test_labels_of_other_exporters_and_scrapes_are_understood() -> None:
    labels = {"__name__": "DCGM_FI_DEV_GPU_TEMP", "uuid": "GPU-b", "hostname": "n2", "cluster": "west", "gpu": "x"}
    (batch,) = read([fake.matrix([(labels, [(T, "30")])])])
    (gpu,) = rows(batch, "gpu")
    assert (gpu["uuid"], gpu["node"], gpu["cluster"], gpu["gpu_index"]) == ("GPU-b", "n2", "west", None)


def test_a_series_that_names_no_gpu_is_rejected_and_counted() -> None:
    (batch,) = read([fake.matrix([({"__name__": "DCGM_FI_DEV_GPU_TEMP"}, [(T, "30")])])])
    assert [(trouble.kind, trouble.row_count) for trouble in batch.troubles] == [("rejected", 1)]
    assert not batch.frames


def test_nothing_there_is_an_empty_batch_that_moves_the_watermark() -> None:
    (batch,) = read([fake.matrix([])])
    assert (batch.row_count(), batch.read_until) == (0, NOW)


@pytest.mark.parametrize("status", [422, 413])
def test_what_is_too_much_for_the_server_is_asked_for_in_halves(status: int) -> None:
    too_much = fake.error(status, "query processing would load too many samples into memory")
    batches = read([too_much, too_much, fake.matrix([])], backfill_s=3600.0, overlap_s=60.0)
    marks = [batch.read_until for batch in batches]
    assert marks == sorted(marks)  # type: ignore[type-var]  # each has one
    assert marks[0] == NOW - timedelta(minutes=45)
    assert marks[-1] == NOW


def test_a_server_for_which_a_minute_is_too_much_fails_and_says_so() -> None:
    with pytest.raises(SourceFailed, match="too many samples"):
        read([fake.error(422, "too many samples")])


def test_after_an_outage_the_gap_is_read_from_the_watermark_with_an_overlap() -> None:
    with fake.serving([fake.matrix([])]) as server:
        reader = source(server.url, overlap_s=120.0, chunk_s=7200.0)
        list(reader.collect(NOW - timedelta(minutes=50), NOW))
        reader.close()
    (asked,) = server.asked
    assert asked["query"].endswith(f"[{52 * 60 * 1000}ms]")
    assert float(asked["time"]) == NOW.timestamp()


@pytest.mark.parametrize(
    "bad",
    [
        fake.error(503, "starting up"),
        fake.Reply(b"<html>bad gateway</html>", 502),
        fake.Reply(b"<html>please log in</html>"),
        fake.Reply(fake.matrix([series("DCGM_FI_DEV_GPU_TEMP", (T, "30"))]).body[:-40]),
        fake.Reply(b'{"status": "success"}' * 100, hang_up_after=30),
    ],
    ids=["503", "502 in HTML", "HTML", "truncated JSON", "hung up in the middle"],
)
def test_a_server_that_stumbles_is_asked_again_and_one_that_stays_down_fails(bad: object) -> None:
    good = fake.matrix([series("DCGM_FI_DEV_GPU_TEMP", (T, "30"))])
    (batch,) = read([bad, bad, good])
    assert len(rows(batch, "gpu_sample")) == 1
    with pytest.raises(SourceFailed, match="does not answer"):
        read([bad])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_told_at_once_and_not_repeated(status: int) -> None:
    with fake.serving([fake.error(status, "no")]) as server:
        reader = source(server.url)
        with pytest.raises(SourceFailed, match="token_file"):
            list(reader.collect(None, NOW))
        reader.close()
    assert len(server.asked) == 1


def test_a_query_error_is_told_in_the_servers_words() -> None:
    with pytest.raises(SourceFailed, match="parse error"):
        read([fake.error(400, "parse error: unexpected character")])


def test_nobody_listening_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        reader = source(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SourceFailed, match="does not answer"):
            list(reader.collect(None, NOW))
        reader.close()


def test_a_token_and_a_password_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    for settings, expected in (
        ({"token_file": str(secret)}, "Bearer s3cret"),
        ({"username": "ann", "password_file": str(secret)}, "Basic YW5uOnMzY3JldA=="),
    ):
        with fake.serving([fake.matrix([])]) as server:
            reader = source(server.url, **settings)
            list(reader.collect(None, NOW))
            reader.close()
        assert server.headers[0]["Authorization"] == expected
    with pytest.raises(BadInput, match="password_file"):
        source("http://x", username="ann", password_file=str(tmp_path / "gone"))


def test_warnings_and_a_clock_that_is_off_are_noticed() -> None:
    reply = fake.matrix([], warnings=["one store did not answer"])
    reply.headers = {"Date": "Mon, 02 Mar 2026 12:05:00 GMT"}
    (batch,) = read([reply])
    assert [trouble.kind for trouble in batch.troubles] == ["noticed", "noticed"]
    assert batch.troubles[1].example == "+300 s"


def test_reading_the_same_twice_stores_it_once(clock: FixedClock) -> None:
    reply = fake.matrix([series("DCGM_FI_DEV_GPU_TEMP", (T, "30"), (T + 30, "31"))])
    with Store.open(None, clock=clock) as store:
        for _ in range(2):
            for batch in read([reply]):
                store.append(batch)
        assert store.read("gpu_sample").height == 2
        assert store.read("gpu").height == 1


@pytest.mark.parametrize(
    "wrong",
    [{"url": "prometheus:9090"}, {"overlap_s": 90_000.0}, {"chunk_s": 0.0}, {"username": "a", "token_file": "b"}],
    ids="+".join,
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        PrometheusSettings(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_a_source_without_an_address_says_which_setting_is_missing() -> None:
    with pytest.raises(BadInput, match=r"collect\.prometheus"):
        PrometheusSource(PrometheusSettings(), FixedClock(NOW), "east")


def test_a_token_that_is_renewed_in_its_file_is_used_from_then_on(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("old")
    with fake.serving([fake.matrix([])]) as server:
        reader = source(server.url, token_file=str(secret))
        list(reader.collect(NOW - timedelta(minutes=1), NOW))
        secret.write_text("new")
        list(reader.collect(NOW - timedelta(minutes=1), NOW))
        reader.close()
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer old", "Bearer new"]


def test_a_tenant_is_named_where_the_server_has_several() -> None:
    with fake.serving([fake.matrix([])]) as server:
        reader = source(server.url, tenant="team-a")
        list(reader.collect(None, NOW))
        reader.close()
    assert server.headers[0]["X-Scope-OrgID"] == "team-a"


@pytest.mark.parametrize(
    ("more", "mark"),
    [
        ({"warnings": ["store 10.0.0.2 did not answer"]}, NOW - timedelta(minutes=20)),
        ({"isPartial": True}, NOW - timedelta(minutes=20)),
        ({"warnings": ["PromQL info: metric might not be a counter"]}, NOW),
        ({"infos": ["whatever"]}, NOW),
    ],
    ids=["Thanos", "VictoriaMetrics", "a remark of PromQL", "information"],
)
def test_an_answer_that_missed_a_store_is_kept_and_read_again(more: dict[str, object], mark: datetime) -> None:
    reply = fake.matrix([series("DCGM_FI_DEV_GPU_TEMP", (T, "30"))], **more)
    (batch,) = read([reply], NOW - timedelta(minutes=20))
    assert (batch.read_until, len(rows(batch, "gpu_sample"))) == (mark, 1)


def test_a_store_that_never_answers_does_not_keep_the_watermark_for_ever() -> None:
    reply = fake.matrix([], warnings=["store 10.0.0.2 did not answer"])
    (batch,) = read([reply], NOW - timedelta(days=3), chunk_s=7 * 86400.0)
    assert batch.read_until == NOW - timedelta(hours=6)


@pytest.mark.prometheus
def test_a_real_server_gives_back_every_sample_with_its_own_time_and_after_its_restart_too(
    tmp_path: Path, clock: FixedClock
) -> None:
    start = int(NOW.timestamp()) - 7200
    moments = [start + 30 * step for step in range(240)]
    data = tmp_path / "data"
    lines = [f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{n}",Hostname="n",gpu="{n}"}} {(n + step) % 101} {moment}'
             for n in range(3) for step, moment in enumerate(moments)]  # fmt: skip
    real.make_blocks(["# TYPE DCGM_FI_DEV_GPU_UTIL gauge", *lines], tmp_path, data)
    port, hour = real.free_port(), timedelta(hours=1)
    reader = source(f"http://127.0.0.1:{port}", backfill_s=7500.0, attempts=1)
    with Store.open(None, clock=clock) as store:

        def collect(until: datetime) -> None:
            for batch in reader.collect(store.watermark(reader.name), until):
                store.append(batch)

        with real.prometheus(tmp_path, port=port, data=data):
            collect(NOW - hour)
            # The names of now: nothing was scraped in the last minutes.
            assert reader.metric_names() == []
        with pytest.raises(SourceFailed, match="does not answer"):
            collect(NOW - hour / 2)
        with real.prometheus(tmp_path, port=port, data=data):
            collect(NOW)
        got = store.read("gpu_sample").join(store.read("gpu").select("gpu", "uuid"), on="gpu")
    reader.close()
    expected = {(f"GPU-{n}", moment): (n + step) % 101 / 100 for n in range(3) for step, moment in enumerate(moments)}
    found = {
        (uuid, int(ts.timestamp())): value for uuid, ts, value in got.select("uuid", "ts", "utilization").iter_rows()
    }
    assert found == pytest.approx(expected)
    assert got.height == len(expected)


@pytest.mark.prometheus
def test_a_real_server_that_may_load_few_samples_is_read_in_smaller_parts(tmp_path: Path, clock: FixedClock) -> None:
    start = int(NOW.timestamp()) - 3600
    lines = [f'DCGM_FI_DEV_GPU_TEMP{{UUID="GPU-{n}",Hostname="n"}} 40 {start + 30 * step}'
             for n in range(4) for step in range(1, 121)]  # fmt: skip
    real.make_blocks(["# TYPE DCGM_FI_DEV_GPU_TEMP gauge", *lines], tmp_path, tmp_path / "data")
    with (
        real.prometheus(tmp_path, data=tmp_path / "data", flags=["--query.max-samples=150"]) as url,
        Store.open(None, clock=clock) as store,
    ):
        reader = source(url, overlap_s=60.0)
        batches = 0
        for batch in reader.collect(None, NOW):
            store.append(batch)
            batches += 1
        reader.close()
        assert store.read("gpu_sample").height == 480
    assert batches > 3

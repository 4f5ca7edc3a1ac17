"""Who holds what, as labels tell: pods in every spelling, never the exporter's own, from when to when."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from collectors.holders import HolderMemory, Holding, Place, holder_rows, holding_of
from collectors.prometheus_rows import _holders
from collectors.prometheus_wide import Samples
from collectors.series_book import SeriesBook

T = int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp() * 1000)
PLACE = Place("c1", "n1", "GPU-a")
POD = Holding("plain", "dcgm", "ml", "train-0", "main")


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(T / 1000, UTC) + timedelta(seconds=seconds)


def rows(seen: list[tuple[Place, Holding, int, int]], memory: HolderMemory, *measured: int) -> pl.DataFrame:
    return holder_rows(seen, {PLACE: np.array(measured, dtype=np.int64)} if measured else {}, "prometheus", memory)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"namespace": "ml", "pod": "p", "container": "c"}, ("plain", "ml", "p", "c", None)),
        ({"namespace": "ml", "pod": "p", "pod_uid": "u"}, ("plain", "ml", "p", None, "u")),
        ({"pod_namespace": "ml", "pod_name": "p", "container_name": "c"}, ("legacy", "ml", "p", "c", None)),
        (
            {"exported_namespace": "ml", "exported_pod": "p", "namespace": "gpu-operator", "pod": "dcgm-exporter-x"},
            ("exported", "ml", "p", None, None),
        ),
    ],
    ids=["plain", "with its UID", "legacy", "exported"],
)
def test_a_pod_is_known_by_any_of_its_labels(labels: dict[str, str], expected: tuple[str | None, ...]) -> None:
    found = holding_of(labels)
    assert found is not None
    assert (found.mode, found.namespace, found.pod, found.container, found.pod_uid) == expected


@pytest.mark.parametrize("labels", [{}, {"pod": "p"}, {"namespace": "ml"}, {"namespace": "ml", "pod": ""}], ids=str)
def test_a_pod_without_its_namespace_is_no_holder(labels: dict[str, str]) -> None:
    assert holding_of(labels) is None


def test_an_idle_gpu_is_not_held_by_its_exporter() -> None:
    own = Holding("plain", "dcgm", "gpu-operator", "nvidia-dcgm-exporter-x", "nvidia-dcgm-exporter")
    plain = Holding("plain", "dcgm", "monitoring", "agent-x")
    exported = Holding("exported", "dcgm", "ml", "train-0")
    memory = HolderMemory()
    assert rows([(PLACE, own, T, T)], memory).is_empty()
    assert rows([(PLACE, plain, T, T), (PLACE, exported, T, T)], memory)["pod"].to_list() == ["train-0"]
    assert rows([(PLACE, plain, T, T)], memory).is_empty()


def test_a_holder_goes_on_in_its_row_and_ends_where_it_is_missed() -> None:
    memory = HolderMemory()
    first = rows([(PLACE, POD, T, T + 30_000)], memory, T, T + 30_000)
    second = rows([(PLACE, POD, T + 60_000, T + 60_000)], memory, T + 60_000)
    assert first["starts_at"].to_list() == second["starts_at"].to_list() == [moment(0)]
    assert second["last_seen_at"].to_list() == [moment(60)]
    assert rows([], memory, T + 90_000).is_empty()
    (ended,) = rows([], memory, T + 270_000, T + 300_000).to_dicts()
    assert (ended["pod"], ended["ends_at"]) == ("train-0", moment(90))
    assert rows([], memory, T + 330_000).is_empty()


def test_a_holder_that_was_missed_for_a_moment_goes_on() -> None:
    memory = HolderMemory()
    rows([(PLACE, POD, T, T)], memory, T)
    rows([], memory, T + 30_000)
    rows([(PLACE, POD, T + 60_000, T + 60_000)], memory, T + 60_000)
    (ended,) = rows([], memory, T + 90_000, T + 300_000).to_dicts()
    assert (ended["starts_at"], ended["ends_at"]) == (moment(0), moment(90))


def test_a_device_that_is_not_measured_ends_nobodys_hold() -> None:
    memory = HolderMemory()
    rows([(PLACE, POD, T, T)], memory, T)
    assert rows([], memory).is_empty()
    again = rows([(PLACE, POD, T + 3_600_000, T + 3_600_000)], memory, T + 3_600_000)
    assert again["starts_at"].to_list() == [moment(0)]


def test_pods_that_share_a_gpu_have_a_row_each() -> None:
    pods = [(PLACE, Holding("plain", "dcgm", "ml", f"p{n}"), T, T) for n in range(4)]
    assert rows(pods, HolderMemory(), T)["pod"].to_list() == ["p0", "p1", "p2", "p3"]


def test_the_series_of_a_reading_tell_who_held_which_gpu_and_mig_device_and_when() -> None:
    book, memory = SeriesBook("c1"), HolderMemory()
    gpu = {"__name__": "DCGM_FI_DEV_GPU_TEMP", "UUID": "GPU-a", "Hostname": "n1", "job": "dcgm"}
    slice_ = gpu | {"GPU_I_ID": "7"}
    numbers = [
        book.add(gpu | {"exported_namespace": "ml", "exported_pod": "p0"}),
        book.add(gpu | {"namespace": "gpu-operator", "pod": "some-daemon"}),
        book.add(slice_ | {"exported_namespace": "ml", "exported_pod": "p1"}),
    ]
    series = np.array([numbers[0], numbers[0], numbers[1], numbers[2]])
    samples = Samples(series, np.array([T, T + 30_000, T + 60_000, T]), np.ones(4))
    found = _holders(samples, book.facts(), book, "prometheus", memory).sort("pod")
    assert found.select("gpu_uuid", "slice_uuid", "pod", "starts_at", "last_seen_at").rows() == [
        ("GPU-a", None, "p0", moment(0), moment(30)),
        ("GPU-a", "GPU-a/gi7", "p1", moment(0), moment(0)),
    ]
    later = Samples(np.array([numbers[1]]), np.array([T + 300_000]), np.ones(1))
    ended = _holders(later, book.facts(), book, "prometheus", memory)
    assert ended.select("pod", "ends_at").rows() == [("p0", moment(300))]

"""Which nodes' GPUs could be shared by time: from rows to verdicts, and every reason to say nothing at all."""

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.sharing import judge_sharing, sharing_use, waiting_singles
from analytics.sharing_policy import SharingPolicy
from fleet.errors import BadInput
from fleet.verdict import Verdict, verdict_frame, verdicts_of

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

NOW = datetime.fromisoformat("2026-03-02T12:00:00+00:00")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = SharingPolicy(profiles={"shared-2": 2, "shared-4": 4})
SIZE = 40_000


def add_node(engine: "Engine", name: str = "n1", gpus: int = 4, first: int = 0, **more: Any) -> None:
    for gpu in range(first, first + gpus):
        engine.add_gpu(gpu, name, memory_mib=SIZE, last_seen_at=NOW)
    row = {"cluster": "c1", "node": name, "is_ready": True, "is_schedulable": True, "labels": "{}", "last_seen_at": NOW}
    engine.add("node", **{**row, **more})


def add_hours(engine: "Engine", gpu: int, memory: int | None, activity: float | None, hours: int = 48) -> None:
    for back in range(1, hours + 1):
        engine.add(
            "gpu_hour", gpu=gpu, hour_at=NOW - back * HOUR, sample_count=60, known_sample_count=60,
            memory_used_mib_max=memory, activity_max=activity,
        )  # fmt: skip


def add_notebook(engine: "Engine", gpu: int, **more: Any) -> None:
    row = {"workload_kind": "Notebook", "pod_uid": f"uid-{gpu}", "pod": f"lab-{gpu}"}
    engine.add_pod(gpu, NOW - 2 * DAY, name=f"lab{gpu}", **{**row, **more})


def quiet_node(engine: "Engine", memory: int = 6_000, activity: float = 0.2, pods: int = 3, **more: Any) -> None:
    add_node(engine, **more)
    for gpu in range(pods):
        add_notebook(engine, gpu)
        add_hours(engine, gpu, memory, activity)


def add_waiting(engine: "Engine", count: int, **more: Any) -> None:
    for place in range(count):
        row = {
            "cluster": "c1", "namespace": "team", "pod": f"w{place}", "workload_kind": "Notebook", "workload": "w",
            "workspace": "research", "gpus": 1.0, "resources": json.dumps({"nvidia.com/gpu": 1}),
            "created_at": NOW - HOUR,
        }  # fmt: skip
        engine.add("pod", **{**row, **more, "pod_uid": f"w{place}{more}"})


def judged(engine: "Engine", policy: SharingPolicy = POLICY) -> list[Verdict]:
    used = engine.run(sharing_use(engine.tables, NOW, policy))
    return judge_sharing(used, engine.run(waiting_singles(engine.tables, NOW, policy)), policy, NOW)


def test_small_pods_whose_peaks_fit_in_any_company_are_told_with_what_decides(engine: "Engine") -> None:
    quiet_node(engine)
    add_waiting(engine, 5)
    (found,) = judged(engine)
    assert (found.subject, found.topic, found.action, found.rule) == ("n1", "packing", "share", "peaks_fit_together")
    told = found.evidence
    assert (told["sharing"], told["replicas"], told["gpus"], told["pods"]) == ("shared-4", 4, 4, 3)
    assert (told["memory_needed_mib"], told["memory_mib"]) == (24_000.0, SIZE)  # four as large as the largest seen
    assert told["activity_needed"] == pytest.approx(0.8)
    assert (told["gain_gpus"], told["places_more"], told["gpus_needed"]) == (5.0, 13, 1)
    assert (told["tenants"], told["isolation"], found.coverage, found.until) == (["research"], "none", 1.0, NOW)
    assert verdicts_of(verdict_frame([found])) == [found]


@pytest.mark.parametrize(
    ("memory", "activity", "profile"),
    [
        (8_000, 0.2, "shared-4"),  # 4 x 8,000 is just what the headroom of a fifth leaves of 40,000
        (8_001, 0.2, "shared-2"),
        (16_000, 0.45, "shared-2"),
        (16_001, 0.1, None),
        (1_000, 0.46, None),
        (0, 0.0, "shared-4"),
    ],
)
def test_the_most_places_that_fit_are_named(
    engine: "Engine", memory: int, activity: float, profile: str | None
) -> None:
    quiet_node(engine, memory, activity)
    assert [each.evidence["sharing"] for each in judged(engine)] == ([] if profile is None else [profile])


def test_the_largest_decide_whoever_they_are_and_whenever_they_ran(engine: "Engine") -> None:
    quiet_node(engine)
    engine.add_pod(3, NOW - 3 * DAY, name="old", workload_kind="Notebook", ends_at=NOW - 2 * DAY)
    for back in range(48, 73):
        engine.add("gpu_hour", gpu=3, hour_at=NOW - back * HOUR, sample_count=60, known_sample_count=60,
                   memory_used_mib_max=20_000, activity_max=0.1)  # fmt: skip
    (found,) = judged(engine)
    assert found.evidence["sharing"] == "shared-2"
    assert found.evidence["memory_needed_mib"] == 26_000.0
    assert (found.evidence["pods"], found.evidence["pods_seen"]) == (3, 4)


SPOILED: dict[str, Any] = {
    "a gap in its samples": lambda engine: engine.rows.update(
        gpu_hour=[row for row in engine.rows["gpu_hour"] if row["gpu"] != 2 or row["hour_at"] < NOW - 5 * HOUR]
    ),
    "no samples": lambda engine: engine.rows.update(gpu_hour=[r for r in engine.rows["gpu_hour"] if r["gpu"] != 2]),
    "memory unknown": lambda engine: [row.update(memory_used_mib_max=None) for row in engine.rows["gpu_hour"]],
    "memory unknown in some hours": lambda engine: [
        row.update(memory_used_mib_max=None) for row in engine.rows["gpu_hour"] if row["hour_at"] > NOW - 5 * HOUR
    ],
    "activity unknown": lambda engine: [row.update(activity_max=None) for row in engine.rows["gpu_hour"]],
    "few samples": lambda engine: [row.update(known_sample_count=30) for row in engine.rows["gpu_hour"]],
    "size unknown": lambda engine: engine.rows["gpu"][3].update(memory_mib=None),
    "sizes differ": lambda engine: engine.rows["gpu"][3].update(memory_mib=80_000),
    "under MIG": lambda engine: engine.rows["gpu"][3].update(mig_enabled=True),
    "shared already": lambda engine: engine.rows["node"][0].update(
        labels=json.dumps({"nvidia.com/device-plugin.config": "shared-2"})
    ),
    "cordoned": lambda engine: engine.rows["node"][0].update(is_schedulable=False),
    "not ready": lambda engine: engine.rows["node"][0].update(is_ready=None),
    "seen for too short": lambda engine: engine.rows["pod_allocation"][0].update(starts_at=NOW - 20 * HOUR),
    "a pod of two GPUs": lambda engine: add_notebook(engine, 3, pod_uid="uid-0"),
    "a part of a GPU": lambda engine: engine.rows["pod_allocation"][0].update(fraction=0.5),
    "fraction unknown": lambda engine: engine.rows["pod_allocation"][0].update(fraction=None),
    "training beside": lambda engine: add_notebook(engine, 3, workload_kind="Job"),
    "kind unknown": lambda engine: engine.rows["pod_allocation"][0].update(workload_kind=None),
    "a gang that serves": lambda engine: engine.rows["pod_allocation"][0].update(workload_kind="LeaderWorkerSet"),
    "training before": lambda engine: engine.add_pod(3, NOW - 3 * DAY, name="old", ends_at=NOW - 2 * DAY),
    "another tenant": lambda engine: engine.rows["pod_allocation"][0].update(workspace="other"),
    "another tenant before": lambda engine: engine.add_pod(
        3, NOW - 3 * DAY, name="old", workload_kind="Notebook", workspace="other", ends_at=NOW - 2 * DAY
    ),
    "tenant unknown": lambda engine: [row.update(workspace=None) for row in engine.rows["pod_allocation"]],
    "one pod": lambda engine: engine.rows.update(pod_allocation=engine.rows["pod_allocation"][:1]),
}


@pytest.mark.parametrize("name", SPOILED, ids=str)
def test_what_is_not_surely_safe_gives_no_verdict(engine: "Engine", name: str) -> None:
    quiet_node(engine)
    SPOILED[name](engine)
    assert judged(engine) == []


def test_without_a_profile_of_the_device_plugin_nothing_is_ever_shareable(engine: "Engine") -> None:
    quiet_node(engine)
    assert judged(engine, SharingPolicy()) == []


def test_several_tenants_share_only_where_it_is_allowed(engine: "Engine") -> None:
    quiet_node(engine)
    engine.rows["pod_allocation"][0].update(workspace="other")
    allowed = SharingPolicy(profiles={"shared-2": 2}, is_multi_tenant_allowed=True)
    (found,) = judged(engine, allowed)
    assert (found.evidence["tenants"], found.workspace) == (["other", "research"], None)


def test_who_waits_is_counted_once_and_only_where_they_belong(engine: "Engine") -> None:
    quiet_node(engine, pods=4)
    add_node(engine, "n2", first=10)
    for gpu in range(10, 13):
        add_notebook(engine, gpu)
        add_hours(engine, gpu, 6_000, 0.2)
    add_waiting(engine, 20)
    add_waiting(engine, 3, workspace="other")
    add_waiting(engine, 3, workload_kind="Job")
    add_waiting(engine, 3, gpus=2.0)
    add_waiting(engine, 3, starts_at=NOW - HOUR)
    add_waiting(engine, 3, resources=json.dumps({"nvidia.com/mig-1g.10gb": 1}))
    found = {each.subject: each.evidence for each in judged(engine)}
    assert {name: told["gain_gpus"] for name, told in found.items()} == {"n2": 13.0, "n1": 7.0}


def test_nobody_who_waits_gains_nothing_and_is_still_told(engine: "Engine") -> None:
    quiet_node(engine)
    (found,) = judged(engine)
    assert found.evidence["gain_gpus"] == 0.0


@given(
    peaks=st.lists(st.tuples(st.integers(0, SIZE), st.floats(0, 1, width=32)), min_size=2, max_size=8),
    places=st.integers(2, 8),
)
def test_no_company_of_pods_that_were_seen_ever_exceeds_the_gpu(peaks: list[tuple[int, float]], places: int) -> None:
    policy = SharingPolicy(profiles={"p": places})
    plain = {
        "cluster": "c1", "node": "n1", "gpus": 8, "memory_mib": SIZE, "memory_mib_min": SIZE, "is_open": True,
        "is_shared_now": False, "namespace": "t", "workload_kind": "Notebook", "workload": "w", "workspace": "r",
        "fraction": 1.0, "is_slice": False, "is_current": True, "held_from": NOW - 2 * DAY, "held_until": NOW,
        "known_hours": 48, "known_count": 2880, "samples_an_hour": 60, "last_hour_at": NOW - HOUR,
    }  # fmt: skip
    rows = [
        {**plain, "uuid": f"g{place}", "pod": f"p{place}", "pod_uid": f"u{place}", "memory_mib_peak": memory,
         "activity_peak": activity}
        for place, (memory, activity) in enumerate(peaks)
    ]  # fmt: skip
    nobody = pl.DataFrame(schema={"cluster": pl.String(), "workspace": pl.String(), "pods": pl.Int64()})
    found = judge_sharing(pl.DataFrame(rows), nobody, policy, NOW)
    memory, activity = (sorted(each, reverse=True)[:places] for each in zip(*peaks, strict=True))
    assert not found or (sum(memory) <= SIZE and sum(activity) <= 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profiles": {"all": 1}}, "profiles.all"),
        ({"uses": ("batch",)}, "uses"),
        ({"memory_headroom": 1.5}, "memory_headroom"),
        ({"held_h_min": 500.0}, "held_h_min"),
        ({"look_back_d": 0.0}, "look_back_d"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        SharingPolicy(**changes)

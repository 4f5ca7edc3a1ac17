"""Idle, beyond the one rule: other signs of work, windows by kind, stalls, sizes, pods, replicas and workspaces."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from analytics.idle import IdlePolicy, Prior, judge_idle
from analytics.idle_signals import idle_signals
from fleet.verdict import Verdict

if TYPE_CHECKING:
    from tests.analytics.conftest import Engine

MINUTE = timedelta(minutes=1)
H100 = "NVIDIA H100 80GB HBM3"


def minutes(now: datetime, count: int = 180) -> list[datetime]:
    return [now - MINUTE * back for back in range(count, 0, -1)]


def judge(engine: "Engine", now: datetime, prior: Prior | None = None, **policy: Any) -> dict[str, Verdict]:
    rules = IdlePolicy(**policy)
    verdicts = judge_idle(engine.run(idle_signals(engine.tables, now, rules)), rules, now, prior)
    return {verdict.subject: verdict for verdict in verdicts}


def hold(engine: "Engine", now: datetime, gpu: int = 1, **more: Any) -> None:
    engine.add_pod(gpu, now - timedelta(days=1), **more)


def one_gpu(engine: "Engine", now: datetime, **samples: Any) -> None:
    engine.add_gpu(1, model=H100, memory_mib=81559)
    hold(engine, now)
    engine.add_samples(1, minutes(now), **samples)


def lone(count: int, at: int, value: float) -> list[float]:
    values = [0.0] * count
    values[at] = value
    return values


def energy(idle_w: float, extra_j: dict[int, float]) -> list[float]:
    total, told = 1e6, []
    for step in range(180):
        total += idle_w * 60 + extra_j.get(step, 0.0)
        told.append(total)
    return told


@pytest.mark.parametrize(
    ("extra_j", "rule"),
    [
        pytest.param({}, "at_most_one_active_sample", id="quiet"),
        pytest.param({150: 300.0}, "at_most_one_active_sample", id="5-watts-more-for-a-minute"),
        pytest.param({150: 6000.0}, "energy_above_quiet", id="work-that-no-sample-met"),
        pytest.param({110: 6000.0}, "at_most_one_active_sample", id="work-before-window-and-grace"),
        pytest.param({150: -2e6}, "at_most_one_active_sample", id="a-counter-that-was-reset"),
    ],
)
def test_the_energy_counter_tells_of_work_between_two_samples(
    engine: "Engine", now: datetime, extra_j: dict[int, float], rule: str
) -> None:
    one_gpu(engine, now, utilization=0.0, energy_j=energy(70.0, extra_j))
    assert judge(engine, now)["GPU-1"].rule == rule


def test_a_board_that_is_restless_by_itself_widens_its_own_line(engine: "Engine", now: datetime) -> None:
    restless = energy(70.0, {step: (step % 7) * 200.0 for step in range(180)})
    one_gpu(engine, now, utilization=0.0, energy_j=restless)
    assert judge(engine, now)["GPU-1"].state == "idle"


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        pytest.param({"utilization": lone(180, 150, 1.0)}, "at_most_one_active_sample", id="an-instant-may-be-a-probe"),
        pytest.param({"gr_activity": lone(180, 150, 0.2)}, "at_most_one_active_sample", id="a-fifth-of-a-minute-too"),
        pytest.param({"gr_activity": lone(180, 150, 0.9)}, "long_active_sample", id="a-whole-minute-of-work-is-not"),
        pytest.param({"utilization": lone(180, 179, 1.0)}, "newest_sample_active", id="work-may-just-have-begun"),
        pytest.param(
            {"utilization": 0.0, "memory_used_mib": [0] * 170 + [4000] * 10}, "memory_taken", id="memory-was-taken"
        ),
        pytest.param(
            {"utilization": 0.0, "memory_used_mib": [4000] * 170 + [0] * 10},
            "at_most_one_active_sample",
            id="memory-was-given-back",
        ),
        pytest.param({"gr_activity": 0.0, "dram_activity": 0.3}, "memory_or_tensor_active", id="copies"),
        pytest.param({"gr_activity": 0.0, "dram_activity": 0.03}, "at_most_one_active_sample", id="a-little"),
        pytest.param({"utilization": [0.9] * 117 + [0.0] * 63}, "active_samples", id="active-within-the-grace"),
        pytest.param({"utilization": [0.9] * 115 + [0.0] * 65}, "at_most_one_active_sample", id="and-before-it"),
    ],
)  # fmt: skip
def test_one_active_sample_is_let_pass_only_while_nothing_else_tells_of_work(
    engine: "Engine", now: datetime, samples: dict[str, Any], rule: str
) -> None:
    one_gpu(engine, now, **samples)
    assert judge(engine, now)["GPU-1"].rule == rule


@pytest.mark.parametrize(
    ("kind", "still_min", "state"),
    [
        pytest.param("Deployment", 36, "idle", id="a-service-after-half-an-hour"),
        pytest.param("Deployment", 33, "active", id="not-within-its-grace"),
        pytest.param("Job", 66, "idle", id="a-job-after-an-hour"),
        pytest.param("Job", 40, "active", id="not-before"),
        pytest.param("Notebook", 66, "active", id="a-notebook-not-after-an-hour"),
        pytest.param("Notebook", 126, "idle", id="a-notebook-after-two"),
        pytest.param("Strange", 66, "idle", id="of-an-unknown-kind-as-a-job"),
    ],
)
def test_the_window_is_that_of_the_kind_of_workload(
    engine: "Engine", now: datetime, kind: str, still_min: int, state: str
) -> None:
    engine.add_gpu(1)
    hold(engine, now, workload_kind=kind)
    engine.add_samples(1, minutes(now), utilization=[0.9] * (180 - still_min) + [0.0] * still_min)
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.state == state


SPINNING = {"utilization": 1.0, "gr_activity": 1.0, "sm_activity": 0.1, "dram_activity": 0.01, "power_w": 120.0}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        pytest.param({}, "stalled", id="it-spins"),
        pytest.param({"power_w": None}, "stalled", id="power-not-measured"),
        pytest.param({"power_w": 400.0}, "active", id="it-draws-power"),
        pytest.param({"dram_activity": 0.3}, "active", id="memory-works"),
        pytest.param({"tensor_activity": 0.3}, "active", id="tensor-cores-work"),
        pytest.param({"sm_activity": 0.6}, "active", id="sms-work"),
        pytest.param({"utilization": 0.8, "gr_activity": 0.8}, "active", id="not-all-the-time"),
        pytest.param({"dram_activity": None}, "active", id="without-profiling-nobody-knows"),
        pytest.param({"utilization": lone(180, 150, 0.0), "gr_activity": None}, "active", id="null-is-no-dip"),
    ],
)
def test_full_utilization_without_work_is_a_stall(
    engine: "Engine", now: datetime, change: dict[str, Any], state: str
) -> None:
    one_gpu(engine, now, **{**SPINNING, **change})
    verdict = judge(engine, now)["GPU-1"]
    assert verdict.state == state
    assert verdict.action == ("inspect" if state == "stalled" else "none")


def test_a_stall_is_told_since_the_last_sample_that_worked(engine: "Engine", now: datetime) -> None:
    dram = [0.4] * 100 + [0.01] * 80
    one_gpu(engine, now, **{**SPINNING, "dram_activity": dram})
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].since == now - MINUTE * 81
    assert (verdicts["Job/team/train"].state, verdicts["Job/team/train"].action) == ("stalled", "inspect")


@pytest.mark.parametrize(
    ("memory_mib", "activity", "would_do"),
    [
        pytest.param(6000, 0.08, "1g.10gb", id="the-smallest"),
        pytest.param(12_000, 0.08, "1g.20gb", id="more-memory"),
        pytest.param(12_000, 0.2, "2g.20gb", id="and-more-compute"),
        pytest.param(30_000, 0.3, "3g.40gb", id="half"),
        pytest.param(60_000, 0.3, None, id="memory-needs-it-all"),
        pytest.param(6000, 0.9, None, id="compute-needs-it-all"),
        pytest.param(None, 0.08, None, id="memory-not-measured"),
    ],
)
def test_a_whole_gpu_for_work_that_fits_a_slice_is_under_used(
    engine: "Engine", now: datetime, memory_mib: int | None, activity: float, would_do: str | None
) -> None:
    one_gpu(engine, now, sm_activity=activity, memory_used_mib=memory_mib)
    verdict = judge(engine, now, Prior(usd_per_gpu_hour={"GPU-1": Decimal(7)}))["GPU-1"]
    assert (verdict.state, verdict.evidence.get("would_do")) == (
        "active" if would_do is None else "under_used",
        would_do,
    )
    if would_do == "1g.10gb":
        assert verdict.evidence["saving_usd_per_hour"] == "6.000000"
        assert verdict.action == "recommend_smaller"


def test_one_idle_replica_does_not_condemn_the_others(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2, 3):
        engine.add_gpu(gpu)
        hold(engine, now, gpu, workload_kind="Deployment", workload="chat", pod=f"chat-{gpu}", pod_uid=f"u{gpu}")
        engine.add_samples(gpu, minutes(now), utilization=0.0 if gpu == 3 else 0.9)
    verdicts = judge(engine, now)
    assert [verdicts[f"team/chat-{gpu}"].state for gpu in (1, 2, 3)] == ["active", "active", "idle"]
    assert {verdicts[f"team/chat-{gpu}"].subject_kind for gpu in (1, 2, 3)} == {"replica"}
    whole = verdicts["Deployment/team/chat"]
    assert (whole.state, whole.action, whole.evidence["gpus_needed"]) == ("under_used", "recommend_fewer", 2)
    assert whole.evidence["idle_pods"] == ["team/chat-3"]
    assert "reclaim" not in {v.action for v in verdicts.values() if v.subject_kind in {"gpu", "workload"}}


def test_one_idle_member_of_a_gang_is_a_straggler_and_nothing_is_stopped(engine: "Engine", now: datetime) -> None:
    for gpu in (1, 2):
        engine.add_gpu(gpu)
        hold(engine, now, gpu, workload_kind="JobSet", pod=f"train-{gpu}", pod_uid=f"u{gpu}")
        engine.add_samples(gpu, minutes(now), utilization=0.0 if gpu == 1 else 0.9)
    verdicts = judge(engine, now)
    whole = verdicts["JobSet/team/train"]
    assert (whole.rule, whole.action, whole.state) == ("straggler", "inspect", "active")
    assert verdicts["GPU-1"].action == "inspect"


def test_a_shared_device_that_works_tells_of_none_of_those_that_share_it(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    for name in ("a", "b"):
        hold(engine, now, name=name, fraction=0.5, workspace=name)
    engine.add_samples(1, minutes(now), utilization=0.9)
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].state == "active"
    for subject in ("Job/team/a", "Job/team/b", "team/a-0", "team/b-0", "a", "b"):
        assert verdicts[subject].state == "unknown"
    assert verdicts["Job/team/a"].rule == "shared_device"


def test_a_workspace_tells_what_of_it_idles_and_is_itself_never_reclaimed(engine: "Engine", now: datetime) -> None:
    for gpu, value in ((1, 0.0), (2, 0.9), (3, None)):
        engine.add_gpu(gpu)
        hold(engine, now, gpu, name=f"job{gpu}")
        engine.add_samples(gpu, minutes(now), utilization=value)
    verdict = judge(engine, now)["research"]
    assert (verdict.state, verdict.action, verdict.subject_kind) == ("under_used", "none", "workspace")
    assert verdict.evidence["gpus_by_state"] == {"active": 1.0, "idle": 1.0, "unknown": 1.0}
    assert verdict.gpu_hours == pytest.approx(3.0)


def test_evidence_says_whose_it_is_and_when_it_last_worked(engine: "Engine", now: datetime) -> None:
    engine.add_gpu(1)
    hold(engine, now, owner="ada")
    engine.add_samples(1, minutes(now), utilization=[0.9] * 80 + [0.0] * 100)
    verdicts = judge(engine, now)
    assert verdicts["GPU-1"].evidence["owners"] == ["ada"]
    assert verdicts["Job/team/train"].evidence["owner"] == "ada"
    last = (now - MINUTE * 101).isoformat()
    assert verdicts["Job/team/train"].evidence["last_active_at"] == last
    assert verdicts["Job/team/train"].evidence["stop"] == "spec.suspend=true"


@pytest.mark.parametrize(
    ("field", "value"),
    [("serving_window_s", 0.0), ("stalled_utilization", 1.5), ("memory_margin", 0.5), ("skew_s", -1.0)],
)
def test_settings_that_mean_nothing_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        IdlePolicy(**{field: value})  # type: ignore[arg-type]  # one field at a time, whichever it is

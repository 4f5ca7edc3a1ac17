"""Each kind is stopped by its own reversible stop and comes back exactly as it was, whatever stood there before."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.kube_body import PRIOR, SUSPENDED_BY, merged
from actions.kube_stops import (
    BOOST,
    QUEUE_NAME,
    SCALABLE,
    WAYS,
    Seen,
    boost,
    boost_of,
    is_stopped,
    resume,
    scale,
    size_of,
    stop,
    stopped_by,
)
from fleet.errors import MoveRefused

Body = dict[str, Any]
STOPPABLE = sorted(kind for kind, way in WAYS.items() if way.stops is not None)
SINCE = "2026-03-02T12:00:00Z"


def body(kind: str, **spec: object) -> Body:
    meta = {"name": "w", "namespace": "team", "annotations": {"by": "hand"}, "labels": {"app": "w"}}
    return {"kind": kind, "metadata": meta, "spec": {"template": {}, **spec}}


def workload(**spec: object) -> Body:
    return {"kind": "Workload", "metadata": {"name": "job-w-1", "namespace": "team"}, "spec": spec}


def after(seen: Seen, patch: Body) -> Seen:
    """Return what is seen once a patch is made, annotations without a member gone as a server leaves them out."""
    made = merged(seen.holder, patch)
    if made["metadata"].get("annotations") == {}:
        del made["metadata"]["annotations"]
    if seen.admitted is None:
        return Seen(seen.kind, made, None, seen.is_queued)
    return Seen(seen.kind, seen.body, made, seen.is_queued)


@pytest.mark.parametrize("kind", STOPPABLE)
def test_every_kind_is_stopped_by_its_own_field_and_comes_back_exactly(kind: str) -> None:
    seen = Seen(kind, body(kind))
    before = copy.deepcopy(seen.body)
    held = after(seen, stop(seen, SINCE))
    assert is_stopped(held)
    assert stopped_by(held) == "gpu-steward"
    back = after(held, resume(held))
    assert back.body == before
    assert not is_stopped(back)


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "suspend": st.just(value=False),
        "replicas": st.integers(1, 50),
        "runPolicy": st.sampled_from([{}, {"suspend": False}, {"cleanPodPolicy": "None"}]),
        "prefill": st.sampled_from([{}, {"replicas": 3}]),
        "predictor": st.sampled_from([{}, {"minReplicas": 2, "maxReplicas": 60}]),
    },
)


@given(
    kind=st.sampled_from(STOPPABLE),
    spec=SPECS,
    notes=st.none() | st.just({"serving.kserve.io/stop": "false"}) | st.just({"by": "hand"}),
    steps=st.lists(st.sampled_from(["stop", "scale"]), min_size=1, max_size=4),
    size=st.integers(0, 50),
)
def test_any_nesting_of_moves_taken_back_last_first_leaves_the_object_as_it_was(
    kind: str, spec: Body, notes: Body | None, steps: list[str], size: int
) -> None:
    meta: Body = {"name": "w", "namespace": "team", **({} if notes is None else {"annotations": notes})}
    seen = Seen(kind, {"kind": kind, "metadata": meta, "spec": spec})
    before = copy.deepcopy(seen.body)
    done: list[tuple[str, int]] = []
    for step in steps:
        prior = size_of(seen.kind, seen.body)
        if step == "stop" and not is_stopped(seen):
            seen = after(seen, stop(seen, SINCE))
        elif step == "scale" and kind in SCALABLE and not is_stopped(seen):
            seen = after(seen, scale(kind, seen.body, size))
        else:
            continue
        done.append((step, prior))
    for step, prior in reversed(done):
        if step == "stop" and not is_stopped(seen):
            continue  # it was scaled away from zero, which a real undo refuses: nothing of ours is left to take back
        seen = after(seen, resume(seen) if step == "stop" else scale(kind, seen.body, prior))
    assert seen.body == before


def test_what_kueue_manages_is_stopped_by_kueues_workload_and_the_job_itself_is_not_touched() -> None:
    job = body("Job", suspend=False)
    job["metadata"]["labels"][QUEUE_NAME] = "team"
    seen = Seen("Job", job, workload(active=True, queueName="team"), is_queued=True)
    held = after(seen, stop(seen, SINCE))
    assert held.body == job
    assert held.admitted is not None
    assert held.admitted["spec"] == {"active": False, "queueName": "team"}
    assert after(held, resume(held)).admitted == seen.admitted


def test_a_job_that_waits_in_its_queue_is_not_stopped_by_anybody() -> None:
    seen = Seen("Job", body("Job", suspend=True), workload(active=True), is_queued=True)
    assert not is_stopped(seen)
    assert stopped_by(seen) is None


def test_what_kueue_queues_without_a_workload_is_refused_since_kueue_would_start_it_again() -> None:
    with pytest.raises(MoveRefused, match="Kueue queues it"):
        stop(Seen("Job", body("Job"), None, is_queued=True), SINCE)


@pytest.mark.parametrize("kind", ["Pod", "DaemonSet", "CronJob", "Workflow"])
def test_a_kind_without_a_reversible_stop_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(MoveRefused, match=r"bare pod|daemon set|cron job|no reversible stop"):
        stop(Seen(kind, body(kind)), SINCE)
    assert not is_stopped(Seen(kind, body(kind, suspend=True)))


def test_what_another_suspended_is_never_resumed_nor_suspended_again() -> None:
    seen = Seen("Job", body("Job", suspend=True))
    assert stopped_by(seen) == "somebody else"
    with pytest.raises(MoveRefused, match="somebody else, not by us"):
        resume(seen)
    with pytest.raises(MoveRefused, match="stopped already"):
        stop(seen, SINCE)
    with pytest.raises(MoveRefused, match="it is not stopped"):
        resume(Seen("Job", body("Job")))


def test_a_stop_that_somebody_lifted_and_made_again_is_theirs_by_the_servers_record_of_fields() -> None:
    held = after(Seen("Job", body("Job")), stop(Seen("Job", body("Job")), SINCE))
    held.body["metadata"]["managedFields"] = [
        {"manager": "gpu-steward", "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{SUSPENDED_BY}": {}}}}},
        {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:suspend": {}}}},
    ]
    assert stopped_by(held) == "somebody else"
    held.body["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"] = {"f:suspend": {}}
    assert stopped_by(held) == "gpu-steward"


@pytest.mark.parametrize("note", ["", "{", "[]", "7", '[{"path": []}]', '[{"set": 0}]', "null"])
def test_a_note_that_is_broken_makes_the_stop_somebody_elses(note: str) -> None:
    held = after(
        Seen("Deployment", body("Deployment", replicas=3)), stop(Seen("Deployment", body("Deployment")), SINCE)
    )
    held.body["metadata"]["annotations"][PRIOR] = note
    assert stopped_by(held) == "somebody else"


def test_a_parent_that_others_put_something_into_stays_when_the_stop_goes() -> None:
    seen = Seen("PyTorchJob", body("PyTorchJob"))
    held = after(seen, stop(seen, SINCE))
    held.body["spec"]["runPolicy"]["backoffLimit"] = 3
    assert after(held, resume(held)).body["spec"]["runPolicy"] == {"backoffLimit": 3}


def test_both_halves_of_a_disaggregated_service_are_stopped_and_come_back() -> None:
    seen = Seen("LLMInferenceService", body("LLMInferenceService", replicas=2, prefill={"replicas": 3}))
    held = after(seen, stop(seen, SINCE))
    assert (held.body["spec"]["replicas"], held.body["spec"]["prefill"]["replicas"]) == (0, 0)
    assert after(held, resume(held)).body == seen.body


def test_a_size_that_was_never_said_is_unsaid_when_it_is_set_back() -> None:
    service = body("InferenceService", predictor={"model": {}})
    small = after(Seen("InferenceService", service), scale("InferenceService", service, 0))
    assert small.body["spec"]["predictor"]["minReplicas"] == 0
    assert after(small, scale("InferenceService", small.body, 1)).body == service


@pytest.mark.parametrize(
    ("kind", "replicas", "reason"),
    [
        ("Deployment", -1, "whole number"),
        ("Deployment", None, "whole number"),
        ("Deployment", 1.5, "whole number"),
        ("Deployment", True, "whole number"),
        ("Job", 2, "no size"),
        ("InferenceService", 9, "at most 4"),
    ],
)
def test_a_size_that_can_not_be_is_refused(kind: str, replicas: object, reason: str) -> None:
    with pytest.raises(MoveRefused, match=reason):
        scale(kind, body(kind, predictor={"maxReplicas": 4}), replicas)


def test_a_boost_is_added_changed_and_taken_away_and_another_s_words_stay() -> None:
    plain = workload(active=True)
    plain["metadata"]["annotations"] = {"a": "b"}
    up = merged(plain, boost(plain, 100))
    assert boost_of(up) == 100
    assert merged(up, boost(up, None)) == plain
    with pytest.raises(MoveRefused, match="only what Kueue admits"):
        boost(None, 1)
    with pytest.raises(MoveRefused, match="whole number"):
        boost(plain, value=True)
    with pytest.raises(MoveRefused, match="32 bits"):
        boost(plain, 2**31)
    assert boost_of(merged(plain, boost(plain, -(2**31)))) == -(2**31)
    odd = merged(plain, {"metadata": {"annotations": {BOOST: "high"}}})
    assert boost_of(odd) is None
    with pytest.raises(MoveRefused, match="others wrote 'high'"):
        boost(odd, 1)

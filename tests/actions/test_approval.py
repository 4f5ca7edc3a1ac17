from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from actions.approval import (
    Standing,
    answers_of,
    check_answer,
    content_digest,
    is_open,
    needs_answer,
    persons_for,
    standings,
    why_waiting,
)
from actions.approval_policy import ApprovalPolicy, Graces
from actions.budget import Made
from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from actions.rows import approval_frame, approvals_from
from fleet.approval import Approval, Step
from fleet.errors import BadInput, MoveRefused
from fleet.move import Move, MoveKind, Plan
from fleet.state import ObjectRef
from tests.actions.fakes import FREE, WIDE, failing, fleet, idle, quota, workload

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = NOW - timedelta(days=2)
STATE = fleet(NOW, workloads=[workload("train", ["n1-0"], LONG_AGO)], quotas=[quota("a", 20.0), quota("b", 4.0)])
PROPOSING = ActionPolicy(budget=WIDE)
PLAN = plan(STATE, [idle("train", NOW)], PROPOSING, NOW)
(MOVE,) = PLAN.moves
CONTENT = content_digest(MOVE)


def row(step: Step, who: str = "gpu-steward", hours: float = 0.0, **changes: object) -> Approval:
    plain = Approval(CONTENT, MOVE.move_id, PLAN.plan_id, NOW + hours * HOUR, step, who)
    return replace(plain, **changes)  # type: ignore[arg-type]  # fields


def signed(who: str, hours: float = 0.5) -> Approval:
    """Build an approval by who proved who they are."""
    return row(Step.APPROVED, who, hours, person_count=1)


def proposed(persons: int = 1, hours: float = 0.0, who: str = "gpu-steward") -> Approval:
    return row(Step.PROPOSED, who, hours, expires_at=NOW + (hours + 24) * HOUR, person_count=persons)


def standing(*rows: Approval, at: float = 1.0, made: tuple[Made, ...] = ()) -> Standing:
    return standings(rows, NOW + at * HOUR, made)[CONTENT]


@pytest.mark.parametrize(
    ("rows", "at", "state"),
    [
        ([proposed()], 1, "proposed"),
        ([proposed(), row(Step.NOTIFIED, "log", 0.1)], 1, "notified"),
        ([proposed(), row(Step.APPROVED, "ann", 0.5)], 1, "approved"),
        ([proposed(), row(Step.REFUSED, "ann", 0.5)], 1, "refused"),
        ([proposed(), row(Step.APPROVED, "ann", 0.5), row(Step.REFUSED, "bob", 0.6)], 1, "refused"),
        ([proposed()], 24, "expired"),
        ([proposed()], 23.99, "proposed"),
        ([proposed(), row(Step.APPROVED, "ann", 0.5)], 24, "expired"),
        ([proposed(), row(Step.APPROVED, "ann", 24.5)], 25, "expired"),
        ([proposed(2), signed("ann")], 1, "proposed"),
        ([proposed(2), signed("ann"), signed("ann", 0.6)], 1, "proposed"),
        ([proposed(2), signed("ann"), signed("bob", 0.6)], 1, "approved"),
        ([proposed(2), row(Step.APPROVED, "ann", 0.5), row(Step.APPROVED, "bob", 0.6)], 1, "proposed"),
        ([proposed(2), signed("ann"), row(Step.APPROVED, "bob", 0.6)], 1, "proposed"),
        ([proposed(2), signed("ann"), row(Step.APPROVED, "bob", 0.6, person_count=0)], 1, "proposed"),
        ([proposed(2), signed("ann"), row(Step.APPROVED, "bob", 0.6), signed("bob", 0.7)], 1, "approved"),
        ([proposed(2, who="ann"), signed("ann"), signed("bob", 0.6)], 1, "proposed"),
        ([proposed(1, who="ann"), row(Step.APPROVED, "ann", 0.5)], 1, "approved"),
        ([proposed(), row(Step.REFUSED, "ann", 0.5), proposed(hours=25)], 26, "proposed"),
    ],
    ids=[
        "nobody answered", "told", "approved", "refused", "a refusal goes before", "expired", "just not expired",
        "an approval expires, too", "approved too late", "one of two", "the same person twice", "two of two",
        "two names of one token", "one is claimed", "one is told to be claimed", "claimed, then proven",
        "its maker is none of two", "its maker is enough for one", "proposed anew",
    ],
)  # fmt: skip
def test_a_proposal_stands_where_its_rows_say(rows: list[Approval], at: float, state: str) -> None:
    assert standing(*rows, at=at).state == state
    assert standing(*rows[::-1], at=at).state == state, "in whatever order they are read"


def test_what_was_made_uses_its_approval_up() -> None:
    rows = [proposed(), row(Step.APPROVED, "ann", 0.5)]
    done = Made(MOVE, NOW + 0.6 * HOUR)
    assert standing(*rows, made=(done,)).state == "made"
    assert standing(*rows, made=(replace(done, at=NOW - HOUR),)).state == "approved", "that was another time"
    assert standing(*rows, made=(replace(done, is_certain=False),)).state == "approved"
    again = standing(*rows, proposed(hours=2), made=(done,), at=3)
    assert (again.state, again.approvers) == ("proposed", ())


CHANGES: dict[str, Move] = {
    "other target": replace(MOVE, target=replace(MOVE.target, name="serve")),
    "other GPUs": replace(MOVE, gpu_uuids=("n1-0", "n1-1")),
    "other cause": replace(MOVE, cause="budget_spent"),
    "other value": replace(MOVE, arguments={"replicas": 1}),
    "other state before": replace(MOVE, evidence={**MOVE.evidence, "before": {"is_suspended": True}}),
    "other cluster": replace(MOVE, cluster="c2"),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_an_approval_holds_for_no_other_content(changed: Move) -> None:
    known = standings([proposed(), row(Step.APPROVED, "ann", 0.1)], NOW + HOUR)
    made = Plan("p2", NOW, "{}", (changed,))
    assert why_waiting(changed, made, known.get(content_digest(changed)), PROPOSING, NOW + HOUR) is not None


def test_an_approval_holds_for_the_same_move_planned_again() -> None:
    later = NOW + timedelta(minutes=10)
    state = replace(STATE, taken_at=later, workloads=(replace(STATE.workloads[0], resource_version="7"),))
    again = plan(state, [idle("train", later, hours=6.2)], PROPOSING, later)
    assert again.moves[0].move_id != MOVE.move_id
    known = standings([proposed(), row(Step.APPROVED, "ann", 0.1)], later)
    assert why_waiting(again.moves[0], again, known.get(content_digest(again.moves[0])), PROPOSING, later) is None


AUTO_WITH_GRACE = replace(FREE, approval=ApprovalPolicy(grace_s=Graces(reclaim=600)))


@pytest.mark.parametrize(
    ("rows", "minutes", "waits"),
    [
        ([], 0, "not put before anybody"),
        ([proposed()], 30, "nobody could be told"),
        ([proposed(), row(Step.NOTIFIED, "log")], 9.9, "is made at 2026-03-02T12:10"),
        ([proposed(), row(Step.NOTIFIED, "log")], 10, None),
        ([proposed(), row(Step.NOTIFIED, "log", 0.5)], 35, "is made at"),
        ([proposed(), row(Step.NOTIFIED, "log"), row(Step.REFUSED, "ann", 0.1, note="no")], 30, "ann refused it: no"),
        ([proposed(), row(Step.NOTIFIED, "log"), row(Step.APPROVED, "ann", 0.01)], 1, None),
    ],
    ids=["new", "nobody told", "in its grace", "after its grace", "told late", "refused", "approved at once"],
)  # fmt: skip
def test_an_automatic_move_is_told_first_and_made_after_its_grace(
    rows: list[Approval], minutes: float, waits: str | None
) -> None:
    now = NOW + timedelta(minutes=minutes)
    told = why_waiting(MOVE, PLAN, standings(rows, now).get(CONTENT), AUTO_WITH_GRACE, now)
    assert (told is None) == (waits is None)
    assert waits is None or waits in str(told)


def test_who_needs_an_answer_is_told_by_mode_grace_and_size() -> None:
    assert needs_answer(MOVE, PLAN, PROPOSING)
    assert needs_answer(MOVE, PLAN, replace(FREE, approval=ApprovalPolicy())), "reclaim has a grace by default"
    silent = replace(FREE, approval=ApprovalPolicy(grace_s=Graces(reclaim=0)))
    assert not needs_answer(MOVE, PLAN, silent)
    small = replace(silent, approval=replace(silent.approval, two_persons_gpus=0.5))
    assert needs_answer(MOVE, PLAN, small), "two persons, whatever the mode"
    assert not needs_answer(MOVE, PLAN, replace(FREE, modes=Modes(reclaim="observe")))
    assert not needs_answer(replace(MOVE, evidence={"undo_of": "x"}), PLAN, PROPOSING)


def test_an_automatic_move_above_the_size_waits_for_two_persons_and_no_grace_helps() -> None:
    policy = replace(AUTO_WITH_GRACE, approval=replace(AUTO_WITH_GRACE.approval, two_persons_gpus=0.5))
    rows = [proposed(2), row(Step.NOTIFIED, "log"), signed("ann", 0.1), row(Step.APPROVED, "cid", 0.1)]
    waits = str(why_waiting(MOVE, PLAN, standing(*rows), policy, NOW + HOUR))
    assert "1 of 2 persons agreed (ann); nobody proved to be cid" in waits
    rows.append(signed("bob", 0.2))
    assert why_waiting(MOVE, PLAN, standing(*rows), policy, NOW + HOUR) is None


def test_size_counts_the_move_and_the_nodes_of_its_rule_in_the_plan() -> None:
    policy = ApprovalPolicy(two_persons_gpus=8, two_persons_nodes=2)
    assert persons_for(replace(MOVE, gpus=8.0), PLAN, policy) == 1
    assert persons_for(replace(MOVE, gpus=8.5), PLAN, policy) == 2
    fences = plan(fleet(NOW, node_count=12), [failing(f"n{node}-0", NOW) for node in (0, 1, 2)], FREE, NOW)
    assert [persons_for(move, fences, policy) for move in fences.moves] == [2, 2, 2]
    two = replace(fences, moves=fences.moves[:2])
    assert [persons_for(move, two, policy) for move in two.moves] == [1, 1]


@pytest.mark.parametrize(
    ("rows", "who", "at", "words"),
    [
        ([proposed(2), signed("ann", 0.1)], "ann", 1, "ann approved move"),
        ([proposed(2, who="ann")], "ann", 1, "ann made the plan"),
        ([proposed()], "ann", 24, "expired at"),
        ([proposed(), row(Step.REFUSED, "bob", 0.1)], "ann", 1, "bob refused"),
    ],
    ids=["the same person twice", "who made the plan", "expired", "refused"],
)
def test_an_approval_that_may_not_be_is_refused_with_the_reason(
    rows: list[Approval], who: str, at: float, words: str
) -> None:
    with pytest.raises(MoveRefused, match=words):
        check_answer(standing(*rows, at=at), who, Step.APPROVED, NOW + at * HOUR, is_proven=True)


def test_a_name_that_is_only_claimed_is_no_second_person_and_may_still_refuse() -> None:
    large = standing(proposed(2), signed("ann", 0.1))
    with pytest.raises(MoveRefused, match="each by a token of their own"):
        check_answer(large, "bob", Step.APPROVED, NOW + HOUR, is_proven=False)
    check_answer(large, "bob", Step.REFUSED, NOW + HOUR, is_proven=False)
    small = standing(proposed(1), row(Step.APPROVED, "ann", 0.1))
    assert (small.state, small.claimed) == ("approved", ("ann",))


def test_what_has_become_large_since_needs_names_that_are_proven() -> None:
    small = standing(proposed(1), row(Step.APPROVED, "ann", 0.1), row(Step.APPROVED, "bob", 0.2))
    policy = replace(PROPOSING, approval=replace(PROPOSING.approval, two_persons_gpus=0.5))
    assert why_waiting(MOVE, PLAN, small, PROPOSING, NOW + HOUR) is None
    assert "0 of 2 persons agreed" in str(why_waiting(MOVE, PLAN, small, policy, NOW + HOUR))


def test_nobody_answers_what_was_made() -> None:
    done = standing(proposed(), made=(Made(MOVE, NOW + 0.1 * HOUR),))
    with pytest.raises(MoveRefused, match="steward undo"):
        check_answer(done, "ann", Step.REFUSED, NOW + HOUR, is_proven=True)


@pytest.mark.parametrize(("hours", "is_standing"), [(1, True), (23.9, True), (24.5, False)])
def test_a_refusal_stands_for_a_while_so_that_nobody_is_asked_again(hours: float, *, is_standing: bool) -> None:
    long = replace(proposed(), expires_at=NOW + 1000 * HOUR)
    known = standing(long, row(Step.REFUSED, "ann"), at=hours)
    assert is_open(known, NOW + hours * HOUR, ApprovalPolicy(refused_h=24)) == is_standing


def test_answers_come_back_from_their_rows_as_they_were() -> None:
    rows = [proposed(2), row(Step.APPROVED, "ann", 1, note="fine"), signed("bob", 2)]
    assert approvals_from(approval_frame(rows)) == rows
    assert approvals_from(approval_frame([])) == []


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: ApprovalPolicy(expires_h=0), "expires_h"),
        (lambda: ApprovalPolicy(two_persons_gpus=-1), "two_persons_gpus"),
        (lambda: Graces(reclaim=-1), "grace_s.reclaim"),
    ],
    ids=["expires_h", "two_persons_gpus", "grace"],
)
def test_a_bound_that_means_nothing_is_refused_by_its_name(build: object, name: str) -> None:
    with pytest.raises(BadInput, match=name):
        build()  # type: ignore[operator]  # a builder


def test_a_drain_that_goes_on_was_asked_about_when_it_began() -> None:
    node = ObjectRef("Node", "", "n0")
    begun = Move(
        "d1", MoveKind.DRAIN_NODE, "c1", node, "xid_79", "why", arguments={"scope": "node"}, rule="repair",
        evidence={"before": {"drain": None}},
    )  # fmt: skip
    again = replace(
        begun, move_id="d2", evidence={"before": {"drain": "node"}},
        arguments={"scope": "node", "since": NOW.isoformat()},
    )  # fmt: skip
    made = Plan("p", NOW, "{}", (again,))
    record = (Made(begun, NOW),)
    assert not answers_of([], record).is_needed(again, made, PROPOSING)
    for known, move, why in (
        ((), again, "nothing on record began it: others wrote it on the node"),
        ((replace(record[0], is_undone=True),), again, "it was taken back"),
        ((replace(record[0], is_certain=False),), again, "it may never have begun"),
        (record, begun, "it was cancelled since, and begins anew"),
        (record, replace(again, target=replace(node, name="n1")), "another node"),
    ):
        assert answers_of([], known).is_needed(move, made, PROPOSING), why

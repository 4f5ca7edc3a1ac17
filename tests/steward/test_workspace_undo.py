"""What a workspace is to be after a change of it was taken back: the manifest of before, and drift is held to that."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from fleet.clock import FixedClock
from fleet.workspace import Desired, Space, Workspace
from steward.acting import act
from steward.compose import House
from steward.config import Settings
from steward.cycle import make_plans
from steward.desk import HouseDesk
from steward.workspaces import desired_of, keep_desired, versions_of
from store.store import Store
from tests.kube.answers import Object
from tests.kube.engines import Arena
from tests.steward.test_workspace_desk import apply, ask, desk, house, manifest, order, space

__all__ = ["desk", "house"]
pytestmark = pytest.mark.enable_socket
POLICY = "/apis/networking.k8s.io/v1/namespaces/{}-a/networkpolicies/gpu-steward-isolation"


def plans_of(answer: dict[str, Any]) -> list[str]:
    return [note.rsplit(" ", 1)[1] for note in answer["notes"] if note.startswith("take it back")]


def undo(desk: HouseDesk, what: str, **given: object) -> list[str]:
    return notes_of(desk.operate("undo", {"what": what, "yes": True, "who": "zoe", **given}))


def notes_of(answer: dict[str, object]) -> list[str]:
    notes = answer["notes"]
    assert isinstance(notes, list)
    return notes


def turn(house: House) -> int:
    """Turn once with the rule in mode "auto"; return how many moves were made."""
    settings = Settings.model_validate({"actions": {"modes": {"workspace": "auto"}}})
    under = replace(house, settings=settings)
    came = act(under, make_plans(under, (), house.clock.now()), house.clock.now())
    return sum(each.stage.value == "applied" and not each.is_dry_run for each in came)


def last_plan(house: House) -> str:
    """Return the plan of the move that was made last."""
    done = house.store.read("outcome").filter(~pl.col("is_dry_run"), pl.col("stage") == "applied").sort("ts")
    move = done.get_column("move_id")[-1]
    return str(house.store.read("move").filter(pl.col("move_id") == move).get_column("plan_id")[0])


def pods_of(work: Arena) -> str:
    quota = work.see("v1", "ResourceQuota", "gpu-steward", f"{work.namespace}-a")
    return str(quota["spec"]["hard"]["pods"])


def lab(work: Arena, pods: str = "50", **spec: object) -> Object:
    made = manifest(work)
    return {**made, "spec": {**made["spec"], "quotas": [], "limits": {"pods": pods}, **spec}}


def test_a_change_that_was_taken_back_is_not_made_again_and_drift_is_held_to_the_manifest_of_before(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    apply(desk, lab(work, "50"))
    (changed,) = plans_of(apply(desk, lab(work, "60")))
    told = notes_of(desk.operate("undo", {"what": changed}))
    assert any(note.startswith("then workspace") and "is in force again" in note for note in told)
    assert pods_of(work) == "60", "a rehearsal changes nothing"
    assert desired_of(house.store)[0].workspace.limits == {"pods": "60"}
    assert any("is in force again" in note for note in undo(desk, changed))
    assert (pods_of(work), turn(house), pods_of(work)) == ("50", 0, "50")
    assert ask(desk, "workspace_drift")["items"] == []
    actors = [each.actor for each in versions_of(house.store, work.name("lab"))]
    assert actors == ["ann", "ann", "zoe"], "who took it back stands in the history"
    work.client.patch(
        f"/api/v1/namespaces/{work.namespace}-a/resourcequotas/gpu-steward", {"spec": {"hard": {"pods": "999"}}}
    )
    work.drop(POLICY.format(work.namespace))
    assert len(ask(desk, "workspace_drift")["items"]) == 2
    assert (turn(house), pods_of(work)) == (2, "50")
    assert work.client.get(POLICY.format(work.namespace))["spec"]


def test_a_repair_that_was_taken_back_leaves_the_manifest_and_is_made_again(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    apply(desk, lab(work))
    before = desired_of(house.store)
    for repair in ("turn", "command", "turn"):  # the same drift three times a day
        work.drop(POLICY.format(work.namespace))
        if repair == "turn":
            assert turn(house) == 1
        else:
            apply(desk, lab(work))
        notes = undo(desk, last_plan(house))
        assert any("had only set right what differed from its manifest" in note for note in notes), notes
        assert desired_of(house.store) == before
        assert turn(house) == 1
    work.drop(POLICY.format(work.namespace))
    assert turn(house) == 1, "what was set right before differs again"
    assert ask(desk, "workspace_drift")["items"] == []


def test_the_first_manifest_taken_back_leaves_nothing_and_nothing_to_do(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    plans = plans_of(apply(desk, lab(work)))
    notes = [note for plan in reversed(plans) for note in undo(desk, plan)]
    assert any("it had no manifest before, and is to be gone again" in note for note in notes)
    assert not [each for each in work.cluster.observe().objects if each.owner == work.name("lab")]
    assert [each.is_deleted for each in desired_of(house.store)] == [True]
    assert turn(house) == 0
    again = apply(desk, lab(work))
    assert again["exitCode"] in {0, 1}  # a real cluster may still be taking the namespaces away
    assert [each.is_deleted for each in desired_of(house.store)] == [False]


def test_a_workspace_made_in_two_rounds_is_not_made_again_while_the_first_is_yet_to_be_taken_back(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    answer = apply(desk, lab(work))
    names = {each["move_id"]: each["target"] for each in answer["items"]}
    rows = house.store.read("move").select("plan_id", "move_id").rows()
    inside = next(plan for plan, move in reversed(rows) if "ResourceQuota" in names.get(move, ""))
    undo(desk, inside)
    assert desired_of(house.store)[0].is_deleted
    assert turn(house) >= 0
    with pytest.raises(Exception, match="not found"):
        work.see("v1", "ResourceQuota", "gpu-steward", f"{work.namespace}-a")


def test_a_deletion_that_was_taken_back_is_wished_for_no_more(work: Arena, house: House, desk: HouseDesk) -> None:
    apply(desk, lab(work, namespaces=[{"name": work.namespace, "adopt": True}]))
    gone = plans_of(order(desk, "workspace_delete", name=work.name("lab"), yes=True))
    for plan in reversed(gone):
        undo(desk, plan)
    assert [each.is_deleted for each in desired_of(house.store)] == [False]
    assert turn(house) == 0
    assert ask(desk, "workspace_drift")["items"] == []


def test_one_object_taken_back_leaves_the_manifest(work: Arena, house: House, desk: HouseDesk) -> None:
    apply(desk, lab(work, "50"))
    changed = apply(desk, lab(work, "60"))
    one = next(each["move_id"] for each in changed["items"] if f"{work.namespace}-a/" in each["target"])
    assert any("only a part of its change is taken back" in note for note in undo(desk, one))
    assert pods_of(work) == "50"
    assert desired_of(house.store)[0].workspace.limits == {"pods": "60"}
    assert (turn(house), pods_of(work)) == (1, "60")


def test_a_manifest_that_was_changed_since_stays(work: Arena, house: House, desk: HouseDesk) -> None:
    apply(desk, lab(work, "50"))
    (second,) = plans_of(apply(desk, lab(work, "60")))
    apply(desk, lab(work, "60", description="renamed"))
    notes = undo(desk, second)
    assert any("its manifest was changed since" in note for note in notes), notes
    assert desired_of(house.store)[0].workspace.description == "renamed"


def test_a_first_manifest_that_the_turn_carried_out_is_taken_back_with_its_moves(
    work: Arena, house: House, desk: HouseDesk
) -> None:
    away = HouseDesk(replace(house, clusters=()))
    apply(away, lab(work))
    while turn(house):
        continue
    rows = house.store.read("move").join(house.store.read("plan"), on="plan_id").sort("made_at")
    plans = list(dict.fromkeys(rows.get_column("plan_id")))
    notes = [note for plan in reversed(plans) for note in undo(desk, plan)]
    assert any("it had no manifest before" in note for note in notes), notes
    assert not [each for each in work.cluster.observe().objects if each.owner == work.name("lab")]
    assert turn(house) == 0


def test_while_the_brake_is_on_neither_objects_nor_manifest_are_taken_back(
    work: Arena, house: House, tmp_path: Any
) -> None:
    with Store.open(tmp_path / "s.duckdb", clock=house.clock) as store:
        desk = HouseDesk(replace(house, store=store))
        apply(desk, lab(work, "50"))
        (changed,) = plans_of(apply(desk, lab(work, "60")))
        desk.operate("brake", {"order": "on", "reason": "a test"})
        assert any("nothing of it was taken back" in note for note in undo(desk, changed))
        assert desired_of(store)[0].workspace.limits == {"pods": "60"}
        assert pods_of(work) == "60"
        assert any("is in force again" in note for note in undo(desk, changed, even_braked=True))
        assert desired_of(store)[0].workspace.limits == {"pods": "50"}
    space(work)


def test_two_wishes_of_one_moment_are_two(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        for name in ("one", "two", "one"):
            keep_desired(store, [Desired(Workspace("lab", name, namespaces=(Space("a"),)))], clock.now(), "ann")
        assert [each.desired.workspace.owner for each in versions_of(store, "lab")] == ["one", "two", "one"]

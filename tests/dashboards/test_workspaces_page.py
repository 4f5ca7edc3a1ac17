"""The page of workspaces: what is wished for, whose it is, and what was done."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from actions.plan import plan
from actions.policy import ActionPolicy
from actions.rows import outcome_frame, plan_frames
from controller.workspace import propose_workspaces
from fleet.batch import Batch
from fleet.move import Outcome, Stage
from fleet.state import FleetState, ObjectRef, OwnedObject
from fleet.workspace import Desired, Seat, Share, Space, Workspace
from steward.workspaces import keep_desired
from store.store import Store
from tests.dashboards.conftest import END

PAGE = Path(dashboards.__path__[0]) / "workspaces_page.py"
LAB = Workspace("lab", owner="ann", namespaces=(Space("lab-a"),), quotas=(Share(0),), seats=(Seat("Owner", ("ann",)),))


@pytest.fixture
def wished(full: Store) -> Store:
    """Give a store with a workspace that was made, and one that is to go."""
    keep_desired(full, [Desired(LAB), Desired(Workspace("old", namespaces=(Space("old-a"),)))], END, "ann")
    gone = Desired(Workspace("old", namespaces=(Space("old-a"),)), is_deleted=True)
    keep_desired(full, [gone], END + timedelta(hours=1), "bob")
    ground = OwnedObject("east", "v1", ObjectRef("Namespace", "", "kube-system"), "{}")
    state = FleetState(END, objects=(ground,))
    proposal = propose_workspaces([Desired(LAB)], state, "east")
    made = plan(state, (), ActionPolicy(), END, further={"workspace": proposal})
    for table, frame in plan_frames(made).items():
        full.append_stored(table, frame)
    outcomes = [
        Outcome(move.move_id, END, stage, is_dry_run=False, actor="ann", detail="made and seen")
        for move in made.moves
        for stage in (Stage.INTENDED, Stage.APPLIED)
    ]
    full.append_stored("outcome", outcome_frame(outcomes))
    return full


def test_without_a_manifest_the_page_says_how_to_make_a_workspace(empty: Store) -> None:
    assert empty.path is None
    page = AppTest.from_file(str(PAGE)).run()
    assert not page.exception
    assert "No workspace has a manifest yet." in page.info[0].value


def test_workspaces_are_listed_with_their_quota_and_what_became_of_their_moves(wished: Store) -> None:
    assert not wished.read("workspace_manifest").is_empty()
    page = AppTest.from_file(str(PAGE)).run()
    assert not page.exception
    rows = page.dataframe[0].value.to_dict("records")
    assert [(row["workspace"], row["state"], row["actor"]) for row in rows] == [
        ("lab", "wanted", "ann"),
        ("old", "to be deleted", "bob"),
    ]
    assert rows[0]["gpus"] == 0
    assert rows[1]["gpus"] != rows[1]["gpus"]  # not declared, which is no zero
    steps = page.dataframe[1].value.to_dict("records")
    assert {row["stage"] for row in steps} == {"applied"}
    assert "Namespace/lab-a" in {row["target"] for row in steps}
    page.selectbox(key="workspace").select("old").run()
    assert "Nothing was done for it yet" in " ".join(each.value for each in page.caption)


def test_workspaces_in_use_are_listed_though_no_manifest_is_of_them(full: Store) -> None:
    known = pl.DataFrame({"workspace": ["vision", "speech"], "owner": ["ann", None]})
    full.append(Batch("test", {"workspace": known}))
    page = AppTest.from_file(str(PAGE)).run()
    assert not page.exception
    rows = {row["workspace"]: row["owner"] for row in page.dataframe[0].value.to_dict("records")}
    assert rows["vision"] == "ann"
    assert pl.Series([rows["speech"]]).is_nan().all()  # pandas, which shows the table, has no null of its own

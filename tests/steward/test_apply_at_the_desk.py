"""A plan carried out at the desk: once, by whom it may be, and with an end that scripts can read."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from actions.port import Cluster
from fleet.errors import BadInput
from fleet.move import Move
from fleet.state import FleetState
from steward.acting import act
from steward.carry import carry_out
from steward.config import Settings, load_settings
from tests.steward.action_house import (
    ASKING,
    BOLD,
    GRACED,
    SETTINGS,
    TWO,
    fenced,
    fences,
    items,
    later,
    opened,
    states,
)


class Named:
    """A cluster under another name."""

    def __init__(self, inner: Cluster, name: str) -> None:
        self._inner, self.name = inner, name

    def observe(self) -> FleetState:
        return self._inner.observe()

    def observe_for(self, move: Move) -> FleetState:
        return self._inner.observe_for(move)

    def rehearse(self, move: Move) -> None:
        self._inner.rehearse(move)

    def make(self, move: Move) -> str:
        return self._inner.make(move)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "steward.toml"
    file.write_text(SETTINGS)
    return load_settings(file, {})


def test_a_plan_applied_again_approves_nothing_anew(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, clock):
        made = fences(house, 2)
        order = {"plan_id": made.plan_id, "yes": True, "who": "ann"}
        first = desk.operate("apply", {**order, "only": made.moves[0].move_id})
        assert (first["exitCode"], [item["target"] for item in items(first)]) == (0, [str(made.moves[0].target)] * 2)
        clock.move(timedelta(seconds=5))
        assert desk.operate("apply", order)["exitCode"] == 0
        clock.move(timedelta(seconds=5))
        again = desk.operate("apply", order)
        assert again["exitCode"] == 0
        assert ["already applied" in str(item["detail"]) for item in items(again)] == [True] * 2
        steps = house.store.read("approval").get_column("step").to_list()
        assert (steps.count("proposed"), steps.count("approved")) == (2, 2)
        assert states(desk.report("proposals", {"all": "true"})) == ["made"] * 2


def test_what_is_refused_or_waits_is_told_by_the_exit_code(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, TWO) as (house, desk, _clock):
        made = fences(house, 2)
        body = desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann"})
        assert body["exitCode"] == 3
        assert "0 failed and 2 were refused or wait, of 2 moves" in str(body["notes"])
        with pytest.raises(BadInput, match="approval needs a name"):
            desk.operate("apply", {"plan_id": made.plan_id, "yes": True})
        back = desk.operate("undo", {"what": made.plan_id, "yes": True, "who": "ann"})
        assert (back["exitCode"], items(back)) == (0, [])


def test_a_move_for_a_cluster_that_is_followed_no_more_is_refused_and_not_passed_over(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, BOLD) as (house, _desk, _clock):
        made = fences(house, 1)
        world = house.clusters[0]
        names = [name for name in ("east", "west") if name != made.moves[0].cluster]
        others = replace(house, clusters=tuple(Named(world, name) for name in (*names, "south")))
        for is_dry_run in (True, False):
            (outcome,) = carry_out(others, made, is_dry_run=is_dry_run)
            assert (outcome.stage.value, outcome.is_dry_run) == ("refused", is_dry_run)
            assert f"no cluster {made.moves[0].cluster} is followed" in outcome.detail
        assert fenced(house) == 0


def test_an_undo_is_not_undone_and_says_so(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, BOLD) as (house, desk, clock):
        made = fences(house, 1)
        act(house, [made], clock.now())
        clock.move(timedelta(seconds=5))
        desk.operate("undo", {"what": made.plan_id, "yes": True, "who": "ann"})
        assert fenced(house) == 0
        undo = next(name for name in house.store.read("plan").get_column("plan_id") if name != made.plan_id)
        body = desk.operate("undo", {"what": undo, "yes": True, "who": "ann"})
        assert "an undo is not undone" in str(body["notes"])
        assert fenced(house) == 0


def test_whoever_carries_a_plan_out_past_the_desk_meets_the_same_rule(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, TWO) as (house, _desk, _clock):
        made = fences(house, 2)
        for part in (made, replace(made, moves=made.moves[:1])):
            outcomes = carry_out(house, part, is_dry_run=False, actor="somebody")
            assert {each.stage.value for each in outcomes} == {"refused"}
        assert fenced(house) == 0


def test_a_refusal_given_while_the_clock_was_set_back_counts(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, GRACED) as (house, desk, clock):
        made = fences(house, 1)
        act(house, [made], clock.now())
        clock.move(-timedelta(seconds=30))
        desk.operate("refuse", {"what": made.plan_id, "who": "bob"})
        act(house, [fences(house, 1)], later(desk, clock, minutes=15))
        assert fenced(house) == 0

"""Proposals, answers, turns and the log over a small simulated fleet, at the desk and by the command line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actions.leader import Leadership, Lease
from fleet.errors import BadInput, MoveRefused, SourceFailed, StaleState
from fleet.move import MoveKind
from steward.acting import act
from steward.brake import pull
from steward.cli import app
from steward.config import Settings, load_settings
from steward.desk import HouseDesk
from steward.notify import News, Outbox
from steward.overseer import Overseer
from tests.steward.action_house import (
    ASKING,
    BOLD,
    GRACED,
    NOW,
    SETTINGS,
    TWO,
    fenced,
    fences,
    items,
    later,
    opened,
    states,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "steward.toml"
    file.write_text(SETTINGS)
    return load_settings(file, {})


def test_a_proposal_waits_is_approved_and_made_by_the_next_turn_and_told_as_one_story(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, clock):
        made = fences(house)
        assert {each.stage.value for each in act(house, [made], clock.now())} == {"applied"}
        assert fenced(house) == 0, "they were rehearsed"
        waiting = desk.report("proposals", {})
        assert states(waiting) == ["notified"] * 3
        assert items(waiting)[0]["needs"] == "1 person"
        first = made.moves[0].move_id
        later(desk, clock, minutes=1)
        assert states(desk.operate("approve", {"what": first, "who": "ann", "note": "fine"})) == ["approved"]
        desk.operate("refuse", {"what": made.moves[1].move_id, "who": "bob", "note": "it is mine"})
        again = replace(fences(house), made_at=clock.now())
        act(house, [again], clock.now())
        assert fenced(house) == 1
        later(desk, clock, minutes=1)
        act(house, [fences(house)], clock.now())
        assert fenced(house) == 1, "the others were not approved"
        assert states(desk.report("proposals", {})) == ["notified"]
        assert sorted(map(str, states(desk.report("proposals", {"all": "true"})))) == ["made", "notified", "refused"]
        log = items(desk.report("actions_log", {}))
        story = [(each["event"], each["who"]) for each in log if each["target"] == str(made.moves[0].target)]
        events = [event for event, _ in story if event != "planned"]
        assert events == ["proposed", "notified", "approved", "intended", "applied"]
        assert ("approved", "ann (claimed)") in story
        applied = next(each for each in log if each["event"] == "applied")
        assert applied["prior"] == {"is_fenced": False}
        assert desk.report("actions_log", {"rule": "reclaim"})["items"] == []
        later(desk, clock, minutes=1)
        assert desk.report("actions_log", {"since": "2026-03-02T01:02:30Z"})["items"] == []


def test_proposals_are_made_and_told_once_however_often_the_plan_is_made_again(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, ASKING) as (house, _desk, clock):
        for _ in range(5):
            clock.move(timedelta(minutes=1))
            act(house, [fences(house)], clock.now())
        steps = house.store.read("approval").get_column("step").to_list()
        assert (steps.count("proposed"), steps.count("notified")) == (3, 3)


def test_a_proposal_that_ran_out_is_recorded_and_made_anew(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, clock):
        made = fences(house, 1)
        act(house, [made], clock.now())
        clock.move(timedelta(hours=25))
        with pytest.raises(MoveRefused, match="expired"):
            desk.operate("approve", {"what": made.moves[0].move_id, "who": "ann"})
        act(house, [made], clock.now())
        steps = house.store.read("approval").sort("ts").get_column("step").to_list()
        assert steps == ["proposed", "notified", "expired", "proposed", "notified"]


def test_a_rule_in_mode_auto_acts_at_once_without_a_grace_and_after_it_with_one(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, BOLD) as (house, _desk, clock):
        act(house, [fences(house, 1)], clock.now())
        assert fenced(house) == 1
        assert house.store.read("approval").is_empty()
    graced = tmp_path / "graced"
    graced.mkdir()
    with opened(settings, graced, GRACED) as (house, desk, clock):
        made = fences(house, 2)
        act(house, [made], clock.now())
        assert fenced(house) == 0
        desk.operate("refuse", {"what": made.moves[0].move_id, "who": "ann"})
        act(house, [fences(house, 2)], later(desk, clock, minutes=10))
        assert fenced(house) == 1, "the refused one is left alone"


def test_two_different_persons_must_approve_what_is_large_and_neither_may_have_made_the_plan(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, TWO) as (house, desk, clock):
        made = fences(house, 2)
        report = desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann", "is_proven": True})
        assert {item["stage"] for item in items(report)} == {"waiting"}
        assert fenced(house) == 0
        name = made.moves[0].move_id
        with pytest.raises(MoveRefused, match="ann made the plan"):
            desk.operate("approve", {"what": name, "who": "ann", "is_proven": True})
        assert (
            states(desk.operate("approve", {"what": made.plan_id, "who": "bob", "is_proven": True})) == ["proposed"] * 2
        )
        with pytest.raises(MoveRefused, match="bob approved move"):
            desk.operate("approve", {"what": name, "who": "bob", "is_proven": True})
        assert "1 person other than bob, ann" in str(items(desk.report("proposals", {}))[0]["needs"])
        assert (
            states(desk.operate("approve", {"what": made.plan_id, "who": "cid", "is_proven": True})) == ["approved"] * 2
        )
        act(house, [fences(house, 2)], clock.now())
        assert fenced(house) == 2


def test_who_applies_a_plan_approves_it_and_the_second_who_applies_it_makes_it(
    settings: Settings, tmp_path: Path
) -> None:
    with opened(settings, tmp_path, TWO) as (house, desk, clock):
        made = fences(house, 2)
        act(house, [made], clock.now())  # the house proposes
        for _ in range(2):
            report = desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann", "is_proven": True})
            assert {item["stage"] for item in items(report)} == {"waiting"}
        desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "bob", "is_proven": True})
        assert fenced(house) == 2


def test_two_names_that_are_only_claimed_are_not_two_persons(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, TWO) as (house, desk, clock):
        made = fences(house, 2)
        act(house, [made], clock.now())
        for name in ("ann", "bob", "cid"):
            report = desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": name})
            assert all(
                "0 of 2 persons agreed; 2 persons must agree, each by a token" in str(i["detail"])
                for i in items(report)
            )
            with pytest.raises(MoveRefused, match=f"by {name} does not count"):
                desk.operate("approve", {"what": made.moves[0].move_id, "who": name})
            with pytest.raises(MoveRefused, match=f"by {name} does not count"):
                desk.operate("approve", {"what": made.plan_id, "who": name})
        act(house, [fences(house, 2)], clock.now())
        assert fenced(house) == 0
        needs = items(desk.report("proposals", {}))[0]["needs"]
        assert needs == "2 persons other than gpu-steward, each by a token of their own"
        assert states(desk.operate("refuse", {"what": made.plan_id, "who": "dan"})) == ["refused"] * 2


def test_a_name_that_is_only_claimed_stands_so_in_answer_and_log(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, clock):
        made = fences(house, 2)
        act(house, [made], clock.now())
        first, second = (move.move_id for move in made.moves)
        claimed = desk.operate("approve", {"what": first, "who": "ann"})
        proven = desk.operate("approve", {"what": second, "who": "bob", "is_proven": True})
        assert [each["claimed"] for each in (*items(claimed), *items(proven))] == [["ann"], []]
        assert claimed["notes"] == ["the name ann is only claimed: no token of their own proved it"]
        assert proven["notes"] == []
        log = items(desk.report("actions_log", {"since": "2026-03-01T00:00:00Z"}))
        assert {each["who"] for each in log if each["event"] == "approved"} == {"ann (claimed)", "bob"}


def test_an_answer_needs_a_name_and_something_that_waits(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, _clock):
        made = fences(house, 1)
        with pytest.raises(BadInput, match="--as"):
            desk.operate("approve", {"what": made.plan_id})
        with pytest.raises(BadInput, match="was not proposed"):
            desk.operate("approve", {"what": made.plan_id, "who": "ann"})
        with pytest.raises(BadInput, match="steward proposals"):
            desk.operate("approve", {"what": "nothing", "who": "ann"})


def test_a_plan_is_carried_out_as_it_is_or_refused_with_what_changed(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, _clock):
        made = fences(house)
        house.clusters[0].make(replace(made.moves[1], move_id="another's"))
        for is_real in (False, True):
            with pytest.raises(StaleState, match="is_fenced was False when it was planned and is True"):
                desk.operate("apply", {"plan_id": made.plan_id, "yes": is_real, "who": "ann"})
        assert fenced(house) == 1
        desk.operate("apply", {"plan_id": made.plan_id, "only": made.moves[0].move_id, "yes": True, "who": "ann"})
        assert fenced(house) == 2, "those that still stand can be made one by one"
        with pytest.raises(BadInput, match="has no move"):
            desk.operate("apply", {"plan_id": made.plan_id, "only": "x"})


def test_a_plan_older_than_a_setting_is_refused_with_both_values(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, _desk, _clock):
        made = fences(house)
        narrow = replace(house.settings.actions, budget=replace(house.settings.actions.budget, max_gpus_per_hour=7))
        later = HouseDesk(replace(house, settings=house.settings.model_copy(update={"actions": narrow})))
        with pytest.raises(StaleState, match=r"budget\.max_gpus_per_hour was 64 when it was planned and is 7"):
            later.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann"})
        assert fenced(house) == 0


@pytest.mark.parametrize("is_in_cluster", [True, False], ids=["in the cluster", "beside the store"])
def test_a_kill_switch_pulled_after_the_first_of_three_moves_stops_the_others(
    settings: Settings, tmp_path: Path, *, is_in_cluster: bool
) -> None:
    with opened(settings, tmp_path, BOLD) as (house, _desk, clock):
        made = fences(house)

        def pulled() -> Mapping[str, str] | None:
            is_on = fenced(house) >= 1
            if not is_in_cluster and is_on:
                pull(house.store.path, "smoke")
            return {"brake": "on", "reason": "smoke"} if is_on and is_in_cluster else None

        watched = replace(house, overseers={house.clusters[0].name: Overseer(pulled)})
        outcomes = act(watched, [made], clock.now())
        assert fenced(house) == 1
        assert [each.stage.value for each in outcomes] == ["intended", "applied", "refused", "refused"]
        assert "smoke" in outcomes[-1].detail
        watched_desk = HouseDesk(watched)
        braked = watched_desk.operate("undo", {"what": made.plan_id, "yes": True})
        assert [item["stage"] for item in items(braked)] == ["refused"]
        assert fenced(house) == 1, "taking back is a move, too"
        undone = watched_desk.operate("undo", {"what": made.plan_id, "yes": True, "even_braked": True})
        assert [item["stage"] for item in items(undone)][:2] == ["intended", "applied"]
        assert fenced(house) == 0


class Shelf:
    """A lease that another holds."""

    def __init__(self, holder: str) -> None:
        self.lease = Lease(holder, NOW, version="1")

    def read(self) -> Lease:
        return self.lease

    def write(self, lease: Lease) -> Lease:
        self.lease = lease
        return lease


def test_a_second_leader_proposes_tells_and_moves_nothing_and_records_why_once(
    settings: Settings, tmp_path: Path
) -> None:
    told: list[Sequence[News]] = []

    class Ears:
        name = "ears"

        def tell(self, news: Sequence[News]) -> None:
            told.append(news)

    with opened(settings, tmp_path, BOLD, outbox=Outbox(quick=(Ears(),))) as (house, _desk, clock):
        overseer = Overseer(leadership=Leadership(Shelf("other"), "us"))
        second = replace(house, overseers={house.clusters[0].name: overseer})
        made = fences(second)
        for _ in range(3):
            clock.move(timedelta(seconds=5))
            assert act(second, [made], clock.now()) == []
        assert fenced(house) == 0
        assert told == []
        assert house.store.read("approval").is_empty()
        rows = house.store.read("source_failure")
        reasons = rows.filter(rows.get_column("source").str.starts_with("leader")).get_column("reason").to_list()
        assert reasons == ["not the leader: other leads and its lease runs"]
        body = HouseDesk(second).operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann"})
        assert {item["stage"] for item in items(body)} == {"refused"}
        assert fenced(house) == 0
        checks = {item["check"]: item["detail"] for item in items(HouseDesk(second).report("doctor", {}))}
        assert checks["leader of simulator"] == "other leads"


def test_the_kill_switch_of_a_cluster_is_told_by_doctor(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, BOLD) as (house, _desk, _clock):
        braked = replace(house, overseers={"simulator": Overseer(lambda: {"brake": "on", "reason": "smoke"})})
        checks = {item["check"]: item["detail"] for item in items(HouseDesk(braked).report("doctor", {}))}
        assert "smoke" in str(checks["brake of simulator"])


def test_an_undo_is_refused_with_the_reason_where_others_changed_it_since(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, _clock):
        made = fences(house, 1)
        desk.operate("apply", {"plan_id": made.plan_id, "yes": True, "who": "ann"})
        assert fenced(house) == 1
        move = made.moves[0]
        house.clusters[0].make(replace(move, kind=MoveKind.UNFENCE_GPU, resource_version=""))
        (item,) = items(desk.operate("undo", {"what": move.move_id, "yes": True, "who": "ann"}))
        assert item["stage"] == "refused"
        assert "changed by others" in str(item["detail"])


def test_a_channel_that_fails_is_recorded_and_tried_again_and_never_waited_for(
    settings: Settings, tmp_path: Path
) -> None:
    class Deaf:
        name = "webhook"
        tries = 0

        def tell(self, news: Sequence[News]) -> None:  # noqa: ARG002 - the channel's
            Deaf.tries += 1
            if Deaf.tries <= 3:
                message = "the webhook answered 503"
                raise SourceFailed(message)

    outbox = Outbox(quick=(), slow=(Deaf(),), sleep=lambda _seconds: None)
    with opened(settings, tmp_path, GRACED, outbox=outbox) as (house, desk, clock):
        act(house, [fences(house, 1)], clock.now())
        outbox.flush(5)
        act(house, [fences(house, 1)], later(desk, clock, minutes=11))
        assert fenced(house) == 0, "nobody could be told, so nothing is made"
        failures = house.store.read("source_failure").get_column("reason").to_list()
        assert "the webhook answered 503" in failures
        outbox.flush(5)
        act(house, [fences(house, 1)], later(desk, clock, minutes=1))
        assert states(desk.report("proposals", {})) == ["notified"]
        act(house, [fences(house, 1)], later(desk, clock, minutes=10))
        assert fenced(house) == 1


def test_the_commands_show_a_plan_as_a_difference_and_answer_it(settings: Settings, tmp_path: Path) -> None:
    with opened(settings, tmp_path, ASKING) as (house, desk, _clock):
        made = fences(house, 1)
        act(house, [made], NOW)
        shown = desk.report("plan_diff", {"plan_id": made.plan_id})
        (item,) = items(shown)
        assert (item["sign"], item["approvals"]) == ("-", "1 needed; 0 of 1 persons agreed")
        assert item["changes"] == [{"field": "is_fenced", "before": False, "after": True, "is_before_known": True}]

    def steward(*arguments: str) -> str:
        where = ["--config", str(tmp_path / "steward.toml"), "--store", str(tmp_path / "s.duckdb")]
        result = CliRunner().invoke(app, [*where, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.stdout

    log = json.loads(steward("actions", "log", "--since", "2026-03-01T00:00:00Z", "-o", "json"))
    assert [each["event"] for each in log["items"]] == ["planned", "proposed", "notified"]
    lines = steward("actions", "log", "--since", "2026-03-01T00:00:00Z", "-o", "csv").splitlines()
    assert lines[0].startswith("ts,event,who,rule,kind,target")
    assert len(lines) == 4
    assert "nothing waits for an answer" in steward("proposals"), "it ran out long ago"
    assert "expired" in steward("proposals", "--all")

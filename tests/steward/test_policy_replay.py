"""Policy replay: what it says held against a simulated fleet's truth, and nothing of it known too early."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from fleet.clock import FixedClock
from fleet.errors import BadConfig, BadInput
from fleet.move import MoveKind
from simulator.faults_spec import FaultSpec
from simulator.presets import notebook_heavy_spec
from simulator.source import SimulatorSource
from simulator.step import build
from simulator.truth import work_intervals
from simulator.world import World
from steward.cli import app
from steward.compose import House, load_prices
from steward.config import Settings, load_settings
from steward.cycle import collect
from steward.desk import HouseDesk
from steward.moments import newest_moment
from steward.policy_effects import Reclaim, reckon_reclaims
from steward.policy_file import candidate_of
from steward.policy_replay import Candidate, Past, Replayed, Stretch, Work, generic, read_past, replay_policies
from steward.policy_report import Limits, is_wrong, measures, reckon, side_by_side
from steward.policy_state import Held
from steward.policy_verdicts import Wanted
from steward.policy_world import World as Replica
from store.store import Store

HOUR = timedelta(hours=1)
SPEC = replace(notebook_heavy_spec(48, 1.0), faults=FaultSpec(rate_factor=0.0))
SINCE, UNTIL, STEP = SPEC.starts_at + 8 * HOUR, SPEC.starts_at + 16 * HOUR, 4 * HOUR
SOON = "[actions.reclaim]\nmin_idle_h = 2\n"  # the fleet lives too short for many reclaims by the default
MEAN = '[replay]\nidle_rule = "mean_below"\n[actions.reclaim]\nmin_idle_h = 0\ncooldown_h = 0\n'


def filled(path: Path | None, hours: int) -> tuple[Store, World]:
    """Give a store that saw the first hours of the fleet, and the fleet as it really was."""
    clock = FixedClock(SPEC.starts_at + hours * HOUR)
    store = Store.open(path, clock=clock)
    settings = load_settings(None, {})
    load_prices(settings, store)
    world = build(SPEC)
    collect(House(settings, store, clock, (SimulatorSource(world),)), clock.now())
    store.roll_up(SPEC.starts_at, clock.now())
    return store, world


def replayed(store: Store, *texts: str | None) -> tuple[Past, list[Replayed]]:
    settings = load_settings(None, {})
    newest = newest_moment(House(settings, store, FixedClock(UNTIL)))
    assert newest is not None
    past = read_past(store, settings, Stretch(SINCE, UNTIL, STEP), newest)
    wanted = Wanted(health_every=timedelta(days=1))
    candidates = [candidate_of(f"policy {place}", text, settings, wanted) for place, text in enumerate(texts)]
    return past, replay_policies(store, past, candidates)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay") / "s.duckdb"


@pytest.fixture(scope="module")
def fleet(path: Path) -> Iterator[tuple[Store, World]]:
    store, world = filled(path, 24)
    yield store, world
    store.close()


@pytest.fixture(scope="module")
def runs(fleet: tuple[Store, World]) -> tuple[Past, list[Replayed]]:
    return replayed(fleet[0], SOON, MEAN)


def truly_worked(work: pl.DataFrame, reclaim: Reclaim) -> datetime | None:
    """Return when a workload really worked next after it was reclaimed, for longer than two samples can miss."""
    mine = work.filter(
        pl.col("workload") == reclaim.workload,
        pl.col("state").is_in(["working", "stalled"]),
        pl.col("ends_at") > reclaim.at + timedelta(minutes=2),
        pl.col("ends_at") - pl.col("starts_at") >= timedelta(minutes=3),
    )
    first = mine["starts_at"].min()
    return max(first, reclaim.at) if isinstance(first, datetime) else None


def test_wrong_reclaims_are_those_that_the_fleet_really_worked_after(
    fleet: tuple[Store, World], runs: tuple[Past, list[Replayed]]
) -> None:
    past, found = runs
    work = work_intervals(fleet[1])
    limit = 2 * HOUR
    counts = []
    for run in found:
        reclaims = reckon_reclaims(run, past)
        assert len(reclaims) > 5
        sure = []
        for reclaim in reclaims:
            truth = truly_worked(work, reclaim)
            if truth is None or abs(truth - reclaim.at - limit) > timedelta(minutes=15):
                sure.append((is_wrong(reclaim, limit), truth is not None and truth - reclaim.at <= limit))
        assert len(sure) >= 0.8 * len(reclaims)
        assert [said for said, _ in sure] == [truth for _, truth in sure]
        counts.append(sum(said for said, _ in sure))
    assert counts[1] > counts[0]


def test_a_plain_rule_reclaims_more_and_hurts_more(
    fleet: tuple[Store, World], runs: tuple[Past, list[Replayed]]
) -> None:
    worths = [reckon(fleet[0], runs[0], run) for run in runs[1]]
    ours, plain = (measures(worth, Limits()) for worth in worths)
    rows = {str(row["measure"]): row for row in side_by_side(worths, Limits())}
    assert len(worths[1].reclaims) > len(worths[0].reclaims)
    assert (ours["moves"], plain["moves"]) == tuple(len(worth.run.made) for worth in worths)
    assert rows["moves"]["difference"] == len(worths[1].run.made) - len(worths[0].run.made)
    assert ours["USD reclaimed"] == sum((each.usd for each in worths[0].reclaims if each.usd is not None), Decimal(0))
    assert ours["jobs started earlier"] is not None


def test_what_came_later_never_changes_a_decision(runs: tuple[Past, list[Replayed]]) -> None:
    store, _ = filled(None, 16)
    with store:
        _, (early, plain) = replayed(store, SOON, MEAN)
    for full, cut in zip(runs[1], (early, plain), strict=True):
        assert [(each.at, each.move) for each in cut.made] == [(each.at, each.move) for each in full.made]
        assert cut.held == full.held


def test_a_reclaimed_workload_stays_stopped_until_it_worked_again(runs: tuple[Past, list[Replayed]]) -> None:
    past, (ours, _) = runs
    stopped = [each for each in ours.made if each.move.kind is MoveKind.SUSPEND_WORKLOAD]
    for each in stopped:
        others = [other for other in stopped if other.move.target == each.move.target and other.at > each.at]
        assert all(each.ends_at is not None and each.ends_at <= other.at for other in others)
    state = past.record.state_at(SINCE)
    first = [each for each in stopped if each.at == SINCE]
    world = Replica()
    for each in first:
        world.remember(each.move, SINCE)
    after = world.overlay(state)
    assert {each.ref for each in after.workloads if each.is_suspended} == {each.move.target for each in first}
    assert not {pod.workload for pod in after.pods} & {each.move.target for each in first}


def test_hours_end_where_the_pod_the_work_or_the_record_does(runs: tuple[Past, list[Replayed]]) -> None:
    past, (ours, _) = runs
    for reclaim in reckon_reclaims(ours, past):
        ends = [until for _, _, until in reclaim.freed]
        assert all(reclaim.at < until <= past.data_until for until in ends)
        assert reclaim.worked_at is None or max(ends) <= reclaim.worked_at
        hours = sum(fraction * ((until - reclaim.at) / HOUR) for _, fraction, until in reclaim.freed)
        assert reclaim.gpu_hours == pytest.approx(hours)


def test_work_is_looked_for_only_while_a_device_was_held() -> None:
    held = Held(("east", None), None, None, "p", "p", "n", "GPU-0", None, 1.0, SINCE, SINCE + HOUR)  # type: ignore[arg-type]  # the name plays no part
    work = Work({"GPU-0": [SINCE + timedelta(minutes=10), SINCE + 2 * HOUR]})
    assert work.first([held], SINCE) == SINCE + timedelta(minutes=10)
    assert work.first([held], SINCE + timedelta(minutes=10)) is None


def test_policies_that_differ_in_actions_only_are_judged_once(fleet: tuple[Store, World]) -> None:
    off = '[actions.modes]\nreclaim = "off"\n'
    _, (ours, silent) = replayed(fleet[0], None, off)
    assert silent.known_by == ours.known_by
    assert not any(each.move.kind is MoveKind.SUSPEND_WORKLOAD for each in silent.made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[actions.reclaim]\nmin_idle_hours = 1\n", "actions.reclaim.min_idle_hours"),
        ("[collect]\ninterval_s = 1\n", "not collect"),
        ('[replay]\nidle_rule = "guess"\n', "replay.idle_rule"),
        ("[replay]\nmean_below = 7\n", "replay.mean_below"),
        ("[actions.modes]\nreclaim = 'always'\n", "always"),
        ("no toml", "not TOML"),
    ],
)
def test_a_policy_file_that_means_nothing_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        candidate_of("mine", text, Settings(), Wanted())


def test_a_policy_changes_only_what_it_names() -> None:
    settings = Settings()
    made: Candidate = candidate_of("mine", "[actions.reclaim]\nmin_idle_h = 9\n", settings, Wanted())
    assert made.settings.actions.reclaim == replace(settings.actions.reclaim, min_idle_h=9.0)
    assert made.settings.idle == settings.idle


BACKWARDS = {"from": "2020-01-02T00:00:00Z", "to": "2020-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"from": "soon"}, "^--from: 'soon' is not"),
        ({"to": "2026-03-02"}, "^--to: .* has no time zone"),
        ({"from": "1d", "to": "2d"}, "to: .* is not after"),
        ({"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}, "nothing is recorded from 2020-01-01"),
        (BACKWARDS, "to: .* is not after"),
        ({"step": "1y"}, "step: '1y' is not a length"),
        ({"step": "2d"}, "step: .* not between a minute and a day"),
        ({"grace": "4h", "within": "1h"}, "within: .* is shorter than the grace"),
        ({"verdicts": "guessed"}, "verdicts: 'guessed'"),
    ],
)
def test_a_stretch_that_means_nothing_is_refused_by_name(
    fleet: tuple[Store, World], asked: dict[str, str], said: str
) -> None:
    desk = HouseDesk(House(load_settings(None, {}), fleet[0], FixedClock(SPEC.starts_at + 25 * HOUR)))
    with pytest.raises(BadInput, match=said):
        desk.report("replay_policy", asked)


def test_a_replay_begins_where_the_record_does_and_says_so(fleet: tuple[Store, World]) -> None:
    desk = HouseDesk(House(load_settings(None, {}), fleet[0], FixedClock(SPEC.starts_at + 25 * HOUR)))
    asked = {"from": "400d", "to": (SPEC.starts_at + 2 * HOUR).isoformat(), "verdicts": "recorded"}
    body = json.loads(json.dumps(desk.report("replay_policy", asked)))
    assert body["summary"]["from"] == (SPEC.starts_at + HOUR).isoformat().replace("+00:00", "Z")
    assert body["summary"]["steps"] == 2
    assert "nothing is recorded before" in body["notes"][0]


def test_two_lengths_are_both_counted_back_from_the_newest_hour(fleet: tuple[Store, World]) -> None:
    desk = HouseDesk(House(load_settings(None, {}), fleet[0], FixedClock(SPEC.starts_at + 25 * HOUR)))
    body = desk.report("replay_policy", {"from": "6h", "to": "2h", "verdicts": "recorded"})
    summary = body["summary"]
    assert isinstance(summary, dict)
    assert summary["steps"] == 5


def test_an_empty_store_says_what_fills_it() -> None:
    with Store.open(None, clock=FixedClock(UNTIL)) as store:
        desk = HouseDesk(House(load_settings(None, {}), store, FixedClock(UNTIL)))
        with pytest.raises(BadInput, match="steward demo"):
            desk.report("replay_policy", {})


def test_the_desk_tells_where_verdicts_came_from_and_gives_the_rows_on_demand(fleet: tuple[Store, World]) -> None:
    desk = HouseDesk(House(load_settings(None, {}), fleet[0], FixedClock(SPEC.starts_at + 25 * HOUR)))
    asked = {"from": "4h", "step": "4h", "detail": "true", "policy": SOON, "policy_name": "soon", "other": ""}
    asked["other_name"] = "ours"
    body = json.loads(json.dumps(desk.report("replay_policy", asked)))
    assert body["columns"] == ["measure", "soon", "ours", "difference"]
    assert "idle: 2 judged" in body["summary"]["verdicts"]
    soon, _ours = body["summary"]["policies"]
    assert {"at", "workload", "workspace", "worked_at", "is_wrong"} <= set(soon["reclaims"][0])
    assert soon["held_back"]


def test_recorded_verdicts_alone_are_enough_and_their_want_is_told(fleet: tuple[Store, World]) -> None:
    desk = HouseDesk(House(load_settings(None, {}), fleet[0], FixedClock(SPEC.starts_at + 25 * HOUR)))
    body = desk.report("replay_policy", {"from": "4h", "verdicts": "recorded"})
    assert "no verdict on idleness" in str(body["notes"])


def test_reasons_are_the_same_whatever_their_numbers() -> None:
    one = generic("it idles for 1.5 h; at least 2 h are given")
    assert one == generic("it idles for 0.2 h; at least 2 h are given")
    assert generic("Job/a/b as a whole is not idle") == generic("Notebook/c/d as a whole is not idle")


def test_the_command_reads_policies_from_files(tmp_path: Path) -> None:
    policy = tmp_path / "mine.toml"
    policy.write_text("[collect]\n")
    ran = CliRunner().invoke(app, ["--store", str(tmp_path / "s.duckdb"), "replay-policy", str(policy)])
    assert ran.exit_code != 0
    assert isinstance(ran.exception, BadInput)
    missing = CliRunner().invoke(
        app, ["--store", str(tmp_path / "s.duckdb"), "replay-policy", str(tmp_path / "no.toml")]
    )
    assert "can't be read" in str(missing.exception)

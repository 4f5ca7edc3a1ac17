from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.guard import guard
from actions.plan import plan
from actions.windows import Window, why_closed
from fleet.errors import BadInput, MoveRefused
from steward.config import load_settings
from tests.actions.fakes import FREE, failing, fleet, idle, workload

BERLIN = "Europe/Berlin"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
STATE = fleet(NOW, workloads=[workload("train", ["n1-0"], NOW - timedelta(days=2))])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("window", "moment", "is_open"),
    [
        (Window("w", starts="09:00", ends="17:00"), "2026-03-02T09:00Z", True),
        (Window("w", starts="09:00", ends="17:00"), "2026-03-02T08:59:59.999999Z", False),
        (Window("w", starts="09:00", ends="17:00"), "2026-03-02T17:00Z", False),
        (Window("w"), "2026-03-02T03:00Z", True),
        (Window("w", days=("tue",)), "2026-03-02T23:59Z", False),
        # over midnight: the night belongs to the day it starts on
        (Window("w", days=("mon",), starts="22:00", ends="06:00"), "2026-03-02T23:00Z", True),
        (Window("w", days=("mon",), starts="22:00", ends="06:00"), "2026-03-03T05:59Z", True),
        (Window("w", days=("mon",), starts="22:00", ends="06:00"), "2026-03-03T06:00Z", False),
        (Window("w", days=("mon",), starts="22:00", ends="06:00"), "2026-03-02T05:00Z", False),
        (Window("w", days=("mon",), starts="22:00", ends="06:00"), "2026-03-03T22:00Z", False),
        (Window("w", days=("sun",), starts="22:00", ends="06:00"), "2026-03-02T05:00Z", True),
        # in winter Berlin is an hour before UTC, in summer two
        (Window("w", starts="09:00", ends="10:00", zone=BERLIN), "2026-03-27T08:30Z", True),
        (Window("w", starts="09:00", ends="10:00", zone=BERLIN), "2026-03-30T08:30Z", False),
        (Window("w", starts="09:00", ends="10:00", zone=BERLIN), "2026-03-30T07:30Z", True),
        # 29 March: 02:00 to 03:00 does not come; what lies in the gap is in no window
        (Window("w", starts="02:00", ends="03:00", zone=BERLIN), "2026-03-29T00:59:59Z", False),
        (Window("w", starts="02:00", ends="03:00", zone=BERLIN), "2026-03-29T01:00Z", False),
        (Window("w", starts="01:30", ends="03:30", zone=BERLIN), "2026-03-29T01:29Z", True),
        (Window("w", starts="01:30", ends="03:30", zone=BERLIN), "2026-03-29T01:30Z", False),
        # 25 October: 02:00 to 03:00 comes twice, and is in its window both times
        (Window("w", starts="02:00", ends="03:00", zone=BERLIN), "2026-10-25T00:30Z", True),
        (Window("w", starts="02:00", ends="03:00", zone=BERLIN), "2026-10-25T01:30Z", True),
        (Window("w", starts="02:00", ends="03:00", zone=BERLIN), "2026-10-25T02:00Z", False),
        # a night over the change of clocks belongs to the day before, whatever its length
        (Window("w", days=("sat",), starts="22:00", ends="06:00", zone=BERLIN), "2026-03-29T03:59Z", True),
        (Window("w", days=("sat",), starts="22:00", ends="06:00", zone=BERLIN), "2026-03-29T04:00Z", False),
        # a day elsewhere is not our day
        (Window("w", days=("tue",), zone="Pacific/Auckland"), "2026-03-02T12:00Z", True),
        # a freeze of days
        (Window("w", first="2026-12-24", last="2026-12-26"), "2026-12-23T23:59Z", False),
        (Window("w", first="2026-12-24", last="2026-12-26"), "2026-12-26T23:59Z", True),
        (Window("w", first="2026-12-24", last="2026-12-26"), "2026-12-27T00:00Z", False),
        (Window("w", last="2026-12-26", starts="22:00", ends="02:00"), "2026-12-27T01:00Z", True),
    ],
)  # fmt: skip
def test_a_window_is_open_by_the_clock_of_its_zone(window: Window, moment: str, *, is_open: bool) -> None:
    assert window.is_open(at(moment)) == is_open


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(0, 1439), st.integers(0, 1439))  # noqa: DTZ001 - made aware below
def test_a_window_and_the_rest_of_the_day_are_never_open_together(moment: datetime, one: int, other: int) -> None:
    starts, ends = (f"{each // 60:02}:{each % 60:02}" for each in (one, other))
    inside = Window("in", starts=starts, ends=ends, zone=BERLIN)
    outside = Window("out", starts=ends, ends=starts, zone=BERLIN)
    now = moment.replace(tzinfo=UTC)
    assert starts == ends or inside.is_open(now) != outside.is_open(now)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"moves": "sometimes"}, "only, never"),
        ({"days": ("monday",)}, "mon, tue"),
        ({"days": ()}, "no day"),
        ({"starts": "25:00"}, "22:30"),
        ({"ends": "9"}, "22:30"),
        ({"zone": "Berlin"}, "Europe/Berlin"),
        ({"zone": "../etc"}, "time zone"),
        ({"first": "24.12."}, "2026-12-24"),
    ],
)
def test_a_window_that_means_nothing_is_refused_by_its_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=r"windows\.night\.") as caught:
        Window("night", **changes)  # type: ignore[arg-type]  # wrong on purpose
    assert words in str(caught.value)


NIGHT = Window("night", starts="22:00", ends="06:00", rules=("reclaim",))
FREEZE = Window("freeze", moves="never", first="2026-03-02", last="2026-03-02")


def test_windows_hold_for_the_rules_clusters_and_pools_they_name() -> None:
    assert "only then" in str(why_closed([NIGHT], "reclaim", "c1", ("p",), NOW))
    assert why_closed([NIGHT], "fence", "c1", ("p",), NOW) is None
    assert why_closed([NIGHT], "reclaim", "c1", ("p",), NOW + timedelta(hours=11)) is None
    assert "nothing is moved" in str(why_closed([FREEZE], "fence", "c1", ("p",), NOW))
    assert why_closed([replace(FREEZE, clusters=("c2",))], "fence", "c1", ("p",), NOW) is None
    assert why_closed([replace(FREEZE, pools=("q",))], "fence", "c1", ("p",), NOW) is None
    assert why_closed([replace(FREEZE, pools=("q",))], "fence", "c1", ("p", "q"), NOW) is not None


def test_a_freeze_goes_before_a_window_and_every_pool_that_is_touched_needs_one_of_its_own() -> None:
    day = Window("day", starts="08:00", ends="20:00")
    assert why_closed([day], "fence", "c1", (None,), NOW) is None
    assert why_closed([day, FREEZE], "fence", "c1", (None,), NOW) is not None
    of_p = Window("p", starts="08:00", ends="20:00", pools=("p",))
    of_q = Window("q", starts="20:00", ends="22:00", pools=("q",))
    assert why_closed([of_p, of_q], "fence", "c1", ("p",), NOW) is None
    assert why_closed([of_p, of_q], "fence", "c1", ("p", "q"), NOW) is not None


@pytest.mark.parametrize("window", [NIGHT, FREEZE], ids=["outside its window", "in a freeze"])
def test_a_closed_window_holds_a_move_back_in_the_plan_and_at_the_guard(window: Window) -> None:
    policy = replace(FREE, windows=(window,))
    planned = plan(STATE, [idle("train", NOW)], policy, NOW)
    assert planned.moves == ()
    assert any(f"window {window.name}" in each.reason or "windows night" in each.reason for each in planned.held_back)
    (move,) = plan(STATE, [idle("train", NOW)], FREE, NOW).moves
    with pytest.raises(MoveRefused, match=window.name):
        guard(move, STATE, policy, NOW)


def test_a_window_of_one_rule_leaves_another_alone() -> None:
    policy = replace(FREE, windows=(NIGHT,))
    assert [move.cause for move in plan(STATE, [failing("n0-0", NOW)], policy, NOW).moves] == ["xid_79"]


def test_settings_take_windows_from_a_file_and_name_the_one_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "steward.toml"
    file.write_text('[[actions.windows]]\nname = "night"\nstarts = "22:00"\nends = "06:00"\nzone = "Europe/Berlin"\n')
    (window,) = load_settings(file, {}).actions.windows
    assert (window.name, window.moves, window.zone) == ("night", "only", BERLIN)
    file.write_text('[[actions.windows]]\nname = "night"\nzone = "Mars"\n')
    with pytest.raises(BadInput, match="Mars"):
        load_settings(file, {})

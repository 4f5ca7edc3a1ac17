"""A few of the seeds that the benchmark of chaos plays, and proof that it sees harm where there is some."""

from collections import Counter

import pytest

from actions import apply as acting
from actions import forbid as forbidding
from actions import guard as guarding
from actions import plan as planning
from benchmarks import chaos
from benchmarks.chaos import Harm, play
from benchmarks.chaos_watch import Watch


@pytest.mark.parametrize("seed", range(5000, 5004))
def test_the_engine_does_no_harm_and_comes_to_rest_where_everything_goes_wrong(seed: int) -> None:
    counts: Counter[str] = Counter()
    play(seed, counts)
    assert counts["writes"] > 0
    assert counts["runs"] == 1


def _play_many(first: int = 5005) -> None:
    for seed in range(first, first + 30):
        play(seed, Counter())


def test_chaos_sees_a_guard_that_looks_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "guard", lambda *_args, **_named: None)
    with pytest.raises(Harm, match=r"others changed it since|the object that was planned for|protected"):
        _play_many()


def test_chaos_sees_a_budget_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def roomy(*_given: object) -> None:
        return None

    monkeypatch.setattr(planning, "why_no_room", roomy)
    monkeypatch.setattr(guarding, "why_no_room", roomy)
    with pytest.raises(Harm, match=r"budget of|nodes a turn"):
        _play_many()


def test_chaos_sees_a_move_made_before_it_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting._Run, "_say", lambda *_args, **_named: None)
    with pytest.raises(Harm, match="recorded before"):
        _play_many()


# what looks away, what is seen of it, and the first seed that shows it
LOOKS_AWAY: dict[str, tuple[object, str, object, str, int]] = {
    "from what people answered": (
        acting._Run, "_require_leave", lambda *_: None, r"persons agreed|refused it|answer that still holds|used up",
        5006,
    ),
    "from who bears a name now": (
        guarding, "_check_same_object", lambda *_: None, "the object that was planned for", 5006,
    ),
    "from the hours of a freeze": (forbidding, "why_closed", lambda *_: None, "frozen at", 5010),
    "from who led and who braked": (Watch, "why_stopped", lambda _: None, "brake|led by another", 5005),
    "from which cluster is meant": (
        chaos, "without_doubtful", lambda found, _: (tuple(found), ()), "a cluster that somebody named", 5005,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOKS_AWAY.values(), ids=LOOKS_AWAY)
def test_chaos_sees_an_engine_that_looks_away(
    case: tuple[object, str, object, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name, blind, words, first = case
    monkeypatch.setattr(place, name, blind)
    with pytest.raises(Harm, match=words):
        _play_many(first)

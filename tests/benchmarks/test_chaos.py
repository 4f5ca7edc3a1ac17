"""A few of the seeds that the benchmark of chaos plays, and proof that it sees harm where there is some."""

from collections import Counter

import pytest

from actions import apply as acting
from actions import guard as guarding
from actions import plan as planning
from benchmarks.chaos import Harm, play


@pytest.mark.parametrize("seed", range(5000, 5004))
def test_the_engine_does_no_harm_and_comes_to_rest_where_everything_goes_wrong(seed: int) -> None:
    counts: Counter[str] = Counter()
    play(seed, counts)
    assert counts["writes"] > 0
    assert counts["runs"] == 1


def _play_many() -> None:
    for seed in range(5005, 5030):
        play(seed, Counter())


def test_chaos_sees_a_guard_that_looks_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "guard", lambda *_args, **_named: None)
    with pytest.raises(Harm, match="others changed it since"):
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

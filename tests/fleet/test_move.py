from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.move import Move, MoveKind, Plan, Value
from fleet.state import ObjectRef

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MOVE = Move("m1", MoveKind.FENCE_GPU, "east", ObjectRef("Node", "", "node-1"), "health", "XID 79")

WORD = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUE: st.SearchStrategy[Value] = st.none() | st.booleans() | st.integers() | NUMBER | TEXT
MOVES = st.builds(
    Move,
    move_id=TEXT,
    kind=st.sampled_from(MoveKind),
    cluster=TEXT,
    target=st.builds(ObjectRef, WORD, st.just("") | WORD, WORD),
    cause=TEXT,
    reason=TEXT,
    gpu_uuids=st.lists(TEXT).map(tuple),
    gpus=NUMBER,
    workspace=st.none() | TEXT,
    node=st.none() | TEXT,
    pool=st.none() | TEXT,
    arguments=st.dictionaries(TEXT, VALUE),
    resource_version=TEXT,
    risk=TEXT,
    saving_usd_per_hour=st.none() | st.decimals(-(10**6), 10**6, places=6),
    evidence=st.dictionaries(TEXT, VALUE | st.lists(VALUE)),
)


@given(MOVES)
def test_a_move_comes_back_from_json_as_it_was(move: Move) -> None:
    assert Move.from_json(move.to_json()) == move


@given(MOVES)
def test_the_json_of_a_move_does_not_change_on_the_way(move: Move) -> None:
    assert Move.from_json(move.to_json()).to_json() == move.to_json()


def test_a_saving_of_zero_is_not_an_unpriced_one() -> None:
    free = replace(MOVE, saving_usd_per_hour=Decimal(0))
    assert Move.from_json(free.to_json()).saving_usd_per_hour == Decimal(0)
    assert Move.from_json(MOVE.to_json()).saving_usd_per_hour is None


@pytest.mark.parametrize("kind", MoveKind)
def test_the_inverse_of_the_inverse_is_the_move_itself(kind: MoveKind) -> None:
    assert kind.inverse.inverse is kind


def test_what_is_set_to_a_value_is_taken_back_by_a_move_of_its_own_kind() -> None:
    of_own_kind = {kind for kind in MoveKind if kind.inverse is kind}
    assert MoveKind.SET_QUOTA in of_own_kind
    assert all(kind.value.startswith(("set_", "scale_", "apply_", "delete_")) for kind in of_own_kind)


@pytest.mark.parametrize(
    ("savings", "total"),
    [
        pytest.param((), None, id="no moves"),
        pytest.param((None, None), None, id="none priced"),
        pytest.param((Decimal(0),), Decimal(0), id="priced at nothing"),
        pytest.param((Decimal("0.1"), None, Decimal("0.2")), Decimal("0.3"), id="some priced, exact"),
    ],
)
def test_a_plan_saves_what_its_priced_moves_save(savings: tuple[Decimal | None, ...], total: Decimal | None) -> None:
    moves = tuple(replace(MOVE, saving_usd_per_hour=saving) for saving in savings)
    assert Plan("p1", NOON, "{}", moves).saving_usd_per_hour == total

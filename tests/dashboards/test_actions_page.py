"""The actions page: what waits, the plan as a difference, the record, undo and policies; viewers see no buttons."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboards
from actions.approval import content_digest
from actions.rows import approval_frame, moves_from
from dashboards import port
from dashboards.actions_questions import body_of, change_lines, diff_frame, log_frame, undoable
from dashboards.port import Counter
from fleet.approval import Approval, Step
from fleet.clock import FixedClock
from fleet.errors import BadConfig, BadInput
from steward.compose import House
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.page_counter import PageCounter
from store.store import Store
from tests.dashboards.conftest import END, stored

PAGE = Path(dashboards.__path__[0]) / "actions_page.py"
TOKEN = "a-token-of-enough-letters"  # noqa: S105 - of this test alone
TARGET = "Deployment/serving/chat"


class Written:
    """A counter that writes down what is ordered, in place of carrying it out."""

    def __init__(self, inner: Counter) -> None:
        self.inner = inner
        self.orders: list[tuple[str, str, dict[str, object]]] = []

    def report(self, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        return self.inner.report(name, parameters)

    def admits(self, token: str) -> bool:
        return self.inner.admits(token)

    def name_of(self, token: str) -> str | None:
        return self.inner.name_of(token)

    def operate(self, token: str, who: str, name: str, parameters: Mapping[str, object]) -> Mapping[str, object]:
        if not self.admits(token):
            message = "no"
            raise BadInput(message)
        self.orders.append((who, name, dict(parameters)))
        return {"items": [{"stage": "undone", "detail": "taken back"}], "notes": [], "summary": {}}


def counter_of(store: Store) -> Written:
    clock = FixedClock(END + timedelta(minutes=3))
    counter = Written(PageCounter(HouseDesk(House(load_settings(None, {}), store, clock)), TOKEN))
    port.provide(store, clock, counter)
    return counter


@pytest.fixture
def proposed(full: Store) -> Written:
    """Give a fleet with one proposal that waits, and one move that was made."""
    moves = moves_from(full.read("move").sort("ordinal").get_column("body"))
    row = Approval(
        content_digest(moves[0]), "m1", "p1", END, Step.PROPOSED, "gpu-steward", "idle", END + timedelta(days=1), 1
    )
    full.append_stored("approval", approval_frame([row]))
    made = {"move_id": "m2", "ts": END, "is_dry_run": False, "actor": "ann", "prior": '{"is_fenced": false}'}
    told = [{**made, "stage": "intended", "detail": "why"}, {**made, "stage": "applied", "detail": "made and seen"}]
    full.append_stored("outcome", stored("outcome", told))
    return counter_of(full)


def drawn(*, signed_in: bool = False) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30).run()
    assert [each.value for each in page.exception] == []
    if signed_in:
        page.text_input(key="sign_in_name").set_value("ann")
        page.text_input(key="sign_in_token").set_value(TOKEN)
        next(each for each in page.button if each.label == "Sign in").click().run()
    return page


def texts(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.info, page.error, page.warning, page.success)
    return "\n".join(str(each.value) for kind in kinds for each in kind)


def buttons(page: AppTest) -> list[str]:
    return [each.label for each in page.button]


def test_an_empty_store_says_what_to_do_in_each_part(empty: Store) -> None:
    counter_of(empty)
    said = texts(drawn())
    assert "No plan yet." in said
    assert "Nothing waits for an answer." in said
    assert "Nothing was proposed, made or undone" in said


def test_a_page_without_a_desk_says_how_it_is_started(empty: Store) -> None:
    port.provide(empty)
    assert "steward serve" in texts(drawn())
    with pytest.raises(BadConfig):
        port.counter()


@pytest.mark.usefixtures("proposed")
def test_a_viewer_sees_everything_and_no_button_that_acts() -> None:
    page = drawn()
    assert set(buttons(page)) <= {"Sign in", "Replay"}
    assert page.metric[0].value == "1"
    said = texts(page)
    assert "Sign in at the top to approve or refuse" in said
    assert "1 move stands. Sign in" in said


@pytest.mark.usefixtures("proposed")
def test_a_wrong_token_lets_nobody_in() -> None:
    page = drawn()
    page.text_input(key="sign_in_name").set_value("ann")
    page.text_input(key="sign_in_token").set_value("guessed")
    next(each for each in page.button if each.label == "Sign in").click().run()
    assert "does not know this token" in texts(page)
    assert "Approve" not in buttons(page)


def test_a_move_is_approved_only_where_its_target_was_typed(proposed: Written) -> None:
    page = drawn(signed_in=True)
    assert page.button(key="approve").disabled
    page.text_input(key="confirm_m1").set_value("Deployment/serving/cat").run()
    assert page.button(key="approve").disabled
    page.text_input(key="confirm_m1").set_value(TARGET).run()
    page.button(key="approve").click().run()
    assert proposed.orders == [("ann", "approve", {"what": "m1", "note": ""})]


def test_a_move_is_refused_with_a_note_in_the_name_of_who_is_signed_in(proposed: Written) -> None:
    page = drawn(signed_in=True)
    page.text_input(key="note_m1").set_value("we need it tonight").run()
    page.button(key="refuse").click().run()
    assert proposed.orders == [("ann", "refuse", {"what": "m1", "note": "we need it tonight"})]


def test_a_whole_plan_needs_its_id_typed(proposed: Written) -> None:
    page = drawn(signed_in=True)
    assert page.button(key="approve_all").disabled
    page.text_input(key="confirm_p1").set_value("p1").run()
    page.button(key="approve_all").click().run()
    assert proposed.orders == [("ann", "approve", {"what": "p1"})]


def test_an_undo_needs_the_target_typed_and_a_rehearsal_does_not(proposed: Written) -> None:
    page = drawn(signed_in=True)
    assert page.button(key="undo").disabled
    page.button(key="undo_rehearse").click().run()
    page.text_input(key="undo_m2").set_value("Node/node-1").run()
    page.button(key="undo").click().run()
    assert proposed.orders == [
        ("ann", "undo", {"what": "m2", "yes": False}),
        ("ann", "undo", {"what": "m2", "yes": True}),
    ]
    assert "taken back" in texts(page)


def test_who_signs_out_is_a_viewer_again(proposed: Written) -> None:
    page = drawn(signed_in=True)
    assert "Approve" in buttons(page)
    page.button(key="sign_out").click().run()
    assert "Approve" not in buttons(page)
    assert proposed.orders == []


@pytest.mark.usefixtures("proposed")
def test_the_record_tells_who_did_what_and_what_was_there_before() -> None:
    page = drawn()
    frames = [each.value for each in page.dataframe]
    record = next(frame for frame in frames if "event" in frame.columns)
    assert {"proposed", "intended", "applied"} <= set(record["event"])
    assert '"is_fenced": false' in "\n".join(each.value for each in page.code)


def test_a_policy_is_tried_on_the_recorded_past(proposed: Written) -> None:
    del proposed
    page = drawn()
    page.selectbox(key="replay_step").set_value("6 hours")
    page.text_area(key="replay_text").set_value("[actions.modes]\nreclaim = 'always'\n")
    next(each for each in page.button if each.label == "Replay").click().run()
    assert "always" in texts(page)
    page.text_area(key="replay_text").set_value('[actions.modes]\nreclaim = "off"\n')
    next(each for each in page.button if each.label == "Replay").click().run(timeout=60)
    assert [each.value for each in page.exception] == []
    measures = next(each.value for each in page.dataframe if "measure" in each.value.columns)
    assert list(measures.columns) == ["measure", "settings in force", "this policy", "difference"]
    assert "What it held back, and why" in texts(page)


def test_the_counter_checks_every_order_by_itself(full: Store) -> None:
    desk = HouseDesk(House(load_settings(None, {}), full, FixedClock(END)))
    counter = PageCounter(desk, TOKEN)
    with pytest.raises(BadInput, match="token"):
        counter.operate("other", "ann", "brake", {"order": "status"})
    with pytest.raises(BadInput, match="can't order migrate"):
        counter.operate(TOKEN, "ann", "migrate", {})
    with pytest.raises(BadInput, match="needs a name"):
        counter.operate(TOKEN, " ", "brake", {"order": "status"})
    assert counter.operate(TOKEN, "ann", "brake", {"order": "status"})["kind"] == "BrakeReport"
    assert not PageCounter(desk, None).admits("")


def test_a_token_of_ones_own_brings_its_name_along(full: Store) -> None:
    class Desk(HouseDesk):
        given: dict[str, object]

        def operate(self, name: str, parameters: Mapping[str, object]) -> dict[str, object]:
            self.given = {"name": name, **parameters}
            return {}

    desk = Desk(House(load_settings(None, {}), full, FixedClock(END)))
    counter = PageCounter(desk, None, {"bea's own long token": "bea"})
    assert counter.name_of("bea's own long token") == "bea"
    assert counter.name_of("other") is None
    counter.operate("bea's own long token", "ann", "approve", {"what": "m1"})
    assert desk.given == {"name": "approve", "what": "m1", "who": "bea", "is_proven": True}
    PageCounter(desk, "shared").operate("shared", "bea", "approve", {"what": "m1", "is_proven": True})
    assert desk.given["is_proven"] is False, "who signs in with the shared token only claims a name"


def test_changes_say_from_what_to_what_and_unknown_is_a_question_mark() -> None:
    known = {"field": "gpus", "before": 8.0, "after": 4.5, "is_before_known": True}
    strange = {"field": "weight", "before": None, "after": None, "is_before_known": False}
    move = {"changes": [known, strange], "kind": "set_quota", "target": "Quota/a", "reason": "why", "sign": "~"}
    assert change_lines(move) == ["gpus: 8 -> 4.5", "weight: ? -> none"]
    frame = diff_frame([move])
    assert frame.row(0, named=True)["saves"] is None


def test_only_what_stands_can_be_taken_back() -> None:
    def event(move_id: str, name: str, ts: str, **more: object) -> dict[str, object]:
        return {"move_id": move_id, "event": name, "ts": ts, "is_dry_run": False, "evidence": {}, **more}

    items = [
        event("a", "applied", "2026-03-02T10:00:00Z"),
        event("b", "applied", "2026-03-02T11:00:00Z"),
        event("a", "undone", "2026-03-02T12:00:00Z"),
        event("c", "applied", "2026-03-02T12:00:00Z", evidence={"undo_of": "a"}),
        event("d", "applied", "2026-03-02T13:00:00Z", is_dry_run=True),
    ]
    assert [each["move_id"] for each in undoable(items)] == ["b"]
    assert log_frame(items)["ts"].is_sorted(descending=True)


def test_a_body_of_another_shape_is_refused() -> None:
    with pytest.raises(BadInput, match="no summary"):
        body_of({"kind": "Odd"})

"""The same commands through a running server: who answers comes from the command line, or from a token."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.app import create_app
from api.client import Client
from fleet.clock import FixedClock
from fleet.errors import BadConfig, BadInput, MoveRefused
from fleet.move import Plan
from steward.acting import act, propose
from steward.cli import app
from steward.compose import open_house
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.host import read_people
from steward.owner import Address, write_address
from steward.serve import address_of, listen, make_server
from tests.steward.action_house import SETTINGS, fences

pytestmark = pytest.mark.enable_socket
NOW = datetime(2026, 3, 2, 1, tzinfo=UTC)
PEOPLE = {"the-token-of-ann-alone": "ann", "the-token-of-bob-alone": "bob"}


@dataclass
class Served:
    """A server's store, its address and the plan that waits in it."""

    folder: Path
    url: str
    plan: Plan

    def steward(self, *arguments: str) -> object:
        where = ["--config", str(self.folder / "steward.toml"), "--store", str(self.folder / "s.duckdb")]
        result = CliRunner().invoke(app, [*where, *arguments, "-o", "json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return json.loads(result.stdout)

    def client(self, token: str) -> Client:
        return Client(self.url, token)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    policy = "[actions.approval]\ntwo_persons_nodes = 1\n"
    (tmp_path / "steward.toml").write_text(SETTINGS + policy)
    database = tmp_path / "s.duckdb"
    clock = FixedClock(NOW)
    with open_house(load_settings(tmp_path / "steward.toml", {}), database, clock) as house:
        desk = HouseDesk(house)
        desk.operate("collect", {})
        plan = fences(house, 2)
        act(house, [plan], clock.now())
        with listen("127.0.0.1", 0) as listener:
            serving = make_server(create_app(desk, "secret", None, PEOPLE))
            thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
            thread.start()
            write_address(database, Address(address_of(listener), "secret", os.getpid()))
            try:
                yield Served(tmp_path, address_of(listener), plan)
            finally:
                serving.should_exit = True
                thread.join()


def field(body: object, name: str) -> list[object]:
    assert isinstance(body, dict)
    return [item[name] for item in body["items"]]


def own_token(served: Served, name: str) -> str:
    path = served.folder / name
    path.write_text(f"the-token-of-{name}-alone\n")
    return str(path)


def test_commands_go_through_the_server_and_two_persons_are_two_tokens(served: Served) -> None:
    assert field(served.steward("proposals"), "state") == ["notified"] * 2
    plan_id, first = served.plan.plan_id, served.plan.moves[0].move_id
    for name in ("ann", "bob"):
        with pytest.raises(MoveRefused, match="anybody can claim any name"):
            served.steward("approve", plan_id, "--as", name)
    ann, bob = ("--token-file", own_token(served, "ann")), ("--token-file", own_token(served, "bob"))
    assert field(served.steward("approve", plan_id, *ann, "--as", "carl"), "approved_by") == [["ann"]] * 2
    with pytest.raises(MoveRefused, match="ann approved move"):
        served.steward("approve", first, *ann)
    assert field(served.steward("approve", plan_id, *bob), "state") == ["approved"] * 2
    assert "approved" in field(served.steward("actions", "log", "--since", "2026-03-01T00:00:00Z"), "event")


def test_with_tokens_of_their_own_nobody_is_two_persons(served: Served) -> None:
    with served.client("the-token-of-ann-alone") as ann, served.client("the-token-of-bob-alone") as bob:
        name = served.plan.moves[0].move_id
        assert field(ann.operate("approve", what=name, who="ann"), "approved_by") == [["ann"]]
        with pytest.raises(MoveRefused, match="ann approved move"):
            ann.operate("approve", what=name, who="carl")
        assert field(bob.operate("approve", what=name), "state") == ["approved"]


def test_without_a_server_a_token_of_ones_own_proves_who_it_is_too(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("ann the-token-of-ann-alone\n")
    people = f'[serve]\npeople_file = "{tmp_path / "people"}"\n'
    (tmp_path / "steward.toml").write_text(SETTINGS + people)
    (tmp_path / "own").write_text("the-token-of-ann-alone\n")
    (tmp_path / "other").write_text("the-token-of-nobody\n")
    clock = FixedClock(NOW)
    with open_house(load_settings(tmp_path / "steward.toml", {}), tmp_path / "s.duckdb", clock) as house:
        HouseDesk(house).operate("collect", {})
        plan = replace(fences(house, 1), made_at=datetime.now(UTC))
        propose(house, plan, "gpu-steward", datetime.now(UTC))
    alone = Served(tmp_path, "", plan)
    body = alone.steward("approve", plan.plan_id, "--token-file", str(tmp_path / "own"), "--as", "carl")
    assert isinstance(body, dict)
    assert body["summary"] == {"plan": plan.plan_id, "by": "ann", "is_proven": True}
    with pytest.raises(BadInput, match="nobody's token"):
        alone.steward("approve", plan.plan_id, "--token-file", str(tmp_path / "other"))
    with pytest.raises(BadInput, match="can't be read"):
        alone.steward("refuse", plan.plan_id, "--token-file", str(tmp_path / "gone"))


def test_the_file_of_people_gives_each_name_a_token(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# who may answer\nann 0123456789abcdef\nBob Smith fedcba9876543210\n\n")
    assert read_people(file) == {"0123456789abcdef": "ann", "fedcba9876543210": "Bob Smith"}
    assert read_people(None) == {}


@pytest.mark.parametrize(
    "text",
    ["ann short", "0123456789abcdef", "ann 0123456789abcdef\nbob 0123456789abcdef"],
    ids=["weak", "no name", "same"],
)
def test_a_file_of_people_that_is_wrong_is_refused_by_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "people").write_text(text)
    with pytest.raises(BadConfig, match=r"people line [12]"):
        read_people(tmp_path / "people")
    with pytest.raises(BadInput, match="can't be read"):
        read_people(tmp_path / "gone")

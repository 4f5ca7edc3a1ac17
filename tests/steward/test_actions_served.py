"""The same commands through a running server: who answers comes from the command line, or from a token."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.app import create_app
from api.client import Client
from fleet.clock import FixedClock
from fleet.errors import BadConfig, BadInput, MoveRefused
from fleet.move import Plan
from steward.acting import act
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


def test_commands_go_through_the_server_and_two_persons_are_two_names(served: Served) -> None:
    assert field(served.steward("proposals"), "state") == ["notified"] * 2
    assert field(served.steward("approve", served.plan.plan_id, "--as", "ann"), "approved_by") == [["ann"]] * 2
    with pytest.raises(MoveRefused, match="ann approved move"):
        served.steward("approve", served.plan.moves[0].move_id, "--as", "ann")
    assert field(served.steward("approve", served.plan.plan_id, "--as", "bob"), "state") == ["approved"] * 2
    assert "approved" in field(served.steward("actions", "log", "--since", "2026-03-01T00:00:00Z"), "event")


def test_with_tokens_of_their_own_nobody_is_two_persons(served: Served) -> None:
    with served.client("the-token-of-ann-alone") as ann, served.client("the-token-of-bob-alone") as bob:
        name = served.plan.moves[0].move_id
        assert field(ann.operate("approve", what=name, who="ann"), "approved_by") == [["ann"]]
        with pytest.raises(MoveRefused, match="ann approved move"):
            ann.operate("approve", what=name, who="carl")
        assert field(bob.operate("approve", what=name), "state") == ["approved"]


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

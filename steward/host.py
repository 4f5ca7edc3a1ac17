"""The server's process: it owns the store, turns the loop, answers the API, takes pushes and shows the pages."""

import os
import secrets
import sys
import threading
from pathlib import Path

from fleet.clock import SystemClock
from fleet.errors import BadConfig
from steward.compose import open_door, open_house
from steward.config import store_path
from steward.cycle import turn
from steward.desk import HouseDesk
from steward.front import settings_of
from steward.loop import LoopState, run_loop
from steward.owner import Address, remove_address, write_address
from steward.serve import build_asgi, serve

_TOKEN_MIN = 16


def run_server(config: Path | None, store: Path | None, host: str | None, port: int | None) -> None:
    """Serve until told to stop; the address stands in a file beside the database as long as the server runs."""
    settings, _ = settings_of(config)
    database = store_path(settings, store, os.environ)
    clock = SystemClock()
    section = settings.serve
    token = read_token(section.token_file)
    state = LoopState()
    with open_house(settings, database, clock) as house:
        desk = HouseDesk(house, state)
        pushes = house.store.session()
        door = open_door(settings, pushes)

        def turn_once() -> None:
            pushed = door.take_first()
            if pushed is not None:
                house.store.roll_up(pushed, clock.now())
            desk.turn_now(turn)

        def loop(stop: threading.Event) -> None:
            # A store that nothing is read or pushed into is only looked at.
            while not house.sources and door.sample_count == 0:
                if stop.wait(section.turn_s):
                    return
            run_loop(turn_once, clock, section.turn_s, stop, state)

        def announce(url: str) -> None:
            write_address(database, Address(url, token, os.getpid()))
            sys.stderr.write(f"dashboard and API at {url} (store {database}); stop with Ctrl-C\n")

        people = read_people(section.people_file)
        asgi = build_asgi(desk, house.store, token, loop, door.receive, people=people)
        try:
            serve(asgi, host or section.host, section.port if port is None else port, on_ready=announce)
        finally:
            remove_address(database)
            pushes.close()


def read_people(path: Path | None) -> dict[str, str]:
    """Return names by token from a file of lines "name token"; raises `BadConfig` where a line is none or too weak."""
    if path is None:
        return {}
    people: dict[str, str] = {}
    for number, line in enumerate(_read(path, "people_file").splitlines(), start=1):
        name, _, token = line.strip().rpartition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if not name or len(token) < _TOKEN_MIN or not token.isascii() or token in people:
            message = (
                f"[serve] people_file: {path} line {number} is not a name, a space and a token of their own of "
                f"at least {_TOKEN_MIN} ASCII characters"
            )
            raise BadConfig(message, place=f"{path}:{number}", field="serve.people_file")
        people[token] = name.strip()
    return people


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        message = f"[serve] {field}: {path} can't be read: {error}"
        raise BadConfig(message, place=str(path), field=f"serve.{field}") from error


def read_token(path: Path | None) -> str:
    """Return the token of a file, or a new one where there is no file; raises `BadConfig` where it is too short."""
    if path is None:
        return secrets.token_urlsafe(32)
    token = _read(path, "token_file").strip()
    if len(token) < _TOKEN_MIN or not token.isascii() or not token.isprintable() or " " in token:
        message = f"[serve] token_file: {path} must hold one word of at least {_TOKEN_MIN} ASCII characters"
        raise BadConfig(message, place=str(path), field="serve.token_file")
    return token

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

        asgi = build_asgi(desk, house.store, token, loop, door.receive)
        try:
            serve(asgi, host or section.host, section.port if port is None else port, on_ready=announce)
        finally:
            remove_address(database)
            pushes.close()


def read_token(path: Path | None) -> str:
    """Return the token of a file, or a new one where there is no file; raises `BadConfig` where it is too short."""
    if path is None:
        return secrets.token_urlsafe(32)
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"[serve] token_file: {path} can't be read: {error}"
        raise BadConfig(message, place=str(path), field="serve.token_file") from error
    if len(token) < _TOKEN_MIN or not token.isascii() or not token.isprintable() or " " in token:
        message = f"[serve] token_file: {path} must hold one word of at least {_TOKEN_MIN} ASCII characters"
        raise BadConfig(message, place=str(path), field="serve.token_file")
    return token

"""The server's process: it owns the store, turns the loop, answers the API and shows the pages."""

import os
import secrets
import sys
import threading
from pathlib import Path

from fleet.clock import SystemClock
from steward.compose import open_house
from steward.config import store_path
from steward.cycle import turn
from steward.desk import HouseDesk
from steward.front import settings_of
from steward.loop import LoopState, run_loop
from steward.owner import Address, remove_address, write_address
from steward.serve import build_asgi, serve


def run_server(config: Path | None, store: Path | None, host: str | None, port: int | None) -> None:
    """Serve until told to stop; the address stands in a file beside the database as long as the server runs."""
    settings, _ = settings_of(config)
    database = store_path(settings, store, os.environ)
    clock = SystemClock()
    token = secrets.token_urlsafe(32)
    state = LoopState()
    section = settings.serve
    with open_house(settings, database, clock) as house:
        desk = HouseDesk(house, state)

        def loop(stop: threading.Event) -> None:
            if house.sources:
                run_loop(lambda: desk.turn_now(turn), clock, section.turn_s, stop, state)

        def announce(url: str) -> None:
            write_address(database, Address(url, token, os.getpid()))
            sys.stderr.write(f"dashboard and API at {url} (store {database}); stop with Ctrl-C\n")

        asgi = build_asgi(desk, house.store, token, loop)
        try:
            serve(asgi, host or section.host, section.port if port is None else port, on_ready=announce)
        finally:
            remove_address(database)

"""Where a command's question goes: to the server that owns the store, else to the house opened here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet.clock import SystemClock
from fleet.errors import BadInput
from steward.compose import open_house
from steward.config import Settings, find_file, load_settings, store_path
from steward.desk import OPERATIONS, HouseDesk, explain_settings
from steward.log import set_up_log
from steward.owner import read_address

_WAIT_S = {"replay_policy": 3600.0}  # a server says nothing while it goes over weeks


def settings_of(config: Path | None) -> tuple[Settings, Path | None]:
    """Return the settings in force and the file they come from."""
    file = find_file(config, os.environ, Path.cwd())
    settings = load_settings(file, os.environ)
    set_up_log(settings.log)
    return settings, file


def ask(
    config: Path | None,
    store: Path | None,
    name: str,
    parameters: Mapping[str, object],
    token_file: Path | None = None,
) -> Mapping[str, object]:
    """Return the answer's body; the store's owner answers where one runs.

    `token_file` holds the token of who asks, which proves who it is.
    """
    settings, file = settings_of(config)
    database = store_path(settings, store, os.environ)
    if name == "config":
        return explain_settings(settings, file, database).to_body()
    address = read_address(database)
    given: dict[str, Any] = {key: value for key, value in parameters.items() if value is not None}
    if address is not None:
        from api.client import Client  # noqa: PLC0415 - most commands find no server

        token = address.token if token_file is None else _own_token(token_file)
        with Client(address.url, token, timeout_s=_WAIT_S.get(name, 60.0)) as client:
            return client.operate(name, **given) if name in OPERATIONS else client.report(name, **given)
    given |= {} if token_file is None else _voice_of(_own_token(token_file), settings)
    with open_house(settings, database, SystemClock()) as house:
        desk = HouseDesk(house)
        return desk.operate(name, given) if name in OPERATIONS else desk.report(name, given)


def _own_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"--token-file: {path} can't be read: {error}"
        raise BadInput(message, place=str(path), field="token_file") from error


def _voice_of(token: str, settings: Settings) -> dict[str, object]:
    from steward.host import read_people  # noqa: PLC0415 - most commands need no server's parts

    name = read_people(settings.serve.people_file).get(token)
    if name is None:
        message = "--token-file: this is nobody's token; [serve] people_file says whose tokens there are"
        raise BadInput(message, field="token_file")
    return {"who": name, "is_proven": True}

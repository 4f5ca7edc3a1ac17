"""Who owns the store: the address file beside a database that a server has open.

DuckDB lets one process at a time open a file. While `steward serve` has it, its address and a token stand in
`<database>.server` (readable by its user only), and commands go through its API instead.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Address:
    """Where the owning server listens, and the token its API asks for."""

    url: str
    token: str
    pid: int


def address_path(database: Path) -> Path:
    """Return the path of the address file of a database."""
    return database.with_name(database.name + ".server")


def write_address(database: Path, address: Address) -> None:
    """Write the address file, readable by this user only, in one step."""
    path = address_path(database)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"url": address.url, "token": address.token, "pid": address.pid}, file)
    draft.replace(path)


def remove_address(database: Path) -> None:
    """Remove the address file; one that is gone already is no error."""
    with suppress(FileNotFoundError):
        address_path(database).unlink()


def read_address(database: Path) -> Address | None:
    """Return the address of the server that owns a database; None where none runs.

    A file that a killed server left behind is recognised by its process being gone, and is not believed.
    """
    try:
        body = json.loads(address_path(database).read_text())
        address = Address(str(body["url"]), str(body["token"]), int(body["pid"]))
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return address if _is_alive(address.pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

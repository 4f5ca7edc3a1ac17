"""The brake: a file beside the store; while it is there nothing is moved, whoever asks.

A file, so that it works when the server hangs, from a shell, a script or a mounted volume, and outlives restarts.
"""

from contextlib import suppress
from pathlib import Path

from fleet.errors import BadInput


def brake_path(database: Path) -> Path:
    """Return the path of the brake of a database."""
    return database.with_name(database.name + ".brake")


def is_braked(database: Path | None) -> bool:
    """Return whether moves are stopped; a store in memory has no brake, for nothing outlives it."""
    return database is not None and brake_path(database).exists()


def pull(database: Path | None, reason: str) -> Path:
    """Stop all moves from now on, and keep the reason; a brake that is on keeps its first reason."""
    path = _path(database)
    with suppress(FileExistsError), path.open("x") as file:
        file.write(reason + "\n")
    return path


def release(database: Path | None) -> bool:
    """Let moves be made again; return whether the brake was on."""
    path = _path(database)
    was_on = path.exists()
    path.unlink(missing_ok=True)
    return was_on


def reason_of(database: Path | None) -> str | None:
    """Return why the brake is on; None where it is off."""
    if database is None:
        return None
    try:
        return brake_path(database).read_text(errors="replace").strip() or "no reason given"
    except FileNotFoundError:
        return None
    except OSError as error:  # it is there: a folder, or a file that we may not read
        return f"the brake can't be read: {error}"


def _path(database: Path | None) -> Path:
    if database is None:
        message = "a store in memory has no brake; name a database with --store"
        raise BadInput(message, field="store")
    return brake_path(database)

"""The command `steward prices`: what GPU-hours cost, or whether a price book is sound."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(prices)


def prices(
    context: typer.Context,
    check: Annotated[Path | None, typer.Option(help="Check this price book and show it; nothing is stored.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")] = Output.TABLE,
) -> NoReturn:
    """Show what a GPU-hour costs and who says so, and which GPUs have no price."""
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    file = None if check is None else str(check.resolve())
    body = ask(context.obj.config, context.obj.store, "prices", {"check": file})
    typer.echo(render(body, output.value))
    raise typer.Exit(0)

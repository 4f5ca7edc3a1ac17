"""The command `sharing`: which nodes' GPUs could be shared by time."""

from typing import NoReturn

import typer

from steward.usage_cli import AsOfOption, Output, OutputOption, text_of


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(sharing)


def sharing(context: typer.Context, as_of: AsOfOption = "now", output: OutputOption = Output.TABLE) -> NoReturn:
    """Tell which nodes' GPUs small pods could hold by turns, and the sums of their peaks that say so."""
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick

    body = ask(context.obj.config, context.obj.store, "sharing", {"as_of": as_of})
    text = text_of(body, output)
    if text:
        typer.echo(text)
    code = body["exitCode"]
    raise typer.Exit(code if isinstance(code, int) else 1)

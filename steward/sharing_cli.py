"""The command `sharing`: which nodes' GPUs could be shared by time."""

from typing import NoReturn

import typer

from steward.usage_cli import AsOfOption, Output, OutputOption, answer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(sharing)


def sharing(context: typer.Context, as_of: AsOfOption = "now", output: OutputOption = Output.TABLE) -> NoReturn:
    """Tell which nodes' GPUs small pods could hold by turns, and the sums of their peaks that say so."""
    answer(context, "sharing", {"as_of": as_of}, output)

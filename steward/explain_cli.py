"""`steward explain gpu|cost`: why a GPU is said to be what it is, and what a number of dollars is made of."""

from enum import StrEnum
from typing import Annotated

import typer

from steward.cost_cli import explain as explain_cost


class Output(StrEnum):
    """How an explanation is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def register(app: typer.Typer) -> None:
    """Add the command group `explain` to the command line."""
    group = typer.Typer(help="Say why: the state, the rule, the rows and the formula behind an answer.")
    group.command(name="gpu")(explain_gpu)
    group.command(name="cost")(explain_cost)
    app.add_typer(group, name="explain")


def explain_gpu(
    context: typer.Context,
    uuid: Annotated[str, typer.Argument(help="The GPU's UUID, or a part of it that no other has.")],
    as_of: Annotated[str, typer.Option("--as-of", help="The moment to judge: 'now', 'data' or a time.")] = "now",
    output: Annotated[Output, typer.Option("-o", "--output", help="How the answer is printed.")] = Output.TABLE,
) -> None:
    """Explain one GPU's state: verdicts, evidence rows, record of faults and repairs, risk, formula."""
    from steward.front import ask  # noqa: PLC0415 - --help must stay quick
    from steward.report import render  # noqa: PLC0415 - likewise

    body = ask(context.obj.config, context.obj.store, "explain_gpu", {"uuid": uuid, "as_of": as_of})
    typer.echo(render(body, output.value))
